"""Which kernel backend wins on this machine: ``python tests/benchmarks/bench_kernels.py [rule|table|pruning|compile]``.

``rule`` (the default): nanoseconds per score of each backend, per device and dimension, the winner, and the rows that
``otgan.kernels.dispatch.RULES`` should hold for this machine, next to those that it holds. ``table``: the same figures
for every operation, as times faster than the first backend; ``plain`` is ``torch.addmm(...).max(1)``, all scores in
memory. ``pruning``: :func:`~otgan.kernels.assign` with and without pruning, and the share of the panels of targets that
it visits. ``compile``: how long Numba compiles for, from nothing.

Backends take turns in one process and medians are given. On a busy machine wall-clock times cannot be compared, CPU
times on one thread can (``--wall`` gives the others). KeOps compiles for half a minute per operation and dimension the
first time, so on a CPU it takes part only if it is named.
"""

from __future__ import annotations

import argparse
import itertools
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor

from otgan import kernels
from otgan.kernels import cpu, dispatch
from otgan.kernels.dispatch import Rule

OPERATIONS: dict[str, Callable[[Tensor, Tensor, Tensor], object]] = {
    "assign": kernels.assign,
    "top_k 16": lambda x, y, h: kernels.top_k(x, y, h, 16),
    "top_k 64": lambda x, y, h: kernels.top_k(x, y, h, 64),
    "soft_moments": lambda x, y, h: kernels.soft_moments(x, y, h, 0.05),
    "soft_counts": lambda x, y, h: kernels.soft_counts(x, y, h, 0.05),
    "slack": kernels.slack,
}
DECIDING = ["assign", "top_k 16"]
DIMS = [1, 2, 3, 5, 10, 16, 32, 64, 128, 256, 512, 1024, 2048]
PLAIN = "plain"
TIE = 0.05
"""A backend replaces the one that the rule names only if it is faster by more than this."""
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
        x = torch.rand(30_000, 3, dtype=dtype)
        start, cpu = time.perf_counter(), time.process_time()
        kernels.assign(x, x, -(x ** 2).sum(1) / 2)
        print(f"assign, pruned, {dtype}: {time.perf_counter() - start:.2f} s (CPU {time.process_time() - cpu:.2f} s)")
"""


def with_cost(operation: str, p: float) -> Callable[..., object]:
    """The operation for the scores ``h - |x - y|^p / p``, or for the plain ones where p = 2."""
    if p == 2.0:
        return OPERATIONS[operation]
    name, _, k = operation.partition(" ")
    more = {"top_k": (int(k or 1),), "soft_moments": (0.05,), "soft_counts": (0.05,)}.get(name, ())
    return lambda x, y, h: getattr(kernels, name)(x, y, h, *more, p=p)


def plain(x: Tensor, y: Tensor, h: Tensor) -> object:
    """Matrix product with all scores in memory, then their maximum."""
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


def medians(runs: Mapping[str, Callable[[], object]], device: str, wall: bool, repeat: int) -> dict[str, float]:
    """Median seconds of each run; they take turns, after a first one that compiles and warms up."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(repeat + 1):
        for name, run in runs.items():
            with kernels.use(name if name in dispatch.BACKENDS else "auto"):
                took = seconds(run, device, wall)
            if turn:
                times[name].append(took)
    return {name: statistics.median(values) for name, values in times.items()}


def problem(m: int, n: int, d: int, options: Mapping[str, object]) -> tuple[Tensor, Tensor, Tensor]:
    """Gaussian samples and targets, and the heights of the Voronoi diagram: nothing can be pruned from d = 8 on."""
    generator = torch.Generator().manual_seed(d)
    x = torch.randn(m, d, generator=generator).to(**options)  # type: ignore[call-overload]
    y = torch.randn(n, d, generator=generator).to(**options)  # type: ignore[call-overload]
    return x, y, -(y**2).sum(1) / 2


def sizes(text: str) -> tuple[int, int]:
    """``"4096x4096"`` -> (4096, 4096)."""
    m, n = (int(float(number)) for number in text.split("x"))
    return m, n


def named(device: str, backends: Sequence[str] | None) -> list[str]:
    """The backends to measure on a device: those named, or all that work, without KeOps on a CPU."""
    state = kernels.status()
    return [
        name
        for name in (backends or [name for name in dispatch.BACKENDS if (name, device) != ("keops", "cpu")])
        if device in state[name].devices
    ]


def rows_of(device: str, winners: Mapping[int, str]) -> list[Rule]:
    """The rows of a rule that picks these winners, by dimension; the last row holds for every larger dimension."""
    rows = [Rule(device, float(list(dims)[-1]), name) for name, dims in itertools.groupby(sorted(winners), winners.get)]
    return [*rows[:-1], rows[-1]._replace(max_dim=math.inf)]


