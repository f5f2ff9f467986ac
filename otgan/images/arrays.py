"""Images in NumPy files: .npy and .npz."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from otgan.datasets import NPY_MAGIC, ZIP_MAGICS, DataError, damaged, what_it_is
from otgan.images._convert import as_bytes, as_size, channels_first
from otgan.images.base import ImageDataset

if TYPE_CHECKING:
    from numpy.typing import NDArray

_IMAGES = ("images", "pixels", "x")
_LABELS = ("labels", "label", "targets", "classes", "y")
_NAMES = ("names", "class_names")


class ArrayDataset(ImageDataset):
    """Images of a .npy or .npz file; a .npy file of uint8 is mapped, not read.

    In an .npz file the images are the array called ``key``, the one called images, pixels or x, or the only one with
    three axes or more; labels are the integers called labels, label, targets, classes or y; names of classes the
    strings called names.

    Args:
        path: the file.
        key: which array of an .npz file holds the images.
        size: (h, w) of images that lie in rows of pixels (n, c h w); not used where the array has axes for them.
        channels: c of such rows.

    Raises:
        DataError: damaged, of Python objects, or not images.
    """

    def __init__(
        self,
        path: str | Path,
        key: str | None = None,
        size: int | tuple[int, int] | None = None,
        channels: int | None = None,
    ) -> None:
        where = Path(path)
        arrays = _arrays(where, key)
        found = arrays["images"]
        name = str(where) if key is None else f"{where}, array {key!r}"
        self._array = as_bytes(channels_first(_unrolled(found, name, size, channels), name), name)
        n, c, h, w = self._array.shape
        self.shape = (c, h, w)
        self.labels, self.names = None, ()
        if "labels" in arrays:
            labels = arrays["labels"].reshape(-1)
            if len(labels) != n or labels.dtype.kind not in "iu" or int(labels.min()) < 0:
                raise DataError(
                    f"{where} holds {len(labels):,} labels ({labels.dtype}), expected {n:,} classes >= 0, one an image."
                )
            self.labels = torch.from_numpy(labels.astype(np.int64))
            names = arrays.get("names")
            self.names = tuple(str(k) for k in (range(int(labels.max()) + 1) if names is None else names.reshape(-1)))

    def __len__(self) -> int:
        return len(self._array)

    def pixels_at(self, first: int, end: int) -> Tensor:
        """Images first to end - 1, uint8."""
        return torch.from_numpy(np.array(self._array[first:end], order="C"))


def _arrays(where: Path, key: str | None) -> dict[str, NDArray[Any]]:
    """Images, and labels and names where there are any."""
    try:
        with open(where, "rb") as file:
            opening = file.read(6)
    except FileNotFoundError:
        raise DataError(f"There is no file {where}.") from None
    except OSError as error:
        raise DataError(f"{where} cannot be read: {error.strerror or error}.") from None
    if where.suffix.lower() == ".npy":
        if key is not None:
            raise DataError(f"A key selects an array of an .npz file; {where} holds one array only.")
        if opening != NPY_MAGIC:
            raise DataError(f"{where} is not a NumPy .npy file: {what_it_is(where)}.")
        try:
            return {"images": np.load(where, mmap_mode="r", allow_pickle=False)}
        except Exception as error:  # whatever NumPy trips over, it is the file's content
            raise damaged(where, error) from None
    if opening[:4] not in ZIP_MAGICS:
        raise DataError(f"{where} is not a NumPy .npz archive: {what_it_is(where)}.")
    try:
        with np.load(where, allow_pickle=False) as archive:
            return _chosen(dict(archive.items()), key, where)
    except DataError:
        raise
    except Exception as error:
        raise damaged(where, error) from None


def _chosen(arrays: dict[str, Any], key: str | None, where: Path) -> dict[str, NDArray[Any]]:
    keys = ", ".join(sorted(arrays)) or "none"
    if key is None:
        wide = [name for name, array in arrays.items() if getattr(array, "ndim", 0) >= 3]
        called = [name for name in arrays if name.lower() in _IMAGES]
        key = next(iter(called), wide[0] if len(wide) == 1 else None)
        if key is None:
            what = "several arrays that could be images" if wide else "no array of images (three or four axes)"
            raise DataError(f"{where} holds {what}; name one (key=, --key); it holds: {keys}.")
    elif key not in arrays:
        raise DataError(f"{where} has no array {key!r}; it holds: {keys}.")
    found = {"images": arrays[key]}
    for what, names in (("labels", _LABELS), ("names", _NAMES)):
        name = next((name for name in arrays if name.lower() in names and name != key), None)
        if name is not None:
            found[what] = arrays[name]
    return found


def _unrolled(array: NDArray[Any], name: str, size: int | tuple[int, int] | None, channels: int | None) -> NDArray[Any]:
    """Rows of pixels as (n, c, h, w), where the size is known."""
    wanted = as_size(size)
    if array.ndim != 2 or wanted is None:
        return array
    h, w = wanted
    c = channels if channels is not None else array.shape[1] // (h * w)
    if c not in (1, 3) or array.shape[1] != c * h * w:
        raise DataError(f"{name} has rows of {array.shape[1]} pixels, which are not c x {h} x {w} with c = 1 or 3.")
    return array.reshape(len(array), c, h, w)
