"""The settings of every command: one class a section of `s2s.yaml`, one field a setting, one docstring line a field.

Flags, help texts, defaults, ranges and the error for an unknown key all follow from these fields. This room knows no
files and no torch: where values come from is the business of `configio.py`, what they do that of the rooms they are for.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_origin

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PositiveFloat,
    PositiveInt,
    ValidationInfo,
    field_validator,
    model_validator,
)


@dataclass(frozen=True)
class Flag:
    """How a field shows on the command line: a short name such as `-i`, or a long one in place of its own."""

    short: str


class Section(BaseModel):
    """A section of `s2s.yaml`: unknown keys are errors, values do not change after they were read."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True, protected_namespaces=()
    )


NonNegativeInt = Annotated[int, Field(ge=0)]
Rate = Annotated[float, Field(ge=0.0, lt=1.0)]


ValidMetric = Literal["loss", "bleu", "chrf", "ter", "rouge1", "rouge2", "rougeL", "rougeLsum"]
LOWER_IS_BETTER = ("loss", "ter")


class PreprocessSettings(Section):
    """Raw text in, a dataset folder out."""

    train_src: list[Path] = Field(default=[Path("train.src")], min_length=1)
    """Source side of the training text, plain or compressed; several files are joined in order; - is standard input."""
    train_tgt: list[Path] = Field(default=[Path("train.tgt")], min_length=1)
    """Target side of the training text, as many files and lines as the source side."""
    valid_src: list[Path] = Field(default=[Path("valid.src")], min_length=1)
    """Source side of the validation text."""
    valid_tgt: list[Path] = Field(default=[Path("valid.tgt")], min_length=1)
    """Target side of the validation text."""
    test_src: list[Path] = []
    """Source side of test text: not written, only looked for in the training text."""
    tsv: bool = False
    """Both sides stand in columns of the files `train` and `valid`, separated by tabs."""
    jsonl: bool = False
    """Both sides stand in fields of the files `train` and `valid`, one JSON object a line."""
    train: list[Path] = []
    """Training text with both sides in one file (with tsv or jsonl); - is standard input."""
    valid: list[Path] = []
    """Validation text with both sides in one file (with tsv or jsonl)."""
    src_column: PositiveInt = 1
    """Column of the source side in a tsv file, from 1."""
    tgt_column: PositiveInt = 2
    """Column of the target side in a tsv file."""
    src_field: str = "src"
    """Field of the source side in a jsonl file; a line feed in it becomes a space."""
    tgt_field: str = "tgt"
    """Field of the target side in a jsonl file."""
    corpus: list[str] = []
    """Name of each training file, in their order (file names, if none are given)."""
    weight: list[PositiveFloat] = []
    """How many times an epoch holds the pairs of each training file (1, if none are given); 0.5 takes another half each time."""
    temperature: PositiveFloat = 1.0
    """Above 1, small corpora are seen more often: their shares are (pairs * weight) ^ (1 / temperature)."""
    tag: list[str] = []
    """Reserved pieces put before the sources of each training file, such as <2de>; translate takes them from the line's start."""
    valid_tag: list[str] = []
    """The same for each validation file (if none are given and all tags are one, that one)."""
    out: Annotated[Path, Flag("-o")] = Path("data-bin")
    """The dataset folder to write."""
    dry_run: bool = False
    """Report, and write nothing."""
    vocab_type: Literal["bpe", "unigram", "char", "word", "byte"] = "bpe"
    """Kind of SentencePiece vocabulary to train."""
    vocab_size: Annotated[int, Field(ge=16, le=1_000_000)] = 8000
    """Pieces in the vocabulary, special ones included; fewer where the text is too small for so many; a multiple of 8 is made."""
    vocab_sample: PositiveInt = 500_000
    """Lines of text, drawn by chance, that the vocabulary is trained on at most."""
    shared_vocab: bool = True
    """One vocabulary for both sides, or one for each."""
    src_vocab: Path | None = None
    """Reuse this SentencePiece model, dataset or bundle for the source side (both, if shared) and train none."""
    tgt_vocab: Path | None = None
    """Reuse this SentencePiece model, dataset or bundle for the target side."""
    byte_fallback: bool = True
    """Spell what the vocabulary lacks in bytes, so that nothing becomes unknown."""
    character_coverage: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    """Share of the text's characters that get a piece of their own."""
    symbol: list[str] = []
    """Text that is always one piece of the vocabulary, such as #Person1#."""
    reserved: list[str] = []
    """Pieces that no text turns into, such as <mask> for noising."""
    sentinels: NonNegativeInt = 0
    """Reserve so many pieces <extra_id_0>, <extra_id_1>, … for noising spans as T5 does."""
    normalize: Literal["none", "nfc", "nfkc"] = "nfc"
    """Unicode normalisation of both sides, recorded, and applied by `translate` in the same way."""
    lowercase: bool = False
    """Lowercase both sides, recorded, and applied by `translate` in the same way."""
    src_truncate: NonNegativeInt = 0
    """Cut the training sources after so many pieces, as for summarization; 0 cuts nothing."""
    tgt_truncate: NonNegativeInt = 0
    """Cut the training targets after so many pieces; 0 cuts nothing."""
    max_len: PositiveInt = 256
    """Drop a training pair with a side of more pieces than this (a side that is cut may keep as many as its cut leaves)."""
    max_ratio: PositiveFloat = 9.0
    """Drop a training pair whose longer side has more than this many times the pieces of the other (short pairs excepted)."""
    max_unknown: Annotated[float, Field(ge=0.0, le=1.0)] = 0.5
    """Drop a training pair with a side of which more than this share of the pieces is unknown."""
    src_script: list[str] = []
    """Drop a training pair if most letters of the source are of another script than these: latin, cyrillic, han, …"""
    tgt_script: list[str] = []
    """The same for the target."""
    identical: Literal["keep", "drop"] = "keep"
    """Training pairs whose sides are equal: counted, and kept or dropped."""
    duplicates: Literal["keep", "drop"] = "keep"
    """Training pairs that stood there before: counted, and kept or dropped."""
    leaks: Literal["keep", "drop"] = "keep"
    """Training pairs whose source is also a validation or test source: counted, and kept or dropped."""
    allow_drops: bool = False
    """Go on even if more than a tenth of the training pairs is dropped."""
    max_unknown_rate: Annotated[float, Field(ge=0.0, le=1.0)] = 0.05
    """Refuse training text of which more than this share of pieces is unknown to the vocabulary."""
    allow_unknown: bool = False
    """Go on even so."""
    workers: NonNegativeInt = 0
    """Processes that encode; 0 takes every core. The output is the same for any number."""
    seed: NonNegativeInt = 1
    """Seed of the sample of lines that the vocabulary is trained on."""

    @field_validator("*", mode="before")
    @classmethod
    def _one_is_a_list(cls, value: Any, info: ValidationInfo) -> Any:
        """Take `train_src: train.en` for `train_src: [train.en]`."""
        field = cls.model_fields[info.field_name or ""]
        is_list = get_origin(field.annotation) is list
        return [value] if is_list and isinstance(value, str | Path | int | float) else value

    @model_validator(mode="after")
    def _check(self) -> "PreprocessSettings":
        if self.tsv and self.jsonl:
            raise ValueError("name one of tsv and jsonl")
        one_file = self.tsv or self.jsonl
        if one_file and not (self.train and self.valid):
            raise ValueError("tsv and jsonl read the files named by train and valid: name both")
        if not one_file and (self.train or self.valid):
            raise ValueError(
                "train and valid name files with both sides: say tsv or jsonl, or name train_src and train_tgt"
            )
        num_train = len(self.train if one_file else self.train_src)
        for name in ("corpus", "weight", "tag"):
            if len(getattr(self, name)) not in (0, num_train):
                raise ValueError(f"{name} has {len(getattr(self, name))} values for {num_train} training files")
        if len(self.valid_tag) not in (0, len(self.valid if one_file else self.valid_src)):
            raise ValueError(f"valid_tag has {len(self.valid_tag)} values, which is not one for each validation file")
        for piece in [*self.reserved, *self.symbol]:
            if not piece or any(c.isspace() for c in piece):
                raise ValueError(f"{piece!r}: a piece of the vocabulary is not empty and holds no space")
        tags = {piece for tag in [*self.tag, *self.valid_tag] for piece in tag.split()}
        for piece in [*self.reserved, *self.symbol, *sorted(tags)]:
            if piece in ("<pad>", "<unk>", "<s>", "</s>") or re.fullmatch("<0x[0-9A-F]{2}>", piece):
                raise ValueError(f"{piece} is a piece of every vocabulary already, and has its own meaning")
        if both := set(self.symbol) & {*self.reserved, *tags}:
            raise ValueError(
                f"{min(both)} is named as symbol, which text turns into, and as reserved or tag, which it does not"
            )
        if self.tgt_vocab and self.shared_vocab:
            raise ValueError("tgt_vocab needs shared_vocab off: a shared vocabulary is named by src_vocab")
        return self


