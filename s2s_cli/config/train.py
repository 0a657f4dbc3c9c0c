"""Settings of `train`: the run itself, the noise on its pairs, and the machine, which `translate` shares."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from s2s_cli.config.duration import Duration
from s2s_cli.config.section import NonNegativeInt, Rate, Section, ValidMetric

Part = Literal["src-embedding", "encoder", "tgt-embedding", "decoder", "output"]


class TrainSettings(Section):
    """A dataset folder in, a run folder out."""

    data: Path = Path("data-bin")
    """The dataset folder that `preprocess` wrote."""
    run: Path = Path("run")
    """The run folder: checkpoints, of which `best` and `last` are two, train.log, metrics.jsonl. An interrupted run in it
    goes on."""
    preset: str = "auto"
    """Named settings of model and training (tiny, small, base, big, rnn, rnn-basic, rnn-luong, rnn-bahdanau);
    auto chooses by corpus size."""
    seed: NonNegativeInt = 1
    """Seed of initial weights, data order and dropout."""
    max_updates: PositiveInt = 100_000
    """Stop after so many updates."""
    max_epochs: NonNegativeInt = 0
    """Stop after so many passes over the data; 0 sets no such limit."""
    max_time: Duration | None = None
    """Stop in time, such as 50m, 3h or 1h30m: the learning rate falls to its end over the last quarter (cosine and linear: over
    all of it), and an average of the best checkpoints, if several are kept, is scored last; what that takes is estimated
    beforehand. Such a run goes on where it was stopped, but as no clock runs twice alike, not to the same bits."""
    batch_tokens: PositiveInt | Literal["auto"] = 4096
    """Positions of a batch on its longer side, padding included; auto takes as many as fit into memory, but not so many that
    an epoch has fewer than about 100 updates."""
    accumulate: PositiveInt = 1
    """Batches an update; their gradients are added before one step."""
    lr: PositiveFloat = 5e-4
    """Peak learning rate; for schedule noam a factor, about 1, and for Adafactor a share of each parameter's size, about 0.01."""
    schedule: Literal["inverse-sqrt", "noam", "cosine", "linear", "plateau", "constant"] = "inverse-sqrt"
    """Learning rate after warm-up: lr·√(warmup/u), noam scales that by (dim·warmup)^-½; cosine and linear reach `min_lr`
    at the last update; plateau drops when validation stalls."""
    warmup: PositiveInt = 4000
    """Updates of linear warm-up."""
    min_lr: Annotated[float, Field(ge=0.0)] = 0.0
    """Where cosine and linear end, and under `max_time` every schedule; plateau drops no further."""
    plateau_patience: PositiveInt = 3
    """Validations after the warm-up without a better score, or with an equal one and no lower loss, after which plateau drops
    the rate."""
    plateau_factor: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.5
    """What plateau multiplies the rate by."""
    optimizer: Literal["adam", "adamw", "adafactor", "sgd"] = "adam"
    """Adam, AdamW, which is Adam with decoupled decay, Adafactor, which needs far less memory, or SGD."""
    beta1: Rate = 0.9
    """Adam's decay of the first moment."""
    beta2: Rate = 0.98
    """Adam's decay of the second moment."""
    momentum: Rate = 0.0
    """SGD's momentum."""
    weight_decay: Annotated[float, Field(ge=0.0)] = 0.0
    """Weight decay: decoupled in AdamW and Adafactor, a part of the gradient in Adam and SGD."""
    ema: Rate = 0.0
    """Decay of an exponential moving average of the weights, which is validated and saved in their place; 0 keeps none."""
    label_smoothing: Rate = 0.1
    """Probability mass spread over the whole vocabulary (Szegedy et al. 2016)."""
    consistency: Literal["none", "rdrop", "simcut"] = "none"
    """Read each batch twice and let both readings agree: with other dropout (R-Drop, Liang et al. 2021), or the second one
    with tokens cut out (SimCut, Gao et al. 2022). Helps on small sets; an update takes about twice the time and memory."""
    consistency_weight: Annotated[float, Field(gt=0.0)] | None = None
    """What their disagreement counts; by default 5 for rdrop and 3 for simcut, as in the papers."""
    cutoff: Rate = 0.05
    """SimCut's probability that a token of either side is cut out."""
    scheduled_sampling: Rate = 0.0
    """Probability that the decoder reads its own choice in place of a reference token (Bengio et al. 2015; in Transformers
    by a first pass, Mihaylova & Martins 2019)."""
    sampling_ramp: PositiveInt = 20_000
    """Updates over which that probability rises from 0."""
    clip: Annotated[float, Field(ge=0.0)] = 1.0
    """Largest norm of the gradient; 0 turns clipping off."""
    spike: Annotated[float, Field(ge=0.0)] = 4.0
    """Skip an update whose loss is so many nats a token above the mean of those before, and go back to the last checkpoint after
    ten such, or gradients that are not finite, in a row; 0 skips none but the latter."""
    shard_optimizer: bool = False
    """With several processes, let each hold the optimizer's state of a part of the weights (ZeRO-1, Rajbhandari et al. 2020)."""
    valid_every: NonNegativeInt = 0
    """Updates between validations; 0 validates once an epoch."""
    valid_metric: ValidMetric = "bleu"
    """What chooses the best checkpoint and ends a run early."""
    valid_subset: NonNegativeInt = 0
    """Validate on so many lines, spread evenly over the validation text; 0 takes all. Of N lines, these n:
    awk 'int(NR*n/N) > int((NR-1)*n/N)'."""
    valid_also: list[ValidMetric] = []
    """Metrics to record beside it, for `average --metric` and for the curves; the loss always is."""
    patience: NonNegativeInt = 10
    """Stop after so many validations without a better score; 0 never does."""
    save_every: Duration = Duration("10m")
    """Save a checkpoint after so much time without a validation, after which one is saved anyway: what a power cut may cost.
    365d is never."""
    keep_last: PositiveInt = 3
    """Newest validated checkpoints to keep, any of which a run can go on from. Two stay even with 1: a torn file is
    not to be the end of a run."""
    keep_best: PositiveInt = 3
    """Best checkpoints to keep."""
    log_every: PositiveInt = 50
    """Updates between lines in the log."""
    tensorboard: bool = False
    """Write what goes into `metrics.jsonl` for TensorBoard too: event files in the run folder (extra: tensorboard)."""
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

    @property
    def positions(self) -> int:
        """`batch_tokens`, where it is a number."""
        assert self.batch_tokens != "auto"
        return self.batch_tokens

    def idle(self) -> dict[str, str]:
        """As of every section."""
        can_end = self.max_time is not None or self.schedule in ("cosine", "linear", "plateau")
        needs = {
            "consistency_weight": ("consistency", self.consistency != "none"),
            "cutoff": ("consistency simcut", self.consistency == "simcut"),
            "sampling_ramp": ("scheduled_sampling", self.scheduled_sampling > 0.0),
            "momentum": ("optimizer sgd", self.optimizer == "sgd"),
            "beta1": ("optimizer adam or adamw", self.optimizer in ("adam", "adamw")),
            "beta2": ("optimizer adam or adamw", self.optimizer in ("adam", "adamw")),
            "plateau_patience": ("schedule plateau", self.schedule == "plateau"),
            "plateau_factor": ("schedule plateau", self.schedule == "plateau"),
            "min_lr": ("max_time, or schedule cosine, linear or plateau", can_end),
        }
        return {name: what for name, (what, there) in needs.items() if not there}

    @model_validator(mode="after")
    def _check(self) -> "TrainSettings":
        fixed_end = self.schedule in ("constant", "cosine", "linear")
        if fixed_end and "warmup" in self.model_fields_set and self.warmup > self.max_updates:
            raise ValueError(f"warmup ({self.warmup}) is longer than the whole run (max_updates {self.max_updates})")
        if self.schedule == "noam" and self.lr < 0.01:
            raise ValueError(
                f"lr ({self.lr}) is a factor for schedule noam, and would leave no rate to speak of: set lr, such as 1"
            )
        if self.optimizer == "adafactor" and self.lr < 0.001:
            raise ValueError(
                f"lr ({self.lr}) is a share of each parameter's size for optimizer adafactor, and would leave no rate to speak "
                "of: set lr, such as 0.01"
            )
        if self.min_lr > self.lr:
            raise ValueError(f"min_lr ({self.min_lr}) is more than lr ({self.lr})")
        return self


