"""What learns, and how: frozen parts, the optimizer, the learning rate, the moving average. It knows no data, no files."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from s2s_cli.config import Part, TrainSettings
from s2s_cli.errors import ConfigError
from s2s_cli.models.base import Seq2Seq
from s2s_cli.training.adafactor import Adafactor

# The parts that Thompson et al. 2018 freeze one by one, and the modules that are of each, by name.
_MODULES: dict[Part, tuple[str, ...]] = {
    "src-embedding": ("src_embedding",),
    "encoder": ("encoder", "encoder_norm", "src_positions"),
    "tgt-embedding": ("tgt_embedding",),
    "decoder": ("decoder", "decoder_norm", "tgt_positions", "bridge", "attention", "out"),
    "output": ("head",),
}


def freeze(model: Seq2Seq, parts: Sequence[Part]) -> None:
    """Exclude the parameters of these parts from learning; ConfigError if none is left to learn.

    A parameter of several modules, as that of a tied embedding, is frozen with any of them.
    """
    modules = {module for part in parts for module in _MODULES[part]}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        if name.partition(".")[0] in modules:
            parameter.requires_grad_(False)
    if not _learning(model):
        raise ConfigError(f"train.freeze ({', '.join(parts)}) leaves nothing to train: take a part out of it")


def _learning(model: Seq2Seq) -> list[torch.nn.Parameter]:
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def shards_of(model: Seq2Seq, world: int) -> list[list[torch.nn.Parameter]]:
    """The parameters that learn, in `world` parts of about one size: the largest first, each to the smallest part so far."""
    shards: list[list[torch.nn.Parameter]] = [[] for _ in range(world)]
    for parameter in sorted(_learning(model), key=lambda p: -p.numel()):
        min(shards, key=lambda shard: sum(p.numel() for p in shard)).append(parameter)
    return shards


def build_optimizer(
    model: Seq2Seq, settings: TrainSettings, parameters: Sequence[torch.nn.Parameter] | None = None
) -> torch.optim.Optimizer:
    """Adam (Kingma and Ba 2015), AdamW (decoupled decay, Loshchilov and Hutter 2019), Adafactor (Shazeer and Stern 2018) or SGD.

    It has `parameters`, or all that are not frozen. Each update sets its rate. All state that it will ever have exists from the
    beginning.
    """
    parameters = _learning(model) if parameters is None else list(parameters)
    optimizer: torch.optim.Optimizer
    if settings.optimizer == "adafactor":
        optimizer = Adafactor(parameters, settings.weight_decay)
    elif settings.optimizer == "sgd":
        optimizer = torch.optim.SGD(
            parameters, momentum=settings.momentum, weight_decay=settings.weight_decay, fused=True
        )
    else:
        kind = torch.optim.AdamW if settings.optimizer == "adamw" else torch.optim.Adam
        optimizer = kind(
            parameters,
            betas=(settings.beta1, settings.beta2),
            eps=1e-9,
            weight_decay=settings.weight_decay,
            fused=True,
        )
    _make_state(optimizer, parameters)
    return optimizer


def _make_state(optimizer: torch.optim.Optimizer, parameters: Sequence[torch.nn.Parameter]) -> None:
    """Let the optimizer make its tensors by a step that changes nothing, then put them back to zero."""
    set_rate(optimizer, 0.0)
    for parameter in parameters:
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    for state in optimizer.state.values():
        for value in state.values():
            if isinstance(value, Tensor):
                value.zero_()


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """The learning rate of the next step."""
    for group in optimizer.param_groups:
        group["lr"] = rate


def moments_of(model: Seq2Seq, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimizer's tensors, named `kind:parameter`, such as `exp_avg:head.bias`; frozen parameters have none."""
    return {
        f"{kind}:{name}": value
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
        for kind, value in optimizer.state.get(parameter, {}).items()
        if isinstance(value, Tensor)
    }


def learning_rate(
    update: int, dim: int, settings: TrainSettings, num_updates: int, drops: int = 0, time_used: float = 0.0
) -> float:
    """The rate of update 1, 2, …, `num_updates`: linear over `warmup` updates, then as the schedule has it.

    noam is the schedule of Vaswani et al. 2017: lr · dim^-½ · min(u^-½, u · warmup^-1½). cosine is that of Loshchilov and
    Hutter 2017, without restarts. `drops` is how often plateau has come to one. `time_used`, from 0 to 1, is the share of a
    time limit that is gone: cosine and linear follow it where it is ahead of the updates; the rate of other schedules falls
    in a line to `min_lr` over the last quarter.
    """
    left = min(1.0, 4.0 * (1.0 - time_used))
    rate = _scheduled(update, dim, settings, num_updates, drops, time_used)
    low = min(rate, settings.min_lr)
    if settings.schedule in (
        "cosine",
        "linear",
    ):  # which end by themselves, but for a time that is over in their warm-up
        return min(rate, low + (settings.lr - low) * left)
    return low + (rate - low) * left


def _scheduled(update: int, dim: int, settings: TrainSettings, num_updates: int, drops: int, time_used: float) -> float:
    peak, low, warmup = settings.lr, settings.min_lr, settings.warmup
    rising = min(1.0, update / warmup)
    falling = min(1.0, (warmup / update) ** 0.5)
    done = min(1.0, max(time_used, (update - warmup) / max(1, num_updates - warmup)))
    if settings.schedule == "noam":
        return peak * (dim * warmup) ** -0.5 * min(rising, falling)
    if settings.schedule == "inverse-sqrt":
        return peak * min(rising, falling)
    if rising < 1.0 or settings.schedule == "constant":
        return peak * rising
    if settings.schedule == "cosine":
        return low + (peak - low) * 0.5 * (1.0 + math.cos(math.pi * done))
    if settings.schedule == "linear":
        return low + (peak - low) * (1.0 - done)
    return max(low, peak * settings.plateau_factor**drops)


def plateau_drops(values: Sequence[tuple[float, float]], patience: int) -> int:
    """How often a rate has dropped after validations of these values, lower being better: a pure function of them.

    It drops after each `patience` validations without a new best, counted from the best or from the last drop.
    """
    best, since, drops = (math.inf, -math.inf), 0, 0
    for value in values:
        since += 1
        if value < best:
            best, since = value, 0
        elif since >= patience:
            drops, since = drops + 1, 0
    return drops


class Average:
    """An exponential moving average of a model's weights: average += (1 - decay) · (weights - average) at each update.

    Early on the decay is less, (1 + u) / (10 + u) at update u, so that first weights are soon forgotten.
    """

    def __init__(self, model: Seq2Seq, decay: float) -> None:
        self.decay = decay
        self.weights = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}

    @torch.no_grad()
    def update(self, model: Seq2Seq, update: int) -> None:
        """Take in the weights after an update."""
        decay = min(self.decay, (1 + update) / (10 + update))
        torch._foreach_lerp_(list(self.weights.values()), [p.detach() for p in model.parameters()], 1.0 - decay)

    @torch.no_grad()
    def swap(self, model: Seq2Seq) -> None:
        """Exchange the values of the model's weights and the average; a second call takes that back, bit for bit."""
        for name, parameter in model.named_parameters():  # in their places, where cuDNN wants those of a layer to stay
            value = parameter.detach().clone()
            parameter.copy_(self.weights[name])
            self.weights[name].copy_(value)