class NoiseSettings(Section):
    """Noise that training puts on its pairs, anew each epoch; validation and translation see none."""

    subword_sampling: Rate = 0.0
    """Split words anew each time: the rate of BPE-dropout (Provilkov et al. 2020), or α of unigram sampling (Kudo 2018)."""
    src_word_dropout: Rate = 0.0
    """Make each word of the source unknown with this probability (Sennrich & Zhang 2019)."""
    tgt_word_dropout: Rate = 0.0
    """The same for the words that the decoder has read."""
    denoise: Literal["none", "mask", "infill", "span"] = "none"
    """Damage the source: mask pieces, infill spans (BART, Lewis et al. 2020), or ask for spans (T5, Raffel et al. 2020)."""
    denoise_rate: Rate = 0.3
    """Share of the source that `denoise` takes away."""
    span_length: PositiveFloat = 3.0
    """Mean length of a span."""
    permute_sentences: bool = False
    """Put the sentences of a source in random order (BART)."""


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
    """Dropout on embeddings, between layers and before the output layer."""
    variational_dropout: bool = False
    """Drop the same elements at all positions of a sentence (Gal & Ghahramani 2016)."""

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


class RuntimeSettings(Section):
    """The machine."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to compute; auto takes a CUDA device if there is one."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Arithmetic of matrix products; auto takes bf16 where the processor is fast at it. Weights stay fp32."""
    threads: NonNegativeInt = 0
    """CPU threads; 0 takes every core."""


