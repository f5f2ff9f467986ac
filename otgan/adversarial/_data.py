"""Minibatches of an array in memory: shuffled anew each epoch, without a loader."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from otgan._checks import as_tensor, require_finite, require_scale

if TYPE_CHECKING:
    from otgan._checks import ArrayLike

_COPIED = 1 << 26  # bytes of data up to which a shuffled copy is kept


def as_samples(value: ArrayLike, name: str = "data") -> Tensor:
    """Check training data: finite, shape (n, d) for points or (n, channels, height, width) for images, n >= 2."""
    data = as_tensor(value, name)
    if data.ndim == 3:
        raise ValueError(
            f"{name} must have shape (n, d) or (n, channels, height, width), got {tuple(data.shape)}; for grey images "
            f"pass {name}[:, None]."
        )
    if data.ndim not in (2, 4):
        hint = f"; for n points on a line pass {name}[:, None]" if data.ndim == 1 else ""
        raise ValueError(
            f"{name} must have shape (n, d) or (n, channels, height, width), got {tuple(data.shape)}{hint}."
        )
    if len(data) < 2 or data[0].numel() == 0:
        raise ValueError(f"{name} has shape {tuple(data.shape)}; expected at least two points and one coordinate.")
    require_finite(data, name)
    require_scale(data, name)
    return data


class Batches:
    """Batch number b of an endless stream of epochs, a function of (b, seed) alone.

    Args:
        data: (n, ...), on the device of the training.
        size: points of a batch; where n is less, an epoch goes through the data as often as it takes for one.
        seed: of the shuffling.
    """

    def __init__(self, data: Tensor, size: int, seed: int) -> None:
        self.data, self.size, self.seed = data, size, seed
        self.rounds = -(-size // len(data))
        self.per_epoch = self.rounds * len(data) // size
        self.copied = data.numel() * data.element_size() * self.rounds <= _COPIED
        self.epoch = -1
        self.held: tuple[Tensor, ...] = ()

    def __getitem__(self, number: int) -> Tensor:
        """The batch, shape (size, ...)."""
        epoch, place = divmod(number, self.per_epoch)
        if epoch != self.epoch:
            self._shuffle(epoch)
        found = self.held[place]
        return found if self.copied else self.data[found]

    def _shuffle(self, epoch: int) -> None:
        stream = torch.Generator().manual_seed((self.seed * 1_000_003 + epoch) & 0x7FFF_FFFF_FFFF_FFFF)
        n = len(self.data)
        order = torch.cat([torch.randperm(n, generator=stream) for _ in range(self.rounds)]).to(self.data.device)
        held = (self.data[order] if self.copied else order).split(self.size)
        self.epoch, self.held = epoch, held[: self.per_epoch]


def digest(data: Tensor, *settings: object) -> str:
    """Digest of data and settings, by which a checkpoint knows its run."""
    found = hashlib.sha256(repr((tuple(data.shape), str(data.dtype), settings)).encode())
    for piece in data.split(1 << 14):
        found.update(piece.detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()
