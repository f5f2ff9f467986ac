"""The demonstration: learn handwritten digits, draw new ones, and measure how new and how good they are.

Codes are the leading principal components of the training digits. One convex solve gives the Brenier potential from a
Gaussian to the codes; local maps read off it draw new codes. All is then compared with digits that were held out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from otgan import metrics
from otgan.datasets import digits
from otgan.generators import OTGAN, LocalGenerator
from otgan.measures import DiscreteMeasure, Gaussian, UniformBall
from otgan.solvers import Result, solve

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Floats = NDArray[np.float64]

_WIDTH = 80
_SIDE = 8  # pixels
_COPY = 1.0  # grey levels: two digits this close look the same
_COPYING = -3.0  # C_T below which distances to the training digits are too small for chance
_NEIGHBOURS = 5
_SHOWN = 20


@dataclass(frozen=True)
class Codes:
    """Principal components: ``code = V (image - mean)``, with orthonormal rows in V.

    Distances of codes are distances of the images that they describe, in grey levels.

    Attributes:
        mean: shape (64,).
        components: V, shape (d, 64).
        explained: share of the training digits' variance that d components keep.
    """

    mean: Floats
    components: Floats
    explained: float

    @classmethod
    def of(cls, images: Floats, dim: int) -> Codes:
        """Fit to images, shape (n, 64)."""
        mean = images.mean(axis=0)
        _, lengths, rows = np.linalg.svd(images - mean, full_matrices=False)
        return cls(mean, rows[:dim], float((lengths[:dim] ** 2).sum() / (lengths**2).sum()))

    def encode(self, images: Floats) -> Floats:
        """Codes, shape (k, d)."""
        return np.asarray((images - self.mean) @ self.components.T)

    def decode(self, codes: Floats) -> Floats:
        """Images with grey levels in [0, 1], shape (k, 8, 8)."""
        return np.asarray(np.clip((codes @ self.components + self.mean) / 16.0, 0.0, 1.0).reshape(-1, _SIDE, _SIDE))


@dataclass(frozen=True)
class Quality:
    """How a set of digits compares with the training digits and with as many held-out ones, see `otgan.metrics`.

    Attributes:
        nearest: median distance to the nearest training digit, in grey levels.
        copies: share closer than one grey level to a training digit.
        closer: share closer to a training digit than half of the held-out digits are.
        authentic: share farther from a training digit than that is from the next one.
        copying: the statistic C_T; below -3 is copying, fresh digits have 0 +- 1 at most.
        w2: Wasserstein distance to the held-out digits, in grey levels.
        precision: share within the support of the held-out digits.
        coverage: share of the held-out digits that have one of these as a neighbour.
        variance: total variance over that of the training digits.
        clear: share whose five nearest training digits all belong to one class.
    """

    nearest: float
    copies: float
    closer: float
    authentic: float
    copying: float
    w2: float
    precision: float
    coverage: float
    variance: float
    clear: float

    def to_dict(self) -> dict[str, float]:
        """Plain numbers."""
        return dict(vars(self))


@dataclass(frozen=True)
class DemoReport:
    """What :func:`run_demo` found.

    Attributes:
        result: the solve from the Gaussian to the codes.
        planar: the solve in the plane, from a disc to the first two principal components.
        n_train: training digits.
        n_test: held-out digits; as many new ones were drawn.
        explained: share of the variance that the codes keep.
        neighbours: of a target, over which its cell is stretched.
        quality: by name: "new", "bare map", "Gaussian", "held out".
        files: what was written, by name.
    """

    result: Result = field(repr=False)
    planar: Result = field(repr=False)
    n_train: int
    n_test: int
    explained: float
    neighbours: float
    quality: dict[str, Quality]
    files: dict[str, Path]

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, for JSON."""
        return {
            "n_train": self.n_train,
            "n_test": self.n_test,
            "dim": self.result.potential.dim,
            "explained": self.explained,
            "neighbours": self.neighbours,
            "solve": _solve_dict(self.result),
            "planar_solve": _solve_dict(self.planar),
            "quality": {name: quality.to_dict() for name, quality in self.quality.items()},
            "files": {name: str(path) for name, path in self.files.items()},
        }

    def text(self) -> str:
        """The report, at most 80 columns wide."""
        new, real = self.quality["new"], self.quality["held out"]
        dim, kept = self.result.potential.dim, 100 * self.explained
        lines = [
            f"{self.n_train:,} handwritten digits as {dim} principal components ({kept:.0f} % of variance),",
            f"{self.n_test} more held out. One convex solve, Gaussian to codes ({self.result.method}):",
            *_wrapped(f"{self.result.message} ({self.result.n_iter} iterations, {self.result.seconds:.1f} s)", "  "),
            *(f"  {line}" for line in self.result.certificate.table().splitlines()),
            "",
            f"{self.n_test} digits of each kind (distances in grey levels of 16):",
            *_table(self.quality),
            "",
            *_wrapped(
                f"New digits: local maps, {self.neighbours:.3g} neighbours. Their median distance to the nearest "
                f"training digit is {new.nearest:.1f}; unseen real digits have {real.nearest:.1f}, copies 0. Their "
                f"variance is {new.variance:.2f} of the training digits'. C_T = {new.copying:.1f} "
                f"{'finds them' if new.copying < _COPYING else 'does not find them'} nearer to the training digits "
                "than chance allows."
            ),
            "",
            *_wrapped(
                f"Power diagram of the first two components, solved by {self.planar.method}: {self.planar.status}, "
                f"chi2 {self.planar.certificate.chi2:.2g}, {self.planar.certificate.empty_cells} of "
                f"{self.planar.potential.n:,} cells empty, {self.planar.seconds:.1f} s."
            ),
            "",
            *(f"{name.replace('_', ' '):<16}{path}" for name, path in self.files.items()),
        ]
        return "\n".join(lines)