Part = Literal["src-embedding", "encoder", "tgt-embedding", "decoder", "output"]


class TrainSettings(Section):
    """A dataset folder in, a run folder out."""

    data: Path = Path("data-bin")
    """The dataset folder that `preprocess` wrote."""
    run: Path = Path("run")
    """The run folder; an interrupted run in it goes on."""
    preset: str = "auto"
    """Named settings of model and training (tiny, small, base, big, rnn, rnn-basic, rnn-luong, rnn-bahdanau);
    auto chooses by corpus size."""
    seed: NonNegativeInt = 1
    """Seed of initial weights, data order and dropout."""
    max_updates: PositiveInt = 100_000
    """Stop after so many updates."""
    max_epochs: NonNegativeInt = 0
    """Stop after so many passes over the data; 0 sets no such limit."""
    batch_tokens: PositiveInt = 4096
    """Positions of a batch on its longer side, padding included."""
    accumulate: PositiveInt = 1
    """Batches an update; their gradients are added before one step."""
    lr: PositiveFloat = 5e-4
    """Peak learning rate (a factor for the noam schedule)."""
    schedule: Literal["inverse-sqrt", "noam", "cosine", "linear", "plateau", "constant"] = "inverse-sqrt"
    """Learning rate after warm-up: lr·√(warmup/u), noam scales that by (dim·warmup)^-½; cosine and linear reach `min_lr`
    at the last update; plateau drops when validation stalls."""
    warmup: PositiveInt = 4000
    """Updates of linear warm-up."""
    min_lr: Annotated[float, Field(ge=0.0)] = 0.0
    """Where cosine and linear end, and plateau drops no further."""
    plateau_patience: PositiveInt = 3
    """Validations without a better score after which plateau drops the rate."""
    plateau_factor: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.5
    """What plateau multiplies the rate by."""
    optimizer: Literal["adam", "adafactor", "sgd"] = "adam"
    """Adam (AdamW with `weight_decay`), Adafactor, which needs far less memory, or SGD."""
    beta1: Rate = 0.9
    """Adam's decay of the first moment."""
    beta2: Rate = 0.98
    """Adam's decay of the second moment."""
    momentum: Rate = 0.0
    """SGD's momentum."""
    weight_decay: Annotated[float, Field(ge=0.0)] = 0.0
    """Weight decay: decoupled in Adam (AdamW) and Adafactor."""
    ema: Rate = 0.0
    """Decay of an exponential moving average of the weights, which is validated and saved in their place; 0 keeps none."""
    label_smoothing: Rate = 0.1
    """Probability mass spread over the whole vocabulary (Szegedy et al. 2016)."""
    clip: Annotated[float, Field(ge=0.0)] = 1.0
    """Largest norm of the gradient; 0 turns clipping off."""
    valid_every: NonNegativeInt = 0
    """Updates between validations; 0 validates once an epoch."""
    valid_metric: ValidMetric = "bleu"
    """What chooses the best checkpoint and ends a run early."""
    valid_also: list[ValidMetric] = []
    """Metrics to record beside it, for `average --metric` and for the curves; the loss always is."""
    patience: NonNegativeInt = 10
    """Stop after so many validations without a better score; 0 never does."""
    keep_last: PositiveInt = 3
    """Newest checkpoints to keep."""
    keep_best: PositiveInt = 3
    """Best checkpoints to keep."""
    log_every: PositiveInt = 50
    """Updates between lines in the log."""
    init_from: Path | None = None
    """Begin with the weights of this run or bundle; embeddings are matched piece by piece where vocabularies differ."""
    src_embeddings: Path | None = None
    """Begin with these word vectors as source embedding: a text file of GloVe, fastText or word2vec, plain or compressed."""
    tgt_embeddings: Path | None = None
    """The same for the target embedding, and for all that shares its weights (see `tie`)."""
    freeze: list[Part] = []
    """Leave these parts as they begin. What two parts share, as a tied embedding and output layer do, is frozen with either;
    the decoder has all attention over the source, the output layer its bias and the gate of the copy head."""
    dry_run: bool = False
    """Print sizes, memory, updates an epoch and the time they will take, and train nothing."""

    @model_validator(mode="after")
    def _check(self) -> "TrainSettings":
        fixed_end = self.schedule in ("constant", "cosine", "linear")
        if fixed_end and "warmup" in self.model_fields_set and self.warmup > self.max_updates:
            raise ValueError(f"warmup ({self.warmup}) is longer than the whole run (max_updates {self.max_updates})")
        if self.min_lr > self.lr:
            raise ValueError(f"min_lr ({self.min_lr}) is more than lr ({self.lr})")
        return self