def in_words(rows: Sequence[Rule]) -> str:
    """``numba up to 512, torch beyond``."""
    return ", ".join(
        f"{r.backend} up to {r.max_dim:g}" if r.max_dim < math.inf else f"{r.backend} beyond" for r in rows
    )


def rule(args: argparse.Namespace) -> None:
    """Measure, name the winner of each dimension, and write the rule that follows."""
    devices = [args.device] if args.device else ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    found_rows: list[Rule] = []
    for device in devices:
        names = named(device, args.backends)
        m, n = sizes(args.sizes[0])
        options = {"dtype": getattr(torch, args.dtype), "device": device}
        clock = "wall clock" if args.wall or device == "cuda" else "CPU time"
        print(f"{device}: ns per score ({clock}), {args.dtype}, {m} x {n}, {args.threads} threads")
        print(f"{'d':>6}" + "".join(f"{f'{op} {name}':>20}" for op in args.operations for name in names) + "   winner")
        winners, today = {}, {}
        for d in args.dims:
            x, y, h = problem(m, n, d, options)
            row, total = f"{d:>6}", dict.fromkeys(names, 0.0)
            for operation in args.operations:
                runs = {name: partial(OPERATIONS[operation], x, y, h) for name in names}
                for name, took in medians(runs, device, args.wall, args.repeat).items():
                    row += f"{took / m / n * 1e9:>20.3f}"
                    total[name] += math.log(took) / len(args.operations)
            today[d] = dispatch.choose(device, d)
            winner = min(names, key=total.__getitem__)
            if today[d] in total and total[today[d]] - total[winner] < TIE:
                winner = today[d]
            winners[d] = winner
            others = [value for name, value in total.items() if name != winner]
            lead = f" ({math.exp(min(others) - total[winner]):.1f} times faster)" if others else ""
            print(f"{row}   {winner}{lead}", flush=True)
        measured, current = rows_of(device, winners), rows_of(device, today)
        verdict = "the same" if measured == current else "DIFFERENT"
        print(f"{device}: the rule says {in_words(current)}; measured: {in_words(measured)}: {verdict}\n")
        found_rows += measured
    print("rows for otgan.kernels.dispatch.RULES by these measurements:")
    for row in found_rows:
        print(
            f'    Rule("{row.device}", ' + (f'{row.max_dim:g}, "' if row.max_dim < math.inf else 'float("inf"), "'),
            end="",
        )
        print(f'{row.backend}"),')
    print('    Rule("any", float("inf"), "torch"),')


def table(args: argparse.Namespace) -> None:
    """Print nanoseconds per score of every operation, and times faster than the first backend."""
    device = args.device or "cpu"
    names = named(device, args.backends)
    clock = "wall clock" if args.wall or device == "cuda" else "CPU time"
    print(f"ns per score ({clock}), {args.dtype} on {device}, {args.threads} threads; times faster than the first")
    options = {"dtype": getattr(torch, args.dtype), "device": device}
    for operation in args.operations:
        columns = [*names, *([PLAIN] if operation == "assign" and args.p == 2.0 else [])]
        print(f"\n{operation:<14}{'d':>5}" + "".join(f"{name:>18}" for name in columns))
        for size in args.sizes:
            m, n = sizes(size)
            for d in args.dims:
                x, y, h = problem(m, n, d, options)
                fits = m * n * x.element_size() < 2**30
                runs = {
                    name: partial(plain if name == PLAIN else with_cost(operation, args.p), x, y, h)
                    for name in columns
                    if name != PLAIN or fits
                }
                found = medians(runs, device, args.wall, args.repeat)
                row = f"{size:<14}{d:>5}"
                for took in found.values():
                    row += f"{f'{took / m / n * 1e9:.3f} ({found[names[0]] / took:.1f})':>18}"
                print(row, flush=True)


def scene(kind: str, m: int, n: int, d: int) -> tuple[Tensor, Tensor]:
    """Samples and targets of one kind: ``box``, ``normal``, ``clusters``, ``curve`` or ``slab``."""
    g = torch.Generator().manual_seed(d)
    x, y = torch.rand(m, d, generator=g), torch.rand(n, d, generator=g)
    if kind == "normal":
        x, y = torch.randn(m, d, generator=g), torch.randn(n, d, generator=g)
    elif kind == "clusters":
        centres = 3 * torch.randn(50, d, generator=g)
        x = centres[torch.randint(50, (m,), generator=g)] + 0.02 * x
        y = centres[torch.randint(50, (n,), generator=g)] + 0.02 * y
    elif kind == "curve":
        rate = torch.arange(1, d + 1) / 2
        x, y = torch.sin(3 * x[:, :1] * rate) / rate, torch.sin(3 * y[:, :1] * rate) / rate
    elif kind == "slab":
        y = torch.full((n, d), 0.5)
        y[:, 0] = (torch.arange(n) + 0.5) / n
    return x, y


