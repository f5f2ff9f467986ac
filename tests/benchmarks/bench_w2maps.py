"""Known optimal maps from n target samples: ``python tests/benchmarks/bench_w2maps.py --dims 4 16 --log2n 12 14``.

L2-UVP and cosine of every generator on the pairs of :mod:`otgan.w2bench` (folder OTGAN_DATA), beside the published
rows, as a markdown table. Seconds are processor time, of the solve and of the fit. ``--folder`` keeps the solves.

The column "held-out" is the semi-dual on target samples that no solve saw: less is better, and one can choose by it.
No generator sees the true map.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import torch

import otgan as og
from otgan.generators import EntropicGenerator, Generator, NearestGenerator, entropic_reg, fit_generator
from otgan.w2bench import PUBLISHED, BenchmarkPair, load_pair

FACTORS = (0.25, 0.5, 1.0, 2.0, 4.0)


def timed(call: Callable[[], object]) -> tuple[object, float]:
    """The answer and the processor seconds that it took."""
    begun = time.process_time()
    return call(), time.process_time() - begun


def solved(pair: BenchmarkPair, n: int, tol: float, folder: Path | None, seed: int) -> tuple[og.Result, float]:
    """A result for n target samples, from the folder if it is there."""
    kept = None if folder is None else folder / f"sol_{pair.dim}_{n.bit_length() - 1}_{seed}"
    if kept is not None and kept.exists():
        return og.load(kept), float("nan")
    options = {"method": "stochastic-newton", "tol": tol, "seed": seed}
    result, seconds = timed(lambda: og.solve(pair.source, pair.target(n, seed=seed), **options))
    assert isinstance(result, og.Result)
    if kept is not None:
        result.save(kept)
    return result, seconds


def generators(u: og.BrenierPotential, source: og.Source, steps: int, seed: int) -> dict[str, Callable[[], Generator]]:
    """What makes each generator, by name."""
    return {
        "nearest": lambda: NearestGenerator(u, source),
        **{
            f"entropic, {f:g} x rule": lambda f=f: EntropicGenerator(u, source, entropic_reg(u, source, f))
            for f in FACTORS
        },
        "mlp, squared": lambda: fit_generator(u, source, "mlp", steps=steps, seed=seed),
        "icnn, squared": lambda: fit_generator(u, source, loss="squared", steps=steps, seed=seed),
        "icnn, Fenchel-Young": lambda: fit_generator(u, source, steps=steps, seed=seed),
    }


def main() -> None:
    """Print the published rows, then one row a dimension, n and generator."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--dims", type=int, nargs="+", default=[2, 4, 8, 16])
    parser.add_argument("--log2n", type=int, nargs="+", default=[10, 12, 14, 16])
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--tol", type=float, default=0.1, help="chi2 of the solve")
    parser.add_argument("--folder", type=Path, default=None)
    parser.add_argument("--skip", nargs="*", default=[], help="generators to leave out")
    parser.add_argument("--seed", type=int, default=0, help="of the target samples, the solve and the fit")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    print("| d | n | generator | L2-UVP % | cosine | held-out | seconds |\n|---|---|---|---|---|---|---|")
    for name, row in PUBLISHED.items():
        for dim in args.dims:
            if dim in row:
                print(f"| {dim} | unlimited | {name} (published) | {row[dim]} | | | |")
    for dim in args.dims:
        pair = load_pair(dim)
        fresh_x, fresh_y = pair.source.sample(1 << 14, seed=901), pair.target(1 << 14, seed=902)
        for k in args.log2n:
            result, seconds = solved(pair, 1 << k, args.tol, args.folder, args.seed)
            for name, make in generators(result.potential, pair.source, args.steps, args.seed).items():
                if any(name.startswith(skipped) for skipped in args.skip):
                    continue
                generator, spent = timed(make)
                score = pair.score(generator)
                held = f"{generator.semi_dual(fresh_x, fresh_y):.4f}" if name.startswith("icnn") else ""
                spent_all = f"{seconds:.0f} + {spent:.0f}"
                print(
                    f"| {dim} | 2^{k} | {name} | {score.l2_uvp:.3f} | {score.cosine:.4f} | {held} | {spent_all} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
