"""What a report is about: a saved result, an OTGAN model, or a generator of images, read the same way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from otgan import io
from otgan.generators import OTGAN, EntropicGenerator, NearestGenerator
from otgan.generators.entropic import entropic_reg
from otgan.latent import LatentOTGAN
from otgan.potential import BrenierPotential
from otgan.report import provenance
from otgan.report._html import Html, tag
from otgan.solvers import Result

Sampler = Callable[[int, int], Tensor]
"""Number and seed to new points, shape (n, d)."""

PARTS = 12
"""Classes that have figures of their own; more would be a long page."""

_DEMO = "codes.npz"
_SIDE = 8  # pixels of the demonstration's digits


@dataclass(frozen=True)
class Part:
    """One transport problem, and the generator that is read off its solution.

    Attributes:
        name: of the class that it belongs to; empty where there is one problem only.
        result: of the solve.
        sample: new points.
        how: the generator in words.
        model: the OTGAN that holds it, if one does.
    """

    name: str
    result: Result
    sample: Sampler
    how: str
    model: OTGAN | None = None


@dataclass(frozen=True)
class Run:
    """What is reported.

    Attributes:
        name: title of the page.
        kind: "result", "model" or "images", and what that is in words.
        parts: one, or one a class.
        draw: new points of all parts together.
        decode: codes (n, d) to images (n, c, h, w) in [0, 1], where the points are codes.
        encode: and back, where that is known.
        record: of ``run.json``.
        seed: None where it is not recorded.
        sha256: of the saved tensors.
        settings: of the model, by name.
    """

    name: str
    kind: tuple[str, str]
    parts: tuple[Part, ...]
    draw: Sampler
    decode: Callable[[Tensor], Tensor] | None = None
    encode: Callable[[Any], Tensor] | None = None
    record: dict[str, Any] = field(default_factory=dict)
    seed: int | None = None
    sha256: str = ""
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def dim(self) -> int:
        """Of the points."""
        return self.parts[0].result.potential.dim

    @property
    def train(self) -> Tensor:
        """Training points of all parts, shape (n, d)."""
        return torch.cat([part.result.target.points.cpu() for part in self.parts])


def open_run(path: str | Path) -> Run:
    """Read the folder of a run.

    Raises:
        FileNotFoundError: nothing there.
        otgan.io.FormatError: not written by otgan, or damaged.
        TypeError: something that has no certificate, such as a single potential.
    """
    from otgan.loading import load

    folder = Path(path)
    return run_of(load(folder), folder)


def run_of(subject: Any, folder: Path | None = None, name: str | None = None) -> Run:
    """What is to be said of a result or a model, saved in ``folder`` or not saved at all."""
    record = {} if folder is None else provenance.read(folder)
    more: dict[str, Any] = {"record": record, "sha256": "" if folder is None else _digest(folder)}
    title = name if name is not None else (folder.resolve().name or str(folder) if folder is not None else "otgan")
    if isinstance(subject, Result):
        seed = record.get("settings", {}).get("seed") if isinstance(record.get("settings"), dict) else None
        more["seed"] = seed if isinstance(seed, int) else None
        part = _of_result(subject)
        demo = None if folder is None else _demo_decoder(folder, subject.potential.dim)
        if demo is not None:
            kind = ("images", "handwritten digits as principal components: the demonstration")
            return Run(title, kind, (part,), part.sample, demo, **more)
        return Run(title, ("result", "a transport map to data points"), (part,), part.sample, **more)
    if isinstance(subject, OTGAN):
        part = _of_model(subject)
        settings = {"seed": subject.seed, "tol": subject.tol, "generator": subject.kind}
        kind = ("model", "an OTGAN model: potential, generator and critic of one solve")
        return Run(title, kind, (part,), part.sample, seed=subject.seed, settings=settings, **more)
    if isinstance(subject, LatentOTGAN):
        names = subject.names or ("",) * len(subject.models)
        parts = tuple(_of_model(model, name) for name, model in zip(names, subject.models, strict=True))
        coder = subject.autoencoder
        what = "a generator of images: autoencoder and transport map between its codes"
        first = subject.models[0]
        settings = {"seed": first.seed, "tol": first.tol, "generator": first.kind, "autoencoder": repr(coder)}
        return Run(
            title, ("images", what), parts, subject.codes, coder.decode, coder.encode, seed=first.seed,
            settings=settings, **more,
        )  # fmt: skip
    raise TypeError(
        f"A report is about a result of otgan.solve (or `otgan fit`), an OTGAN or a LatentOTGAN, got a "
        f"{type(subject).__name__}."
    )


def left_out(run: Run) -> list[Html]:
    """Says how many classes have no figure."""
    more = len(run.parts) - PARTS
    return [tag("p", f"{more} more classes are not drawn.")] if more > 0 else []


def _of_result(result: Result) -> Part:
    u, source = result.potential, result.source
    if isinstance(u, BrenierPotential):
        generator = EntropicGenerator(u, source)
        how = f"entropic map, reg = {generator.reg:.4g}"
        return Part("", result, lambda n, seed: generator.sample(n, seed), how)
    reg = entropic_reg(u, source)

    @torch.no_grad()
    def sample(n: int, seed: int) -> Tensor:
        return u.smooth_transport(source.sample(n, seed=seed, dtype=u.points.dtype), reg)

    return Part("", result, sample, f"entropic map of the cost |x - y|^{u.p:g} / {u.p:g}, reg = {reg:.4g}")


def _of_model(model: OTGAN, name: str = "") -> Part:
    generator = model.generator
    how = type(generator).__name__.removesuffix("Generator").lower()
    if isinstance(generator, EntropicGenerator):
        how = f"entropic map, reg = {generator.reg:.4g}"
    elif isinstance(generator, NearestGenerator):
        how = "the transport map itself, whose samples are training points"
    elif hasattr(generator, "network"):
        how = f"network ({type(generator.network).__name__})"
    return Part(name, model.result, lambda n, seed: model.sample(n, seed), how, model)


def _digest(folder: Path) -> str:
    """SHA-256 of the tensors, as config.json states it."""
    import json

    try:
        found = json.loads((folder / io.CONFIG).read_text(encoding="utf-8")).get("tensors_sha256", "")
    except (OSError, ValueError, AttributeError):
        return ""
    return str(found)


def _demo_decoder(folder: Path, dim: int) -> Callable[[Tensor], Tensor] | None:
    """Codes to digits, where the folder is that of `otgan demo`."""
    path = folder / _DEMO
    if not path.is_file():
        return None
    try:
        with np.load(path, allow_pickle=False) as found:
            mean, components = np.asarray(found["mean"], float), np.asarray(found["components"], float)
    except (OSError, ValueError, KeyError):
        return None
    if mean.shape != (_SIDE * _SIDE,) or components.shape != (dim, _SIDE * _SIDE):
        return None

    def decode(codes: Tensor) -> Tensor:
        grey = np.clip((codes.double().cpu().numpy() @ components + mean) / 16.0, 0.0, 1.0)
        return torch.from_numpy(1.0 - grey.reshape(-1, 1, _SIDE, _SIDE))  # ink on paper

    return decode
