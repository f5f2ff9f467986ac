"""Probability measures on the line, with the integrals over intervals that exact cells need."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import ndtr, ndtri, roots_legendre

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    Floats = NDArray[np.float64]

# Shorter intervals than this (in standard deviations, times 1 + |z|) are integrated by quadrature: there the
# difference of two distribution functions would cancel, and 8 nodes are exact to rounding.
_NARROW = 0.5


class Line(ABC):
    """A probability measure on the real line."""

    @abstractmethod
    def moments(self, low: Floats, high: Floats) -> tuple[Floats, Floats]:
        """``mu((low, high])`` and ``integral over (low, high] of x dmu``, each shape (m,); ends may be infinite."""

    @abstractmethod
    def squared_distance(self, low: Floats, high: Floats, y: Floats) -> Floats:
        """``integral over (low, high] of (x - y)^2 dmu``, shape (m,)."""

    @abstractmethod
    def quantile(self, below: Floats, above: Floats) -> Floats:
        """Quantile at probability ``below``; ``above = 1 - below`` is what keeps the upper tail exact. Shape (m,)."""

    @abstractmethod
    def density(self, x: Floats) -> Floats | None:
        """Density at ``x``, shape (m,); None when the measure has none."""

    @property
    @abstractmethod
    def second_moment(self) -> float:
        """``E x^2``."""

    def monotone_cost(self, y: Floats, b: Floats, below: Floats, above: Floats) -> float:
        """``E (x - T(x))^2`` of the monotone map onto increasing ``y`` (n,) with weights ``b`` (n,).

        ``below`` and ``above`` are the cumulative weights between consecutive targets, from either end, shape (n - 1,).
        """
        ends = np.concatenate([[-np.inf], self.quantile(below, above), [np.inf]])
        return float(self.squared_distance(ends[:-1], ends[1:], y).sum())


@dataclass(frozen=True)
class UniformLine(Line):
    """Uniform measure on the interval ``[low, high]``."""

    low: float = 0.0
    high: float = 1.0

    def __post_init__(self) -> None:
        if not (np.isfinite(self.low) and np.isfinite(self.high) and self.low < self.high):
            raise ValueError(f"a uniform source needs finite low < high, got [{self.low}, {self.high}]")

    def _clip(self, low: Floats, high: Floats) -> tuple[Floats, Floats]:
        return np.clip(low, self.low, self.high), np.clip(high, self.low, self.high)

    def moments(self, low: Floats, high: Floats) -> tuple[Floats, Floats]:
        """``(high - low) / (b - a)`` and that times the midpoint."""
        low, high = self._clip(low, high)
        masses = np.maximum(high - low, 0.0) / (self.high - self.low)
        return masses, masses * (0.5 * (low + high))

    def squared_distance(self, low: Floats, high: Floats, y: Floats) -> Floats:
        """``mass ((midpoint - y)^2 + width^2 / 12)``."""
        low, high = self._clip(low, high)
        width = np.maximum(high - low, 0.0)
        return width / (self.high - self.low) * ((0.5 * (low + high) - y) ** 2 + width**2 / 12.0)

    def quantile(self, below: Floats, above: Floats) -> Floats:
        """``a + (b - a) p``."""
        width = self.high - self.low
        return np.where(below <= above, self.low + width * below, self.high - width * above)

    def density(self, x: Floats) -> Floats:
        """``1 / (b - a)`` inside."""
        return np.where((x >= self.low) & (x <= self.high), 1.0 / (self.high - self.low), 0.0)

    @property
    def second_moment(self) -> float:
        """``(a^2 + a b + b^2) / 3``."""
        return (self.low**2 + self.low * self.high + self.high**2) / 3.0


@dataclass(frozen=True)
class GaussianLine(Line):
    """Normal distribution ``N(mean, sd^2)``. Masses are accurate relative to themselves, in the tails too."""

    mean: float = 0.0
    sd: float = 1.0

    def __post_init__(self) -> None:
        if not (np.isfinite(self.mean) and np.isfinite(self.sd) and self.sd > 0):
            raise ValueError(f"a Gaussian source needs a finite mean and sd > 0, got mean {self.mean}, sd {self.sd}")

    def _standard(self, low: Floats, high: Floats) -> tuple[Floats, Floats, Floats]:
        """Standardised interval, reflected to the left half-line where it lies on the right; the sign of it."""
        a, b = (low - self.mean) / self.sd, (high - self.mean) / self.sd
        b = np.maximum(a, b)
        flip = a > -b  # more of it on the right
        return np.where(flip, -b, a), np.where(flip, -a, b), np.where(flip, -1.0, 1.0)

    def _integrals(self, a: Floats, b: Floats, centre: Floats) -> tuple[Floats, Floats, Floats]:
        """``integral over (a, b] of (z - centre)^k phi(z) dz`` for k = 0, 1, 2."""
        with np.errstate(invalid="ignore", over="ignore"):
            wide = ~((b - a) * (1.0 + np.maximum(np.abs(a), np.abs(b))) <= _NARROW)
        phi_a, phi_b = _phi(a), _phi(b)
        mass = ndtr(b) - ndtr(a)
        drift = phi_a - phi_b
        tail = np.where(np.isfinite(a), a, 0.0) * phi_a - np.where(np.isfinite(b), b, 0.0) * phi_b
        first = drift - centre * mass
        second = mass + tail - 2.0 * centre * drift + centre**2 * mass
        if not wide.all():
            narrow = ~wide
            a, b, c = a[narrow], b[narrow], centre[narrow]
            nodes, weights = roots_legendre(8)
            totals = np.zeros((3, len(a)))
            for node, weight in zip(nodes, weights, strict=True):
                z = 0.5 * (a + b) + 0.5 * (b - a) * node
                part = weight * _phi(z)
                for k in range(3):
                    totals[k] += part
                    part = part * (z - c)
            totals *= 0.5 * (b - a)
            mass[narrow], first[narrow], second[narrow] = totals
        return mass, first, np.maximum(second, 0.0)

    def moments(self, low: Floats, high: Floats) -> tuple[Floats, Floats]:
        """``Phi(b) - Phi(a)`` and ``mean mass + sd (phi(a) - phi(b))``, in standard units on the side of the tail."""
        a, b, sign = self._standard(low, high)
        mass, first, _ = self._integrals(a, b, np.zeros_like(a))
        return mass, self.mean * mass + self.sd * sign * first

    def squared_distance(self, low: Floats, high: Floats, y: Floats) -> Floats:
        """``sd^2 integral of (z - (y - mean)/sd)^2 phi``."""
        a, b, sign = self._standard(low, high)
        return self.sd**2 * self._integrals(a, b, sign * (y - self.mean) / self.sd)[2]

    def quantile(self, below: Floats, above: Floats) -> Floats:
        """``mean + sd Phi^-1(p)``, from the smaller of p and 1 - p."""
        return self.mean + self.sd * np.where(below <= above, ndtri(below), -ndtri(above))

    def density(self, x: Floats) -> Floats:
        """``phi((x - mean) / sd) / sd``."""
        return _phi((x - self.mean) / self.sd) / self.sd

    @property
    def second_moment(self) -> float:
        """``mean^2 + sd^2``."""
        return self.mean**2 + self.sd**2


class EmpiricalLine(Line):
    """Weighted atoms ``sum_k p_k delta(x_k)``.

    Args:
        atoms: shape (m,) or (m, 1), any order.
        weights: shape (m,), nonnegative, normalised to sum 1; equal by default.
    """

    def __init__(self, atoms: ArrayLike, weights: ArrayLike | None = None) -> None:
        x = np.asarray(atoms, dtype=np.float64)
        if x.size == 0 or x.ndim > 2 or (x.ndim == 2 and x.shape[1] != 1):
            raise ValueError(f"atoms on a line need shape (m,) or (m, 1) with m >= 1, got {x.shape}")
        x = x.ravel()
        if not np.isfinite(x).all():
            raise ValueError("atoms contain NaN or infinity; remove them")
        p = np.full(len(x), 1.0 / len(x)) if weights is None else np.asarray(weights, dtype=np.float64)
        if p.shape != x.shape or not (p >= 0).all() or not 0 < p.sum() < np.inf:
            raise ValueError(f"expected {len(x)} nonnegative weights with a positive sum, got shape {p.shape}")
        order = np.argsort(x, kind="stable")
        self.atoms = x[order]
        self.weights = p[order] / p.sum()
        self._cumulative = np.cumsum(self.weights)

    def _sums(self, low: Floats, high: Floats, values: Floats) -> Floats:
        """Sum of ``values`` over the atoms of each interval, without differences of long sums."""
        begin = np.searchsorted(self.atoms, low, side="right")
        end = np.maximum(np.searchsorted(self.atoms, high, side="right"), begin)
        ends = np.column_stack([begin, end]).ravel()
        padded = np.append(values, 0.0)
        return np.where(end > begin, np.add.reduceat(padded, ends)[::2], 0.0)

    def moments(self, low: Floats, high: Floats) -> tuple[Floats, Floats]:
        """Sums over the atoms in (low, high]."""
        return self._sums(low, high, self.weights), self._sums(low, high, self.weights * self.atoms)

    def squared_distance(self, low: Floats, high: Floats, y: Floats) -> Floats:
        """``sum p_k (x_k - y)^2``, about the mean of each interval."""
        masses, first = self.moments(low, high)
        means = first / np.where(masses > 0, masses, 1.0)
        begin = np.searchsorted(self.atoms, low, side="right")
        end = np.searchsorted(self.atoms, high, side="right")
        counts = np.maximum(end - begin, 0)
        which = np.repeat(np.arange(len(begin)), counts)
        atoms = np.arange(counts.sum()) + np.repeat(begin - np.cumsum(counts) + counts, counts)
        spread = np.bincount(which, self.weights[atoms] * (self.atoms[atoms] - means[which]) ** 2, len(begin))
        return spread + masses * (means - y) ** 2

    def monotone_cost(self, y: Floats, b: Floats, below: Floats, above: Floats) -> float:
        """``E (x - y)^2`` of the monotone plan, which may split atoms (north-west corner rule)."""
        levels = np.concatenate([self._cumulative[:-1], below])
        order = np.argsort(levels, kind="stable")
        levels = np.concatenate([[0.0], np.minimum(levels[order], 1.0), [1.0]])
        from_target = order >= len(self.atoms) - 1
        target = np.concatenate([[0], np.cumsum(from_target)])
        atom = np.concatenate([[0], np.cumsum(~from_target)])
        return float(np.diff(levels) @ (self.atoms[atom] - y[target]) ** 2)

    def quantile(self, below: Floats, above: Floats) -> Floats:
        """Atom at which F passes p; between two atoms where F equals p there, up to rounding, the midpoint."""
        last = len(self.atoms) - 1
        slack = 4e-16 * np.sqrt(len(self.atoms))
        first = np.searchsorted(self._cumulative, below - slack, side="left")
        second = np.searchsorted(self._cumulative, below + slack, side="right")
        return 0.5 * (self.atoms[np.minimum(first, last)] + self.atoms[np.minimum(second, last)])

    def density(self, x: Floats) -> None:
        """None: atoms have no density."""
        return None

    @property
    def second_moment(self) -> float:
        """``sum p_k x_k^2``."""
        return float(self.weights @ self.atoms**2)


def _phi(z: Floats) -> Floats:
    """Standard normal density."""
    with np.errstate(over="ignore"):
        return np.exp(-0.5 * z * z) / np.sqrt(2.0 * np.pi)
