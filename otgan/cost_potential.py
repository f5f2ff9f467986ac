"""The Kantorovich potential of a strictly convex cost ``c(x - y) = |x - y|^p / p``, and the transport map from it.

For p = 2 it is another description of the Brenier potential (see :mod:`otgan.potential`). For other exponents no convex
potential has the map as its gradient; ``T(x) = x - (grad c)^{-1}(grad phi(x))`` ties critic and generator all the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from otgan import io, kernels
from otgan._checks import as_exponent, as_points, as_positive, as_tensor, as_weights
from otgan.cellwise import CellwisePotential

if TYPE_CHECKING:
    from pathlib import Path

    from otgan._checks import ArrayLike


class KantorovichPotential(CellwisePotential):
    """``phi(x) = min_i |x - y_i|^p / p - psi_i`` over targets y_i with dual values psi_i, for p > 1.

    Then ``phi(x) + psi_i <= |x - y_i|^p / p``, with equality where x is in the cell of i: the cells are those of the
    scores ``psi_i - |x - y_i|^p / p``. The cost c is strictly convex, so phi alone determines the optimal map from the
    source to ``sum_i w_i delta(y_i)``, w_i being the masses of the cells: where phi is differentiable,
    ``T(x) = x - (grad c)^{-1}(grad phi(x))`` with ``(grad c)^{-1}(g) = |g|^(q-2) g``, ``1/p + 1/q = 1``, which is the
    target whose cell holds x (Gangbo, McCann, "The geometry of optimal transportation", Acta Math. 177, 1996).

    All methods take x of shape (m, d) as a tensor or an array, work on the device of the buffers, and compute in the
    wider of both dtypes. ``u(x)``, :meth:`kantorovich` and :meth:`smooth` are differentiable in x, once.

    Args:
        points: targets ``y_i``, shape (n, d).
        dual: ``psi_i``, shape (n,), for the cost ``|x - y|^p / p`` (POT's ``log["v"]`` for that cost matrix); -inf
            switches a target off. Kept in float64, as the buffer ``psi``.
        weights: masses ``b_i`` that the cells are meant to have, shape (n,); uniform when left out.
        p: exponent of the cost, > 1.

    Example:
        >>> u = KantorovichPotential([[0.0, 0.0], [1.0, 1.0]], [0.0, 0.0], p=3.0)
        >>> u.transport([[0.1, 0.1], [0.9, 0.9]])
        tensor([[0., 0.],
                [1., 1.]], dtype=torch.float64)
    """

    psi: Tensor
    precise = ("psi", "weights")

    def __init__(self, points: ArrayLike, dual: ArrayLike, weights: ArrayLike | None = None, p: float = 2.0) -> None:
        super().__init__()
        points = as_points(points, "points")
        psi = as_tensor(dual, "dual").to(device=points.device, dtype=torch.float64)
        if psi.shape != points.shape[:1]:
            raise ValueError(f"dual must have shape ({len(points)},), one a target, got {tuple(psi.shape)}.")
        if bool((psi.isnan() | (psi == torch.inf)).any()) or bool((psi == -torch.inf).all()):
            raise ValueError("dual must be finite or -inf (a target switched off), and not all -inf.")
        self.p = as_exponent(p)
        self.register_buffer("points", points.clone())
        self.register_buffer("psi", psi.clone())
        self.register_buffer("weights", as_weights(weights, len(points)).to(points.device))

    def extra_repr(self) -> str:
        """What ``print`` shows between the brackets."""
        return f"{super().extra_repr()}, p={self.p:g}"

    # ------------------------------------------------------ phi and its map

    def forward(self, x: ArrayLike) -> Tensor:
        """``phi(x)``; see :meth:`kantorovich`."""
        return self.kantorovich(x)

    def kantorovich(self, x: ArrayLike) -> Tensor:
        """Source-side potential ``phi(x) = min_i |x - y_i|^p / p - psi_i``, shape (m,): the critic.

        Its gradient is ``|x - T(x)|^(p-2) (x - T(x))``.
        """
        x = self._inputs(x)
        index = self._index(x)
        distance = torch.linalg.vector_norm(x - self.points.to(x.dtype)[index], dim=1)
        return distance**self.p / self.p - self.psi[index].to(x.dtype)

    def dual(self) -> Tensor:
        """Target-side potential psi, shape (n,), float64: ``phi(x) + psi_i <= |x - y_i|^p / p``."""
        return self.psi

    def top_k(self, x: ArrayLike, k: int) -> kernels.TopK:
        """The ``k`` best targets of each x and their scores ``psi_i - |x - y_i|^p / p``, both (m, k), best first."""
        x = self._inputs(x)
        index = kernels.top_k(*self._scores(x), k, p=self.p).index
        distance = torch.linalg.vector_norm(x[:, None] - self.points.to(x.dtype)[index], dim=2)
        return kernels.TopK(index, self.psi[index].to(x.dtype) - distance**self.p / self.p)

    def map_from_gradient(self, x: ArrayLike, reg: float | None = None) -> Tensor:
        """``x - (grad c)^{-1}(grad phi(x))``, the gradient taken by autograd, shape (m, d).

        Where phi is differentiable this is :meth:`transport`, up to the rounding of the powers; with ``reg`` the
        gradient is that of :meth:`smooth` and the map :meth:`smooth_transport`.
        """
        x = self._inputs(x).detach()
        with torch.enable_grad():
            at = x.clone().requires_grad_()
            value = self.kantorovich(at) if reg is None else self.smooth(at, reg)
            (gradient,) = torch.autograd.grad(value.sum(), at)
        return x - inverse_cost_gradient(gradient, self.p)

    # ------------------------------------------------------ smoothed family

    def smooth(self, x: ArrayLike, reg: float) -> Tensor:
        """``phi_eps(x) = -eps log sum_i b_i exp((psi_i - |x - y_i|^p / p) / eps)``, eps = ``reg`` > 0, shape (m,).

        The unit of ``reg`` is that of the cost. For p = 2 it is ``|x|^2/2 - u_h^eps(x)``.
        """
        x = self._inputs(x)
        value = _SmoothMin.apply(x, *self._smoothing(x), as_positive(reg, "reg"), self.p)
        return value - self._constant

    def smooth_transport(self, x: ArrayLike, reg: float) -> Tensor:
        """Entropic map ``T_eps(x) = x - (grad c)^{-1}(grad phi_eps(x))``, eps = ``reg``, shape (m, d).

        ``grad phi_eps(x) = sum_i p_i(x) grad c(x - y_i)``, ``p_i ~ b_i exp((psi_i - c(x - y_i)) / eps)``: the map that
        belongs to the smoothed potential, as T belongs to phi (Cuturi, Klein, Ablin, "Monge, Bregman and Occam", ICML
        2023). For p = 2 it is the barycentre ``sum_i p_i y_i``; for other exponents it is not, and only this one keeps
        generator and critic tied. It tends to :meth:`transport` as ``reg`` tends to 0.
        """
        x = self._inputs(x).detach()
        if self.p == 2.0:
            return self.barycentre(x, reg)
        y, psi, weights = self._smoothing(x)
        pull = kernels.soft_gradient(x, y, psi, as_positive(reg, "reg"), weights, p=self.p).gradient
        return x + inverse_cost_gradient(pull, self.p)

    def barycentre(self, x: ArrayLike, reg: float) -> Tensor:
        """``sum_i p_i(x) y_i``, shape (m, d), inside the convex hull of the targets; see :meth:`smooth_transport`."""
        x = self._inputs(x)
        middle = self._middle().to(x.dtype)
        y, psi, weights = self._smoothing(x)
        if self.p == 2.0:
            x, y, psi = _inner_products(x - middle, y - middle, psi)
            return kernels.soft_moments(x, y, psi, as_positive(reg, "reg"), weights).mean + middle
        return kernels.soft_moments(x, y, psi, as_positive(reg, "reg"), weights, p=self.p).mean

    def save(self, path: str | Path) -> Path:
        """Write config.json and model.safetensors into the folder ``path``; :func:`otgan.load` reads it back."""
        config = {"n": self.n, "dim": self.dim, "p": self.p}
        return io.save(path, "KantorovichPotential", config, dict(self.state_dict()))

    # -------------------------------------------------------------- inside

    @property
    def _constant(self) -> float:
        """What float32 must not carry along with psi."""
        return float(self.psi[torch.isfinite(self.psi)].median())

    def _scores(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Kernel arguments whose best targets are those of x; a constant of psi is left out."""
        x, y = x.detach(), self.points.to(x.dtype)
        psi = self.psi - self._constant
        if self.p == 2.0:
            middle = self._middle().to(x.dtype)
            return _inner_products(x - middle, y - middle, psi)
        return x, y, psi.to(x.dtype)

    def _smoothing(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.points.to(x.dtype), (self.psi - self._constant).to(x.dtype), self.weights.to(x.dtype)

    def _index(self, x: Tensor) -> Tensor:
        return kernels.assign(*self._scores(x), p=self.p).index


@io.register("KantorovichPotential")
def _load_potential(config: dict[str, Any], tensors: dict[str, Tensor]) -> KantorovichPotential:
    return KantorovichPotential(tensors["points"], tensors["psi"], tensors["weights"], config["p"])


class _SmoothMin(torch.autograd.Function):
    """Minus the log-sum-exp of the scores, by the streaming kernel, with its gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, psi: Tensor, weights: Tensor, reg: float, p: float) -> Tensor:
        at = x.detach()
        if p == 2.0:
            middle = y.median(dim=0).values
            centred = at - middle
            soft = kernels.soft_gradient(*_inner_products(centred, y - middle, psi), reg, weights)
            ctx.save_for_backward(centred - soft.gradient)
            return 0.5 * (centred**2).sum(dim=1) - soft.value
        soft = kernels.soft_gradient(at, y, psi, reg, weights, p=p)
        ctx.save_for_backward(-soft.gradient)
        return -soft.value

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None, None, None]:
        (gradient,) = ctx.saved_tensors
        return grads[0][:, None] * gradient, None, None, None, None, None


def _inner_products(x: Tensor, y: Tensor, psi: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Kernel arguments of p = 2: ``psi_i - |x - y_i|^2/2 = <x, y_i> + h_i - |x|^2/2``, ``h_i = psi_i - |y_i|^2/2``."""
    return x, y, (psi.double() - 0.5 * (y.double() ** 2).sum(dim=1)).to(x.dtype)


def inverse_cost_gradient(gradient: Tensor, p: float) -> Tensor:
    """``(grad c)^{-1}(g) = |g|^(q-2) g`` with ``1/p + 1/q = 1``, for g of shape (m, d); 0 at g = 0."""
    length = torch.linalg.vector_norm(gradient, dim=1, keepdim=True)
    power = length ** ((2.0 - p) / (p - 1.0))  # q - 2
    return torch.where(length > 0.0, power * gradient, torch.zeros_like(gradient))
