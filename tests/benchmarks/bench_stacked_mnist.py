"""Mode collapse on stacked MNIST, 1,000 modes: ``otgan bench stacked_mnist [--n-stacked 128000]`` (OTGAN_DATA).

The protocol of VEEGAN and PacGAN: images whose three channels are random training digits (128,000 of them), 26,000
generated ones, each channel classified; how many of the 1,000 triples of classes occur, and the KL divergence of their
histogram from the uniform one. A perfect sampler has KL 0.024, not 0: 26,000 samples scatter, and MNIST's classes are
not equally frequent (0.019 if they were). The classifier errs in one of 180 channels, so that a few lost modes are
filled by mistakes, here as in the published tables: read the KL.

The generator is one of triples: a convex solve between a Gaussian and the 128,000 codes of triples. A digit's code has
12 numbers, about the dimension of the digits' manifold (Pope, Zhu, Abdelkader, Goldblum, Goldstein, "The intrinsic
dimension of images and its impact on learning", ICLR 2021). The nearest neighbour of a triple then shares all digits in
58 % of cases, with 32 numbers (``--latent 32``) in 33 %, and what is local blends neighbours. With
``--coder channels`` (default) a code is that of three digits by one autoencoder, side by side, and is decoded channel
by channel, which knows that an image is three digits but not which go together; with ``--coder image`` the autoencoder
sees the stacked image only. Beside it: decoded prior noise, a Gaussian fitted to the codes, and a DCGAN with the
WGAN-GP loss on the pixels of 60,000 of the triples, for as many seconds as all of that took.

Results, trained parts and samples are kept beside the JSON file, and what is there is not made again; `--table` prints:
that of the README by ``--table --out tests/benchmarks/records/stacked_mnist.json``.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

import torch
from imaging import rows, stages
from imaging.rows import Draws, Numbers, Rows
from imaging.store import Store
from torch import Tensor

from otgan.images import Images
from otgan.metrics import count_stacked_modes, stack

NAME = "bench_stacked_mnist"
_GAN_IMAGES = 60_000
REAL = "real, held-out digits"


class Bench(Rows):
    """The rows, each made when it is asked for."""

    offset = 3

    def __init__(self, store: Store, train: Images, test: Images, settings: dict[str, Any]) -> None:
        super().__init__(store, train, test, settings)
        self.latent = settings["latent"]
        self.stacked = stack(train.pixels, settings["n_stacked"], self.seed)
        self.by_channel = settings["coder"] == "channels"

    @property
    def coder(self) -> Any:
        """Of digits, or of stacked images."""
        shown = self.train.pixels if self.by_channel else self.stacked.pixels
        held = self.test.pixels if self.by_channel else stack(self.test.pixels, len(self.test), self.seed + 1).pixels
        settings = self.settings | {"latent": self.latent * (1 if self.by_channel else 3)}
        return stages.autoencoder(self.store, shown, held, settings)

    def encode(self) -> Tensor:
        """Codes of the stacked images, shape (n, 3 latent)."""
        if self.by_channel:  # each digit is encoded once, however often it is stacked
            digits: Tensor = self.coder.encode(self.train.pixels).cpu()
            return digits[self.stacked.numbers].flatten(1)
        codes: Tensor = self.coder.encode(self.stacked.pixels).cpu()
        return codes

    def decode(self, codes: Tensor) -> Tensor:
        """Stacked images (k, 3, h, w) of codes (k, 3 latent)."""
        if not self.by_channel:
            return super().decode(codes)
        channels = super().decode(codes.reshape(-1, self.latent))
        return channels.reshape(len(codes), 3, *channels.shape[2:])

    def rows(self) -> Draws:
        """What to draw, by name."""
        return {
            REAL: lambda: (stack(self.test.pixels, self.n, self.seed + 2).pixels, {}),
            "reconstructed": self._reconstructed,
            **self.from_codes(),
            **self.transported("nearest", "entropic", "extension", "auto"),
            "WGAN-GP, pixels": lambda: self.adversarial(self.stacked.pixels[:_GAN_IMAGES]),
        }

    def _reconstructed(self) -> tuple[Tensor, Numbers]:
        real = stack(self.test.pixels, self.n, self.seed + 2).pixels
        coder = self.coder
        shown = real.flatten(0, 1)[:, None] if self.by_channel else real
        return coder.reconstruct(shown).reshape(real.shape), {"seconds": self.store.seconds("autoencoder")}

    def measure(self, name: str, pixels: Tensor) -> Numbers:
        """Modes and KL of one row."""
        weights = torch.bincount(self.train.labels, minlength=len(self.train.names)).double()
        return count_stacked_modes(pixels, self.classifier, class_weights=weights).to_dict()

    def line(self, row: Numbers) -> str:
        """What is told of a row when it is there."""
        return f"{row['captured']} modes, KL {row['kl']:.4g} (true law {row['kl_null']:.4g})"


def table(results: dict[str, Any]) -> str:
    """One row a generator, in Markdown, under that of a perfect sampler."""
    lines = [["samples", "modes", "KL to uniform", "KL to the data's modes", "seconds"], ["---"] * 5]
    for row in list(results["rows"].values())[:1]:
        null = f"{row['kl_null']:.4f} +- {row['kl_null_std']:.4f}"
        perfect = [f"perfect, {row['n_samples']:,}", f"{row['captured_null']:.1f}", null]
        lines.append([*perfect, f"{row['kl_data_null']:.4f}", ""])
    for name, row in results["rows"].items():
        seconds = row["about"].get("seconds")
        shown = [f"{row['captured']} of {row['n_modes']}", f"{row['kl']:.4f}", f"{row['kl_data']:.4f}"]
        lines.append([name, *shown, "" if seconds is None else f"{seconds:.0f}"])
    stages_ = [f"{name}: {numbers}" for name, numbers in results["stages"].items()]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n\n" + "\n".join(stages_)


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = rows.parser(__doc__, NAME, 26_000)
    parser.set_defaults(latent=12)
    parser.add_argument("--coder", choices=["channels", "image"], default="channels")
    parser.add_argument("--n-stacked", type=int, default=128_000, help="images to learn from")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Run what is missing, print the table."""
    args = arguments(argv)
    store, bench = rows.start(args, Bench, NAME, images=not args.table)
    if bench is not None:
        bench.run(args.rows or list(bench.rows()))
    print(table(store.results))


if __name__ == "__main__":
    main()
