"""The only code that touches all (sample, target) pairs.

For samples x (m, d), targets y (n, d) and heights h (n,) the scores are ``s_ij = <x_i, y_j> + h_j``, the supporting
planes of the Brenier potential ``u_h(x) = max_j <x, y_j> + h_j``. The m x n scores are never stored.

- :func:`assign`: the power cell of each sample and u_h.
- :func:`top_k`: the k best targets of each sample.
- :func:`soft_moments`: the smoothed potential and the entropic map.
- :func:`soft_counts`: the gradient of the entropic semi-dual.
- :func:`slack`: how far each target is from touching the samples.

Common to all: ties go to the lowest index (scores that differ by rounding alone are not ties); a target with
``h_j = -inf`` is never chosen; float32 and float64 on CPU and CUDA; no autograd inside (inputs are detached). Memory is
bounded by :func:`memory_budget`; :func:`use` and :func:`status` deal with the backends. With x on a GPU, y may stay in
host memory or in a memory-mapped file (h and weights there or with x): blocks of targets then visit the GPU in turn.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .checks import Problem, all_finite, check_eps, check_k, prepare
from .compiled import outside_graph
from .dispatch import BackendStatus, call, status, use
from .memory import memory_budget
from .streamed import stream

__all__ = [
    "Assignment",
    "BackendStatus",
    "SoftMoments",
    "TopK",
    "assign",
    "memory_budget",
    "slack",
    "soft_counts",
    "soft_moments",
    "status",
    "top_k",
    "use",
]


class Assignment(NamedTuple):
    """Result of :func:`assign`.

    Attributes:
        index: best target of each sample, (m,) int64.
        value: its score u_h(x_i), (m,).
    """

    index: Tensor  # type: ignore[assignment]
    value: Tensor


class TopK(NamedTuple):
    """Result of :func:`top_k`.

    Attributes:
        index: the k best targets of each sample, (m, k) int64.
        value: their scores, descending, (m, k).
    """

    index: Tensor  # type: ignore[assignment]
    value: Tensor


class SoftMoments(NamedTuple):
    """Result of :func:`soft_moments`.

    Attributes:
        value: smoothed potential, (m,).
        mean: its gradient, the softmax-weighted mean of the targets, (m, d).
    """

    value: Tensor
    mean: Tensor


@contextlib.contextmanager
def _plain_arithmetic(x: Tensor) -> Iterator[None]:
    """No gradient recording, no autocast, no reduced-precision matrix product (TF32, bfloat16)."""
    device = "cuda" if isinstance(x, Tensor) and x.is_cuda else "cpu"
    precision = torch.get_float32_matmul_precision()
    with torch.no_grad(), torch.autocast(device, enabled=False):
        if precision != "highest":
            torch.set_float32_matmul_precision("highest")
        try:
            yield
        finally:
            if precision != "highest":
                torch.set_float32_matmul_precision(precision)


def _checked(problem: Problem, value: Tensor) -> Tensor:
    value = problem.restore_value(value)
    if not all_finite(value):
        raise ValueError(
            f"scores overflow {value.dtype}: scale x, y and h down"
            + (", or pass float64." if value.itemsize == 4 else ".")
        )
    return value


def _answer(operation: str, problem: Problem, *arguments: Any) -> Any:
    x, y, h = problem.x, problem.y, problem.h
    if problem.streamed:
        return stream(operation, x, y, h, *arguments, centre=problem.centre, kept=problem.kept)
    return call(operation, x, y, h, *arguments)


@outside_graph
def assign(x: Tensor, y: Tensor, h: Tensor) -> Assignment:
    """Power cell of each sample: ``index_i = argmax_j <x_i, y_j> + h_j`` and ``value_i = u_h(x_i)``, the maximum.

    Args:
        x: samples, (m, d), float32 or float64.
        y: targets, (n, d), same dtype and device.
        h: heights, (n,); -inf for a target that is never chosen.

    Returns:
        ``Assignment(index, value)``, both (m,); the lowest index wins a tie.

    Raises:
        TypeError: for anything but float32 or float64 tensors of one dtype.
        ValueError: for shapes or devices that do not match, no target, values that are not finite (all h = -inf
            included), or scores that overflow.

    Example:
        >>> import torch
        >>> assign(torch.tensor([[1.0, 0.0]]), torch.eye(2), torch.zeros(2)).index.tolist()
        [0]
    """
    with _plain_arithmetic(x):
        problem = prepare(x, y, h)
        if len(x) == 0:
            return Assignment(torch.empty(0, dtype=torch.int64, device=x.device), x.new_empty(0))
        index, value = _answer("assign", problem)
        return Assignment(problem.restore_index(index), _checked(problem, value))


@outside_graph
def top_k(x: Tensor, y: Tensor, h: Tensor, k: int) -> TopK:
    """The k largest scores ``<x_i, y_j> + h_j`` of each sample and their targets.

    Args:
        x: samples, (m, d), float32 or float64.
        y: targets, (n, d), same dtype and device.
        h: heights, (n,); -inf for a target that is never chosen.
        k: number of targets per sample, between 1 and the number of targets with a finite height.

    Returns:
        ``TopK(index, value)``, both (m, k), values descending; the lowest index comes first in a tie.

    Raises:
        TypeError: as :func:`assign`, or if k is not an int.
        ValueError: as :func:`assign`, or if k is out of range.
    """
    with _plain_arithmetic(x):
        problem = prepare(x, y, h)
        check_k(k, problem.n, len(problem.h))
        if len(x) == 0:
            return TopK(torch.empty(0, k, dtype=torch.int64, device=x.device), x.new_empty(0, k))
        index, value = _answer("top_k", problem, k)
        return TopK(problem.restore_index(index), _checked(problem, value))


@outside_graph
def soft_moments(x: Tensor, y: Tensor, h: Tensor, eps: float, weights: Tensor | None = None) -> SoftMoments:
    """Smoothed potential ``eps log sum_j b_j exp(s_ij/eps)`` and its gradient in x, the entropic map.

    The gradient is ``sum_j p_ij y_j`` with ``p_ij`` proportional to ``b_j exp(s_ij/eps)``. The maximum is subtracted
    before the exponential, so nothing overflows; as eps -> 0 the result tends to that of :func:`assign`.

    Args:
        x: samples, (m, d), float32 or float64.
        y: targets, (n, d), same dtype and device.
        h: heights, (n,); -inf for a target that is never chosen.
        eps: temperature, positive, in the units of a score.
        weights: b, (n,), non-negative, used as given (not normalised); None means 1/n each, n counting every target.

    Returns:
        ``SoftMoments(value, mean)``, (m,) and (m, d).

    Raises:
        TypeError: as :func:`assign`, or if eps is not a number.
        ValueError: as :func:`assign`, if eps is not positive, or if weights are negative, not finite or all zero.
    """
    eps = check_eps(eps)
    with _plain_arithmetic(x):
        problem = prepare(x, y, h, eps, weights)
        if len(x) == 0:
            return SoftMoments(x.new_empty(0), x.new_empty(0, x.shape[1]))
        if weights is None:
            problem = problem._replace(offset=problem.offset - eps * math.log(problem.n))
        value, mean = _answer("soft_moments", problem, eps)
        if problem.centre is not None:
            mean += problem.centre
        return SoftMoments(_checked(problem, value), mean)


@outside_graph
def soft_counts(x: Tensor, y: Tensor, h: Tensor, eps: float, weights: Tensor | None = None) -> Tensor:
    """Mean over the samples of ``p_ij``, the softmax probabilities of :func:`soft_moments`.

    Minus b, this is the gradient in h of the entropic semi-dual (Genevay, Cuturi, Peyre, Bach 2016). As eps -> 0 it
    tends to the fraction of the samples in each power cell.

    Args:
        x: samples, (m, d), m >= 1, float32 or float64.
        y: targets, (n, d), same dtype and device.
        h: heights, (n,); -inf for a target that is never chosen.
        eps: temperature, positive, in the units of a score.
        weights: b, (n,), non-negative; None means equal weights.

    Returns:
        Masses, (n,) float64 whatever the dtype of x; they sum to 1. Sums over samples are accumulated in float64.

    Raises:
        TypeError: as :func:`soft_moments`.
        ValueError: as :func:`soft_moments`, or if there is no sample.
    """
    eps = check_eps(eps)
    with _plain_arithmetic(x):
        problem = prepare(x, y, h, eps, weights)
        if len(x) == 0:
            raise ValueError("soft_counts is a mean over samples, and x holds none; pass at least one sample.")
        counts = _answer("soft_counts", problem, eps) / len(x)
        if not all_finite(counts):
            _checked(problem, x.new_full((len(x),), math.nan))
        return problem.scatter(counts, 0.0)


@outside_graph
def slack(x: Tensor, y: Tensor, h: Tensor) -> Tensor:
    """Distance of each plane to the potential over the samples: ``min_i u_h(x_i) - <x_i, y_j> - h_j >= 0``.

    Zero exactly for the targets that attain the maximum at some sample. Raising every h_j by its slack (the
    c-transform) makes each empty cell touch its samples and changes u_h at none of them.

    Args:
        x: samples, (m, d), float32 or float64.
        y: targets, (n, d), same dtype and device.
        h: heights, (n,); -inf for a target that is never chosen.

    Returns:
        Slacks, (n,), in the dtype of x and never negative; +inf where h = -inf, and everywhere if m = 0.

    Raises:
        TypeError: as :func:`assign`.
        ValueError: as :func:`assign`.
    """
    with _plain_arithmetic(x):
        problem = prepare(x, y, h)
        if len(x) == 0:
            return x.new_full((problem.n,), math.inf)
        gaps = _answer("slack", problem)
        if not all_finite(gaps):
            _checked(problem, x.new_full((len(x),), math.nan))
        return problem.scatter(gaps.clamp_(min=0.0), math.inf)
