"""Generated MNIST digits, OTGAN beside its baselines: ``otgan bench images [--n-train 60000]`` (OTGAN_DATA).

One autoencoder, one convex solve between a Gaussian and its codes; generators are read off that potential. Beside them:
decoded prior noise, a Gaussian fitted to the codes, WGAN-GP on the codes (for as long as solve and generator took) and
a DCGAN with the WGAN-GP loss on the pixels (for as long as all of it took), at their published settings. All are
compared with the held-out test images, in the features of a classifier trained on the training labels.

"real, one half" is one half of the test images against the other, "training images" are copies, "reconstructed" are
test images through the autoencoder: no generator of codes can be better. Every metric has its value for real images of
the same sizes in the JSON file; the first line of the table is that of 10,000 samples. Seconds are of the wall clock,
autoencoder, solve and generator together, the classifier left out; they mean something on free cores only.

Results, trained parts and samples are kept beside the JSON file, and what is there is not made again; `--table` prints.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from imaging import rows, stages
from imaging.rows import Draws, Numbers, Rows
from torch import Tensor

from otgan.metrics import ImageReference

NAME = "bench_images"
COLUMNS = {
    "frechet_distance": "Frechet",
    "precision": "precision",
    "recall": "recall",
    "density": "density",
    "coverage": "coverage",
    "data_copying": "C_T",
    "authenticity": "authentic",
    "class_kl": "class KL",
    "confidence": "confidence",
}
FLOOR = "real, one half"


class Bench(Rows):
    """The rows, each made when it is asked for."""

    _reference: ImageReference | None = None

    @property
    def reference(self) -> ImageReference:
        """Test and training images in the features of the classifier."""
        if self._reference is None:
            self._reference = ImageReference(self.test.pixels, self.train.pixels, self.classifier)
        return self._reference

    @property
    def coder(self) -> Any:
        """The autoencoder."""
        return stages.autoencoder(self.store, self.train.pixels, self.test.pixels, self.settings)

    def encode(self) -> Tensor:
        """Codes of the training images, shape (n, latent)."""
        codes: Tensor = self.coder.encode(self.train.pixels).cpu()
        return codes

    def rows(self) -> Draws:
        """What to draw, by name."""
        half, order = len(self.test) // 2, torch.randperm(len(self.test), generator=self._stream())
        copied = torch.randint(len(self.train), (self.n,), generator=self._stream())
        some = order[: self.n]
        return {
            FLOOR: lambda: (self.test.pixels[order[:half]], {}),
            "training images": lambda: (self.train.pixels[copied], {}),
            "reconstructed": lambda: (
                self.coder.reconstruct(self.test.pixels[some]),
                {"seconds": self.store.seconds("autoencoder")},
            ),
            **self.from_codes(),
            **self.transported("nearest", "entropic", "extension", "icnn", "mlp", "auto"),
            "WGAN-GP, codes": self._adversarial_codes,
            "WGAN-GP, pixels": lambda: self.adversarial(self.train.pixels),
        }

    def _adversarial_codes(self) -> tuple[Tensor, Numbers]:
        stages.transport(self.store, self.codes, self.settings)
        budget = self.store.seconds("transport")
        mean, std = self.codes.mean(dim=0), self.codes.std(dim=0).clamp(min=1e-6)
        model = stages.wgan_gp((self.codes - mean) / std, budget, self.seed, latent=self.codes.shape[1])
        images, numbers = self.decoded(lambda n, seed: model.sample(n, seed) * std + mean, model.seconds)
        return images, numbers | {"steps": model.steps, "status": model.status}

    def measure(self, name: str, pixels: Tensor) -> Numbers:
        """All metrics of one row."""
        reference, settings = self.reference, self.settings
        if name == FLOOR:
            order = torch.randperm(len(self.test), generator=self._stream())
            other = self.test.pixels[order[len(self.test) // 2 :]]
            reference = ImageReference(other, self.train.pixels, reference.classifier)
        found = reference.evaluate(pixels, pixels=settings["pixels"], seed=self.seed)
        plain = found.to_dict()
        return {key: plain[key] for key in ("metrics", "n_samples", "n_test", "n_train", "sizes", "notes", "histogram")}

    def line(self, row: Numbers) -> str:
        """What is told of a row when it is there."""
        return ", ".join(f"{title} {_value(row, key):.4g}" for key, title in COLUMNS.items())

    def _stream(self) -> torch.Generator:
        return torch.Generator().manual_seed(self.seed)


def table(results: dict[str, Any]) -> str:
    """One row a generator, in Markdown, under one of what real images have in the samples' place."""
    lines = [["samples", *COLUMNS.values(), "seconds"], ["---"] * (len(COLUMNS) + 2)]
    full = [row for name, row in results["rows"].items() if name != FLOOR]
    if full:
        nulls = [full[0]["metrics"].get(key) for key in COLUMNS]
        shown = ["" if null is None else f"{null['null']:.3g} +- {null['null_spread']:.1g}" for null in nulls]
        lines.append([f"real images in their place (n = {full[0]['n_samples']:,})", *shown, ""])
    for name, row in results["rows"].items():
        seconds = row["about"].get("seconds")
        values = [f"{_value(row, key):.3g}" for key in COLUMNS]
        lines.append([name, *values, "" if seconds is None else f"{seconds:.0f}"])
    about = [f"{name}: {_about(numbers)}" for name, numbers in results["stages"].items()]
    machine = results["machine"]
    about.append(f"{machine.get('cpu', '')}, {machine.get('threads', '')} thread(s)")
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n\n" + "\n".join(about)


def _value(row: dict[str, Any], key: str) -> float:
    found = row["metrics"].get(key, {}).get("value")
    return float("nan") if found is None else float(found)


def _about(numbers: dict[str, Any]) -> str:
    return ", ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in numbers.items())


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = rows.parser(__doc__, NAME, 10_000)
    parser.add_argument("--pixels", action="store_true", help="memorisation in pixels, too: minutes a row")
    parser.add_argument("--pictures", type=Path, metavar="FOLDER", help="samples of each row above the nearest digits")
    return parser.parse_args(argv)


def pictures(bench: Rows, folder: Path) -> None:
    """A panel a row."""
    import matplotlib

    matplotlib.use("agg")
    from otgan import plot

    folder.mkdir(parents=True, exist_ok=True)
    draws = bench.rows()
    for name in bench.store.rows:
        pixels, _ = bench.store.samples(name, draws[name])
        ax = plot.nearest_images(pixels[:20], bench.train.pixels)
        ax.figure.savefig(folder / f"{''.join(c if c.isalnum() else '_' for c in name)}.png")


def main(argv: Sequence[str] | None = None) -> None:
    """Run what is missing, print the table."""
    args = arguments(argv)
    store, bench = rows.start(args, Bench, NAME, images=not args.table or args.pictures is not None)
    if bench is not None and not args.table:
        bench.run(args.rows or list(bench.rows()))
    if bench is not None and args.pictures:
        pictures(bench, args.pictures)
    print(table(store.results))


if __name__ == "__main__":
    main()
