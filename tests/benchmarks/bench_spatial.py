"""Seconds to solve uniform-to-discrete problems exactly, in 3-D and on the line. Nothing is asserted.

python tests/benchmarks/bench_spatial.py [--large] [--data ../shared/data]
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np

from otgan.cells.line import GaussianLine, LineCells, UniformLine, line_wasserstein, solve_line
from otgan.cells.spatial import Polytope, SpatialCells
from otgan.solvers.newton import newton


def report(name: str, points: np.ndarray, domain: Polytope) -> None:
    """One evaluation of the cells, cold and warm, then the whole of Newton's method."""
    n = len(points)
    began = time.perf_counter()
    cells = SpatialCells(points, domain)
    build = time.perf_counter() - began
    start = cells.start(np.full(n, 1.0 / n))
    once = []
    for _ in range(2):
        began = time.perf_counter()
        cells.moments(start)
        once.append(time.perf_counter() - began)
    began, cpu = time.perf_counter(), time.process_time()
    outcome = newton(SpatialCells(points, domain), np.full(n, 1.0 / n), tol=1e-8)
    wall, cpu = time.perf_counter() - began, time.process_time() - cpu
    print(
        f"{name:22s} {n:7d} {build:7.2f} {once[0]:7.2f} {once[1]:7.2f} {wall:8.2f} {cpu:8.2f} {outcome.n_iter:5d} "
        f"{outcome.error:9.1e} {outcome.masses.sum() - 1:9.1e}  {outcome.status}",
        flush=True,
    )


def line(n: int) -> None:
    """The closed form on the line, and the cells at its heights."""
    points = np.random.default_rng(0).normal(size=n)
    for source in (UniformLine(-1.0, 2.0), GaussianLine()):
        began = time.perf_counter()
        heights = solve_line(points, None, source)
        solved = time.perf_counter()
        LineCells(points, source).moments(heights)
        measured = time.perf_counter()
        line_wasserstein(points, None, source)
        ended = time.perf_counter()
        print(
            f"{type(source).__name__:22s} {n:7d}  solve {solved - began:.2f}  cells {measured - solved:.2f}  "
            f"W2 {ended - measured:.2f}"
        )


def surface(folder: Path, name: str) -> np.ndarray:
    """Distinct vertices of a surface that belong to a face."""
    mesh = np.load(folder / "pointclouds" / f"{name}.npz", allow_pickle=False)
    return np.unique(mesh["vertices"][np.unique(mesh["faces"])].astype(np.float64), axis=0)


def main() -> None:
    """Parse the command line and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--large", action="store_true", help="also n = 1e5")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    arguments = parser.parse_args()
    rng, box = np.random.default_rng(0), Polytope.box(0, 1)
    small = SpatialCells(rng.random((500, 3)), box)
    newton(small, np.full(500, 1.0), tol=1e-8)  # compiles
    line(1000)
    line(1_000_000)
    print(
        f"{'targets':22s} {'n':>7s} {'build':>7s} {'cold':>7s} {'warm':>7s} {'newton':>8s} {'cpu':>8s} steps     error"
    )
    report("uniform", rng.random((10_000, 3)), box)
    centres = rng.random((50, 3))
    report("clusters of sd 1e-3", centres[rng.integers(50, size=10_000)] + 1e-3 * rng.normal(size=(10_000, 3)), box)
    report("Cauchy", rng.standard_cauchy(size=(10_000, 3)), box)
    report("grid", np.stack(np.meshgrid(*[np.arange(20.0)] * 3), -1).reshape(-1, 3), box)
    sphere = rng.normal(size=(10_000, 3))
    report("sphere", sphere / np.linalg.norm(sphere, axis=1)[:, None], box)
    if arguments.large:
        report("uniform", rng.random((100_000, 3)), box)
    for name in ("spot", "stanford_bunny"):
        if not (arguments.data / "pointclouds").is_dir():
            print(f"no point clouds under {arguments.data}: skipped")
            break
        points = surface(arguments.data, name)
        low, high = points.min(axis=0), points.max(axis=0)
        margin = 0.1 * (high - low)
        report(f"{name} in its box", points, Polytope.box(low - margin, high + margin))
        report(f"{name}, box elsewhere", points, Polytope.box(high + margin, high + 5 * margin))


if __name__ == "__main__":
    main()
