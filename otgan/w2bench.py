"""Pairs of measures with a known optimal map, to measure how well a generator recovers it.

The pairs are those of Korotin, Li, Genevay, Solomon, Filippov, Burnaev, "Do neural optimal transport solvers work? A
continuous Wasserstein-2 benchmark" (NeurIPS 2021): the source is a mixture of three Gaussians, the target its image
under the gradient of a convex network, which Brenier's theorem makes the optimal map.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import celu

from otgan._checks import as_count, as_points
from otgan.datasets import DataError, data_folder
from otgan.measures import GaussianMixture

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from otgan._checks import ArrayLike

    Map = Callable[[Tensor], Tensor]

PUBLISHED = {
    "W2GN": {2: 0.1, 4: 0.7, 8: 2.6, 16: 3.3},
    "best of MM, MM:R, MMv1": {2: 0.1, 4: 0.3, 8: 0.7, 16: 1.4},
    "linear": {2: 14.1, 4: 14.9, 8: 27.3, 16: 41.6},
}
"""L2-UVP in percent by dimension, as published with the benchmark; those solvers draw fresh target samples for ever."""

_EVALUATION = 4096
_STREAM = 0x2B3C


@dataclass(frozen=True)
class Recovery:
    """How close a map is to the optimal one.

    Attributes:
        l2_uvp: ``100 E |That(x) - T(x)|^2 / Var(nu)``, in percent.
        cosine: of ``That(x) - x`` and ``T(x) - x`` in L2(mu).
    """

    l2_uvp: float
    cosine: float


class BenchmarkPair:
    """Source mu, optimal map T and target ``nu = T_# mu`` of one file of the Wasserstein-2 benchmark.

    ``T(x) = scale (grad v1(x) + grad v2(x) - shift)`` with two convex networks::

        v(x) = w . h2 + kappa |x|^2 / 2,   h2 = celu(C1 h1 + q2(x)),   h1 = celu(C0 q0(x) + q1(x)),
        q(x)_j = sum_r (x . Q[:, r, j])^2 + W_j . x + b_j,

    C and w nonnegative. ``scale`` and ``shift`` give the target mean 0 and total variance d.

    Args:
        arrays: the file's arrays by name: centers, maps, shift, scale, strong_convexity, half_w2_sq, linear_l2_uvp, and
            the weights of the networks under v1/ and v2/.

    Attributes:
        source: mu.
        half_w2_sq: ``W2^2(mu, nu) / 2``, as the file states it.
        linear_l2_uvp: L2-UVP of the best affine map, in percent, likewise.
    """

    def __init__(self, arrays: Mapping[str, np.ndarray[Any, Any]]) -> None:
        def take(name: str) -> Tensor:
            if name not in arrays:
                raise DataError(f"A pair of the Wasserstein-2 benchmark needs an array {name!r}.")
            return torch.from_numpy(np.asarray(arrays[name], dtype=np.float64))

        self.source = GaussianMixture(take("centers"), take("maps"))
        self.half_w2_sq, self.linear_l2_uvp = float(take("half_w2_sq")), float(take("linear_l2_uvp"))
        self._shift, self._scale, self._kappa = take("shift"), float(take("scale")), float(take("strong_convexity"))
        self._networks = [
            {
                **{
                    f"{letter}{layer}": take(f"{name}/quadratic_layers.{layer}.{part}")
                    for layer in range(3)
                    for letter, part in (("Q", "quadratic_decomposed"), ("W", "weight"), ("b", "bias"))
                },
                "C0": take(f"{name}/convex_layers.0.weight"),
                "C1": take(f"{name}/convex_layers.1.weight"),
                "w": take(f"{name}/final_layer.weight")[0],
            }
            for name in ("v1", "v2")
        ]

    @property
    def dim(self) -> int:
        """Dimension d; also the target's total variance."""
        return self.source.dim

    def transport(self, x: ArrayLike) -> Tensor:
        """Optimal map ``T(x)``, shape (m, d), in the precision and on the device of x."""
        x = self._inputs(x)
        total = sum((_gradient(net, x) for net in self._networks), torch.zeros_like(x))
        return self._scale * (total + 2.0 * self._kappa * x - self._shift.to(x))

    def potential(self, x: ArrayLike) -> Tensor:
        """Brenier potential ``u(x)`` with ``grad u = T``, shape (m,), up to a constant."""
        x = self._inputs(x)
        total = sum((_forward(net, x)[0] for net in self._networks), x.new_zeros(len(x)))
        return self._scale * (total + self._kappa * x.square().sum(dim=1) - x @ self._shift.to(x))

    def target(self, n: int, *, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
        """``n`` independent samples of nu, shape (n, d): images of source samples that no one else is given."""
        return self.transport(self.source.sample(n, seed=_other(seed), dtype=torch.float64)).to(dtype)

    def score(self, transport: Map, n: int = _EVALUATION, *, seed: int = 0) -> Recovery:
        """Measure a map (m, d) -> (m, d) on ``n`` fresh samples of the source, float32."""
        x = self.source.sample(as_count(n, "n", 1), seed=_other(seed + 1), dtype=torch.float32)
        with torch.no_grad():
            guess = transport(x).double().cpu()
        x = x.double()
        truth = self.transport(x)
        if guess.shape != truth.shape:
            raise ValueError(f"The map returned shape {tuple(guess.shape)}, expected {tuple(truth.shape)}.")
        error = float((guess - truth).square().sum(dim=1).mean())
        a, b = (guess - x).flatten(), (truth - x).flatten()
        return Recovery(100.0 * error / self.dim, float(a @ b / (a.norm() * b.norm())))

    def _inputs(self, x: ArrayLike) -> Tensor:
        """Checked x; a tensor keeps its graph."""
        checked = as_points(x, "x", self.dim, allow_empty=True)
        return x if isinstance(x, Tensor) and x.is_floating_point() else checked

    def __repr__(self) -> str:
        return f"BenchmarkPair(dim={self.dim}, half_w2_sq={self.half_w2_sq:.4g})"


def load_pair(dim: int, folder: str | Path | None = None) -> BenchmarkPair:
    """Read ``w2bench/mix3tomix10_D{dim}.npz`` of the data folder.

    Args:
        dim: 2, 4, 8 or 16.
        folder: the folder of real data; that of the environment variable ``OTGAN_DATA`` when left out.

    Raises:
        DataError: no such folder or file, or an incomplete one.
    """
    where = data_folder() if folder is None else Path(folder)
    if where is None:
        raise DataError("Set OTGAN_DATA to the folder of real data, or pass folder=.")
    path = where / "w2bench" / f"mix3tomix10_D{as_count(dim, 'dim', 1)}.npz"
    if not path.is_file():
        raise DataError(f"There is no file {path}; the benchmark has dimensions 2, 4, 8 and 16.")
    with np.load(path, allow_pickle=False) as archive:
        return BenchmarkPair({name: archive[name] for name in archive.files})


def _other(seed: int) -> int:
    """A random stream that no plain seed names."""
    return int(np.random.SeedSequence([_STREAM, as_count(seed, "seed")]).generate_state(1, np.uint64)[0] >> 1)


def _forward(net: Mapping[str, Tensor], x: Tensor) -> tuple[Tensor, list[Tensor], Tensor, Tensor]:
    """Value without the quadratic term; ``x . Q`` of each layer (m, r, width); both pre-activations."""
    p = [torch.einsum("md,drj->mrj", x, net[f"Q{layer}"].to(x)) for layer in range(3)]
    q = [
        p[layer].square().sum(dim=1) + torch.addmm(net[f"b{layer}"].to(x), x, net[f"W{layer}"].to(x).T)
        for layer in range(3)
    ]
    first = q[0] @ net["C0"].to(x).T + q[1]
    second = celu(first) @ net["C1"].to(x).T + q[2]
    return celu(second) @ net["w"].to(x), p, first, second


def _gradient(net: Mapping[str, Tensor], x: Tensor) -> Tensor:
    """Reverse mode by hand: the derivative of celu is ``exp(min(t, 0))``."""
    _, p, first, second = _forward(net, x)
    g2 = net["w"].to(x) * second.clamp(max=0.0).exp()
    g1 = (g2 @ net["C1"].to(x)) * first.clamp(max=0.0).exp()
    g0 = g1 @ net["C0"].to(x)
    total = torch.zeros_like(x)
    for layer, g in enumerate((g0, g1, g2)):
        total = total + g @ net[f"W{layer}"].to(x)
        total = total + 2.0 * torch.einsum("mrj,mj,drj->md", p[layer], g, net[f"Q{layer}"].to(x))
    return total