def pruning(args: argparse.Namespace) -> None:
    """Print ``assign`` with pruning left to decide for itself against the plain loops, and what was visited."""
    from otgan.kernels import _cpu_pruned

    dtype = getattr(torch, args.dtype)
    clock = "wall clock" if args.wall else "CPU time"
    print(
        f"assign ({clock}), {args.dtype}, {args.threads} threads; visited: share of the panels, where pruning was begun"
    )
    print(f"{'scene':<10}{'size':<14}{'d':>5}{'plain ms':>12}{'assign ms':>12}{'faster':>9}{'visited':>10}{'left':>9}")
    run, threshold = _cpu_pruned.Pruned.run, _cpu_pruned.LEAST_WORK
    seen: list[_cpu_pruned.Pruned] = []

    def watched(
        self: _cpu_pruned.Pruned, *arguments: Callable[[Tensor], tuple[Tensor, Tensor]]
    ) -> tuple[Tensor, Tensor]:
        seen.append(self)
        return run(self, *arguments)

    def timed(x: Tensor, y: Tensor, h: Tensor, least: float) -> kernels.Assignment:
        _cpu_pruned.LEAST_WORK = least  # type: ignore[assignment]
        try:
            with kernels.use(cpu.NAME):
                return kernels.assign(x, y, h)
        finally:
            _cpu_pruned.LEAST_WORK = threshold

    _cpu_pruned.Pruned.run = watched  # type: ignore[method-assign]
    try:
        for kind, size, d in itertools.product(args.scenes, args.sizes, args.dims):
            x, y = (points.to(dtype) for points in scene(kind, *sizes(size), d))
            h = -(y**2).sum(1) / 2
            seen.clear()
            runs = {"without": partial(timed, x, y, h, math.inf), "with": partial(timed, x, y, h, threshold)}
            found = medians(runs, "cpu", args.wall, args.repeat)
            visited = f"{seen[-1].visited:>10.4f}{seen[-1].left:>9}" if seen else f"{'-':>10}{'-':>9}"
            times = (
                f"{found['without'] * 1e3:>12.2f}{found['with'] * 1e3:>12.2f}{found['without'] / found['with']:>9.2f}"
            )
            print(f"{kind:<10}{size:<14}{d:>5}{times}{visited}", flush=True)
    finally:
        _cpu_pruned.Pruned.run = run  # type: ignore[method-assign]


def compile_times(args: argparse.Namespace) -> None:
    """Print what the first calls cost with an empty cache, then with a full one."""
    with tempfile.TemporaryDirectory() as folder:
        for state in ("empty cache", "full cache"):
            print(state, flush=True)
            subprocess.run([sys.executable, "-c", COMPILE], env={**os.environ, "NUMBA_CACHE_DIR": folder}, check=True)


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", default="rule", choices=["rule", "table", "pruning", "compile"])
    parser.add_argument("--backends", nargs="+", choices=list(dispatch.BACKENDS), help="default: all that work")
    parser.add_argument("--operations", nargs="+", choices=list(OPERATIONS))
    parser.add_argument("--device", help="cpu or cuda; rule: default both, table: the CPU")
    parser.add_argument("--dims", type=int, nargs="+")
    parser.add_argument("--sizes", nargs="+", metavar="SAMPLESxTARGETS")
    parser.add_argument("--scenes", nargs="+", default=["box", "normal", "clusters", "curve", "slab"])
    parser.add_argument("--dtype", choices=["float32", "float64"], default="float32")
    parser.add_argument("--p", type=float, default=2.0, help="table: exponent of the cost; numba knows 2 only")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--wall", action="store_true", help="wall-clock instead of CPU time")
    args = parser.parse_args(argv)
    pruned = args.what == "pruning"
    args.operations = args.operations or (DECIDING if args.what == "rule" else list(OPERATIONS))
    args.dims = sorted(args.dims or ([1, 2, 3, 4, 5, 8, 10, 16] if pruned else DIMS))
    args.sizes = args.sizes or (["1e4x1e4", "1e5x1e5"] if pruned else ["4096x4096"])
    torch.set_num_threads(args.threads)
    {"rule": rule, "table": table, "pruning": pruning, "compile": compile_times}[args.what](args)


if __name__ == "__main__":
    main()