def run_demo(
    out: str | Path,
    *,
    seed: int = 0,
    quick: bool = False,
    progress: bool = False,
    say: Callable[[str], None] | None = None,
) -> DemoReport:
    """Learn the digits of :func:`otgan.datasets.digits`, draw new ones, measure them, and write pictures and model.

    Args:
        out: folder of pictures and model; made when it does not exist.
        seed: of the split, the solves and the new digits.
        quick: 400 training digits in 8 dimensions instead of 1,500 in 20, and a bar five times as wide.
        progress: show progress bars on standard error.
        say: told in a sentence what is being done.

    Returns:
        A :class:`DemoReport`. An interrupted solve (Ctrl-C) still ends in one, with what was reached.
    """
    tell = say if say is not None else _ignore
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    images, labels = digits()
    dim, n_train, n_test = (8, 400, 100) if quick else (20, 1500, 297)
    order = np.random.default_rng(seed).permutation(len(images))
    train, test = order[:n_train], order[n_train : n_train + n_test]
    pca = Codes.of(images[train], dim)
    codes, unseen = pca.encode(images[train]), pca.encode(images[test])

    tell(f"Solving: Gaussian to {n_train:,} digits, dimension {dim} ...")
    source = Gaussian(dim)
    tol, patience = (0.05, 10) if quick else (0.01, 60)
    model = OTGAN(source, "local", tol=tol, seed=seed)
    model.fit(codes.astype(np.float32), max_time=1.5 * patience, progress=progress)
    result, generator = model.result, cast(LocalGenerator, model.generator)
    tell("Solving in the plane: disc to the first two principal components ...")
    disc = UniformBall(2)
    target = DiscreteMeasure(codes[:, :2])
    planar = solve(disc, target, seed=seed, max_time=patience / 3, progress=progress)

    tell("Drawing and measuring new digits ...")
    x = source.sample(n_test, seed=seed + 1)
    new = generator(x).detach().double().cpu().numpy()
    rng = np.random.default_rng([seed, 1])
    real = _Real(codes, labels[train], unseen, rng)
    quality = {
        "new": real.quality(new),
        "bare map": real.quality(result.potential.transport(x).double().cpu().numpy()),
        "Gaussian": real.quality(rng.multivariate_normal(codes.mean(axis=0), np.cov(codes.T), n_test)),
        "held out": real.floor(),
    }
    tell("Drawing pictures ...")
    classes = np.empty(target.n, dtype=np.int64)
    classes[target.index.numpy()] = labels[train]
    shown = slice(None, _SHOWN)
    near = codes[real.nearest(new[shown])]
    files = _pictures(folder, result, planar, classes, pca.decode(new[shown]), pca.decode(near))
    files["model"] = model.save(folder)
    files["codes"] = folder / "codes.npz"
    np.savez(files["codes"], codes=codes, labels=labels[train], mean=pca.mean, components=pca.components)
    return DemoReport(result, planar, n_train, n_test, pca.explained, generator.neighbours, quality, files)


