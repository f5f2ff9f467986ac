"""All metrics of one generator at once, each beside its value for real points."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from otgan._checks import as_count
from otgan.metrics._neighbours import nearest
from otgan.metrics._points import Estimate, TooFewError, pair, random_rows
from otgan.metrics.classifier import c2st
from otgan.metrics.copying import Partition, copying, default_cells
from otgan.metrics.discrepancy import energy, median_distance, mmd2
from otgan.metrics.frechet import frechet_distance
from otgan.metrics.manifold import prdc
from otgan.metrics.memorisation import authentic, ratios, same_length, train_share
from otgan.metrics.wasserstein import sliced_w2, w2

if TYPE_CHECKING:
    from otgan._checks import ArrayLike

Direction = Literal["lower is better", "higher is better", "near null is best"]
Values = dict[str, "float | Estimate"]

_LOW: Direction = "lower is better"
_HIGH: Direction = "higher is better"
_NEAR: Direction = "near null is best"
_TWO_SAMPLE: dict[str, Direction] = {
    "sliced_w2": _LOW,
    "energy": _LOW,
    "mmd2": _LOW,
    "c2st": _LOW,
    "precision": _HIGH,
    "recall": _HIGH,
    "density": _NEAR,
    "coverage": _HIGH,
    "w2": _LOW,
    "frechet_distance": _LOW,
}
_MEMORISATION: dict[str, Direction] = {
    "data_copying": _NEAR,
    "authenticity": _NEAR,
    "nearest_distance": _NEAR,
    "nearest_ratio": _NEAR,
    "train_share": _NEAR,
    "copies": _LOW,
}
_DIRECTIONS = _TWO_SAMPLE | _MEMORISATION
_ON_REQUEST = {"w2", "frechet_distance"}
_GROUPS = (
    *(("sliced_w2",), ("energy",), ("mmd2",), ("c2st",), ("precision", "recall", "density", "coverage"), ("w2",)),
    ("frechet_distance",),
)
_SPLITS = 200  # resamplings where one costs nothing

NAMES = tuple(_DIRECTIONS)
"""Every name that :func:`evaluate` knows."""


@dataclass(frozen=True)
class Metric:
    """One number, and what real points get.

    Attributes:
        name: of the metric, which is also its function in ``otgan.metrics``.
        value: of the samples.
        null: of real points in the samples' place.
        null_spread: standard deviation, over resamplings of the real points, of what chance adds to ``value - null``.
        direction: how to read it.
        stderr: Monte Carlo standard error of the value (directions, classified points), None where it has none.
    """

    name: str
    value: float
    null: float
    null_spread: float
    direction: Direction
    stderr: float | None = None

    @property
    def z(self) -> float:
        """``(value - null) / null_spread``: spreads away from real points; 0 where both agree exactly."""
        gap = self.value - self.null
        if self.null_spread > 0.0:
            return gap / self.null_spread
        return math.copysign(math.inf, gap) if gap else 0.0


@dataclass(frozen=True)
class Evaluation:
    """What :func:`evaluate` found; ``evaluation["energy"]`` is one :class:`Metric`.

    Attributes:
        metrics: in the order of the table.
        n_samples: samples given.
        n_test: held-out points given.
        n_train: training points given, 0 without.
        dim: d.
        sizes: samples and held-out points in each comparison of two clouds, for the value and for the null alike.
        seed: of all random numbers.
        notes: what was left out or cut, and why.
    """

    metrics: tuple[Metric, ...]
    n_samples: int
    n_test: int
    n_train: int
    dim: int
    sizes: tuple[int, int]
    seed: int
    notes: tuple[str, ...] = ()

    def __getitem__(self, name: str) -> Metric:
        for metric in self.metrics:
            if metric.name == name:
                return metric
        raise KeyError(f"no metric {name!r} here; there is {', '.join(metric.name for metric in self.metrics)}")

    def __iter__(self) -> Iterator[Metric]:
        return iter(self.metrics)

    def __len__(self) -> int:
        return len(self.metrics)

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, for JSON."""
        named = {m.name: {k: v for k, v in asdict(m).items() if k != "name"} | {"z": m.z} for m in self.metrics}
        return asdict(self) | {"metrics": named, "sizes": list(self.sizes), "notes": list(self.notes)}

    def table(self) -> str:
        """The metrics as lines of text, at most 80 columns wide."""
        from textwrap import wrap

        known = f"{self.n_samples:,} samples, {self.n_test:,} held-out points, {self.n_train:,} training points"
        lines = [f"{known}, dimension {self.dim}", *rows_of(self.metrics)]
        for note in self.notes:
            lines += wrap(note, 80)
        return "\n".join(lines)