class SearchSettings(Section):
    """How translations are searched for: by `translate`, and by `train` when it validates."""

    beam: PositiveInt = 5
    """Hypotheses kept at each step; 1 is greedy search."""
    length_penalty: Literal["none", "average", "gnmt"] = "average"
    """What a log-probability is divided by: 1, length^alpha, or ((5+length)/6)^alpha (Wu et al. 2016)."""
    alpha: Annotated[float, Field(ge=0.0)] = 1.0
    """Exponent of the length penalty; larger favours longer output."""
    min_len: NonNegativeInt = 0
    """Fewest pieces of an output."""
    max_len: PositiveInt = 512
    """Most pieces of an output, whatever its source."""
    max_len_ratio: Annotated[float, Field(ge=0.0)] = 2.0
    """An output has at most this many times the pieces of its source, plus `max_len_extra`."""
    max_len_extra: NonNegativeInt = 10
    """See `max_len_ratio`."""
    search_tokens: PositiveInt = 4096
    """Source positions times beam that are searched at once; the output does not depend on it."""

    @model_validator(mode="after")
    def _check(self) -> "SearchSettings":
        if self.min_len > self.max_len:
            raise ValueError(f"min_len ({self.min_len}) is more than max_len ({self.max_len})")
        return self


class TranslateSettings(Section):
    """A model and source lines in, target lines out."""

    model: Annotated[list[Path], Flag("-m")] = Field(default=[Path("run")], min_length=1)
    """Run folder (its best checkpoint) or bundle; several make an ensemble."""
    input: Annotated[Path, Flag("-i")] = Path("-")
    """Source text, plain or gzipped; - reads standard input."""
    output: Annotated[Path, Flag("-o")] = Path("-")
    """Where the translations go; - writes standard output."""
    nbest: PositiveInt = 1
    """Hypotheses a line (tsv and jsonl only)."""
    format: Literal["text", "tsv", "jsonl"] = "text"
    """text: one line a line. tsv: line, rank, score, text. jsonl: one object a line, with scores and pieces."""
    max_src_len: PositiveInt = 1024
    """Cut a source line after so many pieces; each cut is reported."""
    window: PositiveInt = 8192
    """Lines read ahead, sorted by length, translated, and written in order."""