class _Real:
    """Training and held-out codes, and what is measured against them."""

    def __init__(self, train: Floats, labels: NDArray[np.int64], test: Floats, rng: np.random.Generator) -> None:
        from scipy.spatial import cKDTree

        self.train, self.labels, self.test, self.rng = train, labels, test, rng
        self.tree = cKDTree(train)
        self.usual = metrics.nearest_distance(test, train)
        self.variance = float(train.var(axis=0).sum())

    def nearest(self, codes: Floats) -> NDArray[np.int64]:
        """Number of the nearest training digit, shape (k,)."""
        return np.asarray(self.tree.query(codes)[1], dtype=np.int64)

    def quality(self, codes: Floats) -> Quality:
        """Measure codes, shape (k, d), with k the number of held-out digits."""
        index = np.asarray(self.tree.query(codes, k=_NEIGHBOURS)[1])
        same = (self.labels[index] == self.labels[index[:, :1]]).all(axis=1)
        support = metrics.prdc(codes, self.test)
        return Quality(
            nearest=metrics.nearest_distance(codes, self.train),
            copies=metrics.copies(codes, self.train, tol=_COPY),
            closer=metrics.copies(codes, self.train, tol=self.usual),
            authentic=metrics.authenticity(codes, self.train),
            copying=metrics.data_copying(codes, self.test, self.train).value,
            w2=metrics.w2(codes, self.test),
            precision=support.precision,
            coverage=support.coverage,
            variance=float(codes.var(axis=0).sum() / self.variance),
            clear=float(same.mean()),
        )

    def floor(self) -> Quality:
        """Held-out digits themselves; what needs two clouds is of as many training digits, the mean of five draws."""
        draws = [self.train[self.rng.choice(len(self.train), len(self.test), replace=False)] for _ in range(5)]
        supports = [metrics.prdc(draw, self.test) for draw in draws]
        return replace(
            self.quality(self.test),
            w2=float(np.mean([metrics.w2(draw, self.test) for draw in draws])),
            precision=float(np.mean([support.precision for support in supports])),
            coverage=float(np.mean([support.coverage for support in supports])),
        )


def _pictures(
    folder: Path, result: Result, planar: Result, classes: NDArray[np.int64], new: Floats, near: Floats
) -> dict[str, Path]:
    import matplotlib.pyplot as plt

    from otgan import plot

    drawings: dict[str, Callable[[], Axes]] = {
        "new_digits": lambda: plot.beside(1.0 - new, 1.0 - near),
        "power_diagram": lambda: plot.power_diagram(planar, values=classes, targets=False),
        "convergence": lambda: plot.convergence(result),
        "mass_histogram": lambda: plot.mass_histogram(result),
    }
    files = {}
    for name, draw in drawings.items():
        figure = cast("Figure", draw().figure)
        files[name] = folder / f"{name}.png"
        figure.savefig(files[name], bbox_inches="tight")
        plt.close(figure)
    return files


def _table(quality: dict[str, Quality]) -> list[str]:
    """One column a kind, one row a number."""
    rows: list[tuple[str, Callable[[Quality], str]]] = [
        ("distance to nearest training digit", lambda q: f"{q.nearest:.1f}"),
        (f"copies (closer than {_COPY:g})", lambda q: f"{100 * q.copies:.0f} %"),
        ("closer than half of the held out", lambda q: f"{100 * q.closer:.0f} %"),
        ("authentic", lambda q: f"{100 * q.authentic:.0f} %"),
        ("data-copying statistic C_T", lambda q: f"{q.copying:.1f}"),
        ("W2 to the held-out digits", lambda q: f"{q.w2:.1f}"),
        ("precision", lambda q: f"{100 * q.precision:.0f} %"),
        ("coverage", lambda q: f"{100 * q.coverage:.0f} %"),
        ("variance / training variance", lambda q: f"{q.variance:.2f}"),
        ("5 nearest are of one class", lambda q: f"{100 * q.clear:.0f} %"),
    ]
    width = max(len(name) for name, _ in rows)
    lines = [" " * (width + 2) + "".join(f"{name:>10}" for name in quality)]
    lines += [f"  {name:<{width}}" + "".join(f"{show(q):>10}" for q in quality.values()) for name, show in rows]
    lines += _wrapped(
        "bare map: T_h, which returns training digits. Gaussian: of the codes' mean and covariance. held out: real "
        "digits, the floor; their W2, precision and coverage are those of as many training digits. authentic: farther "
        "from a training digit than that is from the next. C_T: below -3, nearer to the training digits than unseen "
        "ones are, beyond chance.",
        "  ",
    )
    return lines


def _solve_dict(result: Result) -> dict[str, Any]:
    return {
        "method": result.method,
        "status": result.status,
        "n_iter": result.n_iter,
        "seconds": result.seconds,
        "certificate": result.certificate.to_dict(),
    }


def _wrapped(text: str, indent: str = "") -> list[str]:
    from textwrap import wrap

    return wrap(text, _WIDTH, initial_indent=indent, subsequent_indent=indent)


def _ignore(_: str) -> None:
    return None
