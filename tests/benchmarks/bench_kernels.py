"""Nanoseconds of CPU time per score: ``python tests/benchmarks/bench_kernels.py [--backends torch numba keops]``.

The backends take turns in one process; the table gives medians and, for each, how many times faster it is than the
first one named. On a busy machine wall-clock times cannot be compared, CPU times on one thread can (``--wall`` gives
the others). ``plain`` is ``torch.addmm(...).max(1)``, all scores in memory, for ``assign``. KeOps compiles for half a
minute per operation and dimension the first time. ``--compile`` prints how long Numba compiles for, from nothing;
``--p 3 --backends torch keops`` times the scores ``h - |x - y|^p / p``.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from otgan import kernels

OPERATIONS: dict[str, Callable[..., object]] = {
    "assign": kernels.assign,
    "top_k 16": lambda x, y, h, p: kernels.top_k(x, y, h, 16, p=p),
    "top_k 64": lambda x, y, h, p: kernels.top_k(x, y, h, 64, p=p),
    "soft_moments": lambda x, y, h, p: kernels.soft_moments(x, y, h, 0.05, p=p),
    "soft_gradient": lambda x, y, h, p: kernels.soft_gradient(x, y, h, 0.05, p=p),
    "soft_counts": lambda x, y, h, p: kernels.soft_counts(x, y, h, 0.05, p=p),
    "slack": kernels.slack,
}
PLAIN = "plain"
COMPILE = """
import time, torch
from otgan import kernels
start = time.perf_counter()
import numba
print(f"import numba: {time.perf_counter() - start:.1f} s")
more = {"assign": (), "top_k": (16,), "soft_moments": (0.1,), "soft_counts": (0.1,), "slack": ()}
with kernels.use("numba"):
    for dtype in (torch.float32, torch.float64):
        x = torch.rand(100, 3, dtype=dtype)
        for name, arguments in more.items():
            start, cpu = time.perf_counter(), time.process_time()
            getattr(kernels, name)(x, x, x[:, 0], *arguments)
            print(f"{name}, {dtype}: {time.perf_counter() - start:.2f} s (CPU {time.process_time() - cpu:.2f} s)")
"""


def plain(x: Tensor, y: Tensor, h: Tensor, p: float) -> object:
    """Matrix product (or distances) with all scores in memory, then their maximum."""
    if p != 2.0:
        return (h - torch.cdist(x, y, compute_mode="use_mm_for_euclid_dist") ** p / p).max(1)
    return torch.addmm(h, x, y.T).max(1)


def seconds(run: Callable[[], object], device: str, wall: bool) -> float:
    """Seconds that one run takes, of CPU time unless ``wall`` or on a GPU."""
    clock = time.perf_counter if wall or device == "cuda" else time.process_time
    if device == "cuda":
        torch.cuda.synchronize()
    start = clock()
    run()
    if device == "cuda":
        torch.cuda.synchronize()
    return clock() - start


def medians(runs: dict[str, Callable[[], object]], device: str, wall: bool, repeat: int) -> dict[str, float]:
    """Median seconds of each run; they take turns, after a first one that compiles and warms up."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(repeat + 1):
        for name, run in runs.items():
            context = kernels.use("auto" if name == PLAIN else name)
            with context:
                took = seconds(run, device, wall)
            if turn:
                times[name].append(took)
    return {name: statistics.median(values) for name, values in times.items()}


def compile_times() -> None:
    """Print what the first calls cost with an empty cache, then with a full one."""
    with tempfile.TemporaryDirectory() as folder:
        for state in ("empty cache", "full cache"):
            print(state)
            subprocess.run([sys.executable, "-c", COMPILE], env={**os.environ, "NUMBA_CACHE_DIR": folder}, check=True)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backends", nargs="+", default=["torch", "numba"])
    parser.add_argument("--operations", nargs="+", default=list(OPERATIONS), choices=list(OPERATIONS))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dims", type=int, nargs="+", default=[1, 2, 3, 5, 10, 16, 32, 64, 128, 256, 512])
    parser.add_argument("--sizes", nargs="+", default=["4096x4096"], metavar="SAMPLESxTARGETS")
    parser.add_argument("--dtype", choices=["float32", "float64"], default="float32")
    parser.add_argument("--p", type=float, default=2.0, help="exponent of the cost; numba knows 2 only")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--wall", action="store_true", help="wall-clock instead of CPU time")
    parser.add_argument("--compile", action="store_true", help="only the compile times of the numba backend")
    args = parser.parse_args()
    if args.compile:
        compile_times()
        return
    torch.set_num_threads(args.threads)
    clock = "wall clock" if args.wall or args.device == "cuda" else "CPU time"
    print(f"ns per score ({clock}), {args.dtype} on {args.device}, {args.threads} threads; times faster than the first")
    options = {"dtype": getattr(torch, args.dtype), "device": args.device}
    for operation in args.operations:
        names = [*args.backends, *([PLAIN] if operation == "assign" else [])]
        print(f"\n{operation:<14}{'d':>5}" + "".join(f"{name:>18}" for name in names))
        for size in args.sizes:
            m, n = (int(float(number)) for number in size.split("x"))
            for d in args.dims:
                generator = torch.Generator().manual_seed(d)
                x = torch.randn(m, d, generator=generator).to(**options)
                y = torch.randn(n, d, generator=generator).to(**options)
                h = -(y**2).sum(1) / 2 if args.p == 2.0 else torch.zeros_like(y[:, 0])
                fits = m * n * x.element_size() < 2**30
                runs = {
                    name: partial(plain if name == PLAIN else OPERATIONS[operation], x, y, h, p=args.p)
                    for name in names
                    if name != PLAIN or fits
                }
                found = medians(runs, args.device, args.wall, args.repeat)
                row = f"{f'{m}x{n}':<14}{d:>5}"
                for took in found.values():
                    ratio = found[args.backends[0]] / took
                    row += f"{f'{took / m / n * 1e9:.3f} ({ratio:.1f})':>18}"
                print(row, flush=True)


if __name__ == "__main__":
    main()
