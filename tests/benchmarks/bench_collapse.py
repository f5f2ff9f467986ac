"""Mode collapse as VEEGAN and PacGAN measure it: ``python tests/benchmarks/bench_collapse.py --seeds 10``.

Ring of 8 Gaussians (radius 1, deviation 0.01), grid of 25 (spacing 2, deviation 0.05), and a Swiss roll (its width left
out; deviation 0.05 across). Of each: 10,000 training points and 2,500 new ones. A new point is of high quality within
three deviations of its mode (on the roll: of the curve); a mode is captured when a high-quality point belongs to it;
reverse KL is that of the histogram of modes (on the roll: of 16 arcs that have equal mass). "held-out" rows are 2,500
real points. C_T and authenticity say whether points were copied, against 2,500 held-out ones.

No generator sees a held-out point: "auto" chooses by a tenth of the training points. Seconds are those of the wall
clock, of the solve and of what makes the generator.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

import otgan as og
from otgan import metrics
from otgan.generators.model import GENERATORS

Floats = NDArray[np.float64]
_TURNS = (1.5 * np.pi, 4.5 * np.pi)  # of the roll, whose radius is its angle
_LENGTH = 10.0  # it is scaled by
_ARCS = 16


@dataclass(frozen=True)
class Problem:
    """A law in the plane: how it is drawn, and how samples of it are judged."""

    name: str
    modes: int
    draw: Callable[[int, np.random.Generator], Floats]
    judge: Callable[[Floats], tuple[int, float, float]]


def mixture(name: str, centres: Floats, std: float) -> Problem:
    """Equal Gaussians around centres."""

    def draw(n: int, rng: np.random.Generator) -> Floats:
        return centres[rng.integers(len(centres), size=n)] + std * rng.normal(size=(n, 2))

    def judge(samples: Floats) -> tuple[int, float, float]:
        found = metrics.count_modes(samples, centres, std)
        return found.captured, found.high_quality, found.reverse_kl

    return Problem(name, len(centres), draw, judge)


def swiss_roll(std: float = 0.05) -> Problem:
    """A spiral with angle uniform between 1.5 pi and 4.5 pi, as scikit-learn draws it, in units of ten."""

    def curve(angle: Floats) -> Floats:
        return np.stack([angle * np.cos(angle), angle * np.sin(angle)], axis=1) / _LENGTH

    dense = np.linspace(*_TURNS, 20_001)
    line = curve(dense)

    def draw(n: int, rng: np.random.Generator) -> Floats:
        return curve(rng.uniform(*_TURNS, size=n)) + std * rng.normal(size=(n, 2))

    def judge(samples: Floats) -> tuple[int, float, float]:
        from scipy.spatial import cKDTree

        distance, index = cKDTree(line).query(samples)
        arc = np.minimum(index * _ARCS // len(line), _ARCS - 1)
        good = distance <= 3 * std
        counts = np.bincount(arc, minlength=_ARCS)
        return len(np.unique(arc[good])), float(good.mean()), metrics.reverse_kl(counts)

    return Problem("roll", _ARCS, draw, judge)


def problems() -> dict[str, Problem]:
    """By name."""
    angle = 2 * np.pi * np.arange(8) / 8
    steps = np.arange(-4.0, 5.0, 2.0)
    ring = mixture("ring", np.stack([np.cos(angle), np.sin(angle)], axis=1), 0.01)
    grid = mixture("grid", np.stack(np.meshgrid(steps, steps), axis=-1).reshape(-1, 2), 0.05)
    return {"ring": ring, "grid": grid, "roll": swiss_roll()}


def row(problem: Problem, new: Floats, test: Floats, train: Floats) -> list[float]:
    """Modes, high quality, reverse KL, C_T, authenticity."""
    captured, good, kl = problem.judge(new)
    return [captured, good, kl, metrics.data_copying(new, test, train).value, metrics.authenticity(new, train)]


def show(problem: Problem, name: str, rows: list[list[float]], seconds: list[tuple[float, float]], chosen: str) -> None:
    """One line of the table."""
    values = np.array(rows)
    captured, good, kl, copying, authentic = values.T
    every = int((captured == problem.modes).sum())
    took = f"{np.mean([s[0] for s in seconds]):.1f} + {np.mean([s[1] for s in seconds]):.1f}" if seconds else ""
    print(
        f"| {problem.name} | {name}{chosen} | {captured.mean():.1f} of {problem.modes} ({every} of {len(rows)} runs) | "
        f"{100 * good.mean():.1f} ({100 * good.min():.1f}) | {kl.mean():.4f} ({kl.max():.4f}) | "
        f"{copying.mean():.1f} ({copying.min():.1f} to {copying.max():.1f}) | {authentic.mean():.3f} | {took} |",
        flush=True,
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Print one row a problem and generator."""
    known = problems()
    parser = argparse.ArgumentParser()
    parser.add_argument("--problems", nargs="+", default=list(known), choices=list(known))
    parser.add_argument("--generators", nargs="+", default=list(GENERATORS), choices=list(GENERATORS))
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--n-train", type=int, default=10_000)
    parser.add_argument("--n-samples", type=int, default=2500)
    parser.add_argument("--steps", type=int, default=6000, help="of a network's fit")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    print(
        "| problem | generator | modes | high quality % (least) | reverse KL (most) | C_T (range) | authenticity | "
        "seconds |\n|---|---|---|---|---|---|---|---|"
    )
    for problem in (known[name] for name in args.problems):
        data = []
        for seed in range(args.seeds):
            rng = np.random.default_rng(seed)
            data.append([problem.draw(n, rng) for n in (args.n_train, args.n_samples, args.n_samples)])
        show(problem, "held-out", [row(problem, fresh, test, train) for train, test, fresh in data], [], "")
        for name in args.generators:
            rows, seconds, kinds = [], [], []
            for seed, (train, test, _) in enumerate(data):
                fit = {"steps": args.steps} if name in ("auto", "icnn", "mlp") else {}
                begun = time.perf_counter()
                model = og.OTGAN(generator=name, seed=seed, fit=fit).fit(train)
                spent = time.perf_counter() - begun
                seconds.append((model.result.seconds, spent - model.result.seconds))
                new = model.sample(args.n_samples, seed=seed + 1).double().numpy()
                rows.append(row(problem, new, test, train))
                kinds.append(type(model.generator).__name__.replace("Generator", "").lower())
            chosen = f" ({', '.join(f'{k} {kinds.count(k)}' for k in sorted(set(kinds)))})" if name == "auto" else ""
            show(problem, name, rows, seconds, chosen)


if __name__ == "__main__":
    main()
