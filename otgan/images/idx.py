"""IDX files, plain or compressed by gzip: the format of MNIST and its relatives."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from otgan.datasets import DataError, what_it_is
from otgan.images._convert import as_bytes, channels_first
from otgan.images.base import ImageDataset

if TYPE_CHECKING:
    from numpy.typing import NDArray

_TYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_GZIP = b"\x1f\x8b"


def read_idx(path: str | Path) -> NDArray[Any]:
    """The array of an IDX file.

    Its bytes: 0, 0, a code of the kind of number, the number of axes k; k lengths of four bytes; the numbers, all with
    the most significant byte first (Y. LeCun, "The MNIST database of handwritten digits").

    Returns:
        The array; of a plain file a read-only map of its bytes, which costs no memory.

    Raises:
        DataError: missing, not IDX, shorter or longer than its header says.
    """
    where = Path(path)
    try:
        with open(where, "rb") as file:
            packed = file.read(2) == _GZIP
        if packed:
            with gzip.open(where, "rb") as unpacked:
                return _packed(unpacked, where)  # type: ignore[arg-type]
        with open(where, "rb") as file:
            dtype, shape, begin = _header(file, where)
        expected, size = math.prod(shape) * dtype.itemsize, where.stat().st_size - begin
        if size != expected:
            raise _wrong_length(where, shape, expected, size, "" if size < expected else f" ({size - expected} more)")
        if expected == 0:
            return np.empty(shape, dtype)
        return np.memmap(where, dtype=dtype, mode="r", offset=begin, shape=shape)
    except FileNotFoundError:
        raise DataError(f"There is no file {where}.") from None
    except IsADirectoryError:
        raise DataError(f"{where} is a folder, expected an IDX file.") from None
    except (gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise DataError(f"{where} is damaged or cut off (gzip: {error}); fetch it again.") from None
    except OSError as error:
        raise DataError(f"{where} cannot be read: {error.strerror or error}.") from None


def is_idx(path: Path) -> bool:
    """Whether a file begins as IDX does, packed or not."""
    try:
        with open(path, "rb") as file:
            opening = file.read(4)
        if opening[:2] == _GZIP:
            with gzip.open(path, "rb") as unpacked:
                opening = unpacked.read(4)
    except (OSError, EOFError, zlib.error):
        return False
    return len(opening) == 4 and opening[:2] == b"\0\0" and opening[2] in _TYPES and 1 <= opening[3] <= 8


def _packed(file: BinaryIO, where: Path) -> NDArray[Any]:
    dtype, shape, _ = _header(file, where)
    expected = math.prod(shape) * dtype.itemsize
    pieces, size = [], 0
    while piece := file.read(min(1 << 24, expected + 1 - size)):  # what a damaged header announces is not allocated
        pieces.append(piece)
        size += len(piece)
    if size != expected:
        raise _wrong_length(where, shape, expected, size, "" if size < expected else " or more")
    return np.frombuffer(b"".join(pieces), dtype).reshape(shape)


def _header(file: BinaryIO, where: Path) -> tuple[np.dtype[Any], tuple[int, ...], int]:
    opening = file.read(4)
    if len(opening) < 4 or opening[:2] != b"\0\0" or opening[2] not in _TYPES or opening[3] == 0:
        shown = " ".join(f"{byte:02x}" for byte in opening) or "nothing"
        raise DataError(
            f"{where} is not an IDX file: it begins with {shown}, expected 00 00 08 03 for images or 00 00 08 01 for "
            f"labels; {what_it_is(where) if opening[:2] != bytes(2) else 'its kind of number is unknown'}."
        )
    axes = opening[3]
    lengths = file.read(4 * axes)
    if len(lengths) < 4 * axes:
        raise DataError(f"{where} is cut off within its header ({4 + len(lengths)} of {4 + 4 * axes} bytes).")
    return np.dtype(_TYPES[opening[2]]), struct.unpack(f">{axes}I", lengths), 4 + 4 * axes


def _wrong_length(where: Path, shape: tuple[int, ...], expected: int, size: int, more: str) -> DataError:
    what = "is cut off" if size < expected else "has bytes beyond its end"
    return DataError(
        f"{where} {what}: shape {shape} needs {expected:,} bytes, it holds {size:,}{more}; fetch or save it again."
    )


class IDXDataset(ImageDataset):
    """Images of an IDX file, with the labels of the file that belongs to it.

    Args:
        path: of the images, ``...-images-idx3-ubyte`` or the like, plain or ``.gz``.
        labels: of the labels; ``...-labels-idx1-ubyte`` beside it when it exists and this is left out.
        names: of the classes.

    Raises:
        DataError: either is damaged, not what it should be, or they do not belong together.
    """

    def __init__(self, path: str | Path, labels: str | Path | None = None, names: tuple[str, ...] = ()) -> None:
        where = Path(path)
        array = read_idx(where)
        if array.ndim == 1:
            raise DataError(f"{where} holds {len(array):,} labels, expected images: name the file of images.")
        self._array = as_bytes(channels_first(array, str(where)), str(where))
        n, c, h, w = self._array.shape
        self.shape = (c, h, w)
        beside = labels_beside(where) if labels is None else Path(labels)
        self.labels, self.names = None, ()
        if beside is not None:
            numbers = read_idx(beside)
            if numbers.ndim != 1 or numbers.dtype.kind not in "iu":
                raise DataError(f"{beside} holds {numbers.dtype} of shape {numbers.shape}, expected {n:,} labels.")
            if len(numbers) != n:
                raise DataError(f"{beside} holds {len(numbers):,} labels, {where} {n:,} images: they do not match.")
            self.labels = torch.from_numpy(numbers.astype(np.int64))
            self.names = names or tuple(str(k) for k in range(int(numbers.max()) + 1))

    def __len__(self) -> int:
        return len(self._array)

    def pixels_at(self, first: int, end: int) -> Tensor:
        """Images first to end - 1, uint8."""
        return torch.from_numpy(np.array(self._array[first:end]))


def labels_beside(images: Path) -> Path | None:
    """The file of labels that belongs to a file of images, by its name."""
    if "images" not in images.name:
        return None
    plain = images.name.removesuffix(".gz").replace("images", "labels").replace("idx3", "idx1")
    return next((path for name in (plain, plain + ".gz") if (path := images.with_name(name)).is_file()), None)
