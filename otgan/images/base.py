"""What every set of images is: a torch ``Dataset``, and the one that lies in memory."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from otgan._checks import as_count
from otgan.datasets import DataError
from otgan.images._convert import CHANNELS, as_pixels, to_channels, to_size

if TYPE_CHECKING:
    from numpy.typing import NDArray

_BLOCK = 1 << 12


class ImageDataset(Dataset[tuple[Tensor, int]], ABC):
    """Images of one size: item i is ``(image, label)``, image float32 in [0, 1], shape (c, h, w); label -1 for none.

    Attributes:
        shape: (c, h, w), c = 1 (grey) or 3 (red, green, blue).
        labels: class of each image, shape (n,), int64, or None.
        names: of the classes: class k is called ``names[k]``; empty without labels.
    """

    shape: tuple[int, int, int]
    labels: Tensor | None
    names: tuple[str, ...]

    @abstractmethod
    def __len__(self) -> int:
        """How many images."""

    @abstractmethod
    def pixels_at(self, first: int, end: int) -> Tensor:
        """Images first to end - 1, uint8, shape (end - first, c, h, w)."""

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        i = range(len(self))[index]  # negative numbers, and an IndexError
        label = -1 if self.labels is None else int(self.labels[i])
        return self.pixels_at(i, i + 1)[0].float() / 255.0, label

    def load(self) -> Images:
        """All of them, in memory."""
        pixels = torch.empty((len(self), *self.shape), dtype=torch.uint8)
        for first in range(0, len(self), _BLOCK):
            end = min(first + _BLOCK, len(self))
            pixels[first:end] = self.pixels_at(first, end)
        return Images(pixels, self.labels, self.names)


@dataclass(frozen=True, eq=False)
class Images(ImageDataset):
    """Images in memory.

    Args:
        pixels: grey levels or colours 0 to 255, uint8, shape (n, c, h, w), c = 1 or 3, n >= 1. :meth:`of` makes them
            from arrays of other kinds.
        labels: class of each image, integers 0 <= k < len(names), shape (n,), or None.
        names: of the classes; "0", "1", ... when left out and there are labels.

    Raises:
        DataError: shapes, kinds of numbers or classes that do not fit.

    Example:
        >>> images = Images.of(np.zeros((5, 8, 8)), labels=[0, 0, 1, 1, 1])
        >>> images.shape, len(images.of_class(1))
        ((1, 8, 8), 3)
    """

    pixels: Tensor
    labels: Tensor | None = None
    names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        pixels, labels = self.pixels, self.labels
        if not isinstance(pixels, Tensor) or pixels.dtype != torch.uint8 or pixels.ndim != 4:
            kind = (
                f"{pixels.dtype} of shape {tuple(pixels.shape)}"
                if isinstance(pixels, Tensor)
                else type(pixels).__name__
            )
            raise DataError(f"pixels must be a uint8 tensor (n, c, h, w), got {kind}; Images.of(array) converts.")
        if pixels.shape[1] not in CHANNELS or 0 in pixels.shape:
            raise DataError(f"pixels must have shape (n, c, h, w), n >= 1 and c = 1 or 3, got {tuple(pixels.shape)}.")
        if labels is None:
            if self.names:
                raise DataError("names of classes were given without labels.")
            return
        labels = torch.as_tensor(labels)
        if labels.shape != (len(pixels),) or labels.is_floating_point() or labels.is_complex():
            raise DataError(
                f"labels must be {len(pixels)} integers, one an image, got {labels.dtype} of shape "
                f"{tuple(labels.shape)}."
            )
        labels = labels.long()
        low, high = int(labels.min()), int(labels.max())
        names = tuple(str(name) for name in self.names) or tuple(str(k) for k in range(high + 1))
        if low < 0 or high >= len(names):
            raise DataError(f"labels must be classes 0 to {len(names) - 1}, got {low} to {high}.")
        object.__setattr__(self, "labels", labels)
        object.__setattr__(self, "names", names)

    @classmethod
    def of(
        cls,
        images: NDArray[Any] | Tensor,
        labels: Sequence[int] | NDArray[Any] | Tensor | None = None,
        names: Sequence[str] = (),
        *,
        name: str = "images",
    ) -> Images:
        """Images from an array: (n, h, w), (n, c, h, w) or (n, h, w, c); whole numbers 0..255, or reals in [0, 1].

        Args:
            images: the array.
            labels: class of each image.
            names: of the classes.
            name: what errors call the array.
        """
        array = images.detach().cpu().numpy() if isinstance(images, Tensor) else np.asarray(images)
        known = None if labels is None else torch.as_tensor(np.asarray(labels))
        return cls(as_pixels(array, name), known, tuple(names))

    @property
    def shape(self) -> tuple[int, int, int]:  # type: ignore[override]
        """(c, h, w)."""
        _, c, h, w = self.pixels.shape
        return c, h, w

    def __len__(self) -> int:
        return len(self.pixels)

    def pixels_at(self, first: int, end: int) -> Tensor:
        """Images first to end - 1, uint8."""
        return self.pixels[first:end]

    def load(self) -> Images:
        """These."""
        return self

    def floats(self) -> Tensor:
        """All images, float32 in [0, 1], shape (n, c, h, w)."""
        return self.pixels.float().div_(255.0)

    def subset(self, index: slice | Sequence[int] | NDArray[Any] | Tensor) -> Images:
        """The images of these numbers, in this order."""
        at = index if isinstance(index, slice) else torch.as_tensor(index)
        return Images(self.pixels[at], None if self.labels is None else self.labels[at], self.names)

    def of_class(self, label: int | str) -> Images:
        """The images of one class, by its number or its name."""
        return self.subset((self._labels() == self.class_of(label)).nonzero()[:, 0])

    def class_of(self, label: int | str) -> int:
        """Number of a class, which may be named by its name.

        Raises:
            ValueError: no such class, or none of its images here.
        """
        labels = self._labels()
        number = self.names.index(label) if isinstance(label, str) and label in self.names else label
        if isinstance(number, str) or not 0 <= number < len(self.names) or not bool((labels == number).any()):
            raise ValueError(f"There is no image of class {label!r}; the classes are {', '.join(self.names)}.")
        return int(number)

    def split(self, held_out: float | int, seed: int = 0) -> tuple[Images, Images]:
        """Training images and held-out ones, drawn at random.

        Args:
            held_out: their share, 0 < share < 1, or their number.
            seed: of the draw.
        """
        n = len(self)
        count = round(held_out * n) if isinstance(held_out, float) else as_count(held_out, "held_out")
        if not 0 < count < n:
            raise ValueError(f"held_out must leave images on both sides: {held_out!r} of {n} are {count}.")
        order = torch.randperm(n, generator=torch.Generator().manual_seed(as_count(seed, "seed")))
        return self.subset(order[count:].sort().values), self.subset(order[:count].sort().values)

    def resized(self, size: int | tuple[int, int] | None = None, channels: int | None = None) -> Images:
        """These images with another size, another number of channels, or both.

        Args:
            size: side, or (h, w): cut to that ratio about the centre, then resampled with antialiasing.
            channels: 1 (luma of ITU-R BT.601) or 3.
        """
        return Images(to_size(to_channels(self.pixels, channels), size), self.labels, self.names)

    def __repr__(self) -> str:
        c, h, w = self.shape
        classes = f", {len(self.names)} classes" if self.labels is not None else ""
        return f"Images({len(self)} of {h} x {w}, {'grey' if c == 1 else 'colour'}{classes})"

    def _labels(self) -> Tensor:
        if self.labels is None:
            raise ValueError("These images have no labels: there are no classes to choose from.")
        return self.labels
