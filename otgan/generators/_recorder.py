"""Keeps the latest pairs (x, cell of x) that a solver streams."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor


class Recorder:
    """A ring of the latest pairs, as an :class:`otgan.solvers.base.Observer`.

    The latest were assigned at the best heights, so that these are the ones to keep.

    Args:
        capacity: pairs kept at most.
        dim: d.
    """

    def __init__(self, capacity: int, dim: int) -> None:
        self.x = torch.empty(capacity, dim)
        self.index = torch.empty(capacity, dtype=torch.int32)
        self.seen = 0

    @property
    def held(self) -> int:
        """Pairs that are kept now."""
        return min(self.seen, len(self.x))

    def __call__(self, x: Tensor, index: Tensor) -> None:
        """Add one batch."""
        x, index = x[-len(self.x) :], index[-len(self.x) :]
        rows = (self.seen + torch.arange(len(x))) % len(self.x)
        self.x[rows] = x.detach().float().cpu()
        self.index[rows] = index.int().cpu()
        self.seen += len(x)

    def pairs(self) -> tuple[Tensor, Tensor]:
        """Points (m, d), float32, and the cells they were found in (m,)."""
        return self.x[: self.held], self.index[: self.held].long()

    def state(self) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """For a checkpoint of the solver."""
        return {"seen": self.seen}, {"x": self.x[: self.held].numpy(), "index": self.index[: self.held].numpy()}

    def restore(self, settings: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> None:
        """Back to a saved state."""
        self.seen = int(settings["seen"])
        self.x[: self.held] = torch.from_numpy(arrays["x"])
        self.index[: self.held] = torch.from_numpy(arrays["index"])
