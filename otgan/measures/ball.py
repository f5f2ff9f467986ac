"""Uniform measure on a ball."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from otgan._checks import as_count, as_length, as_tensor, require_finite, require_scale
from otgan.measures.base import Source

if TYPE_CHECKING:
    from otgan._checks import ArrayLike


class UniformBall(Source):
    """Uniform on the ball ``{x : |x - center| <= radius}``.

    A draw is ``center + radius * u^(1/d) * z / |z|`` with u uniform and z Gaussian; ``E |x - center|^2 =
    radius^2 d / (d + 2)``.

    Args:
        dim: dimension d.
        radius: > 0.
        center: shape (d,); the origin when left out.

    Example:
        >>> float(UniformBall(3).sample(100, seed=0).norm(dim=1).max()) <= 1
        True
    """

    def __init__(self, dim: int, radius: float = 1.0, center: ArrayLike | None = None) -> None:
        dim = as_count(dim, "dim", 1)
        self.radius = as_length(radius, "radius")
        self.center = torch.zeros(dim, dtype=torch.float64)
        if center is not None:
            given = as_tensor(center, "center").to(device="cpu", dtype=torch.float64)
            if given.shape != (dim,):
                raise ValueError(f"center must have shape ({dim},), got {tuple(given.shape)}.")
            require_finite(given, "center")
            require_scale(given, "center")
            self.center = given.clone()

    @property
    def mean(self) -> Tensor:
        """The centre."""
        return self.center

    @property
    def variance(self) -> float:
        """``radius^2 d / (d + 2)``."""
        return self.radius**2 * self.dim / (self.dim + 2)

    @property
    def _sobol_dim(self) -> int:
        return self.dim + 1  # a direction and a radius

    def _sample(self, m: int, generator: torch.Generator, device: torch.device, dtype: torch.dtype) -> Tensor:
        z = torch.randn(m, self.dim, generator=generator, device=device, dtype=dtype)
        u = torch.rand(m, 1, generator=generator, device=device, dtype=dtype)
        return self._place(z, u)

    def _from_uniform(self, u: Tensor) -> Tensor:
        return self._place(torch.special.ndtri(u[:, :-1]), u[:, -1:])

    def _place(self, z: Tensor, u: Tensor) -> Tensor:
        length = z.norm(dim=1, keepdim=True).clamp_min(torch.finfo(z.dtype).tiny)
        return self.center.to(z) + (self.radius * u ** (1.0 / self.dim)) * (z / length)

    def state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Radius and centre."""
        return {"radius": self.radius}, {"center": self.center}

    @classmethod
    def from_state(cls, config: dict[str, Any], tensors: dict[str, Tensor]) -> UniformBall:
        """Inverse of :meth:`state`."""
        center = tensors["center"]
        return cls(center.shape[0], config["radius"], center)

    def __repr__(self) -> str:
        where = "" if not bool(self.center.any()) else f", center={self.center.tolist() if self.dim <= 4 else '...'}"
        return f"UniformBall(dim={self.dim}, radius={self.radius:g}{where})"
