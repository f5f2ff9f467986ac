"""Seconds of each metric on clouds of standard normal points, wall clock and processor.

python tests/benchmarks/bench_metrics.py --n 10000 --dims 2 32 784
"""

from __future__ import annotations

import argparse
import time

import torch

import otgan as og

M = og.metrics
METRICS = {
    "sliced_w2": lambda x, test, train: M.sliced_w2(x, test),
    "energy": lambda x, test, train: M.energy(x, test),
    "mmd2": lambda x, test, train: M.mmd2(x, test),
    "c2st": lambda x, test, train: M.c2st(x, test),
    "precision": lambda x, test, train: M.precision(x, test),
    "density": lambda x, test, train: M.density(x, test),
    "prdc": lambda x, test, train: M.prdc(x, test),
    "data_copying": lambda x, test, train: M.data_copying(x, test, train),
    "authenticity": lambda x, test, train: M.authenticity(x, train),
    "nearest_ratio": lambda x, test, train: M.nearest_ratio(x, train),
    "copies": lambda x, test, train: M.copies(x, train),
    "train_share": lambda x, test, train: M.train_share(x, train, test),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=10_000, help="points of each cloud")
    parser.add_argument("--dims", type=int, nargs="+", default=[2, 32, 784])
    arguments = parser.parse_args()
    print(f"{'':<14}" + "".join(f"{f'd = {d}':>18}" for d in arguments.dims) + "   (wall, processor)")
    clouds = {}
    for d in arguments.dims:
        clouds[d] = torch.randn(3, arguments.n, d, generator=torch.Generator().manual_seed(d))
    for name, metric in METRICS.items():
        line = f"{name:<14}"
        for points in clouds.values():
            metric(*points[:, :100])
            wall, processor = time.perf_counter(), time.process_time()
            metric(*points)
            line += f"{time.perf_counter() - wall:>9.2f}{time.process_time() - processor:>8.2f} "
        print(line, flush=True)


if __name__ == "__main__":
    main()
