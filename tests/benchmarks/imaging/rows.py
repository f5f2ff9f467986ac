"""The rows of a benchmark of images: what each generator draws, in one order, each made and measured once."""

from __future__ import annotations

import argparse
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from results import limit_threads, say
from torch import Tensor

from imaging import stages
from imaging.stages import Skipped
from imaging.store import Store, Watch
from otgan.datasets import data_folder
from otgan.images import Images, mnist
from otgan.metrics import ImageClassifier

Numbers = dict[str, Any]
Draws = dict[str, Callable[[], tuple[Tensor, Numbers]]]


class Rows(ABC):
    """A benchmark: its stages are shared, its rows are made when they are asked for.

    Args:
        store: of the results.
        train: training digits.
        test: digits held out.
        settings: options that a result depends on.
    """

    offset = 1  # of the seed with which new images are drawn

    def __init__(self, store: Store, train: Images, test: Images, settings: dict[str, Any]) -> None:
        self.store, self.train, self.test, self.settings = store, train, test, settings
        self.n, self.seed = settings["n_samples"], settings["seed"]
        self._codes: Tensor | None = None

    @abstractmethod
    def rows(self) -> Draws:
        """What to draw, by name."""

    @abstractmethod
    def measure(self, name: str, pixels: Tensor) -> Numbers:
        """All metrics of one row."""

    @abstractmethod
    def line(self, row: Numbers) -> str:
        """What is told of a row when it is there."""

    @property
    @abstractmethod
    def coder(self) -> Any:
        """The autoencoder."""

    @abstractmethod
    def encode(self) -> Tensor:
        """Codes of the training images, shape (n, latent)."""

    def decode(self, codes: Tensor) -> Tensor:
        """Images of codes."""
        images: Tensor = self.coder.decode(codes)
        return images

    @property
    def codes(self) -> Tensor:
        """Of the training images, made once."""
        if self._codes is None:
            self._codes = self.encode()
        return self._codes

    @property
    def classifier(self) -> ImageClassifier:
        """Of digits, trained on the training labels."""
        return stages.classifier(self.store, self.train, self.test, self.settings["epochs"], self.seed)

    def run(self, wanted: Sequence[str]) -> None:
        """Every row that the file does not hold yet."""
        for name, draw in self.rows().items():
            if name not in wanted or name in self.store.rows:
                continue
            try:
                pixels, numbers = self.store.samples(name, draw)
            except Skipped as why:
                say(f"{name} is left out: {why}")
                continue
            watch = Watch()
            self.store.rows[name] = self.measure(name, pixels) | {"about": numbers, "measuring": watch.read()}
            self.store.write()
            say(f"{name}: {self.line(self.store.rows[name])}")

    # ------------------------------------------------------------ generators

    def from_codes(self) -> Draws:
        """Rows of codes that are not a transport's: noise, and a normal law."""
        return {
            "prior noise": lambda: self.decoded(stages.prior_noise(self.codes.shape[1])),
            "Gaussian of the codes": lambda: self.decoded(stages.gaussian_codes(self.codes)),
        }

    def transported(self, *names: str) -> Draws:
        """Rows of generators that are read off one potential."""
        return {name: lambda name=name: self._transported(name) for name in names}  # type: ignore[misc]

    def _transported(self, name: str) -> tuple[Tensor, Numbers]:
        model = stages.transport(self.store, self.codes, self.settings)
        about = self.store.results["stages"]["transport"]
        watch = Watch()
        generator = stages.generators(model, self.settings)[name]()
        made = about["wall"] if name == "auto" else about["solve"] + watch.read()["wall"]
        return self.decoded(generator.sample, made)

    def decoded(self, draw: Callable[[int, int], Tensor], seconds: float = 0.0) -> tuple[Tensor, Numbers]:
        """Images of new codes; ``seconds`` are those of what draws them."""
        self.coder  # noqa: B018  its seconds are known once it is there
        earlier = self.store.seconds("autoencoder") + seconds
        return stages.from_codes(self.decode, draw, self.n, self.seed + self.offset, earlier)

    def adversarial(self, pixels: Tensor) -> tuple[Tensor, Numbers]:
        """A DCGAN on images, trained for as many seconds as autoencoder and transport took."""
        stages.transport(self.store, self.codes, self.settings)
        budget = self.store.seconds("autoencoder", "transport")
        model = stages.wgan_gp(pixels.float() / 127.5 - 1.0, budget, self.seed)
        watch = Watch()
        images = (model.sample(self.n, self.seed + self.offset) + 1.0) / 2.0
        sampling = watch.read()["wall"]
        return images, {"seconds": model.seconds, "steps": model.steps, "status": model.status, "sampling": sampling}


def first(images: Images, n: int) -> Images:
    """The first n images, all if there are fewer."""
    return images.subset(slice(0, min(n, len(images))))


# ---------------------------------------------------------------- command line

_OWN = ("rows", "threads", "out", "table", "pictures")  # options that no result depends on


def parser(doc: str | None, name: str, n_samples: int) -> argparse.ArgumentParser:
    """The options that every benchmark of images has."""
    made = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--rows", nargs="+", metavar="NAME", help="only these")
    made.add_argument("--n-train", type=int, default=60_000, help="digits to learn from")
    made.add_argument("--n-test", type=int, default=10_000, help="digits held out")
    made.add_argument("--n-samples", type=int, default=n_samples, help="new images")
    made.add_argument("--latent", type=int, default=32, help="dimension of a digit's code")
    made.add_argument("--autoencoder-steps", type=int, default=10_000)
    made.add_argument("--whiten", type=float, default=0.0, help="of the autoencoder's loss")
    made.add_argument("--noise", type=float, default=0.0, help="on the codes, of the autoencoder's loss")
    made.add_argument("--steps", type=int, default=6000, help="of a network's fit")
    made.add_argument("--epochs", type=int, help="of the classifier")
    made.add_argument("--seed", type=int, default=0)
    made.add_argument("--threads", type=int, default=2)
    made.add_argument("--out", type=Path, default=Path(f"runs/{name}.json"), help="default: %(default)s")
    made.add_argument("--table", action="store_true", help="run nothing, print the table of the file")
    return made


def start(args: argparse.Namespace, made: type[Rows], name: str, images: bool) -> tuple[Store, Rows | None]:
    """The store of ``args.out``, and the benchmark where its ``images`` are needed: read, rows checked."""
    limit_threads(args.threads)
    settings = {option: value for option, value in vars(args).items() if option not in _OWN}
    store = Store(args.out, settings, reading=args.table)
    if not images:
        return store, None
    if data_folder() is None:
        sys.exit(f"{name}: OTGAN_DATA names no folder of data; it must hold mnist/.")
    bench = made(store, first(mnist(True), args.n_train), first(mnist(False), args.n_test), settings)
    known = list(bench.rows())
    if unknown := set(args.rows or ()) - set(known):
        sys.exit(f"{name}: there is no {', '.join(sorted(unknown))}; there are {', '.join(known)}.")
    return store, bench
