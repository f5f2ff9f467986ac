"""Legendre conjugates of smooth convex functions, many points at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Callable

    ValueAndGradient = Callable[[Tensor], tuple[Tensor, Tensor]]


class Conjugate(NamedTuple):
    """Answer of :func:`conjugate`.

    Attributes:
        argument: z with ``grad N(z) = t`` as nearly as the iterations got, shape (m, d).
        value: ``N*(t) = <z, t> - N(z)`` (a lower bound of it, tight to second order), shape (m,).
        residual: ``|grad N(z) - t|``, shape (m,).
    """

    argument: Tensor
    value: Tensor
    residual: Tensor


@torch.no_grad()
def conjugate(
    function: ValueAndGradient, t: Tensor, start: Tensor, iterations: int = 100, tol: float = 0.0, memory: int = 5
) -> Conjugate:
    """``N*(t) = max_z <z, t> - N(z)`` for every row of t, by L-BFGS steps from ``start``.

    All rows move at once, each with its own curvature pairs and step; a step that lowers neither the objective nor the
    residual is shortened and tried again (Nocedal, Math. Comp. 35, 1980, for the two loops; Amos, "On amortizing convex
    conjugates for optimal transport", ICLR 2023, for exact conjugates in this place).

    Args:
        function: z, shape (m, d) -> N(z), shape (m,), and grad N(z), shape (m, d), of a convex N.
        t: where, shape (m, d).
        start: first z, shape (m, d).
        iterations: evaluations at most, after the first.
        tol: ends when every residual is below.
        memory: curvature pairs.
    """
    z = start
    value, gradient = function(z)
    value, gradient = value - (z * t).sum(dim=1), gradient - t
    norm = gradient.square().sum(dim=1)
    step = torch.ones_like(value)[:, None]
    pairs: list[tuple[Tensor, Tensor, Tensor]] = []
    for _ in range(iterations):
        if tol > 0.0 and float(norm.max()) <= tol**2:
            break
        tried = z - step * _two_loops(gradient, pairs)
        value_tried, gradient_tried = function(tried)
        value_tried, gradient_tried = value_tried - (tried * t).sum(dim=1), gradient_tried - t
        norm_tried = gradient_tried.square().sum(dim=1)
        pairs.append(_pair(tried - z, gradient_tried - gradient))
        del pairs[:-memory]
        better = (value_tried <= value) | (norm_tried < norm)
        column = better[:, None]
        z, gradient = torch.where(column, tried, z), torch.where(column, gradient_tried, gradient)
        value, norm = torch.where(better, value_tried, value), torch.where(better, norm_tried, norm)
        step = torch.where(column, (2.0 * step).clamp(max=1.0), 0.3 * step)
    return Conjugate(z, -value, norm.sqrt())


def _pair(s: Tensor, g: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Step, change of the gradient, and one over their product; 0 where a row did not move."""
    product = (s * g).sum(dim=1, keepdim=True)
    least = torch.finfo(s.dtype).tiny * 1e6
    return s, g, torch.where(product > least, 1.0 / product.clamp_min(least), 0.0)


def _two_loops(gradient: Tensor, pairs: list[tuple[Tensor, Tensor, Tensor]]) -> Tensor:
    """Inverse Hessian times gradient, from the curvature pairs of each row."""
    q = gradient
    coefficients = []
    for s, g, rho in reversed(pairs):
        a = rho * (s * q).sum(dim=1, keepdim=True)
        coefficients.append(a)
        q = q - a * g
    if pairs:
        _, g, rho = pairs[-1]
        square = g.square().sum(dim=1, keepdim=True)
        q = q * torch.where(rho > 0, 1.0 / (rho * square), 1.0).clamp(1e-3, 1e3)
    for (s, g, rho), a in zip(pairs, reversed(coefficients), strict=True):
        q = q + s * (a - rho * (g * q).sum(dim=1, keepdim=True))
    return q
