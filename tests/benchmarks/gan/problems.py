"""What is learned, and how samples are judged: ring, grid and roll of ``bench_collapse``, spiral arms, digit codes."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
from bench_collapse import Problem, problems
from bench_memorisation import shuffled, split
from numpy.typing import NDArray
from semidiscrete.problems import data_folder
from semidiscrete.problems import images as read_images

import otgan as og
from otgan import metrics

Floats = NDArray[np.float64]

NAMES = ("ring", "grid", "roll", "arms", "codes")
N_TRAIN, N_TEST, DIM = 10_000, 2_500, 32
_SHOWN = 0.01  # of the codes make a digit one of those that a generator shows
_ARMS, _PARTS = 4, 4  # spiral arms, and parts of equal mass in each: 16 modes


def spiral_arms(std: float = 0.02) -> Problem:
    """Four arms from radius 0.3 to 1.5 that turn by 3/4 of a circle, radius uniform, deviation 0.02 across."""

    def curve(arm: Floats, radius: Floats) -> Floats:
        angle = 2 * np.pi * arm / _ARMS + 1.5 * np.pi * (radius - 0.3) / 1.2
        return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=-1)

    dense = np.linspace(0.3, 1.5, 4001)
    line = np.concatenate([curve(np.full(len(dense), float(k)), dense) for k in range(_ARMS)])
    part = np.minimum((np.arange(len(dense)) * _PARTS) // len(dense), _PARTS - 1)
    mode = np.concatenate([k * _PARTS + part for k in range(_ARMS)])

    def draw(n: int, rng: np.random.Generator) -> Floats:
        return curve(rng.integers(_ARMS, size=n).astype(float), rng.uniform(0.3, 1.5, n)) + std * rng.normal(
            size=(n, 2)
        )

    def judge(samples: Floats) -> tuple[int, float, float]:
        from scipy.spatial import cKDTree

        distance, index = cKDTree(line).query(samples)
        good = distance <= 3 * std
        counts = np.bincount(mode[index], minlength=_ARMS * _PARTS)
        return len(np.unique(mode[index][good])), float(good.mean()), metrics.reverse_kl(counts)

    return Problem("arms", _ARMS * _PARTS, draw, judge)


@functools.cache
def planar() -> dict[str, Problem]:
    """The laws in the plane by name."""
    return {**problems(), "arms": spiral_arms()}


def modes(name: str) -> int:
    """How many there are to find."""
    return 10 if name == "codes" else planar()[name].modes


def available(name: str) -> bool:
    """Whether its data is there."""
    return name != "codes" or (data_folder() / "mnist").is_dir()


@dataclass(frozen=True)
class Data:
    """One draw of a problem, in units in which a coordinate has variance 1 on average.

    Attributes:
        train: what every method learns from, (10,000, d).
        test: held out, (2,500, d).
        fresh: as many further ones: what perfect samples would be.
        unit: of the points themselves.
        labels: classes of the training points, (10,000,), where a class is a mode.
    """

    name: str
    train: Floats
    test: Floats
    fresh: Floats
    unit: float
    labels: NDArray[np.int64] | None = None

    @property
    def dim(self) -> int:
        """Dimension d."""
        return int(self.train.shape[1])


def draw(name: str, seed: int, n_train: int = N_TRAIN) -> Data:
    """The data of one seed."""
    labels = None
    if name == "codes":
        folder = data_folder() / "mnist"
        images = read_images(folder / "train-images-idx3-ubyte.gz").astype(np.float64)
        train, held = split(images, n_train, 2 * N_TEST, DIM, seed)
        parts = [train, held[:N_TEST], held[N_TEST:]]
        labels = og.images.mnist(path=folder).labels.numpy()[shuffled(len(images), seed)[:n_train]]
    else:
        rng, law = np.random.default_rng(seed), planar()[name]
        parts = [law.draw(n, rng) for n in (n_train, N_TEST, N_TEST)]
    centre = parts[0].mean(axis=0)
    unit = float(np.sqrt(parts[0].var(axis=0).mean()))
    return Data(name, *[(part - centre * (name == "codes")) / unit for part in parts], unit, labels)


def look(data: Data, new: Floats) -> dict[str, float]:
    """What is measured at every point of a curve; sliced W2 to the held-out points, in the unit of the data."""
    found = {"sliced_w2": metrics.sliced_w2(new, data.test, 128).value}
    if data.name != "codes":
        captured, good, kl = planar()[data.name].judge(new * data.unit)
    elif data.labels is not None:
        captured, good, kl = digits(data, new)
    else:
        return found
    return found | {"modes": float(captured), "high_quality": good, "reverse_kl": kl}


def digits(data: Data, new: Floats) -> tuple[int, float, float]:
    """Digits that the codes within the support show, share of the codes within it, KL of all their digits.

    A digit counts as shown from one percent of the codes on: fewer may be errors of the classification.
    The support is the union of the balls around held-out codes that reach to their third neighbour, as in
    :func:`otgan.metrics.precision`; a code's digit is the most frequent one of the five nearest training codes; KL is
    to the digits of the training codes.
    """
    from scipy.spatial.distance import cdist
    from sklearn.neighbors import KNeighborsClassifier

    radius = np.partition(cdist(data.test, data.test), 3, axis=1)[:, 3]
    within = (cdist(new, data.test) <= radius).any(axis=1)
    digit = KNeighborsClassifier(5, algorithm="brute").fit(data.train, data.labels).predict(new)
    known, size = np.unique(data.labels, return_counts=True)
    counts = np.array([(digit == k).sum() for k in known])
    shown = sum(int((digit[within] == k).sum() >= _SHOWN * len(new)) for k in known)
    return shown, float(within.mean()), metrics.reverse_kl(counts, size / size.sum())


def judge(data: Data, new: Floats) -> dict[str, float]:
    """What is measured at the end besides: distance of the laws, copies."""
    copying = metrics.data_copying(new, data.test, data.train)
    return {
        **look(data, new),
        "energy": metrics.energy(new, data.test),
        "c_t": copying.value,
        "authenticity": metrics.authenticity(new, data.train),
    }
