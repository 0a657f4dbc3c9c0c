"""Settings of the model families; `family` tells which of them a section is."""

from typing import Annotated, Literal, Self

from pydantic import Field, PositiveInt, model_validator

from s2s_cli.config.section import Rate, Section


class ArchitectureSettings(Section):
    """What every model family has: its name, shared weights, and the head that makes probabilities."""

    family: str
    """Model family: transformer or rnn."""
    tie: Literal["none", "target", "all"] | None = None
    """Weights shared: target embedding with output layer, or all three; by default all that the vocabulary allows."""
    head: Literal["softmax", "copy"] = "softmax"
    """Output layer; copy may also point at source pieces and repeat them (pointer-generator, See et al. 2017)."""
    coverage: bool = False
    """Let the copy head's attention know what it has already attended to (Tu et al. 2016, See et al. 2017)."""
    coverage_loss: Annotated[float, Field(ge=0.0)] = 0.0
    """Weight of the loss for attending twice to one place, with coverage; 1 in See et al. 2017."""

    @model_validator(mode="after")
    def _check_head(self) -> Self:
        if self.coverage and self.head != "copy":
            raise ValueError("coverage is for the copy head: set head to copy")
        if self.coverage_loss and not self.coverage:
            raise ValueError("coverage_loss needs coverage on")
        return self


