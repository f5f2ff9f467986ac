"""Nanoseconds per score: ``python tests/benchmarks/bench_kernels.py [--backend keops] [--device cuda]``.

Two numbers per cell, wall clock and CPU time: on a busy machine only the second can be compared.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial

import torch

from otgan import kernels

OPERATIONS: dict[str, Callable] = {
    "assign": kernels.assign,
    "top_k 16": lambda x, y, h: kernels.top_k(x, y, h, 16),
    "soft_moments": lambda x, y, h: kernels.soft_moments(x, y, h, 0.05),
    "soft_counts": lambda x, y, h: kernels.soft_counts(x, y, h, 0.05),
    "slack": kernels.slack,
}


def best_of(run: Callable[[], object], device: str, repeat: int) -> tuple[float, float]:
    """Least wall-clock and CPU seconds of ``repeat`` runs after one that compiles and warms up."""
    run()
    wall, cpu = [], []
    for _ in range(repeat):
        start, start_cpu = time.perf_counter(), time.process_time()
        run()
        if device == "cuda":
            torch.cuda.synchronize()
        wall.append(time.perf_counter() - start)
        cpu.append(time.process_time() - start_cpu)
    return min(wall), min(cpu)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dims", type=int, nargs="+", default=[2, 3, 5, 10, 32, 64, 128, 512])
    parser.add_argument("--samples", type=int, default=20_000)
    parser.add_argument("--targets", type=int, default=4096)
    parser.add_argument("--dtype", choices=["float32", "float64"], default="float32")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeat", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    print(f"{args.backend} on {args.device}, {args.dtype}, {args.samples} x {args.targets}, {args.threads} threads")
    print("ns per score, wall (CPU)")
    print(f"{'d':>4}" + "".join(f"{name:>18}" for name in OPERATIONS))
    generator = torch.Generator().manual_seed(0)
    options = {"dtype": getattr(torch, args.dtype), "device": args.device}
    with kernels.use(args.backend):
        for d in args.dims:
            x = torch.randn(args.samples, d, generator=generator).to(**options)
            y = torch.randn(args.targets, d, generator=generator).to(**options)
            h = -(y**2).sum(1) / 2
            row = f"{d:>4}"
            for operation in OPERATIONS.values():
                wall, cpu = best_of(partial(operation, x, y, h), args.device, args.repeat)
                scale = 1e9 / (args.samples * args.targets)
                row += f"{f'{wall * scale:.2f} ({cpu * scale:.2f})':>18}"
            print(row, flush=True)


if __name__ == "__main__":
    main()
