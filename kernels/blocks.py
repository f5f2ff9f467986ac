"""Blocks of the score matrix, in one reused buffer: inner products, and the costs ``|x - y|^p / p``."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from .memory import current_budget

CPU_SAMPLES = 2048
"""Samples per block on a CPU, and with it ..."""
CPU_SCORES = 2**19
"""... scores per block: 256 targets, 2 MB of float32 (the second-level caches of a few cores)."""
GPU_TARGETS = 8192
"""Targets per block on a GPU; as many samples as the memory budget holds."""
DIRECT_DIM = 8
"""Dimension up to which squared distances are summed coordinate by coordinate: a matrix product is no faster there."""
NEAR = 1 / 16
"""A squared distance below this part of ``|x|^2 + |y|^2`` has lost digits in a matrix product, and is summed again."""


class Blocks:
    """The blocks of the score matrix, in one reused buffer.

    Args:
        x: samples, (m, d).
        y: targets, (n, d).
        h: heights, (n,).
        copies: number of arrays of the size of a block that are alive at once (they share the budget).
        columns: least number of targets per block, if the budget allows.
        group: make the number of targets of each block a multiple of this, if a block is that large.
    """

    def __init__(self, x: Tensor, y: Tensor, h: Tensor, copies: int = 1, columns: int = 1, group: int = 1) -> None:
        self.m, self.n = len(x), len(y)
        limit = max(1, current_budget() // (x.element_size() * copies))
        if x.device.type == "cpu":
            rows = min(CPU_SAMPLES, self.m)
            cols = CPU_SCORES // rows
        else:
            rows, cols = self.m, GPU_TARGETS
        self.cols = max(1, min(max(cols, columns), self.n, limit))
        lifted = torch.cat([y, h[:, None]], 1)
        if 1 < group <= self.cols:
            # Padded by the last target: the padding wins over nothing but that target.
            lifted = torch.cat([lifted, lifted[-1:].expand(-self.n % group, -1)])
            self.n = len(lifted)
            self.cols -= self.cols % group
        self.rows = max(1, min(rows, limit // self.cols))
        self.x = x
        self.lifted = lifted
        self.samples = torch.ones(self.rows, y.shape[1] + 1, dtype=x.dtype, device=x.device)
        self.buffer = torch.empty(self.rows * self.cols, dtype=x.dtype, device=x.device)

    def row_blocks(self) -> Iterator[tuple[slice, Tensor]]:
        """Slices of samples with the lifted samples [x, 1] of each."""
        for start in range(0, self.m, self.rows):
            rows = slice(start, min(start + self.rows, self.m))
            lifted = self.samples[: rows.stop - start]
            lifted[:, :-1] = self.x[rows]
            yield rows, lifted

    def score_blocks(self, samples: Tensor) -> Iterator[tuple[slice, Tensor]]:
        """Slices of targets with the scores of ``samples``; each block overwrites the previous one."""
        for start in range(0, self.n, self.cols):
            cols = slice(start, min(start + self.cols, self.n))
            shape = len(samples), cols.stop - start
            scores = self.buffer[: shape[0] * shape[1]].view(shape)
            self.fill(samples, cols, scores)
            yield cols, scores

    def fill(self, samples: Tensor, cols: slice, scores: Tensor) -> None:
        """Write the scores of lifted samples with the targets ``cols``."""
        torch.mm(samples, self.lifted[cols].T, out=scores)


class CostBlocks(Blocks):
    """Blocks of the scores ``h_j - |x_i - y_j|^p / p``.

    Squared distances have the accuracy of their differences: in few dimensions they are sums of squared differences;
    in more, the matrix product ``|x|^2 + |y|^2 - 2 <x, y>`` of points centred at the targets, where what cancels in it
    is found and summed again.

    Args:
        x: samples, (m, d).
        y: targets, (n, d).
        h: heights, (n,).
        p: exponent, > 1.
        copies: as for :class:`Blocks`.
        columns: likewise.
        group: likewise.

    Attributes:
        squares: squared distances of the latest block, if ``keep_squares`` was set before.
    """

    def __init__(
        self, x: Tensor, y: Tensor, h: Tensor, copies: int = 1, columns: int = 1, group: int = 1, *, p: float
    ) -> None:
        super().__init__(x, y, h, copies + 1, columns, group)
        self.p = p
        self.keep_squares = False
        self.scratch = torch.empty_like(self.buffer)
        self.direct = y.shape[1] <= DIRECT_DIM
        self.columns = self.lifted[:, :-1].T.contiguous()  # coordinates of the targets, each contiguous
        low, high = torch.aminmax(y, dim=0)
        self.centre = low / 2 + high / 2
        if not self.direct:
            centred = self.lifted[:, :-1] - self.centre
            norms = (centred**2).sum(1)
            self.product = torch.cat([-2 * centred, torch.ones_like(norms)[:, None], norms[:, None]], 1)

    def fill(self, samples: Tensor, cols: slice, scores: Tensor) -> None:
        """Write the scores of lifted samples with the targets ``cols``."""
        x, scratch = samples[:, :-1], self.scratch[: scores.numel()].view(scores.shape)
        if self.direct or not self._by_product(x, cols, scores):
            self._by_differences(x, cols, scores, scratch)
        if self.keep_squares:
            self.squares = scores.clone()
        power_(scores, self.p, scratch)
        torch.sub(self.lifted[cols, -1], scores, alpha=1.0 / self.p, out=scores)

    def _by_differences(self, x: Tensor, cols: slice, out: Tensor, scratch: Tensor) -> None:
        for k, y in enumerate(self.columns[:, cols]):
            torch.sub(x[:, k, None], y, out=scratch)
            torch.mul(scratch, scratch, out=out) if k == 0 else out.addcmul_(scratch, scratch)

    def _by_product(self, x: Tensor, cols: slice, out: Tensor) -> bool:
        """Whether the product gave squared distances; False if so many of them cancel that differences are cheaper."""
        centred, factor = x - self.centre, self.product[cols]
        norms = (centred**2).sum(1, keepdim=True)
        torch.mm(torch.cat([centred, norms, torch.ones_like(norms)], 1), factor.T, out=out)
        suspect = torch.nonzero(torch.amin(out, 1) < NEAR * (norms[:, 0] + factor[:, -1].max())).flatten()
        if len(suspect) == 0:
            return True
        if len(suspect) * 2 > len(x):
            near = out < NEAR * (norms + factor[:, -1])
            if int(near.sum()) * 8 > out.numel():
                return False
            at = torch.nonzero(near)
        else:
            at = torch.nonzero(out[suspect] < NEAR * (norms[suspect] + factor[:, -1]))
            at[:, 0] = suspect[at[:, 0]]
        y = self.lifted[cols, :-1]
        for rows, columns in (part.unbind(1) for part in at.split(max(1, out.numel() // x.shape[1]))):
            out[rows, columns] = ((x[rows] - y[columns]) ** 2).sum(1)
        return True


def power_(squares: Tensor, p: float, scratch: Tensor) -> Tensor:
    """``|z|^p`` from ``|z|^2`` in place; square roots where they do, being a fifth of the price of a power."""
    if p == 2.0:
        return squares
    if p == 4.0:
        return squares.square_()
    if p == 3.0:
        return squares.mul_(torch.sqrt(squares, out=scratch))
    if p == 1.5:
        torch.sqrt(squares, out=squares)
        return squares.mul_(torch.sqrt(squares, out=scratch))
    return squares.pow_(p / 2)