class TransformerSettings(ArchitectureSettings):
    """A Transformer (Vaswani et al. 2017)."""

    family: Literal["transformer"] = "transformer"
    """Model family: transformer or rnn."""
    encoder_layers: PositiveInt = 6
    """Layers of the encoder."""
    decoder_layers: PositiveInt = 6
    """Layers of the decoder."""
    dim: PositiveInt = 512
    """Width of embeddings and layers."""
    heads: PositiveInt = 8
    """Attention heads; `dim` is a multiple of it."""
    kv_heads: PositiveInt | None = None
    """Heads of keys and values, each shared by a group of attention heads (Ainslie et al. 2023); none given: one a head."""
    ffn_dim: PositiveInt = 2048
    """Inner width of the feed-forward blocks."""
    dropout: Rate = 0.1
    """Dropout on embeddings and on each block's output."""
    attention_dropout: Rate = 0.0
    """Dropout on attention weights."""
    activation_dropout: Rate = 0.0
    """Dropout inside the feed-forward blocks."""
    layer_drop: Rate = 0.0
    """Leave out each layer with this probability at each training batch (Fan et al. 2020)."""
    norm: Literal["pre", "post"] = "pre"
    """Layer norm before each block, or after its residual sum as in the original."""
    normalization: Literal["layer", "rms"] = "layer"
    """Layer norm (Ba et al. 2016), or its cheaper half without mean and bias (RMSNorm, Zhang & Sennrich 2019)."""
    positions: Literal["sinusoidal", "learned", "rotary", "relative"] = "sinusoidal"
    """Word order: a vector a position, fixed or learned, turned queries and keys (Su et al. 2021), or a bias by distance (T5)."""
    max_positions: PositiveInt = 1024
    """Learned positions; those that follow share the last one."""
    activation: Literal["relu", "gelu", "swiglu"] = "relu"
    """Activation of the feed-forward blocks; swiglu has a third matrix (Shazeer 2020): take two thirds of the ffn_dim."""
    autoregression: Literal["attention", "ssru", "aan"] = "attention"
    """How the decoder sees its past: self-attention, simple recurrent unit (Kim et al. 2019) or average (Zhang et al. 2018)."""
    init: Literal["xavier", "depth"] = "xavier"
    """First weights; depth makes those of the l-th layer √l times smaller, so that deep models train (Zhang et al. 2019)."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.dim % self.heads or self.dim % 2:
            raise ValueError(f"dim ({self.dim}) must be even and a multiple of heads ({self.heads})")
        if self.kv_heads is not None and self.heads % self.kv_heads:
            raise ValueError(f"heads ({self.heads}) must be a multiple of kv_heads ({self.kv_heads})")
        if self.positions == "rotary" and self.dim // self.heads % 2:
            raise ValueError(f"rotary positions need heads of even width, dim / heads is {self.dim // self.heads}")
        if self.max_positions != 1024 and self.positions != "learned":
            raise ValueError("max_positions is for learned positions: set positions to learned, or leave it out")
        if self.autoregression == "aan" and self.positions in ("rotary", "relative"):
            raise ValueError(f"an average has no {self.positions} positions: set positions to sinusoidal or learned")
        return self


class RnnSettings(ArchitectureSettings):
    """A recurrent encoder and decoder (Sutskever et al. 2014), with attention (Bahdanau et al. 2015, Luong et al. 2015)."""

    family: Literal["rnn"] = "rnn"
    """Model family: transformer or rnn."""
    cell: Literal["gru", "lstm", "elman"] = "gru"
    """Recurrent cell; elman is the plain one, tanh(Wx + Uh)."""
    encoder_layers: PositiveInt = 1
    """Layers of the encoder."""
    decoder_layers: PositiveInt = 1
    """Layers of the decoder."""
    emb_dim: PositiveInt = 256
    """Width of embeddings."""
    dim: PositiveInt = 512
    """Width of the decoder's state and of the encoder's output (both directions together)."""
    bidirectional: bool = True
    """Read the source in both directions."""
    residual: bool = False
    """From the third layer on, add each layer's input to its output (Wu et al. 2016)."""
    layer_norm: bool = False
    """Layer norm on the input of each recurrent layer (Ba et al. 2016)."""
    attention: Literal["none", "dot", "scaled", "general", "additive"] = "general"
    """What the decoder sees of the source: its last state only, or attention over all of it with this score."""
    attention_place: Literal["after", "before"] = "after"
    """Attend with the state after the cell (Luong et al. 2015), or before it and feed the cell (Bahdanau et al. 2015: slower)."""
    input_feeding: bool = False
    """Give each decoder step the attention output of the step before (slower: no parallel pass over the target)."""
    bridge: Literal["linear", "copy", "zero"] = "linear"
    """The decoder's first state: tanh of a linear map of the encoder's last top state, its last states themselves, or zero."""
    dropout: Rate = 0.3
    """Dropout on embeddings, between layers and before the output layer, and on the states that attention's keys are made of."""
    variational_dropout: bool = False
    """Drop the same elements at all positions of a sentence (Gal & Ghahramani 2016), of what enters and leaves each layer."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.bidirectional and self.dim % 2:
            raise ValueError(f"dim ({self.dim}) must be even for a bidirectional encoder")
        if self.attention == "none":
            for name, here in [
                ("input_feeding", self.input_feeding),
                ("attention_place before", self.attention_place == "before"),
                ("bridge zero", self.bridge == "zero"),
                ("the copy head", self.head == "copy"),
            ]:
                if here:
                    raise ValueError(f"{name} needs attention: set attention to dot, scaled, general or additive")
        if self.input_feeding and self.attention_place == "before":
            raise ValueError(
                "input_feeding is for attention_place after; before, the cell is fed with attention anyway"
            )
        if self.bridge == "copy" and self.encoder_layers != self.decoder_layers:
            raise ValueError(
                f"bridge copy needs as many decoder_layers ({self.decoder_layers}) as encoder_layers "
                f"({self.encoder_layers})"
            )
        if self.residual and max(self.encoder_layers, self.decoder_layers) < 3:
            raise ValueError("residual begins at the third layer: set encoder_layers or decoder_layers to 3 or more")
        if self.variational_dropout and not self.dropout:
            raise ValueError("variational_dropout needs a dropout above 0")
        return self


ModelSettings = Annotated[TransformerSettings | RnnSettings, Field(discriminator="family")]
