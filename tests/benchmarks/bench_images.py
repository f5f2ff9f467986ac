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
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from imaging import stages
from imaging.stages import Skipped
from imaging.store import Store, Watch
from results import limit_threads, say
from torch import Tensor

from otgan.datasets import data_folder
from otgan.images import Images, mnist
from otgan.metrics import ImageReference

Draws = dict[str, Callable[[], tuple[Tensor, dict[str, Any]]]]

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


class Bench:
    """The rows, each made when it is asked for."""

    def __init__(self, store: Store, train: Images, test: Images, settings: dict[str, Any]) -> None:
        self.store, self.train, self.test, self.settings = store, train, test, settings
        self.n, self.seed = settings["n_samples"], settings["seed"]
        self._reference: ImageReference | None = None
        self._codes: Tensor | None = None

    @property
    def reference(self) -> ImageReference:
        """Test and training images in the features of the classifier."""
        if self._reference is None:
            made = stages.classifier(self.store, self.train, self.test, self.settings["epochs"], self.seed)
            self._reference = ImageReference(self.test.pixels, self.train.pixels, made)
        return self._reference

    @property
    def coder(self) -> Any:
        """The autoencoder."""
        return stages.autoencoder(self.store, self.train.pixels, self.test.pixels, self.settings)

    @property
    def codes(self) -> Tensor:
        """Of the training images."""
        if self._codes is None:
            self._codes = self.coder.encode(self.train.pixels).cpu()
        return self._codes

    def rows(self) -> Draws:
        """What to draw, by name."""
        half, order = len(self.test) // 2, torch.randperm(len(self.test), generator=self._stream())
        copied = torch.randint(len(self.train), (self.n,), generator=self._stream())
        some = order[: self.n]
        rows: Draws = {
            FLOOR: lambda: (self.test.pixels[order[:half]], {}),
            "training images": lambda: (self.train.pixels[copied], {}),
            "reconstructed": lambda: (
                self.coder.reconstruct(self.test.pixels[some]),
                {"seconds": self.store.seconds("autoencoder")},
            ),
            "prior noise": lambda: self._decoded(stages.prior_noise(self.settings["latent"]), 0.0),
            "Gaussian of the codes": lambda: self._decoded(stages.gaussian_codes(self.codes), 0.0),
        }
        for name in ("nearest", "entropic", "extension", "icnn", "mlp", "auto"):
            rows[name] = lambda name=name: self._transported(name)  # type: ignore[misc]
        return rows | {"WGAN-GP, codes": self._wgan_codes, "WGAN-GP, pixels": self._wgan_pixels}

    def _decoded(self, draw: Callable[[int, int], Tensor], seconds: float) -> tuple[Tensor, dict[str, Any]]:
        coder = self.coder
        earlier = self.store.seconds("autoencoder") + seconds
        return stages.from_codes(coder.decode, draw, self.n, self.seed + 1, earlier)

    def _transported(self, name: str) -> tuple[Tensor, dict[str, Any]]:
        model = stages.transport(self.store, self.codes, self.settings)
        about = self.store.results["stages"]["transport"]
        watch = Watch()
        generator = stages.generators(model, self.settings)[name]()
        made = about["wall"] if name == "auto" else about["solve"] + watch.read()["wall"]
        return self._decoded(generator.sample, made)

    def _wgan_codes(self) -> tuple[Tensor, dict[str, Any]]:
        stages.transport(self.store, self.codes, self.settings)
        budget = self.store.seconds("transport")
        mean, std = self.codes.mean(dim=0), self.codes.std(dim=0).clamp(min=1e-6)
        model = stages.wgan_gp((self.codes - mean) / std, budget, self.seed, latent=self.codes.shape[1])
        images, numbers = self._decoded(lambda n, seed: model.sample(n, seed) * std + mean, model.seconds)
        return images, numbers | {"steps": model.steps, "status": model.status}

    def _wgan_pixels(self) -> tuple[Tensor, dict[str, Any]]:
        stages.transport(self.store, self.codes, self.settings)
        budget = self.store.seconds("autoencoder", "transport")
        model = stages.wgan_gp(self.train.pixels.float() / 127.5 - 1.0, budget, self.seed)
        watch = Watch()
        images = (model.sample(self.n, self.seed + 1) + 1.0) / 2.0
        sampling = watch.read()["wall"]
        return images, {"seconds": model.seconds, "steps": model.steps, "status": model.status, "sampling": sampling}

    def measure(self, name: str, pixels: Tensor) -> dict[str, Any]:
        """All metrics of one row."""
        reference, settings = self.reference, self.settings
        if name == FLOOR:
            order = torch.randperm(len(self.test), generator=self._stream())
            other = self.test.pixels[order[len(self.test) // 2 :]]
            reference = ImageReference(other, self.train.pixels, reference.classifier)
        found = reference.evaluate(pixels, pixels=settings["pixels"], seed=self.seed)
        plain = found.to_dict()
        return {key: plain[key] for key in ("metrics", "n_samples", "n_test", "n_train", "sizes", "notes", "histogram")}

    def _stream(self) -> torch.Generator:
        return torch.Generator().manual_seed(self.seed)


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
        watch = Watch()
        store.rows[name] = bench.measure(name, pixels) | {"about": numbers, "measuring": watch.read()}
        store.write()
        shown = ", ".join(f"{title} {_value(store.rows[name], key):.4g}" for key, title in COLUMNS.items())
        say(f"{name}: {shown}")


def table(results: dict[str, Any]) -> str:
    """One row a generator, in Markdown, under one of what real images have in the samples' place."""
    rows = [["samples", *COLUMNS.values(), "seconds"], ["---"] * (len(COLUMNS) + 2)]
    full = [row for name, row in results["rows"].items() if name != FLOOR]
    if full:
        nulls = [full[0]["metrics"].get(key) for key in COLUMNS]
        shown = ["" if null is None else f"{null['null']:.3g} +- {null['null_spread']:.1g}" for null in nulls]
        rows.append([f"real images in their place (n = {full[0]['n_samples']:,})", *shown, ""])
    for name, row in results["rows"].items():
        seconds = row["about"].get("seconds")
        values = [f"{_value(row, key):.3g}" for key in COLUMNS]
        rows.append([name, *values, "" if seconds is None else f"{seconds:.0f}"])
    about = [f"{name}: {_about(numbers)}" for name, numbers in results["stages"].items()]
    machine = results["machine"]
    about.append(f"{machine.get('cpu', '')}, {machine.get('threads', '')} thread(s)")
    return "\n".join("| " + " | ".join(row) + " |" for row in rows) + "\n\n" + "\n".join(about)


def _value(row: dict[str, Any], key: str) -> float:
    found = row["metrics"].get(key, {}).get("value")
    return float("nan") if found is None else float(found)


def _about(numbers: dict[str, Any]) -> str:
    return ", ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in numbers.items())


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", nargs="+", metavar="NAME", help="only these")
    parser.add_argument("--n-train", type=int, default=60_000)
    parser.add_argument("--n-test", type=int, default=10_000)
    parser.add_argument("--n-samples", type=int, default=10_000)
    parser.add_argument("--latent", type=int, default=32, help="dimension of the codes")
    parser.add_argument("--autoencoder-steps", type=int, default=10_000)
    parser.add_argument("--whiten", type=float, default=0.0, help="of the autoencoder's loss")
    parser.add_argument("--noise", type=float, default=0.0, help="on the codes, of the autoencoder's loss")
    parser.add_argument("--steps", type=int, default=6000, help="of a network's fit")
    parser.add_argument("--epochs", type=int, help="of the classifier")
    parser.add_argument("--pixels", action="store_true", help="memorisation in pixels, too: minutes a row")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("runs/bench_images.json"), help="default: %(default)s")
    parser.add_argument("--table", action="store_true", help="run nothing, print the table of the file")
    parser.add_argument("--pictures", type=Path, metavar="FOLDER", help="samples of each row above the nearest digits")
    return parser.parse_args(argv)


def first(images: Images, n: int) -> Images:
    """The first n images, all if there are fewer."""
    return images.subset(slice(0, min(n, len(images))))


def pictures(bench: Bench, folder: Path) -> None:
    """A panel a row."""
    import matplotlib

    matplotlib.use("agg")
    from otgan import plot

    folder.mkdir(parents=True, exist_ok=True)
    for name in bench.store.rows:
        pixels, _ = bench.store.samples(name, bench.rows()[name])
        ax = plot.nearest_images(pixels[:20], bench.train.pixels)
        ax.figure.savefig(folder / f"{''.join(c if c.isalnum() else '_' for c in name)}.png")


def main(argv: Sequence[str] | None = None) -> None:
    """Run what is missing, print the table."""
    args = arguments(argv)
    limit_threads(args.threads)
    own = ("rows", "threads", "out", "table", "pictures")
    settings = {name: value for name, value in vars(args).items() if name not in own}
    store = Store(args.out, settings, reading=args.table)
    if not args.table or args.pictures:
        if data_folder() is None:
            sys.exit("bench_images: OTGAN_DATA names no folder of data; it must hold mnist/.")
        bench = Bench(store, first(mnist(True), args.n_train), first(mnist(False), args.n_test), settings)
        names = list(bench.rows())
        if unknown := set(args.rows or ()) - set(names):
            sys.exit(f"bench_images: there is no {', '.join(sorted(unknown))}; there are {', '.join(names)}.")
        if not args.table:
            run(bench, args.rows or names)
        if args.pictures:
            pictures(bench, args.pictures)
    print(table(store.results))


if __name__ == "__main__":
    main()
