"""The only code that touches all (sample, target) pairs.

For samples x (m, d), targets y (n, d) and heights h (n,) the scores are ``s_ij = <x_i, y_j> + h_j``, the supporting
planes of the Brenier potential ``u_h(x) = max_j <x, y_j> + h_j``; for another exponent p of the cost ``|x - y|^p / p``
they are ``s_ij = h_j - |x_i - y_j|^p / p``, h being the target's Kantorovich potential, and ``u_h`` below is their
maximum. The m x n scores are never stored.

- :func:`assign`: the power cell of each sample and u_h.
- :func:`top_k`: the k best targets of each sample.
- :func:`soft_moments`: the smoothed potential and the mean target, for p = 2 the entropic map.
- :func:`soft_gradient`: the smoothed potential and its gradient, which for p != 2 is not that mean.
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

from .checks import Problem, all_finite, check_eps, check_k, check_p, prepare
from .compiled import outside_graph
from .dispatch import BackendStatus, call, status, use
from .memory import memory_budget
from .streamed import stream

__all__ = [
    "Assignment",
    "BackendStatus",
    "SoftGradient",
    "SoftMoments",
    "TopK",
    "assign",
    "memory_budget",
    "slack",
    "soft_counts",
    "soft_gradient",
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
        mean: the softmax-weighted mean of the targets, (m, d); for p = 2 the gradient of the value.
    """

    value: Tensor
    mean: Tensor


class SoftGradient(NamedTuple):
    """Result of :func:`soft_gradient`.

    Attributes:
        value: smoothed potential, (m,).
        gradient: its gradient in x, (m, d).
    """

    value: Tensor
    gradient: Tensor


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


def _answer(operation: str, problem: Problem, *arguments: Any, p: float) -> Any:
    x, y, h = problem.x, problem.y, problem.h
    if not problem.streamed:
        return call(operation, x, y, h, *arguments, p=p)
    if p != 2.0 or operation == "soft_gradient":
        raise ValueError(
            f"y may stay in host memory for p = 2 and not for {operation}; got p = {p:g}. Move y to {x.device}."
        )
    return stream(operation, x, y, h, *arguments, centre=problem.centre, kept=problem.kept)


@outside_graph
def assign(x: Tensor, y: Tensor, h: Tensor, *, p: float = 2.0) -> Assignment:
    """Power cell of each sample: ``index_i = argmax_j <x_i, y_j> + h_j`` and ``value_i = u_h(x_i)``, the maximum.

    Args:
        x: samples, (m, d), float32 or float64.
        y: targets, (n, d), same dtype and device.
        h: heights, (n,); -inf for a target that is never chosen.
        p: exponent of the cost, > 1; for p != 2 the scores are ``h_j - |x_i - y_j|^p / p``.

    Returns:
        ``Assignment(index, value)``, both (m,); the lowest index wins a tie.

    Raises:
        TypeError: for anything but float32 or float64 tensors of one dtype, or if p is not a number.
        ValueError: for shapes or devices that do not match, no target, values that are not finite (all h = -inf
            included), p <= 1, or scores that overflow.

    Example:
        >>> import torch
        >>> assign(torch.tensor([[1.0, 0.0]]), torch.eye(2), torch.zeros(2)).index.tolist()
        [0]
    """
    p = check_p(p)
    with _plain_arithmetic(x):
        problem = prepare(x, y, h, p=p)
        if len(x) == 0:
            return Assignment(torch.empty(0, dtype=torch.int64, device=x.device), x.new_empty(0))
        index, value = _answer("assign", problem, p=p)
        return Assignment(problem.restore_index(index), _checked(problem, value))


@outside_graph
def top_k(x: Tensor, y: Tensor, h: Tensor, k: int, *, p: float = 2.0) -> TopK:
    """The k largest scores ``<x_i, y_j> + h_j`` of each sample and their targets.

    Args:
        x: samples, (m, d), float32 or float64.
        y: targets, (n, d), same dtype and device.
        h: heights, (n,); -inf for a target that is never chosen.
        k: number of targets per sample, between 1 and the number of targets with a finite height.
        p: exponent of the cost, > 1; for p != 2 the scores are ``h_j - |x_i - y_j|^p / p``.

    Returns:
        ``TopK(index, value)``, both (m, k), values descending; the lowest index comes first in a tie.

    Raises:
        TypeError: as :func:`assign`, or if k is not an int.
        ValueError: as :func:`assign`, or if k is out of range.
    """
    p = check_p(p)
    with _plain_arithmetic(x):
        problem = prepare(x, y, h, p=p)
        check_k(k, problem.n, len(problem.h))
        if len(x) == 0:
            return TopK(torch.empty(0, k, dtype=torch.int64, device=x.device), x.new_empty(0, k))
        index, value = _answer("top_k", problem, k, p=p)
        return TopK(problem.restore_index(index), _checked(problem, value))


@outside_graph
def soft_moments(
    x: Tensor, y: Tensor, h: Tensor, eps: float, weights: Tensor | None = None, *, p: float = 2.0
) -> SoftMoments:
    """Smoothed potential ``eps log sum_j b_j exp(s_ij/eps)`` and its gradient in x, the entropic map.

    The gradient is ``sum_j p_ij y_j`` with ``p_ij`` proportional to ``b_j exp(s_ij/eps)``. The maximum is subtracted
    before the exponential, so nothing overflows; as eps -> 0 the result tends to that of :func:`assign`.

    Args:
        x: samples, (m, d), float32 or float64.
        y: targets, (n, d), same dtype and device.
        h: heights, (n,); -inf for a target that is never chosen.
        eps: temperature, positive, in the units of a score.
        weights: b, (n,), non-negative, used as given (not normalised); None means 1/n each, n counting every target.
        p: exponent of the cost, > 1; for p != 2 the scores are ``h_j - |x_i - y_j|^p / p``.

    Returns:
        ``SoftMoments(value, mean)``, (m,) and (m, d).

    Raises:
        TypeError: as :func:`assign`, or if eps is not a number.
        ValueError: as :func:`assign`, if eps is not positive, or if weights are negative, not finite or all zero.
    """
    eps, p = check_eps(eps), check_p(p)
    with _plain_arithmetic(x):
        problem = prepare(x, y, h, eps, weights, p)
        if len(x) == 0:
            return SoftMoments(x.new_empty(0), x.new_empty(0, x.shape[1]))
        if weights is None:
            problem = problem._replace(offset=problem.offset - eps * math.log(problem.n))
        value, mean = _answer("soft_moments", problem, eps, p=p)
        if problem.centre is not None:
            mean += problem.centre
        return SoftMoments(_checked(problem, value), mean)


