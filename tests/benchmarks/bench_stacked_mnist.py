"""Mode collapse on stacked MNIST, 1,000 modes: ``otgan bench stacked_mnist [--n-stacked 128000]`` (OTGAN_DATA).

The protocol of VEEGAN and PacGAN: images whose three channels are random training digits (128,000 of them), 26,000
generated ones, each channel classified; how many of the 1,000 triples of classes occur, and the KL divergence of their
histogram from the uniform one. A perfect sampler has KL 0.024, not 0: 26,000 samples scatter, and MNIST's classes are
not equally frequent (0.019 if they were). The classifier errs in one of 180 channels, so that a few lost modes are
filled by mistakes, here as in the published tables: read the KL.

The generator is one of triples: a convex solve between a Gaussian and the 128,000 codes of triples. With
``--coder channels`` (default) a code is that of three digits by one autoencoder, side by side, and is decoded channel
by channel, which knows that an image is three digits but not which go together; with ``--coder image`` the autoencoder
sees the stacked image only. Beside it: decoded prior noise, a Gaussian fitted to the codes, and a DCGAN with the
WGAN-GP loss on the pixels of 60,000 of the triples, for as many seconds as all of that took.

Results, trained parts and samples are kept beside the JSON file, and what is there is not made again; `--table` prints.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from bench_images import first
from imaging import stages
from imaging.stages import Skipped
from imaging.store import Store, Watch
from results import limit_threads, say
from torch import Tensor

from otgan.datasets import data_folder
from otgan.images import Images, mnist
from otgan.metrics import count_stacked_modes, stack

_GAN_IMAGES = 60_000
REAL = "real, held-out digits"


class Bench:
    """The rows, each made when it is asked for."""

    def __init__(self, store: Store, train: Images, test: Images, settings: dict[str, Any]) -> None:
        self.store, self.train, self.test, self.settings = store, train, test, settings
        self.n, self.seed, self.latent = settings["n_samples"], settings["seed"], settings["latent"]
        self.stacked = stack(train.pixels, settings["n_stacked"], self.seed)
        self.by_channel = settings["coder"] == "channels"
        self._codes: Tensor | None = None

    @property
    def coder(self) -> Any:
        """Of digits, or of stacked images."""
        shown = self.train.pixels if self.by_channel else self.stacked.pixels
        held = self.test.pixels if self.by_channel else stack(self.test.pixels, len(self.test), self.seed + 1).pixels
        settings = self.settings | {"latent": self.latent * (1 if self.by_channel else 3)}
        return stages.autoencoder(self.store, shown, held, settings)

    @property
    def codes(self) -> Tensor:
        """Of the stacked images, shape (n, 3 latent)."""
        if self._codes is None:
            if self.by_channel:  # each digit is encoded once, however often it is stacked
                self._codes = self.coder.encode(self.train.pixels).cpu()[self.stacked.numbers].flatten(1)
            else:
                self._codes = self.coder.encode(self.stacked.pixels).cpu()
        return self._codes

    def decode(self, codes: Tensor) -> Tensor:
        """Stacked images (k, 3, h, w) of codes (k, 3 latent)."""
        coder = self.coder
        if not self.by_channel:
            return coder.decode(codes)
        channels = coder.decode(codes.reshape(-1, self.latent))
        return channels.reshape(len(codes), 3, *channels.shape[2:])

    def rows(self) -> dict[str, Callable[[], tuple[Tensor, dict[str, Any]]]]:
        """What to draw, by name."""
        rows: dict[str, Callable[[], tuple[Tensor, dict[str, Any]]]] = {
            REAL: lambda: (stack(self.test.pixels, self.n, self.seed + 2).pixels, {}),
            "reconstructed": self._reconstructed,
            "prior noise": lambda: self._decoded(stages.prior_noise(self.codes.shape[1]), 0.0),
            "Gaussian of the codes": lambda: self._decoded(stages.gaussian_codes(self.codes), 0.0),
        }
        for name in ("nearest", "entropic", "extension", "auto"):
            rows[name] = lambda name=name: self._transported(name)  # type: ignore[misc]
        return rows | {"WGAN-GP, pixels": self._wgan}

    def _reconstructed(self) -> tuple[Tensor, dict[str, Any]]:
        real = stack(self.test.pixels, self.n, self.seed + 2).pixels
        coder = self.coder
        shown = real.flatten(0, 1)[:, None] if self.by_channel else real
        return coder.reconstruct(shown).reshape(real.shape), {"seconds": self.store.seconds("autoencoder")}

    def _decoded(self, draw: Callable[[int, int], Tensor], seconds: float) -> tuple[Tensor, dict[str, Any]]:
        self.coder  # noqa: B018  its seconds are known once it is there
        earlier = self.store.seconds("autoencoder") + seconds
        return stages.from_codes(self.decode, draw, self.n, self.seed + 3, earlier)

    def _transported(self, name: str) -> tuple[Tensor, dict[str, Any]]:
        model = stages.transport(self.store, self.codes, self.settings)
        about = self.store.results["stages"]["transport"]
        watch = Watch()
        generator = stages.generators(model, self.settings)[name]()
        made = about["wall"] if name == "auto" else about["solve"] + watch.read()["wall"]
        return self._decoded(generator.sample, made)

    def _wgan(self) -> tuple[Tensor, dict[str, Any]]:
        stages.transport(self.store, self.codes, self.settings)
        budget = self.store.seconds("autoencoder", "transport")
        model = stages.wgan_gp(self.stacked.pixels[:_GAN_IMAGES].float() / 127.5 - 1.0, budget, self.seed)
        images = (model.sample(self.n, self.seed + 3) + 1.0) / 2.0
        return images, {"seconds": model.seconds, "steps": model.steps, "status": model.status}

    def measure(self, pixels: Tensor) -> dict[str, Any]:
        """Modes and KL of one row."""
        classes = len(self.train.names)
        judge = stages.classifier(self.store, self.train, self.test, self.settings["epochs"], self.seed)
        weights = torch.bincount(self.train.labels, minlength=classes).double()
        return count_stacked_modes(pixels, judge, class_weights=weights).to_dict()


def run(bench: Bench, wanted: Sequence[str]) -> None:
    """Every row that the file does not hold yet."""
    store = bench.store
    for name, draw in bench.rows().items():
        if name not in wanted or name in store.rows:
            continue
        try:
            pixels, numbers = store.samples(name, draw)
        except Skipped as why:
            say(f"{name} is left out: {why}")
            continue
        store.rows[name] = bench.measure(pixels) | {"about": numbers}
        store.write()
        row = store.rows[name]
        say(f"{name}: {row['captured']} modes, KL {row['kl']:.4g} (true law {row['kl_null']:.4g})")


def table(results: dict[str, Any]) -> str:
    """One row a generator, in Markdown, under that of a perfect sampler."""
    rows = [["samples", "modes", "KL to uniform", "KL to the data's modes", "seconds"], ["---"] * 5]
    for row in list(results["rows"].values())[:1]:
        null = f"{row['kl_null']:.4f} +- {row['kl_null_std']:.4f}"
        perfect = [f"perfect, {row['n_samples']:,}", f"{row['captured_null']:.1f}", null]
        rows.append([*perfect, f"{row['kl_data_null']:.4f}", ""])
    for name, row in results["rows"].items():
        seconds = row["about"].get("seconds")
        shown = [f"{row['captured']} of {row['n_modes']}", f"{row['kl']:.4f}", f"{row['kl_data']:.4f}"]
        rows.append([name, *shown, "" if seconds is None else f"{seconds:.0f}"])
    stages_ = [f"{name}: {numbers}" for name, numbers in results["stages"].items()]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows) + "\n\n" + "\n".join(stages_)


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", nargs="+", metavar="NAME", help="only these")
    parser.add_argument("--coder", choices=["channels", "image"], default="channels")
    parser.add_argument("--n-train", type=int, default=60_000, help="digits that are stacked")
    parser.add_argument("--n-test", type=int, default=10_000)
    parser.add_argument("--n-stacked", type=int, default=128_000)
    parser.add_argument("--n-samples", type=int, default=26_000)
    parser.add_argument("--latent", type=int, default=32, help="dimension of a channel's code")
    parser.add_argument("--autoencoder-steps", type=int, default=10_000)
    parser.add_argument("--whiten", type=float, default=0.0, help="of the autoencoder's loss")
    parser.add_argument("--noise", type=float, default=0.0, help="on the codes, of the autoencoder's loss")
    parser.add_argument("--steps", type=int, default=6000, help="of a network's fit")
    parser.add_argument("--epochs", type=int, help="of the classifier")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("runs/bench_stacked_mnist.json"), help="default: %(default)s")
    parser.add_argument("--table", action="store_true", help="run nothing, print the table of the file")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Run what is missing, print the table."""
    args = arguments(argv)
    limit_threads(args.threads)
    own = ("rows", "threads", "out", "table")
    settings = {name: value for name, value in vars(args).items() if name not in own}
    store = Store(args.out, settings, reading=args.table)
    if not args.table:
        if data_folder() is None:
            sys.exit("bench_stacked_mnist: OTGAN_DATA names no folder of data; it must hold mnist/.")
        bench = Bench(store, first(mnist(True), args.n_train), first(mnist(False), args.n_test), settings)
        names = list(bench.rows())
        if unknown := set(args.rows or ()) - set(names):
            sys.exit(f"bench_stacked_mnist: there is no {', '.join(sorted(unknown))}; there are {', '.join(names)}.")
        run(bench, args.rows or names)
    print(table(store.results))


if __name__ == "__main__":
    main()
