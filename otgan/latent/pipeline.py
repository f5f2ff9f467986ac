"""``LatentOTGAN``: images to codes, one convex solve from a source to the codes, new codes to new images."""

from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from otgan import io
from otgan._checks import as_count, as_points, as_positive
from otgan.datasets import DataError
from otgan.generators import OTGAN
from otgan.generators.model import unpack_model
from otgan.images import ImageDataset
from otgan.latent.autoencoder import Autoencoder, unpack_autoencoder
from otgan.latent.coder import Coder, as_images
from otgan.measures import DiscreteMeasure, Gaussian
from otgan.solvers.base import Stopwatch
from otgan.solvers.dispatch import picks

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from otgan._checks import ArrayLike
    from otgan.latent.coder import ImagesLike
    from otgan.measures import Source

    Label = int | str

_SHARE = 0.5  # of max_time that the autoencoder has at most
_FEWEST = 2  # images of a class that has a potential of its own


class LatentOTGAN:
    r"""A generator of images: the decoder of an autoencoder after an optimal transport map.

    Images are encoded, ``y_i = E(image_i)``; one convex problem finds the Brenier potential u_h from a source mu to the
    codes, with its certificate; a generator G read off it carries source points to new codes, which are decoded:
    ``D(G(x))``, x ~ mu (D. An et al., "AE-OT: a new generative model based on extended semi-discrete optimal
    transport", ICLR 2020, where G is the map's barycentric extension).

    Args:
        autoencoder: :class:`Autoencoder`, or a :class:`Pair` of functions. One that is not trained yet is trained by
            :meth:`fit`; ``Autoencoder(32)`` when left out.
        model: :class:`otgan.OTGAN` whose settings the fit uses: source (a Gaussian, or ``og.UniformBox(dim=d)``),
            generator, tolerance, seed. ``OTGAN()`` when left out.

    Attributes:
        autoencoder: E and D.
        models: fitted models: one, or with ``by_class`` one a class.
        names: of the classes, with ``by_class``; else empty.

    Example:
        >>> images = torch.rand(300, 1, 8, 8)
        >>> model = LatentOTGAN(Autoencoder(3, width=4, hidden=16)).fit(images, training={"steps": 20})
        >>> model.sample(4, seed=1).shape
        torch.Size([4, 1, 8, 8])
    """

    def __init__(self, autoencoder: Coder | None = None, model: OTGAN | None = None) -> None:
        if autoencoder is not None and not isinstance(autoencoder, Coder):
            raise TypeError(
                f"autoencoder must be an otgan.latent.Autoencoder or a Pair of functions, got "
                f"{type(autoencoder).__name__}; wrap your own as latent.Pair(encode, decode, shape)."
            )
        if model is not None and not isinstance(model, OTGAN):
            raise TypeError(f"model must be an og.OTGAN, got {type(model).__name__}.")
        self.autoencoder: Coder = Autoencoder() if autoencoder is None else autoencoder
        self._settings = OTGAN() if model is None else model
        self.models: list[OTGAN] = []
        self.names: tuple[str, ...] = ()
        self._counts: list[int] = []

    def fit(
        self,
        images: ImagesLike,
        *,
        by_class: bool = False,
        training: dict[str, Any] | None = None,
        max_time: float | None = None,
        progress: bool = False,
        callback: Callable[[Any], object] | None = None,
        checkpoint: str | Path | None = None,
    ) -> LatentOTGAN:
        """Train the autoencoder unless it is trained already, encode, solve, and fit the generator.

        Args:
            images: see :meth:`Autoencoder.fit`.
            by_class: one potential a class, all in the codes of one autoencoder; images must have labels.
            training: further settings of :meth:`Autoencoder.fit`.
            max_time: seconds for all; the autoencoder has half of it at most.
            progress: show bars on standard error.
            callback: is shown the states of all parts; a true return value ends the part that is running.
            checkpoint: folder where all parts keep their progress, and go on from.

        Returns:
            The model itself. Ctrl-C ends the part that is running, and what was found is kept.

        Raises:
            DataError: images that do not fit, no labels, or a class with one image only.
        """
        pixels = as_images(images)
        groups = _groups(images) if by_class else {"": torch.arange(len(pixels))}
        clock = Stopwatch(None if max_time is None else as_positive(max_time, "max_time"))
        self._check()
        folder = None if checkpoint is None else str(checkpoint)
        more: dict[str, Any] = {"progress": progress, "callback": callback}
        if isinstance(self.autoencoder, Autoencoder) and self.autoencoder.report is None:
            self.autoencoder.fit(
                pixels,
                **{"max_time": None if max_time is None else _SHARE * max_time, **(training or {})},
                **more,
                checkpoint=None if folder is None else f"{folder}/autoencoder",
            )
        elif training:
            raise ValueError("training was given, but the autoencoder is trained already; leave it out.")
        codes = self.autoencoder.encode(pixels).cpu()
        self.models, self._counts = [], [len(index) for index in groups.values()]
        self.names = tuple(groups) if by_class else ()
        for k, index in enumerate(groups.values()):
            left = None
            if max_time is not None:
                left = max(max_time - clock.seconds, 0.05 * max_time) * len(index) / sum(self._counts[k:])
            place = None if folder is None else f"{folder}/transport" + (f"-{k}" if by_class else "")
            self.models.append(_copy(self._settings).fit(codes[index], max_time=left, **more, checkpoint=place))
        return self

    def _check(self) -> None:
        """Settings of the solve that do not fit are told before the autoencoder is trained."""
        settings, d = self._settings, self.autoencoder.latent
        source = settings.source if settings.source is not None else Gaussian(d)
        if source.dim != d:
            raise ValueError(f"The source has dimension {source.dim}, the codes {d}.")
        if settings.tol is not None:
            as_positive(settings.tol, "tol")
        picks(source, DiscreteMeasure(torch.eye(d)), settings.method, settings.solver)

    # -------------------------------------------------------------- sampling

    def sample(self, n: int, seed: int | None = None, label: Label | Sequence[Label] | None = None) -> Tensor:
        """``n`` new images in [0, 1], shape (n, c, h, w), float32.

        Args:
            n: how many.
            seed: of the source points (and classes); None for fresh ones.
            label: with ``by_class`` the class, by number or name, or one for each image; when left out, classes are
                drawn with their shares of the training images.
        """
        return self.autoencoder.decode(self.codes(n, seed, label))

    @torch.no_grad()
    def codes(self, n: int, seed: int | None = None, label: Label | Sequence[Label] | None = None) -> Tensor:
        """The codes of :meth:`sample`, shape (n, d), float32."""
        n = as_count(n, "n")
        self._fitted()
        if not self.names:
            if label is not None:
                raise ValueError("This model has no classes; fit it with by_class=True to sample by label.")
            return self.models[0].sample(n, seed).float()
        labels = self.labels(n, seed, label)
        codes = torch.empty((n, self.autoencoder.latent))
        for k in labels.unique().tolist():
            at = labels == k
            codes[at] = self.models[k].sample(int(at.sum()), seed).float().cpu()
        return codes

    def labels(self, n: int, seed: int | None = None, label: Label | Sequence[Label] | None = None) -> Tensor:
        """Classes of the images that :meth:`sample` draws with the same arguments, shape (n,), int64."""
        self._fitted()
        if not self.names:
            raise ValueError("This model has no classes; fit it with by_class=True.")
        if label is None:
            stream = torch.Generator().manual_seed(as_count(seed, "seed")) if seed is not None else None
            shares = torch.tensor(self._counts, dtype=torch.float64)
            return torch.multinomial(shares, n, replacement=True, generator=stream)
        if isinstance(label, (int, str, np.integer)):
            return torch.full((n,), self._class(label))
        chosen = [self._class(one) for one in (label.tolist() if isinstance(label, (Tensor, np.ndarray)) else label)]
        if len(chosen) != n:
            raise ValueError(f"label must be one class, or {n}, one an image; got {len(chosen)}.")
        return torch.tensor(chosen, dtype=torch.long)

    def _class(self, label: Label) -> int:
        number = self.names.index(label) if isinstance(label, str) and label in self.names else label
        if isinstance(number, str) or not 0 <= number < len(self.names):
            raise ValueError(f"There is no class {label!r}; the classes are {', '.join(self.names)}.")
        return int(number)

    @torch.no_grad()
    def interpolate(self, start: ArrayLike, end: ArrayLike, steps: int = 8, label: Label | None = None) -> Tensor:
        """Images along segments of the source: ``D(G((1 - t) x_0 + t x_1))``, t from 0 to 1.

        Args:
            start: x_0, shape (m, d), such as ``model.source.sample(m, seed=0)``.
            end: x_1, shape (m, d).
            steps: images of a segment, both ends included.
            label: the class, with ``by_class``.

        Returns:
            Shape (m, steps, c, h, w).
        """
        model, d = self._one(label), self.autoencoder.latent
        x0, x1 = (as_points(x, name, d).double() for x, name in ((start, "start"), (end, "end")))
        if len(x0) != len(x1):
            raise ValueError(f"start and end must be as many, got {len(x0)} and {len(x1)}.")
        t = torch.linspace(0.0, 1.0, as_count(steps, "steps", 2), dtype=torch.float64)[None, :, None]
        return self._path(model, torch.lerp(x0[:, None], x1[:, None], t), carried=True)

    @torch.no_grad()
    def displacement(self, x: ArrayLike, steps: int = 8, label: Label | None = None) -> Tensor:
        """Images along the transport of x: ``D((1 - t) x + t G(x))``, t from 0 to 1 (McCann's interpolation).

        For small t codes are source points, which no image has: what the decoder makes of them is no image either.

        Args:
            x: source points, shape (m, d).
            steps: images of a path, both ends included.
            label: the class, with ``by_class``.

        Returns:
            Shape (m, steps, c, h, w).
        """
        model = self._one(label)
        start = as_points(x, "x", self.autoencoder.latent).double()
        t = torch.linspace(0.0, 1.0, as_count(steps, "steps", 2), dtype=torch.float64)[None, :, None]
        end = model.generator(start.to(model.generator.device)).double().to(start)
        return self._path(model, torch.lerp(start[:, None], end[:, None], t), carried=False)

    def _path(self, model: OTGAN, points: Tensor, carried: bool) -> Tensor:
        m, steps, d = points.shape
        flat = points.reshape(m * steps, d)
        codes = model.generator(flat.to(model.generator.device)) if carried else flat
        return self.autoencoder.decode(codes).reshape(m, steps, *self.autoencoder.shape)

    # ----------------------------------------------------------- what it is

    @property
    def model(self) -> OTGAN:
        """The transport model; with ``by_class`` see :attr:`models`."""
        return self._one(None)

    @property
    def source(self) -> Source:
        """Where :meth:`sample` draws from."""
        self._fitted()
        return self.models[0].result.source

    def _one(self, label: Label | None) -> OTGAN:
        self._fitted()
        if self.names:
            if label is None:
                raise ValueError(f"This model has one map a class; name the class: {', '.join(self.names)}.")
            return self.models[self._class(label)]
        if label is not None:
            raise ValueError("This model has no classes; fit it with by_class=True.")
        return self.models[0]

    def _fitted(self) -> None:
        if not self.models:
            raise RuntimeError("This model has not been fitted yet; call fit(images) first.")

    def __repr__(self) -> str:
        state = f"fitted to {sum(self._counts):,} images" if self.models else "not fitted"
        classes = f", {len(self.names)} classes" if self.names else ""
        return f"LatentOTGAN({self.autoencoder!r}, {state}{classes})"

    # --------------------------------------------------------------- saving

    def save(self, path: str | Path) -> Path:
        """Write config.json and model.safetensors into the folder ``path``; :func:`otgan.load` reads it back.

        Raises:
            TypeError: the autoencoder is a pair of functions, which cannot be written.
        """
        self._fitted()
        if not isinstance(self.autoencoder, Autoencoder):
            raise TypeError(
                f"A {type(self.autoencoder).__name__} of functions cannot be written; save each of `models` instead "
                "and keep the functions yourself."
            )
        config, tensors = self.autoencoder.pack()
        tensors = {f"autoencoder.{name}": t for name, t in tensors.items()}
        models = []
        for k, model in enumerate(self.models):
            described, more = model.pack()
            models.append(described)
            tensors |= {f"model.{k}.{name}": t for name, t in more.items()}
        whole = {"autoencoder": config, "models": models, "names": list(self.names), "counts": self._counts}
        return io.save(path, "LatentOTGAN", whole, tensors)


