"""Error at equal time: exact Newton and POT, ``python tests/benchmarks/bench_against_pot.py``.

Uniform square, n random targets. POT runs its averaged SGD, plain and with decreasing regularisation (DRAG), each with
the first step of a grid that ends best, from Voronoi cells (its zero potential). All errors are exact: cell masses and
the dual value of each potential are integrals over clipped polygons.
"""

from __future__ import annotations

import argparse
import os
import time

import numpy as np
import torch
from ot.semidiscrete import solve_semidiscrete

import otgan as og
from otgan.cells import exact_cells
from otgan.certificate import certify_exact

STEPS = [0.003, 0.03, 0.3, 1.0, 3.0, 30.0]
BATCH = 256


def errors(target: og.DiscreteMeasure, heights: np.ndarray, value: float) -> str:
    """Exact chi2, worst cell, empty cells and relative error of W2^2 of some heights."""
    source = og.UniformBox(dim=2)
    moments = exact_cells(source, target.points.numpy()).moments(heights, hessian=False)
    cert = certify_exact(source, target, torch.from_numpy(heights), moments.masses, moments.first)
    gap = abs(2 * cert.dual - value) / value
    return f"{cert.chi2:9.1e} {cert.max_ratio:9.1e} {cert.empty_cells:6d} {gap:9.1e}"


def pot(y: np.ndarray, steps: int, lr0: float, drag: bool) -> tuple[np.ndarray, float]:
    """Heights that POT's solver ends with, and its seconds."""
    stream = np.random.default_rng(0)
    start = time.perf_counter()
    dual = solve_semidiscrete(
        y,
        lambda size: stream.random((size, 2)),
        max_iter=steps,
        batch_size=BATCH,
        lr0=lr0,
        decreasing_reg=drag,
        decreasing_reg_initial_eps=0.1,
    )
    return (dual - (y**2).sum(1)) / 2, time.perf_counter() - start


def main() -> None:
    """Print one line a method and time."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, nargs="+", default=[1000, 5000])
    parser.add_argument(
        "--times", type=float, nargs="+", default=[1.0, 10.0], help="multiples of Newton's time for POT"
    )
    args = parser.parse_args()
    print(f"{os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}")
    og.solve(og.UniformBox(dim=2), np.random.default_rng(1).random((300, 2)))  # compile
    print(f"{'n':>6} {'method':24} {'seconds':>8} {'chi2':>9} {'worst':>9} {'empty':>6} {'W2^2':>9}")
    for n in args.n:
        y = np.random.default_rng(0).random((n, 2))
        result = og.solve(og.UniformBox(dim=2), y)
        value = float(result.value or np.nan)
        shown = errors(result.target, result.potential.heights.numpy(), value)
        print(f"{n:6d} {'otgan newton':24} {result.seconds:8.2f} {shown}")
        _, pace = pot(y, 50, 1.0, False)
        for multiple in args.times:
            steps = max(int(50 * multiple * result.seconds / pace), 10)
            for drag in (False, True):
                runs = [(*pot(y, steps, lr0, drag), lr0) for lr0 in STEPS]
                best = min(runs, key=lambda run: float(errors(result.target, run[0], value).split()[0]))
                name = f"POT {'DRAG' if drag else 'SGD'}, lr0 = {best[2]:g}"
                print(f"{n:6d} {name:24} {best[1]:8.2f} {errors(result.target, best[0], value)}", flush=True)


if __name__ == "__main__":
    main()