class NoiseSettings(Section):
    """Noise that training puts on its pairs, anew each epoch; validation and translation see none."""

    subword_sampling: Rate = 0.0
    """Split words anew each time; 0 never. With bpe the rate of BPE-dropout (Provilkov et al. 2020), about 0.1, and 0.6 where the
    text has no spaces; with unigram α of its sampling (Kudo 2018), about 0.1 to 0.5, where less varies more."""
    src_word_dropout: Rate = 0.0
    """Make each word of the source unknown with this probability (Sennrich & Zhang 2019)."""
    tgt_word_dropout: Rate = 0.0
    """The same for the words that the decoder has read."""
    denoise: Literal["none", "mask", "infill", "span"] = "none"
    """Damage the source: mask pieces, infill spans (BART, Lewis et al. 2020, but without spans of no pieces), or ask for spans
    (T5, Raffel et al. 2020)."""
    denoise_rate: Rate = 0.3
    """Share of the source that `denoise` takes away."""
    span_length: PositiveFloat = 3.0
    """Mean length of a span."""
    permute_sentences: bool = False
    """Put the sentences of a source in random order (BART)."""

    def idle(self) -> dict[str, str]:
        """As of every section."""
        rate = {} if self.denoise != "none" else {"denoise_rate": "denoise"}
        return rate | ({} if self.denoise in ("infill", "span") else {"span_length": "denoise infill or span"})


class RuntimeSettings(Section):
    """The machine."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to compute; auto takes a CUDA device if there is one."""
    precision: Literal["auto", "fp32", "bf16", "fp16", "int8"] = "auto"
    """Arithmetic of matrix products; auto takes bf16 where the processor is fast at it, and to translate what the model was
    validated in. fp16 is for GPUs without bf16. int8 translates on CPU; matrices too small to gain are in bf16 or fp32 then. In
    training weights stay fp32."""
    threads: NonNegativeInt = 0
    """CPU threads; 0 takes every core (under torchrun, this process's share)."""
    deterministic: bool = False
    """Train on CUDA with kernels that give the same bits each time, so that a run that was interrupted ends as if it had not
    been. It costs speed; coverage and average attention have no such kernels. On CPU all are like that."""
    compile: bool = False
    """Train a Transformer on CUDA with layers and loss that torch has compiled. That takes minutes, most at the start, and
    a C compiler. What an interrupted run ends with may differ in the last bits."""