@io.register("LatentOTGAN")
def _load(config: dict[str, Any], tensors: dict[str, Tensor]) -> LatentOTGAN:
    def under(prefix: str) -> dict[str, Tensor]:
        return {name[len(prefix) :]: t for name, t in tensors.items() if name.startswith(prefix)}

    made = LatentOTGAN(unpack_autoencoder(config["autoencoder"], under("autoencoder.")))
    made.models = [unpack_model(described, under(f"model.{k}.")) for k, described in enumerate(config["models"])]
    made.names, made._counts = tuple(config["names"]), list(config["counts"])
    made._settings = _copy(made.models[0])
    return made


def _copy(model: OTGAN) -> OTGAN:
    """A model with the same settings, not fitted."""
    return OTGAN(
        model.source,
        deepcopy(model.kind),
        method=model.method,
        tol=model.tol,
        seed=model.seed,
        solver=model.solver,
        fit=model.settings,
    )


def _groups(images: ImagesLike) -> dict[str, Tensor]:
    """Numbers of the images of each class, by its name."""
    if not isinstance(images, ImageDataset) or images.labels is None:
        raise DataError(
            "by_class needs images with labels: otgan.images.read() of class folders, or Images.of(x, labels)."
        )
    groups = {name: (images.labels == k).nonzero()[:, 0] for k, name in enumerate(images.names)}
    small = [f"{name!r} ({len(index)})" for name, index in groups.items() if len(index) < _FEWEST]
    if small:
        raise DataError(f"by_class needs at least {_FEWEST} images a class, too few has {', '.join(small)}.")
    return groups
