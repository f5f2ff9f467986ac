"""Seconds of Newton's method on planar targets: ``python tests/benchmarks/bench_newton.py [--largest N]``.

With ``--pictures shapes2d.npz`` (an archive of grey images) the sources are some of its pictures, mostly black.

Wall time is from a cold start (targets to heights), processor time counts all threads. Compilation is timed apart: it
is paid once a machine, since the kernels are cached.
"""

from __future__ import annotations

import argparse
import os
import resource
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from otgan.cells._density_image import ImageDensity
from otgan.cells.planar import PlanarCells
from otgan.solvers.newton import NewtonOutcome, newton

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

#: Pictures with their largest problems: letters, separate blobs, scattered specks, thin curves of up to 1000 x 1000.
PICTURES = ("A", "blobs_a", "noisyblobs_b", "knee_a", "Worm_a", "Ring_b")
SQUARE = [[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]]


@dataclass(frozen=True)
class Timing:
    """One solve: its outcome, wall seconds and processor seconds."""

    outcome: NewtonOutcome
    wall: float
    cpu: float


def problem(kind: str, n: int, seed: int = 0) -> tuple[Floats, Floats]:
    """Targets (n, 2) and weights (n,) of a named problem."""
    rng = np.random.default_rng(seed)
    b = np.ones(n)
    if kind == "uniform":
        y = rng.random((n, 2))
    elif kind == "gaussian":
        y = rng.standard_normal((n, 2))
    elif kind == "clusters":
        label = rng.integers(0, 10, n)
        y = rng.random((10, 2))[label] + 0.01 * rng.standard_normal((n, 2))
        b = np.logspace(0, 2, 10)[label]
    elif kind == "weights":
        y, b = rng.random((n, 2)), 100.0 ** rng.random(n)
    elif kind == "grid":
        m = int(np.sqrt(n))
        y = np.stack(np.meshgrid(np.arange(m) / m, np.arange(m) / m), -1).reshape(-1, 2)
        b = np.ones(len(y))
    elif kind == "collinear":
        t = rng.random(n)
        y = np.column_stack([t, 2.0 * t])
    elif kind == "outside":
        y = 5.0 + 3.0 * rng.random((n, 2))
    else:
        msg = f"unknown problem {kind!r}"
        raise ValueError(msg)
    return y, b / b.sum()


def solve(kind: str, n: int, tol: float, picture: ImageDensity | None = None) -> Timing:
    """Time one solve from a cold start."""
    y, b = problem(kind, n)
    y = (y - y.mean(axis=0)) / np.ptp(y, axis=0).max() if picture is not None else y
    wall, cpu = time.perf_counter(), time.process_time()
    outcome = newton(PlanarCells(y, SQUARE if picture is None else picture.domain, picture), b, tol=tol)
    return Timing(outcome, time.perf_counter() - wall, time.process_time() - cpu)


def pictures(path: str, largest: int) -> None:
    """Print one line a picture and kind of targets."""
    print(
        f"{'picture':>12} {'problem':>10} {'n':>8} {'status':>10} {'steps':>5} {'error':>8} {'wall s':>7} {'cpu s':>7}"
    )
    runs = [(name, kind, 10_000) for name in PICTURES for kind in ("uniform", "clusters", "outside")]
    with np.load(path, allow_pickle=False) as archive:
        images = {name: ImageDensity(archive[name]) for name in PICTURES}
    solve("uniform", 2_000, 0.1, images["A"])  # compiles
    for name, kind, n in [*runs, ("A", "uniform", 100_000)]:
        if n <= largest:
            t = solve(kind, n, 1e-8, images[name])
            o = t.outcome
            print(f"{name:>12} {kind:>10} {n:>8} {o.status:>10} {o.n_iter:>5} {o.error:>8.1e}", end=" ")
            print(f"{t.wall:>7.2f} {t.cpu:>7.2f}", flush=True)


def main() -> None:
    """Print one line a problem."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--largest", type=float, default=1e5, help="largest number of uniform targets")
    parser.add_argument("--pictures", help="path of an archive of grey images to take as sources")
    args = parser.parse_args()
    if args.pictures:
        pictures(args.pictures, int(args.largest))
        return
    print(f"{os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}")
    first = solve("uniform", 30_000, 1e-8)
    second = solve("uniform", 30_000, 1e-8)
    print(f"compilation or loading of the kernels: {first.cpu - second.cpu:.1f} s of processor time")
    runs = [("uniform", int(n), 1e-8) for n in (1e3, 1e4, 1e5) if n <= args.largest]
    runs += [(kind, n, 1e-8) for kind in ("clusters", "weights", "gaussian") for n in (1_000, 10_000)]
    runs += [(kind, 10_000, 1e-8) for kind in ("grid", "outside")] + [("collinear", 1_000, 1e-8)]
    runs += [("uniform", 1_000_000, 1e-6)] if args.largest >= 1e6 else []
    print(
        f"{'problem':>10} {'n':>8} {'status':>10} {'steps':>5} {'error':>8} {'wall s':>7} {'cpu s':>7} {'peak GB':>7}"
    )
    for kind, n, tol in runs:
        t = solve(kind, n, tol)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        o = t.outcome
        print(
            f"{kind:>10} {n:>8} {o.status:>10} {o.n_iter:>5} {o.error:>8.1e} {t.wall:>7.2f} {t.cpu:>7.2f} {peak:>7.2f}"
        )


if __name__ == "__main__":
    main()
