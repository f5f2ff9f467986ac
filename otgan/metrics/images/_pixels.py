"""Checked images: bytes of shape (n, c, h, w), whatever they came as."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from otgan.images import ImageDataset

if TYPE_CHECKING:
    from collections.abc import Sequence

_LAYOUT = "(n, c, h, w), c = 1 for grey and 3 for colour"
_BLOCK = 1 << 24  # numbers that are checked and rounded at once


def as_pixels(images: Any, name: str, shape: Sequence[int] | None = None) -> Tensor:
    """Bytes of shape (n, c, h, w).

    Args:
        images: bytes, or floats in [0, 1], which are rounded to the nearest of 256 levels, as a file would hold them;
            array or tensor of shape (n, c, h, w), or (n, h, w) if they are grey; or :class:`otgan.images.Images` or
            another dataset of images.
        name: what the caller calls them, for the error.
        shape: (c, h, w) that is expected, if any.

    Raises:
        TypeError: for other numbers than bytes and floats.
        ValueError: for another shape, no image, or floats that are not in [0, 1].
    """
    given = images.load().pixels if isinstance(images, ImageDataset) else images
    if not isinstance(given, Tensor):
        array = np.asarray(given)
        if array.dtype == object or array.dtype.kind not in "uf" or (array.dtype.kind == "u" and array.itemsize > 1):
            raise TypeError(f"{name} must be bytes (uint8) or floats in [0, 1], got {_kind(given, array.dtype)}.")
        given = torch.from_numpy(np.ascontiguousarray(array) if array.flags.writeable else array.copy())
    pixels = given.detach()
    if pixels.dtype != torch.uint8 and not pixels.is_floating_point():
        raise TypeError(f"{name} must be bytes (uint8) or floats in [0, 1], got {_kind(given, pixels.dtype)}.")
    if pixels.ndim == 3:
        pixels = pixels[:, None]
    if pixels.ndim != 4:
        raise ValueError(f"{name} must have shape {_LAYOUT}; got {tuple(pixels.shape)}.")
    if 0 in pixels.shape:
        raise ValueError(f"{name} holds no image: its shape is {tuple(pixels.shape)}.")
    if shape is not None and tuple(pixels.shape[1:]) != tuple(shape):
        raise ValueError(f"{name} has images of shape {tuple(pixels.shape[1:])}, expected (c, h, w) = {tuple(shape)}.")
    if pixels.dtype == torch.uint8:
        return pixels
    out = torch.empty(pixels.shape, dtype=torch.uint8, device=pixels.device)
    rows = max(1, _BLOCK // pixels[0].numel())
    for start in range(0, len(pixels), rows):
        part = pixels[start : start + rows]
        low, high = (float(end) for end in torch.aminmax(part))
        if not (low >= 0.0 and high <= 1.0):
            raise ValueError(
                f"{name} has levels from {low:g} to {high:g}; floats must lie in [0, 1]: divide 0..255 by 255, clip "
                "what a generator draws beyond the ends."
            )
        out[start : start + rows] = (part.float() * 255.0).round_().to(torch.uint8)
    return out


def as_labels(labels: Any, n: int, name: str = "labels") -> Tensor:
    """Classes 0, 1, ... of n images, int64, shape (n,)."""
    array = labels.detach().cpu().numpy() if isinstance(labels, Tensor) else np.asarray(labels)
    if array.dtype.kind not in "iu" or array.shape != (n,):
        raise ValueError(
            f"{name} must be {n} whole numbers, one an image, got shape {array.shape} of dtype {array.dtype}."
        )
    if array.size and int(array.min()) < 0:
        raise ValueError(f"{name} must be classes 0, 1, ..., got {int(array.min())}.")
    return torch.from_numpy(array.astype(np.int64))


def _kind(given: Any, dtype: Any) -> str:
    return f"a {type(given).__name__} of dtype {dtype}"
