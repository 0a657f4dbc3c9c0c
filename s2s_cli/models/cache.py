"""Keys and values of target positions that search has gone through, of several hypotheses of a sentence, written once.

The R hypotheses of a group (those of a sentence) stand in one buffer, position after position, and are queries over all of
it, each masked to the positions of its own path. As hypotheses are dropped and doubled, only the masks are reordered; keys
and values do not move, but once, when the one hypothesis that all begin with is spread. For short outputs that is much less
work than to copy them at every step, and the products are of R queries rather than of one.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from s2s_cli.models.layers import lanes

_WIDEST = 8  # hypotheses of a group: as each is a query over all, beyond some number copies are cheaper


def room(num: int) -> int:
    """Keys that a buffer of `num` holds: whole vectors (see `lanes`), and of many keys up to an eighth more, so that it need not
    be copied at every step. It has no more than what is read, since products of a part of a buffer would copy that.
    """
    return lanes(-(-num // (step := 1 << max(0, num.bit_length() - 4))) * step)


class Buffer:
    """Keys and values [2, B, G, room(C·R), d] of C positions, the R of one position beside each other; of these, `used` positions
    are written, and the rest are zeros, or what nobody looks at.
    """

    def __init__(self, tensor: Tensor, used: int) -> None:
        self.tensor, self.used = tensor, used


@dataclass(frozen=True)
class Cache:
    """The first `length` positions of a buffer, each of `width` = R hypotheses. A value: what is appended leaves it as it is."""

    buffer: Buffer | None
    length: int
    width: int

    def append(self, k: Tensor, v: Tensor) -> "Cache":
        """With the next position of all hypotheses, k and v [B, G, R, d]."""
        buffer, length, width = self.buffer, self.length, k.shape[2]
        used = length * width
        if buffer is None:
            buffer = Buffer(k.new_zeros(2, *k.shape[:2], room(width), k.shape[3]), 0)
        elif buffer.used != length or used + width > buffer.tensor.shape[3]:  # another has gone on here; or it is full
            old = buffer.tensor[:, :, :, :used]
            buffer = Buffer(F.pad(old, (0, 0, 0, room(used + width) - used)), length)
        here = buffer.tensor[:, :, :, used : used + width]
        here[0], here[1] = k, v
        buffer.used = length + 1
        return Cache(buffer, length + 1, width)

    @property
    def keys_values(self) -> tuple[Tensor, Tensor]:
        """Keys and values of all positions, and zeros up to `room(T·R)`: [B, G, room(T·R), d] each."""
        assert self.buffer is not None
        k, v = self.buffer.tensor[:, :, :, : room(self.length * self.width)].unbind(0)
        return k, v

    def groups(self, index: Tensor) -> "Cache":
        """Groups `index` [M], in that order."""
        if self.buffer is None:
            return self
        here = self.buffer.tensor[:, :, :, : room(self.length * self.width)].index_select(1, index)
        return Cache(Buffer(here, self.length), self.length, self.width)

    def spread(self, index: Tensor, num: int) -> "Cache":
        """Groups `index` [M], each of one hypothesis, as groups of `num` that have gone the same way."""
        assert self.buffer is not None
        assert self.width == 1
        here = self.buffer.tensor[:, :, :, : self.length].index_select(1, index).repeat_interleave(num, dim=3)
        extra = room(self.length * num) - here.shape[3]
        return Cache(Buffer(F.pad(here, (0, 0, 0, extra)), self.length), self.length, num)

    def paths(self, slots: Tensor) -> "Cache":
        """One hypothesis a group: of each group [B], the path that at the t-th position goes through hypothesis slots[b, t]."""
        if self.buffer is None:
            return self
        at = slots + torch.arange(self.length, device=slots.device) * self.width  # [B, T]
        tensor = self.buffer.tensor
        at = at[None, :, None, :, None].expand(2, -1, tensor.shape[2], -1, tensor.shape[4])
        path = F.pad(tensor.gather(3, at), (0, 0, 0, room(self.length) - self.length))
        return Cache(Buffer(path, self.length), self.length, 1)


@dataclass(frozen=True)
class Paths:
    """Which of the first `length` = T positions each of N = B·R hypotheses goes through: `mask` [N, room(T·R)], 0 there and
    -inf elsewhere. Where R is 1 they go through all of them, and `mask` [1, room(T)] is common to them.
    """

    mask: Tensor
    width: int
    length: int

    @classmethod
    def first(cls, num_rows: int, width: int, device: torch.device) -> "Paths":
        """Those of hypotheses before their first position, `width` of each sentence: a group, unless it is too wide."""
        width = width if width <= _WIDEST else 1
        return cls(torch.empty(num_rows if width > 1 else 1, 0, device=device), width, 0)

    def append(self) -> "Paths":
        """Each hypothesis goes on by itself."""
        width, used = self.width, self.length * self.width
        own = self.mask.new_full((width, room(used + width) - used), -torch.inf)
        own[:, :width].fill_diagonal_(0.0)
        num_groups = len(self.mask) // width
        return Paths(torch.cat([self.mask[:, :used], own.repeat(num_groups, 1)], dim=1), width, self.length + 1)

    def bias(self, by_distance: Tensor | None) -> Tensor:
        """What is added to the scores [B, H, R, room(T·R)] of self-attention, where relative positions add [H, 1, T]."""
        mask = self.mask.view(-1, 1, self.width, self.mask.shape[1])
        if by_distance is None:
            return mask
        by_distance = by_distance.repeat_interleave(self.width, dim=2)
        return mask + F.pad(by_distance, (0, self.mask.shape[1] - by_distance.shape[2]))


def select(
    paths: Paths, caches: tuple[Cache, ...], index: Tensor, stay: bool = False
) -> tuple[Paths, tuple[Cache, ...]]:
    """Hypotheses `index` [M], in that order. Where those of a group stay together, only masks are reordered; for it to be seen
    that they all do, the device is waited for, unless they are known to `stay` in their groups, and these in their order.
    """
    width, length = paths.width, paths.length
    if width == 1:
        return paths, _groups(caches, index)
    if stay:
        return Paths(paths.mask.index_select(0, index), width, length), caches
    if len(index) % width == 0:
        groups = index.view(-1, width).div(width, rounding_mode="floor")
        if bool((groups == groups[:, :1]).all()):
            return Paths(paths.mask.index_select(0, index), width, length), _groups(caches, groups[:, 0])
    slots = paths.mask[:, : length * width].index_select(0, index).unflatten(1, (-1, width)).argmax(dim=2)
    caches = _groups(caches, index.div(width, rounding_mode="floor"))
    alone = F.pad(paths.mask.new_zeros(1, length), (0, room(length) - length), value=-torch.inf)
    return Paths(alone, 1, length), tuple(cache.paths(slots) for cache in caches)


def spread(paths: Paths, caches: tuple[Cache, ...], index: Tensor, num: int) -> tuple[Paths, tuple[Cache, ...]]:
    """Hypotheses `index` [M], each alone in its group, as `num` of each: a group, unless it is too wide."""
    after = Paths.first(len(index) * num, num, index.device)
    if after.width == 1:
        return paths, _groups(caches, index.repeat_interleave(num))
    for _ in range(paths.length):
        after = after.append()
    return after, tuple(cache.spread(index, num) for cache in caches)


def _groups(caches: tuple[Cache, ...], index: Tensor) -> tuple[Cache, ...]:
    return tuple(cache.groups(index) for cache in caches)
