"""The Brenier potential, and every sign and scale convention of the library.

Three descriptions of one function are in use, and nowhere but here is one turned into another:

- heights ``h``: ``u_h(x) = max_i <x, y_i> + h_i`` (what the solvers move);
- Kantorovich potentials of the cost |x-y|^2/2: ``phi(x) = |x|^2/2 - u_h(x)`` and ``psi_i = |y_i|^2/2 + h_i``, so that
  ``phi(x) + psi_i <= |x - y_i|^2/2``, with equality where x is in the cell of i;
- the same for the cost |x-y|^2, the convention of POT and OTT: both doubled, ``g_i = |y_i|^2 + 2 h_i``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from otgan import io, kernels
from otgan._checks import as_points, as_positive, as_tensor, as_weights, require_finite
from otgan.measures import DiscreteMeasure, Source

if TYPE_CHECKING:
    from pathlib import Path

    from otgan._checks import ArrayLike

Cost = Literal["sqeuclidean", "half-sqeuclidean"]
_COST_FACTOR = {"half-sqeuclidean": 1.0, "sqeuclidean": 2.0}


class BrenierPotential(nn.Module):
    """Convex, piecewise linear ``u_h(x) = max_i <x, y_i> + h_i`` over targets y_i with heights h_i.

    Its gradient ``T_h(x) = y_i`` on the power cell of i is the optimal transport map from the source to the measure
    ``sum_i w_i(h) delta(y_i)`` (Brenier; Gu, Luo, Sun, Yau, "Variational principles for Minkowski type problems",
    2016), and its Legendre partner is the Kantorovich potential: one object is generator and critic.

    All methods take x of shape (m, d) as a tensor or an array, work on the device of the buffers, and compute in the
    wider of both dtypes. ``u(x)``, :meth:`kantorovich` and :meth:`smooth` are differentiable in x, once.

    Args:
        points: targets ``y_i``, shape (n, d).
        heights: ``h_i``, shape (n,); -inf switches a target off. Kept in float64.
        weights: masses ``b_i`` that the heights are meant to reach, shape (n,); uniform when left out.
        center: a point near which the potential is evaluated (the source's mean), shape (d,). It changes rounding
            only: far from the origin, scores are formed relative to it. The origin when left out.

    Example:
        >>> u = BrenierPotential([[0.0, 0.0], [1.0, 1.0]], [0.0, -1.0])
        >>> u.transport([[0.1, 0.1], [0.9, 0.9]])
        tensor([[0., 0.],
                [1., 1.]], dtype=torch.float64)
    """

    points: Tensor
    heights: Tensor
    weights: Tensor
    center: Tensor
    p = 2.0  # exponent of the cost |x - y|^p / p

    def __init__(
        self,
        points: ArrayLike,
        heights: ArrayLike,
        weights: ArrayLike | None = None,
        center: ArrayLike | None = None,
    ) -> None:
        super().__init__()
        points = as_points(points, "points")
        n, dim = points.shape
        heights = as_tensor(heights, "heights").to(device=points.device, dtype=torch.float64)
        if heights.shape != (n,):
            raise ValueError(f"heights must have shape ({n},), one a target, got {tuple(heights.shape)}.")
        if bool((heights.isnan() | (heights == torch.inf)).any()) or bool((heights == -torch.inf).all()):
            raise ValueError("heights must be finite or -inf (a target switched off), and not all -inf.")
        if center is None:
            center = torch.zeros(dim, dtype=torch.float64)
        center = as_tensor(center, "center")
        if center.shape != (dim,):
            raise ValueError(f"center must have shape ({dim},), got {tuple(center.shape)}.")
        require_finite(center, "center")
        self.register_buffer("points", points.clone())
        self.register_buffer("heights", heights.clone())
        self.register_buffer("weights", as_weights(weights, n).to(points.device))
        self.register_buffer("center", center.to(device=points.device, dtype=torch.float64).clone())

    @classmethod
    def from_dual(
        cls, points: ArrayLike, dual: ArrayLike, weights: ArrayLike | None = None, cost: Cost = "sqeuclidean"
    ) -> BrenierPotential:
        """From a target-side dual potential: ``h_i = (g_i - |y_i|^2) / 2`` for the cost |x-y|^2.

        ``dual`` is what POT returns as ``log["v"]`` for ``ot.dist(X, Y)``, shape (n,).
        """
        y = as_points(points, "points")
        g = as_tensor(dual, "dual").to(device=y.device, dtype=torch.float64)
        return cls(y, heights_from_dual(y, g, cost), weights)

    # ------------------------------------------------------------------ shape

    @property
    def n(self) -> int:
        """Number of targets."""
        return int(self.points.shape[0])

    @property
    def dim(self) -> int:
        """Dimension d."""
        return int(self.points.shape[1])

    def extra_repr(self) -> str:
        """What ``print`` shows between the brackets."""
        return f"n={self.n}, dim={self.dim}"

    # ------------------------------------------------------- value and map

    def forward(self, x: ArrayLike) -> Tensor:
        """``u_h(x) = max_i <x, y_i> + h_i``, shape (m,); its gradient in x is :meth:`transport`.

        In float32 far from the origin the value itself is large and rounded; :meth:`kantorovich` and the map are not.
        """
        x = self._inputs(x)
        return self._value(x, self._index(x))

    def transport(self, x: ArrayLike) -> Tensor:
        """Optimal transport map ``T_h(x) = y_i`` with i the best target, shape (m, d)."""
        x = self._inputs(x)
        return self.points.to(x.dtype)[self._index(x)]

    def assign(self, x: ArrayLike) -> Tensor:
        """Number of the power cell that holds x, shape (m,), int64; the lowest number on a boundary."""
        return self._index(self._inputs(x))

    def top_k(self, x: ArrayLike, k: int) -> kernels.TopK:
        """The ``k`` best targets of each x and their scores ``<x, y_i> + h_i``, both (m, k), best first."""
        x = self._inputs(x)
        best = kernels.top_k(*self._scores(x)[:3], k)
        value = torch.einsum("md,mkd->mk", x, self.points.to(x.dtype)[best.index]) + self.heights[best.index].to(
            x.dtype
        )
        return kernels.TopK(best.index, value)

    # ------------------------------------------------------ smoothed family

    def smooth(self, x: ArrayLike, reg: float) -> Tensor:
        """``u_h^eps(x) = eps log sum_i b_i exp((<x, y_i> + h_i) / eps)``, eps = ``reg`` > 0, shape (m,).

        The unit of ``reg`` is that of the scores: length of x times length of y. Gradient: :meth:`smooth_transport`.
        """
        x = self._inputs(x)
        _, y, h, constant = self._scores(x)
        value = _SmoothMax.apply(x - self.center.to(x.dtype), y, h, as_positive(reg, "reg"), self.weights)
        return value + x @ self._middle().to(x.dtype) + constant

    def smooth_transport(self, x: ArrayLike, reg: float) -> Tensor:
        """Entropic map ``sum_i p_i(x) y_i``, ``p_i ~ b_i exp((<x, y_i> + h_i) / eps)``, eps = ``reg``, shape (m, d).

        A barycentre of targets: smooth in x, and not a copy of any one of them (Pooladian, Divol, Niles-Weed,
        "Minimax estimation of discontinuous optimal transport maps", ICML 2023). It tends to :meth:`transport` as
        ``reg`` tends to 0.
        """
        x = self._inputs(x)
        moments = kernels.soft_moments(*self._scores(x)[:3], as_positive(reg, "reg"), weights=self.weights.to(x.dtype))
        return moments.mean + self._middle().to(x.dtype)

    # ------------------------------------------------------------ dual side

    def kantorovich(self, x: ArrayLike, cost: Cost = "half-sqeuclidean") -> Tensor:
        """Source-side Kantorovich potential, shape (m,): ``phi(x) = |x|^2/2 - u_h(x)`` for the cost |x-y|^2/2.

        With ``cost="sqeuclidean"`` twice that. This is the critic. Far from the origin the gauge of the heights makes a
        large constant of it, in which float32 loses the differences: pass float64 there, or centre the data.
        """
        x = self._inputs(x)
        index = self._index(x)
        # |x|^2/2 - <x, y_i> - h_i = |x - y_i|^2/2 - psi_i: no cancellation far from the origin.
        psi = dual_from_heights(self.points, self.heights, "half-sqeuclidean")[index].to(x.dtype)
        return _factor(cost) * (0.5 * ((x - self.points.to(x.dtype)[index]) ** 2).sum(dim=1) - psi)

    def dual(self, cost: Cost = "sqeuclidean") -> Tensor:
        """Target-side dual potential, shape (n,), float64: ``g_i = |y_i|^2 + 2 h_i`` for the cost |x-y|^2.

        The convention of POT (``log["v"]``) up to an additive constant; half of it for ``cost="half-sqeuclidean"``.
        Together with :meth:`kantorovich` of the same cost, ``phi(x) + g_i <= c(x, y_i)``.
        """
        return dual_from_heights(self.points, self.heights, cost)

    def conjugate(self, y: ArrayLike) -> Tensor:
        """Legendre conjugate ``u_h*(y) = max_x <x, y> - u_h(x)``, shape (m,), float64.

        On the convex hull of the targets it is the convex envelope of ``y_i -> -h_i``, outside it is +inf. At a
        target whose cell is not empty it is ``-h_i``. One small linear programme a point: exact in every dimension.
        """
        y = as_points(y, "y", self.dim, allow_empty=True)
        at = y.detach().to(device="cpu", dtype=torch.float64).numpy()
        live = torch.isfinite(self.heights)
        points = self.points[live].to(device="cpu", dtype=torch.float64).numpy()
        return torch.from_numpy(_convex_envelope(points, -self.heights[live].double().cpu().numpy(), at)).to(y.device)

    def save(self, path: str | Path) -> Path:
        """Write config.json and model.safetensors into the folder ``path``; :func:`otgan.load` reads it back."""
        return io.save(path, "BrenierPotential", {"n": self.n, "dim": self.dim}, dict(self.state_dict()))

    # -------------------------------------------------------------- inside

    def _inputs(self, x: ArrayLike) -> Tensor:
        """Checked x on the buffers' device, in the wider dtype; a tensor keeps its graph."""
        if isinstance(x, Tensor) and x.device != self.points.device:
            raise ValueError(f"x is on {x.device} but the potential is on {self.points.device}; move one with .to().")
        checked = as_points(x, "x", self.dim, allow_empty=True)
        if isinstance(x, Tensor) and x.is_floating_point():
            checked = x  # the caller's tensor, with its graph
        return checked.to(device=self.points.device, dtype=torch.promote_types(checked.dtype, self.points.dtype))

    def _middle(self) -> Tensor:
        """A point among the targets: coordinate-wise median, which no outlier moves."""
        return self.points.median(dim=0).values.to(torch.float64)

    def _apply(self, fn: Any, recurse: bool = True) -> BrenierPotential:
        """Moves and casts reach the points alone in precision: heights, weights and centre stay in float64."""
        precise = {name: getattr(self, name) for name in ("heights", "weights", "center")}
        super()._apply(fn, recurse)
        for name, value in precise.items():
            setattr(self, name, value.to(self.points.device))
        return self

    def _scores(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, float]:
        """Kernel arguments x', y', h' and a constant, chosen so that a shift of the data costs no digits.

        With x = s + x' and y = c + y', ``<x, y_i> + h_i = <x', y'_i> + h'_i + <x, c> + constant`` where
        ``h'_i = h_i + <s, y'_i> - constant``: the best target is the same.
        """
        shifted = self.points.to(torch.float64) - self._middle()
        heights = self.heights.to(torch.float64) + shifted @ self.center.to(torch.float64)
        constant = float(heights[torch.isfinite(heights)].median())
        centred = x.detach() - self.center.to(x.dtype)
        return centred, shifted.to(x.dtype), (heights - constant).to(x.dtype), constant

    def _index(self, x: Tensor) -> Tensor:
        return kernels.assign(*self._scores(x)[:3]).index

    def _value(self, x: Tensor, index: Tensor) -> Tensor:
        return (x * self.points.to(x.dtype)[index]).sum(dim=1) + self.heights[index].to(x.dtype)


@io.register("BrenierPotential")
def _load_potential(config: dict[str, Any], tensors: dict[str, Tensor]) -> BrenierPotential:
    return BrenierPotential(**tensors)


class _SmoothMax(torch.autograd.Function):
    """Log-sum-exp of the scores by the streaming kernel, with the entropic map as its gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, h: Tensor, reg: float, weights: Tensor) -> Tensor:
        moments = kernels.soft_moments(x.detach(), y, h, reg, weights=weights.to(x.dtype))
        ctx.save_for_backward(moments.mean)
        return moments.value

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None, None]:
        (mean,) = ctx.saved_tensors
        return grads[0][:, None] * mean, None, None, None, None


# ---------------------------------------------------------------- conventions


def _factor(cost: str) -> float:
    if cost not in _COST_FACTOR:
        raise ValueError(f"Unknown cost {cost!r}; expected one of {sorted(_COST_FACTOR)}.")
    return _COST_FACTOR[cost]


def heights_from_dual(points: Tensor, dual: Tensor, cost: Cost = "sqeuclidean") -> Tensor:
    """``h_i = psi_i - |y_i|^2/2`` with psi the target-side potential of |x-y|^2/2, shape (n,), float64."""
    if dual.shape != points.shape[:1]:
        raise ValueError(f"dual must have shape ({points.shape[0]},), one a target, got {tuple(dual.shape)}.")
    return dual.double() / _factor(cost) - 0.5 * (points.double() ** 2).sum(dim=1)


def dual_from_heights(points: Tensor, heights: Tensor, cost: Cost = "sqeuclidean") -> Tensor:
    """``psi_i = |y_i|^2/2 + h_i``, times 2 for the cost |x-y|^2; shape (n,), float64."""
    return _factor(cost) * (0.5 * (points.double() ** 2).sum(dim=1) + heights.double())


def voronoi_heights(points: Tensor) -> Tensor:
    """``h_i = -|y_i|^2/2``: the power diagram is then the Voronoi diagram of the targets; shape (n,), float64."""
    return -0.5 * (points.double() ** 2).sum(dim=1)


def fix_gauge(heights: Tensor, weights: Tensor) -> Tensor:
    """The same potential with ``sum_i b_i h_i = 0`` (over the finite heights)."""
    finite = torch.isfinite(heights)
    mass = weights[finite].sum()
    return heights - (weights[finite] * heights[finite]).sum() / mass


@dataclass(frozen=True)
class Standardization:
    """Affine changes of variable that make a problem centred and of unit size.

    With ``x = s + p x'`` and ``y = c + q y'``, ``<x, y_i> + h_i = p q (<x', y'_i> + h'_i)`` + terms that do not depend
    on i, where ``h_i = p q h'_i - <s, y_i - c>``: cells, masses and map are the same, so a solver that works in
    x', y', h' gives one answer whatever the units and the origin of the data.

    Attributes:
        source_shift: s, shape (d,), float64.
        source_scale: p > 0.
        target_shift: c, shape (d,), float64.
        target_scale: q > 0.
    """

    source_shift: Tensor
    source_scale: float
    target_shift: Tensor
    target_scale: float

    @staticmethod
    def of(source: Source, target: DiscreteMeasure, p: float = 2.0) -> Standardization:
        """What suits the cost ``|x - y|^p / p``.

        For p = 2 zero mean and one unit of variance a coordinate on average, on both sides; for other exponents a
        :class:`CommonStandardization`.
        """
        if p == 2.0:
            scales = _scale(source.variance, source.dim), _scale(target.variance, target.dim)
            return Standardization(source.mean, scales[0], target.mean, scales[1])
        apart = source.mean - target.mean
        scale = (source.variance + target.variance + float(apart @ apart)) ** 0.5 or 1.0
        variation = (source.variance * target.variance / source.dim) ** 0.5 / scale**2
        return CommonStandardization(target.mean, scale, target.mean, scale, p, variation or 1.0)

    @property
    def score_scale(self) -> float:
        """Typical difference of two targets' scores, in scaled variables."""
        return math.sqrt(len(self.source_shift))

    @property
    def height_scale(self) -> float:
        """What a height is multiplied by on the way back: p q."""
        return self.source_scale * self.target_scale

    def voronoi(self, y: Tensor) -> Tensor:
        """Heights h' for which the cells of the scaled targets y', shape (n, d), are their Voronoi cells."""
        return voronoi_heights(y)

    def source(self, x: Tensor) -> Tensor:
        """``x' = (x - s) / p``."""
        return (x - self.source_shift.to(x)) / self.source_scale

    def target(self, y: Tensor) -> Tensor:
        """``y' = (y - c) / q``, float64."""
        return (y.double() - self.target_shift.to(y.device)) / self.target_scale

    def heights(self, scaled: Tensor, points: Tensor) -> Tensor:
        """``h_i = p q h'_i - <s, y_i - c>``."""
        offset = (points.double() - self.target_shift.to(points.device)) @ self.source_shift.to(points.device)
        return self.height_scale * scaled.double() - offset

    def scaled_heights(self, heights: Tensor, points: Tensor) -> Tensor:
        """Inverse of :meth:`heights`."""
        offset = (points.double() - self.target_shift.to(points.device)) @ self.source_shift.to(points.device)
        return (heights.double() + offset) / self.height_scale


@dataclass(frozen=True)
class CommonStandardization(Standardization):
    """One change of variables for both sides: all that a cost of distances survives.

    With ``x = s + r x'`` and ``y = s + r y'``, ``psi_i - |x - y_i|^p / p = r^p (psi'_i - |x' - y'_i|^p / p)`` for
    ``psi_i = r^p psi'_i``, and what is called heights is psi. Here s is the mean of the targets and
    ``r^2 = E |x - y|^2`` of independent x and y, so that a typical cost is of order 1 whatever p.

    Attributes:
        p: exponent of the cost.
        variation: ``sqrt(V_x V_y / d) / r^2``: the standard deviation of ``<x', y'>``, and by how much the costs of two
            targets typically differ from one x to another.
    """

    p: float
    variation: float

    @property
    def score_scale(self) -> float:
        """Typical difference of two targets' scores, in scaled variables."""
        return self.variation

    @property
    def height_scale(self) -> float:
        """``r^p``."""
        return self.target_scale**self.p

    def voronoi(self, y: Tensor) -> Tensor:
        """``psi' = 0``, shape (n,), float64."""
        return torch.zeros(len(y), dtype=torch.float64, device=y.device)

    def heights(self, scaled: Tensor, points: Tensor) -> Tensor:
        """``psi_i = r^p psi'_i``."""
        return self.height_scale * scaled.double()

    def scaled_heights(self, heights: Tensor, points: Tensor) -> Tensor:
        """Inverse of :meth:`heights`."""
        return heights.double() / self.height_scale


def _scale(variance: float, dim: int) -> float:
    scale = (variance / dim) ** 0.5
    return scale if scale > 0.0 else 1.0


def _convex_envelope(points: np.ndarray, values: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Convex envelope of ``points -> values`` at each row y: min sum l_i v_i, l >= 0, sum l_i (y_i, 1) = (y, 1)."""
    from scipy.optimize import linprog

    shift, scale = points.mean(axis=0), max(float(np.ptp(points, axis=0).max()), np.finfo(float).tiny)
    rows = np.vstack([(points - shift).T / scale, np.ones(len(points))])
    low, spread = values.min(), max(float(np.ptp(values)), np.finfo(float).tiny)
    out = np.empty(len(at))
    for k, y in enumerate(at):
        answer = linprog((values - low) / spread, A_eq=rows, b_eq=np.append((y - shift) / scale, 1.0), method="highs")
        if answer.status == 2:
            out[k] = np.inf
        elif answer.status == 0:
            out[k] = low + spread * float(answer.fun)  # type: ignore[arg-type]
        else:
            raise RuntimeError(f"The linear programme of the conjugate at row {k} ended with: {answer.message}")
    return out
