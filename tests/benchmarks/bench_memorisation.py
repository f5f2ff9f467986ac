"""Copies or new points? ``python tests/benchmarks/bench_memorisation.py`` on codes of handwritten digits.

Problems: scikit-learn's digits (1,500 to learn from, 297 held out, 20 principal components), and with OTGAN_DATA those
of MNIST (10,000 and 10,000, 32 components). One solve each, by ``OTGAN(generator="auto")``; the other generators are
read off the same potential. As many points as are held out are drawn of each, 2,000 at most for P R D C and
the W2 distances.

C_T below -3 is copying, above 3 distance from the data; authenticity has the held-out points' value as its null. The
"held-out" row is one half of the held-out points against the other, the W2 distances those of as many training points.
P R D C are precision, recall, density and coverage. Variance is over that of the training points: means of targets lose
some, which C_T and authenticity do not see.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from semidiscrete.problems import images as read_images

import otgan as og
from otgan import metrics
from otgan.datasets import data_folder, digits
from otgan.demo import Codes
from otgan.generators import (
    EntropicGenerator,
    ExtensionGenerator,
    Generator,
    LocalGenerator,
    NearestGenerator,
    Score,
    entropic_reg,
    fit_generator,
)

Floats = NDArray[np.float64]
_W2_POINTS = 2000
NEIGHBOURS = (8.0, 16.0, 32.0)
FACTORS = (2.0, 4.0, 6.0, 8.0, 12.0, 16.0, 20.0)


def shuffled(count: int, seed: int) -> NDArray[np.int64]:
    """In which order the images are taken: first those to learn from."""
    return np.random.default_rng(seed).permutation(count)


def split(images: Floats, n_train: int, n_test: int, dim: int, seed: int) -> tuple[Floats, Floats]:
    """Codes to learn from and codes held out; the components are those of the former."""
    order = shuffled(len(images), seed)
    train, test = images[order[:n_train]], images[order[n_train : n_train + n_test]]
    codes = Codes.of(train, dim)
    return codes.encode(train), codes.encode(test)


def show(name: str, what: str, new: Floats, test: Floats, train: Floats, seconds: float | None) -> None:
    """One line of the table."""
    real = what == "held-out"
    size = min(len(new), len(test) // 2 if real else len(test), _W2_POINTS)
    beside = test[len(test) // 2 :] if real else test
    copying = metrics.data_copying(new, beside, train)
    near = metrics.prdc(new[:size], beside[:size])
    variance = new.var(axis=0).sum() / train.var(axis=0).sum()
    drawn = (train if real else new)[: min(len(new), len(test), _W2_POINTS)]
    sliced = metrics.sliced_w2(drawn, test[: len(drawn)]).value
    distances = f"{sliced:.3g} | {metrics.w2(drawn, test[: len(drawn)]):.3f}"
    print(
        f"| {name} | {what} | {copying.value:.1f} | {metrics.authenticity(new, train):.3f} | "
        f"{metrics.nearest_ratio(new, train):.3f} | {near.precision:.2f} {near.recall:.2f} {near.density:.2f} "
        f"{near.coverage:.2f} | {distances} | {variance:.2f} | {'' if seconds is None else f'{seconds:.1f}'} |",
        flush=True,
    )


def total(score: Score) -> float:
    """What "auto" compares."""
    return score.total


def measure(name: str, train: Floats, test: Floats, steps: int, seed: int, skip: Sequence[str]) -> None:
    """All rows of one problem."""
    show(name, "held-out", test[: len(test) // 2], test, train, None)
    begun = time.perf_counter()
    model = og.OTGAN(seed=seed, fit={"steps": steps}).fit(train.astype(np.float32))
    spent = time.perf_counter() - begun - model.result.seconds
    u, source = model.potential, model.result.source
    scores = ", ".join(f"{kind} {score.total:.3f}" for kind, score in model.scores.items())
    chosen = next(kind for kind, score in model.scores.items() if score == min(model.scores.values(), key=total))
    reg = getattr(model.generator, "reg", None)
    if reg is not None:
        chosen += f", {reg / entropic_reg(u, source, 1.0):.2g} n^(-1/2)"
    elif isinstance(model.generator, LocalGenerator):
        chosen += f", {model.generator.neighbours:.3g} neighbours"
    print(f"| {name} | solve; scores: {scores} | | | | | | | | {model.result.seconds:.1f} |", flush=True)
    makers: dict[str, Callable[[], Generator]] = {
        "nearest": lambda: NearestGenerator(u, source),
        "extension": lambda: ExtensionGenerator(u, source),
        **{f"local, {k:g} neighbours": lambda k=k: LocalGenerator(u, source, k) for k in NEIGHBOURS},
        **{
            f"entropic, {f:g} n^(-1/2)": lambda f=f: EntropicGenerator(u, source, entropic_reg(u, source, f))
            for f in FACTORS
        },
        "icnn": lambda: fit_generator(u, source, "icnn", steps=steps, seed=seed),
        "mlp": lambda: fit_generator(u, source, "mlp", steps=steps, seed=seed),
    }
    new = model.sample(len(test), seed=seed + 1).double().numpy()
    show(name, f"auto ({chosen})", new, test, train, spent)
    for what, make in makers.items():
        if what.split(",")[0] in skip or (what == "icnn" and "icnn" in model.scores):
            continue
        begun = time.perf_counter()
        generator = make()
        spent = time.perf_counter() - begun
        show(name, what, generator.sample(len(test), seed=seed + 1).double().numpy(), test, train, spent)


def main(argv: Sequence[str] | None = None) -> None:
    """Print one row a problem and generator."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--problems", nargs="+", default=["digits", "mnist"], choices=["digits", "mnist"])
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--steps", type=int, default=6000, help="of a network's fit")
    parser.add_argument("--n-train", type=int, default=10_000, help="of MNIST")
    parser.add_argument("--n-test", type=int, default=10_000, help="of MNIST")
    parser.add_argument("--skip", nargs="*", default=[], help="generators to leave out")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    folder = None if data_folder() is None else data_folder() / "mnist"
    print(
        "| problem | generator | C_T | authenticity | nearest ratio | P R D C | sliced W2 | W2 | variance | seconds |\n"
        "|---|---|---|---|---|---|---|---|---|---|"
    )
    for seed in range(args.seeds):
        if "digits" in args.problems:
            train, test = split(digits()[0], 1500, 297, 20, seed)
            measure("digits", train, test, args.steps, seed, args.skip)
        if "mnist" in args.problems and folder is not None:
            images = read_images(folder / "train-images-idx3-ubyte.gz").astype(np.float64)
            train, test = split(images, args.n_train, args.n_test, 32, seed)
            measure("MNIST", train, test, args.steps, seed, args.skip)


if __name__ == "__main__":
    main()