class ScoreSettings(Section):
    """Outputs and references in, scores with signatures out. `train` validates with the same options."""

    input: Annotated[list[Path], Flag("-i")] = Field(default=[Path("-")], min_length=1)
    """Output to score, plain or gzipped; several are compared; - reads standard input."""
    ref: Annotated[list[Path], Flag("-r")] = Field(default=[Path("test.tgt")], min_length=1)
    """Reference translation or summary; several are used together."""
    bleu: bool = False
    """BLEU (Papineni et al. 2002); every metric is computed where none is named."""
    chrf: bool = False
    """chrF (Popović 2015); chrF++ with `chrf_word_order` 2."""
    ter: bool = False
    """TER, the translation edit rate (Snover et al. 2006); lower is better."""
    rouge: bool = False
    """ROUGE-1, ROUGE-2, ROUGE-L and ROUGE-Lsum, F1 (Lin 2004)."""
    sentence: bool = False
    """Score each line by itself: a tab-separated row for each line of each system."""
    as_json: Annotated[bool, Flag("--json")] = False
    """Write one JSON object with unrounded values."""
    digits: Annotated[int, Field(ge=0, le=10)] = 2
    """Digits after the point."""
    tokenize: Literal[
        "13a", "intl", "zh", "char", "none", "ja-mecab", "ko-mecab", "flores101", "flores200", "spBLEU-1K"
    ] = "13a"
    """BLEU's tokenizer, by sacrebleu's names; ja-mecab and ko-mecab need an extra of sacrebleu, flores and spBLEU a download."""
    lowercase: bool = False
    """Ignore case in BLEU and chrF (ROUGE always does, TER does unless `ter_case_sensitive`)."""
    smooth: Literal["exp", "floor", "add-k", "none"] = "exp"
    """How BLEU treats n-gram orders without a match."""
    smooth_value: PositiveFloat | None = None
    """Value for the smoothing methods floor (0.1 if none is given) and add-k (1)."""
    chrf_char_order: PositiveInt = 6
    """Longest character n-gram of chrF."""
    chrf_word_order: NonNegativeInt = 0
    """Longest word n-gram of chrF; 2 makes it chrF++ (Popović 2017)."""
    chrf_beta: PositiveInt = 2
    """Weight of recall against precision in chrF."""
    chrf_whitespace: bool = False
    """Let chrF see spaces."""
    chrf_eps_smoothing: bool = False
    """Smooth chrF as NLTK and Moses do, rather than by effective order."""
    ter_normalized: bool = False
    """Normalise and tokenize for TER as Tercom does."""
    ter_no_punct: bool = False
    """Remove punctuation before TER."""
    ter_asian_support: bool = False
    """Treat Chinese and Japanese characters as words in TER, where it normalises or removes punctuation."""
    ter_case_sensitive: bool = False
    """Mind case in TER."""
    rouge_stem: bool = False
    """Compare the stems of English words in ROUGE (Porter 1980)."""
    rouge_tokenizer: Literal["rouge-score", "unicode"] = "rouge-score"
    """rouge-score keeps a-z and 0-9 alone; unicode keeps every script, by character where it writes no spaces."""
    rouge_split: Literal["newline", "q", "sentence"] = "newline"
    """Sentences for ROUGE-Lsum end at a newline mark (the two characters \\n), at a <q> mark, or at a full stop."""
    rouge_multi_ref: Literal["max", "mean"] = "max"
    """ROUGE of a line with several references: that of the best one, or their mean."""
    confidence: bool = False
    """95 % confidence intervals by bootstrap resampling (Koehn 2004)."""
    paired: Literal["none", "bootstrap", "randomization"] = "none"
    """Test each system against the baseline: paired bootstrap, or approximate randomization (Riezler, Maxwell 2005)."""
    baseline: Path | None = None
    """The system that the others are tested against and compared with; by default the first input."""
    resamples: NonNegativeInt = 0
    """Bootstrap resamples or randomization trials; 0 takes 1,000 resamples and 10,000 trials."""
    seed: NonNegativeInt = 12345
    """Seed of resampling, as sacrebleu's SACREBLEU_SEED."""
    diff: bool = False
    """Print the ten lines where systems differ most from the baseline, or the worst of one system, differences marked."""
    analyze: Path | None = None
    """Write an analysis of the output to this HTML page."""
    src: Annotated[Path | None, Flag("-s")] = None
    """Source text, for `analyze` and `diff`."""
    train_tgt: Path | None = None
    """Text to count word frequencies in for `analyze`: the training target; by default the references."""

    @model_validator(mode="after")
    def _check(self) -> "ScoreSettings":
        if self.smooth_value is not None and self.smooth not in ("floor", "add-k"):
            raise ValueError(f"smooth_value is for the methods floor and add-k, not for {self.smooth}")
        if self.sentence and (self.confidence or self.paired != "none"):
            raise ValueError("sentence scores have no confidence and no paired test: leave out one or the other")
        if self.sentence and (self.diff or self.analyze):
            raise ValueError("sentence scores go without diff and analyze: make two calls of it")
        return self