def evaluate(
    samples: ArrayLike,
    test: ArrayLike,
    *,
    train: ArrayLike | None = None,
    names: Sequence[str] | None = None,
    seed: int = 0,
    n_null: int = 5,
) -> Evaluation:
    """Quality, coverage and memorisation of samples, each number beside that of real points in their place.

    **Two clouds** (sliced_w2, energy, mmd2, c2st, precision, recall, density, coverage, w2, frechet_distance): the
    value compares the samples with the held-out points. The null compares two disjoint random parts, of the same sizes,
    of all real points; it is the mean over ``n_null`` such draws, its spread their standard deviation. Where there are
    too few real points for that, both comparisons are made at a smaller size (``sizes``, with a note), and the value is
    the mean over random subsets.

    **Memorisation** (data_copying, authenticity, nearest_distance, nearest_ratio, train_share, copies): the value
    compares the samples with the training points. The null puts held-out points in the samples' place; for
    data_copying and train_share, which need held-out points besides, it puts one random half in their place and
    compares with the other. The spread is over resamplings of the held-out points.

    A sample of the training law is within a few spreads of the null everywhere. A spread from five draws is itself
    known to a third only: read z as an order of magnitude, and raise ``n_null`` where it matters.

    Args:
        samples: (m, d), generated.
        test: (n, d), real points that the generator never saw.
        train: (l, d), real points that it was trained on. Without them memorisation is not measured.
        names: which metrics, of :data:`NAMES`; when left out all but the exact w2, which is for few points, and the
            Frechet distance, which looks at mean and covariance only.
        seed: of all random numbers.
        n_null: real-against-real comparisons of two clouds, at least 2.

    Raises:
        ValueError: for an unknown name, bad shapes, NaN, or too few points for a metric that was asked for by name.

    Example:
        >>> import torch
        >>> x = torch.randn(3, 500, 2, generator=torch.Generator().manual_seed(0))
        >>> evaluate(x[0], x[1], train=x[2], names=["copies"])["copies"].value
        0.0
    """
    seed, n_null = as_count(seed, "seed"), as_count(n_null, "n_null", 2)
    asked = _names(names)
    x, z = pair(samples, test, ("samples", "test"))
    y = pair(samples, train, ("samples", "train"))[1] if train is not None else None
    notes: list[str] = []
    found: dict[str, Metric] = {}

    def attempt(measure: Callable[[], Iterator[Metric]], what: Sequence[str]) -> None:
        try:
            found.update((metric.name, metric) for metric in measure() if metric.name in asked)
        except TooFewError as error:
            if names is not None:
                raise
            notes.append(f"Left out {', '.join(what)}: {error}")

    clouds = _Clouds(x, z, y, seed, n_null)
    for group in _GROUPS:
        if what := [name for name in group if name in asked]:
            attempt(lambda group=group, what=what: clouds.measure(group, what), what)  # type: ignore[misc]
    if clouds.cut and any(name in _TWO_SAMPLE for name in found):
        notes.append(
            f"Too few real points to compare {len(x):,} of them with {len(z):,} others: two clouds are compared as "
            f"{clouds.sizes[0]:,} and {clouds.sizes[1]:,} points, samples and real points alike."
        )
    if what := [name for name in _MEMORISATION if name in asked]:
        if y is None:
            notes.append(f"Left out, for want of training points (train=): {', '.join(what)}.")
        else:
            memory = _Memory(x, z, y, seed, same_length(y, samples, train if train is not None else samples))
            for name in what:
                attempt(lambda name=name: iter([memory.measure(name)]), [name])  # type: ignore[misc]
    return Evaluation(
        metrics=tuple(found[name] for name in _DIRECTIONS if name in found),
        n_samples=len(x),
        n_test=len(z),
        n_train=0 if y is None else len(y),
        dim=x.shape[1],
        sizes=clouds.sizes,
        seed=seed,
        notes=tuple(notes),
    )


