"""Affine coordinates in which source and target have the same covariance."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

_FLOOR = 1e-6  # of the largest eigenvalue: below it a direction counts as absent from the data


class Coordinates(nn.Module):
    r"""Changes of variable ``z = A (x - s)`` and ``t = A^{-1} (y - c) / q`` that turn gradients into gradients.

    If ``u(x) = q N(A (x - s)) + <x, c>`` then ``grad u(x) = c + q A grad N(z)``: N is convex where u is, and the
    optimal map in x, y is the optimal map in z, t. With the Bures map M between the covariances,

        M = C_x^{-1/2} (C_x^{1/2} C_y C_x^{1/2})^{1/2} C_x^{-1/2},   A = M^{1/2} / r,   q = r^2,

    z and t have the same covariance, of mean eigenvalue 1: the optimal affine map has become the identity, which is
    where the networks start.

    Args:
        source_mean: s, shape (d,).
        source_cov: C_x, shape (d, d).
        target_mean: c, shape (d,).
        target_cov: C_y, shape (d, d).
    """

    source_mean: Tensor
    target_mean: Tensor
    matrix: Tensor
    inverse: Tensor
    scale: Tensor

    def __init__(self, source_mean: Tensor, source_cov: Tensor, target_mean: Tensor, target_cov: Tensor) -> None:
        super().__init__()
        source_cov, target_cov = source_cov.double().cpu(), target_cov.double().cpu()
        root, inverse_root = _power(source_cov, 0.5), _power(source_cov, -0.5)
        bures = inverse_root @ _power(root @ _regular(target_cov) @ root, 0.5) @ inverse_root
        matrix, inverse = _power(bures, 0.5), _power(bures, -0.5)
        variance = float(torch.trace(matrix @ _regular(source_cov) @ matrix)) / len(matrix)
        self.register_buffer("source_mean", source_mean.double().cpu())
        self.register_buffer("target_mean", target_mean.double().cpu())
        self.register_buffer("matrix", matrix / variance**0.5)
        self.register_buffer("inverse", inverse * variance**0.5)
        self.register_buffer("scale", torch.tensor(variance, dtype=torch.float64))

    @classmethod
    def of(cls, x: Tensor, y: Tensor, weights: Tensor | None = None) -> Coordinates:
        """From samples of the source, shape (m, d), and of the target, shape (n, d), with weights (n,) if any."""
        return cls(*_moments(x), *_moments(y, weights))

    @property
    def dim(self) -> int:
        """Dimension d."""
        return int(self.matrix.shape[0])

    def source(self, x: Tensor) -> Tensor:
        """``z = A (x - s)``, shape (m, d), in the dtype of x."""
        return (x - self.source_mean.to(x)) @ self.matrix.to(x)

    def source_back(self, z: Tensor) -> Tensor:
        """``x = s + A^{-1} z``."""
        return self.source_mean.to(z) + z @ self.inverse.to(z)

    def target(self, y: Tensor) -> Tensor:
        """``t = A^{-1} (y - c) / q``."""
        return (y - self.target_mean.to(y)) @ (self.inverse / self.scale).to(y)

    def target_back(self, t: Tensor) -> Tensor:
        """``y = c + q A t``."""
        return torch.addmm(self.target_mean.to(t), t, (self.matrix * self.scale).to(t))

    def _apply(self, fn: Any, recurse: bool = True) -> Coordinates:
        """Casts leave the coordinates in float64; moves reach them."""
        precise = {name: value for name, value in self._buffers.items() if value is not None}
        super()._apply(fn, recurse)
        for name, value in precise.items():
            setattr(self, name, value.to(getattr(self, name).device))
        return self


def _moments(x: Tensor, weights: Tensor | None = None) -> tuple[Tensor, Tensor]:
    x = x.double()
    a = torch.full((len(x),), 1.0 / len(x), dtype=torch.float64, device=x.device) if weights is None else weights
    mean = a @ x
    apart = x - mean
    return mean, (apart * a[:, None]).T @ apart


def _regular(cov: Tensor) -> Tensor:
    """The matrix with its eigenvalues kept from 0; the identity for a single point."""
    return _power(cov, 1.0)


def _power(matrix: Tensor, exponent: float) -> Tensor:
    values, vectors = torch.linalg.eigh((matrix + matrix.T) / 2)
    largest = float(values[-1])
    values = values.clamp_min(_FLOOR * largest) if largest > 0.0 else torch.ones_like(values)
    return (vectors * values**exponent) @ vectors.T
