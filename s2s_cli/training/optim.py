"""The optimizer and the learning rate: what turns a gradient into an update. It knows no data and no files."""

import torch

from s2s_cli.config import TrainSettings
from s2s_cli.models.base import Seq2Seq


def build_optimizer(model: Seq2Seq, settings: TrainSettings) -> torch.optim.AdamW:
    """Adam (Kingma and Ba 2015), with decoupled decay if wanted (Loshchilov and Hutter 2019). Each update sets its rate."""
    return torch.optim.AdamW(
        list(model.parameters()),
        lr=settings.lr,
        betas=(settings.beta1, settings.beta2),
        eps=1e-9,
        weight_decay=settings.weight_decay,
        fused=True,
    )


def learning_rate(update: int, dim: int, settings: TrainSettings) -> float:
    """The rate of update 1, 2, …: linear over `warmup` updates, then falling with 1/√update, or constant.

    noam is the schedule of Vaswani et al. 2017: lr · dim^-½ · min(u^-½, u · warmup^-1½).
    """
    rising = min(1.0, update / settings.warmup)
    falling = min(1.0, (settings.warmup / update) ** 0.5)
    if settings.schedule == "constant":
        return settings.lr * rising
    if settings.schedule == "noam":
        return settings.lr * (dim * settings.warmup) ** -0.5 * min(rising, falling)
    return settings.lr * min(rising, falling)
