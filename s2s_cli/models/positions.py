"""How a Transformer knows the order of words: added vectors, turned queries and keys, or a bias by distance.

Every function here takes the number of the first position, so that a single step equals the parallel pass.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from s2s_cli.config import TransformerSettings
from s2s_cli.models.layers import embedding

_BUCKETS, _FARTHEST = 32, 128  # as T5 has them


class Order(NamedTuple):
    """What self-attention must know of its T positions: a bias on scores [..., T, S], a rotation (cos and sin, [T, d] each),
    and whether later positions are hidden without a bias that says so.
    """

    bias: Tensor | None
    rotation: tuple[Tensor, Tensor] | None
    is_causal: bool = False


class Positions(nn.Module):
    """The word order of one side: one kind of `positions`, with what of it is learned."""

    def __init__(self, settings: TransformerSettings, two_ways: bool, attends: bool = True) -> None:
        super().__init__()
        self.dim, self.head_dim, self.two_ways = settings.dim, settings.dim // settings.heads, two_ways
        # What acts inside of self-attention is nothing to a decoder that has none.
        self.kind = settings.positions if attends or settings.positions in ("sinusoidal", "learned") else "none"
        if self.kind == "learned":
            self.table = embedding(settings.max_positions, settings.dim)
        if self.kind == "relative":
            self.table = embedding(_BUCKETS, settings.heads)

    def vectors(self, start: int, num: int, device: torch.device) -> Tensor | None:
        """What is added to the embeddings of positions start … start+num-1: [num, D]."""
        if self.kind == "sinusoidal":
            return sinusoidal_positions(start, num, self.dim, device)
        if self.kind == "learned":
            return self.table(torch.arange(start, start + num, device=device).clamp(max=self.table.num_embeddings - 1))
        return None

    def order(self, start: int, num: int, device: torch.device, bias: Tensor | None) -> Order:
        """For `num` queries from position `start` on over all positions up to the last of them; `bias` is added to theirs."""
        if self.kind == "rotary":
            return Order(bias, rotation(start, num, self.head_dim, device))
        if self.kind == "relative":
            query = torch.arange(start, start + num, device=device)[:, None]
            key = torch.arange(start + num, device=device)[None, :]
            by_distance = self.table(relative_bucket(key - query, self.two_ways)).permute(2, 0, 1)  # [H, T, S]
            bias = by_distance if bias is None else bias + by_distance
        return Order(bias, None)


def sinusoidal_positions(start: int, num: int, dim: int, device: torch.device) -> Tensor:
    """Positions start … start+num-1 as [num, dim]: sines in the first half, cosines in the second (Vaswani et al. 2017)."""
    angle = _angles(start, num, dim, device)
    return torch.cat([torch.sin(angle), torch.cos(angle)], dim=1)


def rotation(start: int, num: int, dim: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """cos and sin [num, dim] of the angles by which positions start … start+num-1 turn (Su et al. 2021)."""
    angle = _angles(start, num, dim, device)
    return torch.cat([torch.cos(angle)] * 2, dim=1), torch.cat([torch.sin(angle)] * 2, dim=1)


def rotate(x: Tensor, turn: tuple[Tensor, Tensor] | None) -> Tensor:
    """x [..., T, d], each pair of elements i and i+d/2 turned by its angle; then q·k depends on their distance alone."""
    if turn is None:
        return x
    cos, sin = (part.to(x.dtype) for part in turn)
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-second, first], dim=-1) * sin


def _angles(start: int, num: int, dim: int, device: torch.device) -> Tensor:
    """position · 10000^(-2i/dim): [num, dim/2]."""
    position = torch.arange(start, start + num, device=device, dtype=torch.float32)[:, None]
    return position * torch.exp(
        torch.arange(0, dim, 2, device=device, dtype=torch.float32) * (-math.log(10000.0) / dim)
    )


def relative_bucket(distance: Tensor, two_ways: bool) -> Tensor:
    """Key position minus query position -> its bucket, as in T5 (Raffel et al. 2020): small distances one by one,
    larger ones by their logarithm, all from 128 on together; keys to the right of the query apart from those to the left.
    """
    num, offset = _BUCKETS, torch.zeros_like(distance)
    if two_ways:
        num //= 2
        offset = (distance > 0).long() * num
        distance = distance.abs()
    else:
        distance = (-distance).clamp(min=0)
    exact = num // 2
    scale = (num - exact) / math.log(_FARTHEST / exact)
    far = exact + (torch.log(distance.clamp(min=1).float() / exact) * scale).long()
    return offset + torch.where(distance < exact, distance, far.clamp(max=num - 1))