class AverageSettings(Section):
    """Checkpoints of one model in, their average out."""

    bundle: Annotated[list[Path], Flag("-m")] = Field(default=[Path("run")], min_length=1)
    """A run folder, or the bundles to average."""
    last: NonNegativeInt = 0
    """Average the newest N checkpoints of the run."""
    best: NonNegativeInt = 0
    """Average the best N checkpoints of the run (neither --last nor --best: all it kept)."""
    metric: ValidMetric | None = None
    """What makes a checkpoint best: a metric that the run recorded; by default the one it was validated by."""
    weight: list[PositiveFloat] = []
    """Weight of each bundle, in their order; by default all count alike."""
    output: Annotated[Path, Flag("-o")] = Path("averaged")
    """The bundle to write."""

    @model_validator(mode="after")
    def _check(self) -> "AverageSettings":
        if self.last and self.best:
            raise ValueError("name one of last and best")
        if self.metric and not self.best:
            raise ValueError("metric chooses the best: say how many with best")
        if self.weight and len(self.weight) != len(self.bundle):
            raise ValueError(f"weight has {len(self.weight)} values for {len(self.bundle)} bundles")
        return self


class Config(Section):
    """All sections of `s2s.yaml`."""

    preprocess: PreprocessSettings = PreprocessSettings()
    model: ModelSettings = TransformerSettings()
    train: TrainSettings = TrainSettings()
    noise: NoiseSettings = NoiseSettings()
    search: SearchSettings = SearchSettings()
    runtime: RuntimeSettings = RuntimeSettings()
    translate: TranslateSettings = TranslateSettings()
    score: ScoreSettings = ScoreSettings()
    average: AverageSettings = AverageSettings()
