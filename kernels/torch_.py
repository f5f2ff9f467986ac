"""Backend ``torch``: blocked matrix products. Works everywhere; the other backends are tested against it.

Scores are formed block by block over samples and over targets, ``S = [x, 1] [y, h]^T`` for p = 2 and from squared
distances for the other costs ``|x - y|^p / p`` (see :mod:`.blocks`), and reduced before the next block overwrites them,
so that memory does not depend on m n. On a CPU a block is small enough to stay in the second-level cache, where a
reduction costs less than the product; on a GPU it fills the memory budget.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from .blocks import CPU_SCORES, Blocks, CostBlocks

NAME = "torch"
POWER_COSTS = True
GROUP = 64
"""Targets per group in :func:`assign`: only the winning group of a block is searched for its index."""


def probe(device: str) -> str | None:
    """Why this backend cannot run on ``"cpu"`` or ``"cuda"``; None if it can."""
    if device == "cuda" and not torch.cuda.is_available():
        return "this build of torch finds no CUDA device"
    return None


def _maker(p: float) -> Callable[..., Blocks]:
    return Blocks if p == 2.0 else partial(CostBlocks, p=p)


def assign(x: Tensor, y: Tensor, h: Tensor, p: float = 2.0) -> tuple[Tensor, Tensor]:
    """Index and value of the best target of each sample: two tensors (m,).

    On a CPU the maximum alone costs a tenth of the maximum with its index. So a block is first reduced to the maxima of
    its groups of 64 targets, and only samples whose best score so far is beaten search the winning group.
    """
    grouped = x.device.type == "cpu"
    blocks = _maker(p)(x, y, h, group=GROUP if grouped else 1)
    merge = _merge_grouped if grouped and blocks.cols % GROUP == 0 else _merge_plain
    index = torch.zeros(len(x), dtype=torch.int64, device=x.device)
    value = x.new_full((len(x),), -math.inf)
    for rows, samples in blocks.row_blocks():
        for cols, scores in blocks.score_blocks(samples):
            merge(scores, cols.start, value[rows], index[rows])
    return index.clamp_(max=len(y) - 1), value


def _merge_plain(scores: Tensor, start: int, best: Tensor, where: Tensor) -> None:
    """Update the running maximum ``best`` and its index ``where`` by the scores of targets start, start + 1, ..."""
    top, at = torch.max(scores, 1)
    better = ~(top <= best)  # true for NaN too, which is reported by the caller
    torch.where(better, top, best, out=best)
    torch.where(better, at + start, where, out=where)


def _merge_grouped(scores: Tensor, start: int, best: Tensor, where: Tensor) -> None:
    """As :func:`_merge_plain`; the number of targets is a multiple of GROUP."""
    groups = scores.view(len(scores), -1, GROUP)
    top, group = torch.max(torch.amax(groups, 2), 1)
    rows = torch.nonzero(~(top <= best)).flatten()
    if len(rows):
        group = group[rows]
        value, at = torch.max(groups[rows, group], 1)
        best[rows] = value
        where[rows] = at.add_(group, alpha=GROUP).add_(start)


def top_k(x: Tensor, y: Tensor, h: Tensor, k: int, p: float = 2.0) -> tuple[Tensor, Tensor]:
    """Indices and values of the k best targets of each sample, values descending: two tensors (m, k)."""
    blocks = _maker(p)(x, y, h, copies=2, columns=128 * k)
    index = torch.zeros(len(x), k, dtype=torch.int64, device=x.device)
    value = x.new_full((len(x), k), -math.inf)
    for rows, samples in blocks.row_blocks():
        best, where = value[rows], index[rows]
        for cols, scores in blocks.score_blocks(samples):
            top, at = _top_k_block(scores, k)
            better = torch.nonzero(~(top[:, 0] <= best[:, -1])).flatten()
            if len(better) == 0:
                continue
            # Earlier targets stand first, so the stable sort gives ties to the lower index.
            both = torch.cat([best[better], top[better]], 1)
            both, order = torch.sort(both, dim=1, descending=True, stable=True)
            best[better] = both[:, :k]
            where[better] = torch.cat([where[better], at[better] + cols.start], 1).gather(1, order[:, :k])
    return index, value


def _top_k_block(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The min(k, C) best of (R, C) scores, by value descending then index ascending."""
    width = min(k + 1, scores.shape[1])
    top, at = torch.topk(scores, width, dim=1)
    # torch.topk breaks ties at will: rows with a tie among the k + 1 best are sorted in full.
    tied = torch.nonzero((top[:, 1:] == top[:, :-1]).any(1)).flatten()
    for rows in tied.split(max(1, CPU_SCORES // scores.shape[1])):
        values, order = torch.sort(scores[rows], dim=1, descending=True, stable=True)
        top[rows], at[rows] = values[:, :width], order[:, :width]
    return top[:, :k], at[:, :k]


def _inverse(eps: float, dtype: torch.dtype) -> float:
    """1/eps, finite and non-zero in ``dtype``: below the smallest normal number the limit eps -> 0 is reached."""
    info = torch.finfo(dtype)
    return 1.0 / min(max(eps, 4 * info.tiny), 0.25 / info.tiny)


def _exponentiate(scores: Tensor, best: Tensor, inverse: float, least: float) -> None:
    """``scores <- exp((scores - best) / eps)`` in place, exponents below ``least`` raised to it."""
    scores.sub_(best[:, None]).mul_(inverse).clamp_(min=least).exp_()


def _least_exponent(dtype: torch.dtype) -> float:
    """Exponent whose exponential is far below rounding yet far above subnormal numbers, which are slow to handle."""
    return -80.0 if dtype == torch.float32 else -600.0


def soft_moments(x: Tensor, y: Tensor, h: Tensor, eps: float, p: float = 2.0) -> tuple[Tensor, Tensor]:
    """``eps log sum_j exp(s_ij/eps)``, (m,), and the softmax-weighted mean of the targets, (m, d), in one pass."""
    inverse, least = _inverse(eps, x.dtype), _least_exponent(x.dtype)
    blocks = _maker(p)(x, y, h, copies=2)
    targets = torch.cat([y, torch.ones_like(h)[:, None]], 1)
    value, mean = x.new_empty(len(x)), torch.empty_like(x)
    for rows, samples in blocks.row_blocks():
        best = x.new_full((len(samples),), -math.inf)
        total = x.new_zeros(len(samples), targets.shape[1])
        for cols, scores in blocks.score_blocks(samples):
            new = torch.maximum(best, torch.amax(scores, 1))
            _exponentiate(scores, new, inverse, least)
            total.mul_(best.sub_(new).mul_(inverse).exp_()[:, None]).addmm_(scores, targets[cols])
            best = new
        torch.div(total[:, :-1], total[:, -1:], out=mean[rows])
        torch.add(best, total[:, -1].log(), alpha=eps, out=value[rows])
    return value, mean


def soft_gradient(x: Tensor, y: Tensor, h: Tensor, eps: float, p: float) -> tuple[Tensor, Tensor]:
    """``eps log sum_j exp(s_ij/eps)``, (m,), and its gradient ``-sum_j p_ij |x_i - y_j|^(p-2) (x_i - y_j)``, (m, d)."""
    inverse, least = _inverse(eps, x.dtype), _least_exponent(x.dtype)
    blocks = CostBlocks(x, y, h, copies=3, p=p)
    blocks.keep_squares = True
    ones = torch.ones_like(h)[:, None]
    targets = torch.cat([y - blocks.centre, ones], 1)
    value, gradient = x.new_empty(len(x)), torch.empty_like(x)
    for rows, samples in blocks.row_blocks():
        best = x.new_full((len(samples),), -math.inf)
        total, pulls = x.new_zeros(len(samples)), x.new_zeros(len(samples), targets.shape[1])
        for cols, scores in blocks.score_blocks(samples):
            new = torch.maximum(best, torch.amax(scores, 1))
            _exponentiate(scores, new, inverse, least)
            shrink = best.sub_(new).mul_(inverse).exp_()
            total.mul_(shrink).add_(scores.sum(1))
            scores.mul_(_weights(blocks.squares, p))
            pulls.mul_(shrink[:, None]).addmm_(scores, targets[cols])
            best = new
        torch.sub(pulls[:, :-1], (samples[:, :-1] - blocks.centre) * pulls[:, -1:], out=gradient[rows])
        gradient[rows].div_(total[:, None])
        torch.add(best, total.log(), alpha=eps, out=value[rows])
    return value, gradient


def _weights(squares: Tensor, p: float) -> Tensor:
    """``|z|^(p-2)`` from ``|z|^2`` in place; 0 at z = 0, where the gradient of the cost vanishes."""
    if p > 2.0:
        return squares.pow_(p / 2 - 1)
    return torch.where(squares > 0.0, squares.pow(p / 2 - 1), torch.zeros_like(squares), out=squares)


def soft_counts(x: Tensor, y: Tensor, h: Tensor, eps: float, p: float = 2.0) -> Tensor:
    """Sum over the samples of the softmax probabilities, (n,) float64.

    Sums run in the working dtype within a block of samples and in float64 across blocks. Probabilities that average to
    less than ``2 exp(-80)`` (``2 exp(-600)`` in float64) are returned as zero.
    """
    inverse, least = _inverse(eps, x.dtype), _least_exponent(x.dtype)
    blocks = _maker(p)(x, y, h, copies=2)
    counts = torch.zeros(len(y), dtype=torch.float64, device=x.device)
    for _, samples in blocks.row_blocks():
        best = x.new_full((len(samples),), -math.inf)
        total = x.new_zeros(len(samples))
        for _, scores in blocks.score_blocks(samples):
            new = torch.maximum(best, torch.amax(scores, 1))
            _exponentiate(scores, new, inverse, least)
            total.mul_(best.sub_(new).mul_(inverse).exp_()).add_(scores.sum(1))
            best = new
        total.reciprocal_()
        for cols, scores in blocks.score_blocks(samples):
            _exponentiate(scores, best, inverse, least)
            counts[cols] += total @ scores
    return counts.masked_fill_(counts <= 2 * len(x) * math.exp(least), 0.0)


def slack(x: Tensor, y: Tensor, h: Tensor, p: float = 2.0) -> Tensor:
    """``min_i u_h(x_i) - s_ij`` for each target, (n,); +inf without samples."""
    blocks = _maker(p)(x, y, h)
    least = x.new_full((len(y),), math.inf)
    for _, samples in blocks.row_blocks():
        best = x.new_full((len(samples),), -math.inf)
        for _, scores in blocks.score_blocks(samples):
            torch.maximum(best, torch.amax(scores, 1), out=best)
        for cols, scores in blocks.score_blocks(samples):
            gap = torch.amax(scores.sub_(best[:, None]), 0).neg_()
            torch.minimum(least[cols], gap, out=least[cols])
    return least
