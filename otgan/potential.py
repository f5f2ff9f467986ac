"""The Brenier potential, and every sign and scale convention of the library.

Three descriptions of one function are in use, and nowhere but here is one turned into another:

- heights ``h``: ``u_h(x) = max_i <x, y_i> + h_i`` (what the solvers move);
- Kantorovich potentials of the cost |x-y|^2/2: ``phi(x) = |x|^2/2 - u_h(x)`` and ``psi_i = |y_i|^2/2 + h_i``, so that
  ``phi(x) + psi_i <= |x - y_i|^2/2``, with equality where x is in the cell of i;
- the same for the cost |x-y|^2, the convention of POT and OTT: both doubled, ``g_i = |y_i|^2 + 2 h_i``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from otgan import io, kernels
from otgan._checks import as_points, as_positive, as_tensor, as_weights, require_finite
from otgan.cellwise import CellwisePotential

if TYPE_CHECKING:
    from pathlib import Path

    from otgan._checks import ArrayLike

Cost = Literal["sqeuclidean", "half-sqeuclidean"]
_COST_FACTOR = {"half-sqeuclidean": 1.0, "sqeuclidean": 2.0}


class BrenierPotential(CellwisePotential):
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

    heights: Tensor
    center: Tensor
    p = 2.0
    precise = ("heights", "weights", "center")

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

    # ------------------------------------------------------- value and map

    def forward(self, x: ArrayLike) -> Tensor:
        """``u_h(x) = max_i <x, y_i> + h_i``, shape (m,); its gradient in x is :meth:`transport`.

        In float32 far from the origin the value itself is large and rounded; :meth:`kantorovich` and the map are not.
        """
        x = self._inputs(x)
        return self._value(x, self._index(x))

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
