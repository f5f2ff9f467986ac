"""Arrays of images of any kind to uint8 tensors (n, c, h, w); other sizes and channels."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from otgan._checks import as_count
from otgan.datasets import DataError

CHANNELS = (1, 3)
LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in the grey level (ITU-R BT.601), as Pillow's."""

_BLOCK = 1 << 12


def as_pixels(array: NDArray[Any], name: str) -> Tensor:
    """An array of images to uint8, shape (n, c, h, w)."""
    return torch.from_numpy(np.ascontiguousarray(as_bytes(channels_first(array, name), name)))


def channels_first(array: NDArray[Any], name: str) -> NDArray[Any]:
    """A view (n, c, h, w) of (n, h, w), (n, c, h, w) or (n, h, w, c)."""
    if array.size == 0:
        raise DataError(f"{name} is empty: shape {array.shape}, expected at least one image.")
    if array.ndim == 3:
        return array[:, None]
    if array.ndim == 4:
        first, last = array.shape[1] in CHANNELS, array.shape[3] in CHANNELS
        if first and last and array.shape[1:] != (1, 1, 1) and array.shape[1] != array.shape[3]:
            raise DataError(
                f"{name} has shape {array.shape}: channels could come first or last; save it as (n, h, w), or with "
                "more pixels a side."
            )
        if first:
            return array
        if last:
            return np.moveaxis(array, 3, 1)
    hint = ""
    if array.ndim == 2:
        hint = "; for rows of pixels pass their size, such as 28 for rows of 784 (size=, --size)"
    elif array.ndim == 4 and 4 in array.shape[1::2]:
        hint = "; drop the fourth channel (opacity)"
    raise DataError(
        f"{name} has shape {array.shape}, expected (n, h, w), (n, c, h, w) or (n, h, w, c), c = 1 or 3{hint}."
    )


def as_bytes(array: NDArray[Any], name: str) -> NDArray[np.uint8]:
    """Grey levels as uint8: whole numbers 0..255 as they are, booleans as 0 and 255, reals in [0, 1] times 255."""
    kind = array.dtype.kind
    if array.dtype == np.uint8:
        return array
    if kind == "b":
        return array.astype(np.uint8) * np.uint8(255)
    if kind not in "iuf":
        raise DataError(f"{name} does not hold grey levels but {array.dtype}.")
    if kind == "f" and not np.isfinite(array).all():
        raise DataError(f"{name} has {int((~np.isfinite(array)).sum())} value(s) that are NaN or infinite.")
    low, high = float(array.min()), float(array.max())
    if kind == "f" and 0.0 <= low and high <= 1.0:
        return np.round(array.astype(np.float32) * np.float32(255.0)).astype(np.uint8)
    if 0.0 <= low and high <= 255.0 and (kind != "f" or bool((array == np.round(array)).all())):
        return array.astype(np.uint8)
    raise DataError(
        f"{name} holds numbers from {low:g} to {high:g}, expected whole numbers 0..255 or reals in [0, 1]: rescale it."
    )


def as_size(size: int | tuple[int, int] | None) -> tuple[int, int] | None:
    """(h, w) of a side or a pair."""
    if size is None:
        return None
    pair = size if isinstance(size, (tuple, list)) else (size, size)
    if len(pair) != 2:
        raise ValueError(f"size must be a side or (h, w), got {size!r}.")
    h, w = (as_count(side, "size", 1) for side in pair)
    return h, w


def as_channels(channels: int | None) -> int | None:
    """None, 1 or 3."""
    if channels is not None and channels not in CHANNELS:
        raise ValueError(f"channels must be 1 (grey) or 3 (colour), got {channels!r}.")
    return channels


def to_channels(pixels: Tensor, channels: int | None) -> Tensor:
    """Grey to colour by repeating it, colour to grey by luma; shape (n, channels, h, w), uint8."""
    channels = as_channels(channels)
    if channels is None or pixels.shape[1] == channels:
        return pixels
    if channels == 3:
        return pixels.expand(-1, 3, -1, -1).contiguous()
    weights = torch.tensor(LUMA)[:, None, None]
    grey = [(block.float() * weights).sum(dim=1, keepdim=True).round().byte() for block in pixels.split(_BLOCK)]
    return torch.cat(grey)


def to_size(pixels: Tensor, size: int | tuple[int, int] | None) -> Tensor:
    """Cut about the centre to the ratio of ``size``, then resample bilinearly with antialiasing; uint8."""
    wanted = as_size(size)
    if wanted is None or tuple(pixels.shape[2:]) == wanted:
        return pixels
    top, left, height, width = centre_cut(pixels.shape[2], pixels.shape[3], wanted)
    cut = pixels[:, :, top : top + height, left : left + width]
    resized = [
        torch.nn.functional.interpolate(block.float(), wanted, mode="bilinear", antialias=True).round().clamp(0, 255)
        for block in cut.split(_BLOCK)
    ]
    return torch.cat([block.byte() for block in resized])


def centre_cut(height: int, width: int, wanted: tuple[int, int]) -> tuple[int, int, int, int]:
    """Top, left, height and width of the largest part about the centre with the ratio of ``wanted`` = (h, w)."""
    h, w = wanted
    new_height, new_width = min(height, round(width * h / w)), min(width, round(height * w / h))
    new_height, new_width = max(new_height, 1), max(new_width, 1)
    return (height - new_height) // 2, (width - new_width) // 2, new_height, new_width