class _Clouds:
    """Comparisons of two clouds: samples with held-out points, and real points with real points."""

    def __init__(self, x: Tensor, test: Tensor, train: Tensor | None, seed: int, n_null: int) -> None:
        self.x, self.test, self.seed, self.n_null = x, test, seed, n_null
        self.real = test if train is None else torch.cat([test, train])
        m, n, total = len(x), len(test), len(self.real)
        second = min(n, max(total - m, total // 2, 1))
        self.sizes = max(min(m, total - second), 1), second
        self.cut = self.sizes != (m, n)
        self._width: float | None = None

    def measure(self, group: Sequence[str], wanted: Sequence[str]) -> Iterator[Metric]:
        """The metrics of a group."""
        if len(self.real) < 2:
            raise TooFewError("real points cannot be compared with others, there is one.")
        rng = np.random.default_rng([self.seed, 1])
        first, second = self.sizes
        values, nulls = [], []
        for draw in range(self.n_null):
            if self.cut or draw == 0:
                a, b = random_rows(self.x, first, rng), random_rows(self.test, second, rng)
                values.append(self._compute(group[0], a, b))
            order = torch.from_numpy(rng.permutation(len(self.real))).to(self.real.device)
            nulls.append(self._compute(group[0], self.real[order[:first]], self.real[order[first : first + second]]))
        for name in wanted:
            null = np.array([float(found[name]) for found in nulls])
            error = [value.stderr for found in values if isinstance(value := found[name], Estimate)]
            yield Metric(
                name=name,
                value=float(np.mean([float(found[name]) for found in values])),
                null=float(null.mean()),
                null_spread=float(null.std(ddof=1)),
                direction=_DIRECTIONS[name],
                stderr=float(np.mean(error)) if error else None,
            )

    def _compute(self, head: str, a: Tensor, b: Tensor) -> Values:
        """The values of the group that begins with ``head``."""
        if head == "precision":
            return dict(prdc(a, b).to_dict())
        if head == "mmd2":
            # One kernel for all: its scale is that of the real points, whatever the samples are.
            self._width = self._width or median_distance(self.real, seed=self.seed)
            return {head: mmd2(a, b, bandwidth=self._width)}
        if head in ("sliced_w2", "c2st"):
            return {head: (sliced_w2 if head == "sliced_w2" else c2st)(a, b, seed=self.seed)}
        return {head: {"energy": energy, "w2": w2, "frechet_distance": frechet_distance}[head](a, b)}


class _Memory:
    """Comparisons with the training points; the searches are shared by the metrics."""

    def __init__(self, x: Tensor, test: Tensor, train: Tensor, seed: int, same: float) -> None:
        self.x, self.test, self.train, self.seed, self.same = x, test, train, seed, same
        self._searched: tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]] | None = None

    def measure(self, name: str) -> Metric:
        """One metric."""
        if name in ("data_copying", "train_share"):
            if len(self.test) < 2:
                raise TooFewError("the null compares one half of the held-out points with the other; there is one.")
            value, null, spread = self._copying() if name == "data_copying" else self._train_share()
        else:
            value, null, spread = self._resampled(name)
        return Metric(name, value, null, spread, _DIRECTIONS[name])

    def _search(self) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        if self._searched is None:
            k = min(2, len(self.train))
            self._searched = nearest(self.x, self.train, k), nearest(self.test, self.train, k)
        return self._searched

    def _resampled(self, name: str) -> tuple[float, float, float]:
        """A mean or median over points: samples and held-out points have one number each."""
        if name in ("authenticity", "nearest_ratio") and len(self.train) < 2:
            raise TooFewError(f"{name} needs at least 2 training points, got {len(self.train)}.")
        if name == "authenticity":
            spacing = nearest(self.train, self.train, 1, same=True)[1][:, 0]
        per_point: list[NDArray[np.float64]] = []
        for index, distance in self._search():
            if name == "authenticity":
                numbers = authentic(index[:, 0], distance[:, 0], spacing)
            elif name == "nearest_ratio":
                numbers = ratios(distance)
            else:
                numbers = distance[:, 0] if name == "nearest_distance" else (distance[:, 0] <= self.same).double()
            per_point.append(numbers.cpu().numpy())
        ours, real = per_point
        statistic: Callable[..., Any] = np.median if name.startswith("nearest") else np.mean
        rng = np.random.default_rng([self.seed, 2])
        # Under the null value and null are the statistic of m and of n points of one law.
        gaps = [
            float(statistic(rng.choice(real, len(ours))) - statistic(rng.choice(real, len(real))))
            for _ in range(_SPLITS)
        ]
        return float(statistic(ours)), float(statistic(real)), float(np.std(gaps, ddof=1))

    def _copying(self) -> tuple[float, float, float]:
        partition = Partition.of(self.train, default_cells(len(self.test)), self.seed)
        ours, real = partition.reach(self.x), partition.reach(self.test)
        value = copying(ours, real).value
        rng, half = np.random.default_rng([self.seed, 3]), len(self.test) // 2
        nulls = []
        for _ in range(_SPLITS):
            order = rng.permutation(len(self.test))
            try:
                nulls.append(copying(real.take(order[:half]), real.take(order[half:])).value)
            except TooFewError:
                continue
        if len(nulls) < 2:  # too few held-out points to halve them: what theory says
            return value, 0.0, copying(ours, real).stderr
        return value, float(np.mean(nulls)), float(np.std(nulls, ddof=1))

    def _train_share(self) -> tuple[float, float, float]:
        value = train_share(self.x, self.train, self.test, seed=self.seed)
        rng, half = np.random.default_rng([self.seed, 4]), len(self.test) // 2
        shares = []
        for draw in range(5):
            order = torch.from_numpy(rng.permutation(len(self.test))).to(self.test.device)
            first, second = self.test[order[:half]], self.test[order[half:]]
            shares.append(train_share(first, self.train, second, seed=self.seed + draw))
        return value, float(np.mean(shares)), float(np.std(shares, ddof=1))


def rows_of(metrics: Sequence[Metric]) -> list[str]:
    """Metrics as lines of text under a line that names the columns."""
    words = {_LOW: "low", _HIGH: "high", _NEAR: "near real"}
    return [f"{'':<16}  {'value':>11}  {'real points':>11}    {'spread':<9}  {'z':>7}  best"] + [
        f"{m.name:<16}  {m.value:>11.4g}  {m.null:>11.4g} +- {m.null_spread:<9.2g}  {_short(m.z):>7}  "
        f"{words[m.direction]}"
        for m in metrics
    ]


def _names(names: Sequence[str] | None) -> list[str]:
    if names is None:
        return [name for name in NAMES if name not in _ON_REQUEST]
    if isinstance(names, (str, Mapping)):
        raise TypeError(f"names must be a list of names such as ['energy'], got {names!r}.")
    if unknown := [name for name in names if name not in _DIRECTIONS]:
        raise ValueError(f"unknown metric {unknown[0]!r}; there is {', '.join(NAMES)}.")
    if not names:
        raise ValueError(f"names is empty; choose of {', '.join(NAMES)}.")
    return list(names)


def _short(z: float) -> str:
    return f"{z:.1f}" if abs(z) < 1e4 else f"{z:.0e}"
