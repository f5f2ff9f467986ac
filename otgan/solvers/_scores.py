"""Scores of samples and targets as the sampling solvers see them: one cost, one precision, one count of the work."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from otgan import kernels
from otgan._threads import torch_threads

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]


class Scores:
    """Scores for the targets of one problem, whose maximum over j decides the cell of x_i.

    ``s_ij = <x_i, y_j> + h_j``, and ``s_ij = h_j - |x_i - y_j|^p / p`` for an exponent p other than 2. Heights come as
    float64 arrays and are rounded to the precision of the targets. Fused kernels use the threads that torch had when
    this object was made: they share work in large pieces, which pays where other operations are better on one.

    Args:
        y: targets, shape (n, d), float32 or float64.
        p: exponent of the cost.

    Attributes:
        count: scores computed so far.
    """

    def __init__(self, y: Tensor, p: float = 2.0) -> None:
        self.y, self.p = y, p
        self.count = 0
        self._threads = torch.get_num_threads()

    @property
    def n(self) -> int:
        """Number of targets."""
        return len(self.y)

    def heights(self, h: Floats) -> Tensor:
        """``h`` as the kernels take it."""
        return torch.from_numpy(h).to(self.y)

    def rows(self, rows: NDArray[np.int64], device: torch.device) -> Tensor:
        """Some of the targets, on a device."""
        return self.y[torch.from_numpy(rows).to(self.y.device)].to(device)

    def assign(self, x: Tensor, h: Floats) -> kernels.Assignment:
        """Best target of each sample and its score."""
        self.count += len(x) * self.n
        with torch_threads(self._threads):
            return kernels.assign(x, self.y, self.heights(h), p=self.p)

    def top_k(self, x: Tensor, h: Floats, k: int) -> kernels.TopK:
        """The k best targets of each sample and their scores."""
        self.count += len(x) * self.n
        with torch_threads(self._threads):
            return kernels.top_k(x, self.y, self.heights(h), k, p=self.p)

    def dense(self, x: Tensor, h: Tensor, y: Tensor) -> Tensor:
        """All scores of ``x`` with some targets ``y`` at their heights ``h``, shape (m, len(y))."""
        self.count += len(x) * len(y)
        if self.p == 2.0:
            return torch.addmm(h, x, y.T)
        return h - torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist") ** self.p / self.p

    def touching(self, x: Tensor, value: Tensor, rows: NDArray[np.int64]) -> Floats:
        """Heights at which the targets ``rows`` just touch ``value``, the potential at the samples: a c-transform.

        ``min_i value_i - s_ij + h_j`` for each j of ``rows``; samples and targets may change places in a score.
        """
        self.count += len(x) * len(rows)
        y = self.rows(rows, x.device)
        with torch_threads(self._threads):
            return -kernels.assign(y, x, -value.to(x), p=self.p).value.double().cpu().numpy()
