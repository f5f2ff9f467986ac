"""The problems: a source, targets, and how long a method may try."""

from __future__ import annotations

import gzip
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

import otgan as og
from otgan import kernels
from otgan.certificate import chi2_estimate
from otgan.standardization import Standardization

LEVELS = (0.1, 0.05, 0.02, 0.01)
ENOUGH = 0.9 * LEVELS[-1]  # a run that measures this is over
_RELATIVE = 0.05  # wanted standard error of a measured chi2, as a share of it or of half the last level
_CHUNK = 1 << 16
_SEED = 987_654_321  # of the samples that measure, the same for all methods and drawn by none of them


@dataclass(frozen=True)
class Measured:
    """Chi2 of some heights on fresh samples, its standard error, and the cells that none of the samples reached."""

    chi2: float
    stderr: float
    empty: int
    samples: int


@dataclass(frozen=True)
class Problem:
    """Targets y (n, d) with weights b, and a source, as the solvers get them.

    Attributes:
        name: of the table.
        cap: seconds of a run.
        trial: unit of the seconds of the runs that choose a setting.
    """

    name: str
    source: og.Source
    target: og.DiscreteMeasure
    cap: float
    trial: float

    @property
    def n(self) -> int:
        """Number of targets."""
        return self.target.n

    @property
    def dim(self) -> int:
        """Dimension d."""
        return self.target.dim

    @cached_property
    def change(self) -> Standardization:
        """To coordinates of mean 0 and variance 1 on both sides, which leave the cells as they are."""
        return Standardization.of(self.source, self.target)

    @cached_property
    def points(self) -> torch.Tensor:
        """Targets in those coordinates, (n, d), float64."""
        return self.change.target(self.target.points)

    @property
    def gaussian(self) -> bool:
        """Whether the source is standard normal in those coordinates; else it is uniform on a cube."""
        return isinstance(self.source, og.Gaussian)

    def measure(self, heights: torch.Tensor, least: int = 0) -> Measured:
        """Chi2 of heights h' (n,) in standardised coordinates, by the unbiased count of :func:`chi2_estimate`.

        A first draw tells how many samples bring the standard error to 5 %; the answer is from a second one, so that
        its size does not depend on its own luck. ``least`` asks for more samples.
        """
        h = heights.to(torch.float32)
        y = self.points.to(torch.float32)
        stream = torch.Generator().manual_seed(_SEED)
        first = max(self.n // 4, 4096)
        chi2, stderr = chi2_estimate(self._counts(first, y, h, stream), self.target.weights)
        wanted = _RELATIVE * max(chi2, 0.5 * LEVELS[-1])
        size = int(min(max(first * stderr / wanted, self.n / 2, 8192, least), 100 * self.n + 1e5))
        counts = self._counts(size, y, h, stream)
        return Measured(*chi2_estimate(counts, self.target.weights), int((counts == 0).sum()), size)

    def _counts(self, m: int, y: torch.Tensor, h: torch.Tensor, stream: torch.Generator) -> torch.Tensor:
        total = torch.zeros(self.n, dtype=torch.float64)
        for at in range(0, m, _CHUNK):
            x = self.source.sample(min(_CHUNK, m - at), generator=stream, dtype=torch.float64)
            index = kernels.assign(self.change.source(x).to(torch.float32), y, h).index
            total += torch.bincount(index, minlength=self.n)
        return total


def clusters(n: int, dim: int, seed: int = 0) -> NDArray[np.float64]:
    """Ten Gaussian clusters of spread 0.5 with centres of spread 3, (n, dim)."""
    rng = np.random.default_rng(seed)
    return (3 * rng.normal(size=(10, dim)))[rng.integers(0, 10, n)] + 0.5 * rng.normal(size=(n, dim))


def slabs(n: int, dim: int) -> NDArray[np.float64]:
    """Targets of the cube whose cells are slabs across the first axis, (n, dim)."""
    y = np.full((n, dim), 0.5)
    y[:, 0] = (np.arange(n) + 0.5) / n
    return y


def data_folder() -> Path:
    """``OTGAN_DATA``, or ``../shared/data`` beside the repository."""
    named = os.environ.get("OTGAN_DATA")
    return Path(named) if named else Path(__file__).resolve().parents[4] / "shared" / "data"


def images(file: Path) -> NDArray[np.float64]:
    """Grey images of an IDX file (magic 2051, count, rows, columns, bytes), shape (m, rows * columns), in [0, 1]."""
    raw = gzip.open(file).read() if file.suffix == ".gz" else file.read_bytes()
    magic, count, rows, columns = np.frombuffer(raw, dtype=">i4", count=4)
    if magic != 2051 or len(raw) != 16 + count * rows * columns:
        raise ValueError(f"{file} is not an IDX file of images: magic {magic}, {len(raw)} bytes; expected magic 2051.")
    return np.frombuffer(raw, dtype=np.uint8, offset=16).reshape(count, rows * columns) / 255.0


def principal(x: NDArray[np.float64], dim: int) -> NDArray[np.float64]:
    """First principal components of the rows of x, not whitened, (m, dim)."""
    centred = x - x.mean(axis=0)
    return centred @ np.linalg.eigh(centred.T @ centred)[1][:, ::-1][:, :dim]


def mnist(n: int) -> NDArray[np.float64] | None:
    """Training digits reduced to 32 principal components, (n, 32); None where the data is missing."""
    for name in ("train-images-idx3-ubyte", "train-images-idx3-ubyte.gz"):
        file = data_folder() / "mnist" / name
        if file.exists():
            return principal(images(file), 32)[:n]
    return None


#: name: (targets, Gaussian source or cube, seconds of a run, seconds of a trial); a divisor gives the small version.
_ALL: dict[str, tuple[Callable[[int], NDArray[np.float64] | None], bool, float, float]] = {
    "clusters-cube-2000": (lambda k: clusters(2000 // k, 10), False, 25.0, 2.0),
    "clusters-gauss-2000": (lambda k: clusters(2000 // k, 10), True, 25.0, 2.0),
    "clusters-cube-10000": (lambda k: clusters(10_000 // k, 32), False, 40.0, 3.0),
    "clusters-gauss-10000": (lambda k: clusters(10_000 // k, 32), True, 40.0, 3.0),
    "slabs-10": (lambda k: slabs(1000 // k, 10), False, 15.0, 1.5),
    "slabs-1000": (lambda k: slabs(1000 // k, 1000), False, 20.0, 2.0),
    "mnist": (lambda k: mnist(60_000 // k), True, 110.0, 4.0),
}
NAMES = tuple(_ALL)
SMALLER = 10  # of the quick version: so many times fewer targets, twice as many times fewer seconds


def make(name: str, quick: bool = False) -> Problem | None:
    """The problem of that name; None, where its data is missing."""
    make_points, gaussian, cap, trial = _ALL[name]
    y = make_points(SMALLER if quick else 1)
    if y is None:
        return None
    source = og.Gaussian(y.shape[1]) if gaussian else og.UniformBox(dim=y.shape[1])
    if quick:
        cap, trial = cap / (2.0 * SMALLER), trial / (2.0 * SMALLER)
    return Problem(name, source, og.DiscreteMeasure(y), cap, trial)
