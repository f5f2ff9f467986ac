"""Stages of a pipeline for images: classifier, autoencoder, transport, and generators that are read off it."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import torch
from results import say
from torch import Tensor

import otgan as og
from imaging.store import Store, Watch
from otgan.generators import (
    EntropicGenerator,
    ExtensionGenerator,
    Generator,
    NearestGenerator,
    fit_generator,
)
from otgan.images import Images
from otgan.latent import Autoencoder
from otgan.metrics import ImageClassifier, train_classifier

_STEPS = 10**9  # of an adversarial run that ends by time


class Skipped(Exception):
    """A row that cannot be made here, with the reason."""


def classifier(store: Store, train: Images, test: Images, epochs: int | None, seed: int) -> ImageClassifier:
    """Trained on the training labels, once."""

    def make() -> tuple[ImageClassifier, dict[str, Any]]:
        made = train_classifier(train.pixels, train.labels, n_classes=len(train.names), epochs=epochs, seed=seed)
        return made, {
            "accuracy": made.accuracy(test.pixels, test.labels),
            "epochs": made.report.epochs if made.report else 0,
        }

    found: ImageClassifier = store.stage("classifier", make)
    return found


def autoencoder(store: Store, pixels: Tensor, test: Tensor, settings: dict[str, Any]) -> Autoencoder:
    """Trained on the training images, once."""

    def make() -> tuple[Autoencoder, dict[str, Any]]:
        made = Autoencoder(settings["latent"], seed=settings["seed"])
        made.fit(pixels, steps=settings["autoencoder_steps"], whiten=settings["whiten"], noise=settings["noise"])
        assert made.report is not None
        numbers = {"steps": made.report.steps, "status": made.report.status}
        return made, numbers | {"error": made.reconstruction_error(test)}

    found: Autoencoder = store.stage("autoencoder", make)
    return found


def transport(store: Store, codes: Tensor, settings: dict[str, Any]) -> og.OTGAN:
    """One convex solve, and "auto" for the generator."""

    def make() -> tuple[og.OTGAN, dict[str, Any]]:
        model = og.OTGAN(seed=settings["seed"], fit={"steps": settings["steps"]}).fit(codes)
        result = model.result
        chosen = type(model.generator).__name__.removesuffix("Generator").lower()
        numbers: dict[str, Any] = {"chosen": chosen, "solve": result.seconds, "status": result.status}
        numbers |= {name: getattr(result.certificate, name) for name in ("chi2", "chi2_stderr", "empty_cells")}
        numbers["scores"] = {name: score.total for name, score in model.scores.items()}
        return model, numbers

    found: og.OTGAN = store.stage("transport", make)
    return found


def generators(model: og.OTGAN, settings: dict[str, Any]) -> dict[str, Callable[[], Generator]]:
    """What can be read off one potential, by name."""
    u, source, seed, steps = model.potential, model.result.source, settings["seed"], settings["steps"]
    return {
        "nearest": lambda: NearestGenerator(u, source),
        "entropic": lambda: EntropicGenerator(u, source),
        "extension": lambda: ExtensionGenerator(u, source, seed=seed),
        "icnn": lambda: fit_generator(u, source, "icnn", steps=steps, seed=seed),
        "mlp": lambda: fit_generator(u, source, "mlp", steps=steps, seed=seed),
        "auto": lambda: model.generator,
    }


def from_codes(
    decode: Callable[[Tensor], Tensor], draw: Callable[[int, int], Tensor], n: int, seed: int, earlier: float
) -> tuple[Tensor, dict[str, Any]]:
    """Decoded codes, and the seconds that the drawing took; ``earlier`` are those of the stages before."""
    watch = Watch()
    images = decode(draw(n, seed))
    return images, {"seconds": earlier, "sampling": watch.read()["wall"]}


def wgan_gp(data: Tensor, seconds: float, seed: int, **settings: Any) -> Any:
    """The baseline at its published settings, for as many seconds as the others had."""
    if find_spec("otgan.adversarial") is None:
        raise Skipped("there is no otgan.adversarial in this version")
    from otgan import adversarial

    say(f"WGAN-GP for {seconds:.0f} s on data of shape {tuple(data.shape)}")
    return adversarial.train("wgan-gp", data, steps=_STEPS, max_time=max(seconds, 1.0), seed=seed, **settings)


def gaussian_codes(codes: Tensor) -> Callable[[int, int], Tensor]:
    """The normal law of the codes' mean and covariance, as one samples a variational autoencoder after the fact."""
    z = codes.double()
    mean = z.mean(dim=0)
    values, vectors = torch.linalg.eigh(torch.cov(z.T))
    root = vectors * values.clamp(min=0.0).sqrt()

    def draw(n: int, seed: int) -> Tensor:
        stream = torch.Generator().manual_seed(seed)
        return (mean + torch.randn(n, z.shape[1], generator=stream, dtype=torch.float64) @ root.T).float()

    return draw


def prior_noise(dim: int) -> Callable[[int, int], Tensor]:
    """The source itself, N(0, I), without any transport."""

    def draw(n: int, seed: int) -> Tensor:
        return torch.randn(n, dim, generator=torch.Generator().manual_seed(seed))

    return draw