@outside_graph
def soft_gradient(
    x: Tensor, y: Tensor, h: Tensor, eps: float, weights: Tensor | None = None, *, p: float = 2.0
) -> SoftGradient:
    """Smoothed potential ``eps log sum_j b_j exp(s_ij/eps)`` and its gradient in x.

    For p = 2 the gradient is the mean of :func:`soft_moments`; otherwise ``-sum_j p_ij |x_i - y_j|^(p-2) (x_i - y_j)``
    with ``p_ij`` proportional to ``b_j exp(s_ij/eps)``. Near a target that p < 2 makes a steep one, the gradient has
    the accuracy of ``|x_i - y_j|`` relative to the extent of the targets.

    Args:
        x: samples, (m, d), float32 or float64.
        y: targets, (n, d), same dtype and device.
        h: heights, (n,); -inf for a target that is never chosen.
        eps: temperature, positive, in the units of a score.
        weights: b, (n,), non-negative, used as given; None means 1/n each.
        p: exponent of the cost, > 1; for p != 2 the scores are ``h_j - |x_i - y_j|^p / p``.

    Returns:
        ``SoftGradient(value, gradient)``, (m,) and (m, d).

    Raises:
        TypeError: as :func:`soft_moments`.
        ValueError: as :func:`soft_moments`.
    """
    eps, p = check_eps(eps), check_p(p)
    if p == 2.0:
        return SoftGradient(*soft_moments(x, y, h, eps, weights))
    with _plain_arithmetic(x):
        problem = prepare(x, y, h, eps, weights, p)
        if len(x) == 0:
            return SoftGradient(x.new_empty(0), x.new_empty(0, x.shape[1]))
        if weights is None:
            problem = problem._replace(offset=problem.offset - eps * math.log(problem.n))
        value, gradient = _answer("soft_gradient", problem, eps, p=p)
        return SoftGradient(_checked(problem, value), gradient)


@outside_graph
def soft_counts(
    x: Tensor, y: Tensor, h: Tensor, eps: float, weights: Tensor | None = None, *, p: float = 2.0
) -> Tensor:
    """Mean over the samples of ``p_ij``, the softmax probabilities of :func:`soft_moments`.

    Minus b, this is the gradient in h of the entropic semi-dual (Genevay, Cuturi, Peyre, Bach 2016). As eps -> 0 it
    tends to the fraction of the samples in each power cell.

    Args:
        x: samples, (m, d), m >= 1, float32 or float64.
        y: targets, (n, d), same dtype and device.
        h: heights, (n,); -inf for a target that is never chosen.
        eps: temperature, positive, in the units of a score.
        weights: b, (n,), non-negative; None means equal weights.
        p: exponent of the cost, > 1; for p != 2 the scores are ``h_j - |x_i - y_j|^p / p``.

    Returns:
        Masses, (n,) float64 whatever the dtype of x; they sum to 1. Sums over samples are accumulated in float64.

    Raises:
        TypeError: as :func:`soft_moments`.
        ValueError: as :func:`soft_moments`, or if there is no sample.
    """
    eps, p = check_eps(eps), check_p(p)
    with _plain_arithmetic(x):
        problem = prepare(x, y, h, eps, weights, p)
        if len(x) == 0:
            raise ValueError("soft_counts is a mean over samples, and x holds none; pass at least one sample.")
        counts = _answer("soft_counts", problem, eps, p=p) / len(x)
        if not all_finite(counts):
            _checked(problem, x.new_full((len(x),), math.nan))
        return problem.scatter(counts, 0.0)


@outside_graph
def slack(x: Tensor, y: Tensor, h: Tensor, *, p: float = 2.0) -> Tensor:
    """Distance of each plane to the potential over the samples: ``min_i u_h(x_i) - <x_i, y_j> - h_j >= 0``.

    Zero exactly for the targets that attain the maximum at some sample. Raising every h_j by its slack (the
    c-transform) makes each empty cell touch its samples and changes u_h at none of them.

    Args:
        x: samples, (m, d), float32 or float64.
        y: targets, (n, d), same dtype and device.
        h: heights, (n,); -inf for a target that is never chosen.
        p: exponent of the cost, > 1; for p != 2 the scores are ``h_j - |x_i - y_j|^p / p``.

    Returns:
        Slacks, (n,), in the dtype of x and never negative; +inf where h = -inf, and everywhere if m = 0.

    Raises:
        TypeError: as :func:`assign`.
        ValueError: as :func:`assign`.
    """
    p = check_p(p)
    with _plain_arithmetic(x):
        problem = prepare(x, y, h, p=p)
        if len(x) == 0:
            return x.new_full((problem.n,), math.inf)
        gaps = _answer("slack", problem, p=p)
        if not all_finite(gaps):
            _checked(problem, x.new_full((len(x),), math.nan))
        return problem.scatter(gaps.clamp_(min=0.0), math.inf)
