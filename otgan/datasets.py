"""Point files (.npy, .npz, .csv) in, arrays out; and the handwritten digits that come with scikit-learn."""

from __future__ import annotations

import csv
import os
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

_TEXT = (".csv", ".tsv", ".txt")
_SUFFIXES = (".npy", ".npz", *_TEXT)
_SURE = 4  # columns named 0, 1, 2, ... that are no point any more
NPY_MAGIC, ZIP_MAGICS = b"\x93NUMPY", (b"PK\x03\x04", b"PK\x05\x06")
_OPENINGS = {
    b"\x89PNG": "a PNG picture",
    b"\xff\xd8\xff": "a JPEG picture",
    b"%PDF": "a PDF document",
    b"\x1f\x8b": "a gzip archive; unpack it first",
    b"\x89HDF": "an HDF5 file",
    b"PK\x03\x04": "a zip archive; name it .npz if NumPy wrote it",
    NPY_MAGIC: "a NumPy array; name it .npy",
    b"\x80\x02": "a pickle, which is never opened",
    b"\x80\x03": "a pickle, which is never opened",
    b"\x80\x04": "a pickle, which is never opened",
    b"\x80\x05": "a pickle, which is never opened",
}


class DataError(ValueError):
    """A file that cannot be read as numbers of the expected shape; the message is one sentence that says why."""


@dataclass(frozen=True)
class PointFile:
    """Points that were read from a file.

    Attributes:
        path: where from.
        key: which array of an .npz file, else None.
        points: shape (n, d), finite, float32 or float64.
        notes: what was converted on the way, a sentence each.
    """

    path: Path
    key: str | None
    points: NDArray[Any]
    notes: list[str] = field(default_factory=list)


def read_points(path: str | Path, key: str | None = None) -> PointFile:
    """Read points, one a row, from .npy, .npz, or text (.csv, .tsv, .txt: comma, semicolon, tab or spaces).

    Nothing is unpickled. A text file may have one line of column names, blank lines, and comments that start with #.
    What pandas adds is left out, with a note: the names 0, 1, 2, ... of four columns or more, and a first column
    without a name that counts the rows.

    Args:
        path: the file; its ending says how it is read.
        key: which array of an .npz file; needed when it holds several.

    Raises:
        DataError: missing, not readable, not what its ending says, not of shape (n, d), or with a NaN or an infinity.
    """
    where = _regular_file(path)
    notes: list[str] = []
    array, key = _read(where, key, notes)
    name = f"{where}" if key is None else f"{where}, array {key!r}"
    array = _real(array, name, notes)
    if array.ndim != 2:
        hint = "for n points on a line save it as (n, 1)" if array.ndim == 1 else "flatten each point to one row"
        raise DataError(f"{name} has shape {array.shape}, expected (n, d), one point a row: {hint}.")
    if array.size == 0:
        raise DataError(f"{name} is empty: shape {array.shape}, expected at least one point and one dimension.")
    _require_finite(array, name)
    return PointFile(where, key, array, notes)


def read_weights(path: str | Path, n: int, key: str | None = None) -> NDArray[np.float64]:
    """Read n weights > 0 from a file of the same kinds; a single row or column counts as a list.

    Args:
        path: the file.
        n: how many are expected.
        key: which array of an .npz file.

    Returns:
        Weights as they are in the file, not normalised, shape (n,), float64.
    """
    where = _regular_file(path)
    array, key = _read(where, key, [])
    name = f"{where}" if key is None else f"{where}, array {key!r}"
    array = _real(array, name, [])
    if array.ndim == 2 and 1 in array.shape:
        array = array.reshape(-1)
    if array.shape != (n,):
        raise DataError(f"{name} has shape {array.shape}, expected ({n},), one weight a point.")
    _require_finite(array, name)
    bad = np.flatnonzero(array <= 0)
    if bad.size:
        raise DataError(
            f"{name}: weights must be > 0, {bad.size} of {n} are not, the first is number {bad[0]} (from 0), "
            f"{float(array[bad[0]])!r}; drop the points that carry no mass."
        )
    return np.asarray(array, dtype=np.float64)


def digits() -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """The 1,797 handwritten digits that come with scikit-learn; nothing is fetched.

    8 x 8 pixels, grey levels 0 to 16: the test set of "Optical Recognition of Handwritten Digits" (E. Alpaydin,
    C. Kaynak, UCI Machine Learning Repository, 1998, CC BY 4.0).

    Returns:
        Images, shape (1797, 64), float64, and their classes 0 to 9, shape (1797,), int64.
    """
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    return np.asarray(images, dtype=np.float64), np.asarray(labels, dtype=np.int64)


def data_folder() -> Path | None:
    """The folder of large real data that the environment variable ``OTGAN_DATA`` names, or None where it is not set."""
    named = os.environ.get("OTGAN_DATA")
    return Path(named) if named else None


# ---------------------------------------------------------------- the three kinds of file


def _regular_file(path: str | Path) -> Path:
    where = Path(path)
    if "\0" in str(path):
        raise DataError(f"{str(path)!r} is not a file name.")
    try:
        if where.is_dir():
            raise DataError(f"{where} is a folder, expected a file of points ({', '.join(_SUFFIXES)}).")
        if not where.exists():
            raise DataError(f"There is no file {where}.")
        if not where.is_file():
            raise DataError(f"{where} is not a regular file.")
        if where.suffix.lower() not in _SUFFIXES:
            raise DataError(f"{where} ends in {where.suffix or 'nothing'!r}, expected one of {', '.join(_SUFFIXES)}.")
        with open(where, "rb") as file:
            opening = file.read(8)
    except OSError as error:
        raise DataError(f"{where} cannot be read: {error.strerror or error}.") from None
    if not opening:
        raise DataError(f"{where} is empty (0 bytes).")
    return where


def _read(path: Path, key: str | None, notes: list[str]) -> tuple[NDArray[Any], str | None]:
    suffix = path.suffix.lower()
    if key is not None and suffix != ".npz":
        raise DataError(f"A key selects an array of an .npz file; {path} holds one table only, leave the key out.")
    if suffix == ".npz":
        return _read_npz(path, key)
    return (_read_npy(path) if suffix == ".npy" else _read_text(path, notes)), None


def what_it_is(path: Path) -> str:
    """What a file's first bytes say that it is, as the end of a sentence."""
    with open(path, "rb") as file:
        opening = file.read(8)
    for magic, name in _OPENINGS.items():
        if opening.startswith(magic):
            return f"it looks like {name}"
    return "it does not begin as one"


def _read_npy(path: Path) -> NDArray[Any]:
    with open(path, "rb") as file:
        if not file.read(6) == NPY_MAGIC:
            raise DataError(f"{path} is not a NumPy .npy file: {what_it_is(path)}.")
    try:
        return np.asarray(np.load(path, allow_pickle=False))
    except Exception as error:  # whatever NumPy trips over, it is the file's content
        raise damaged(path, error) from None


def _read_npz(path: Path, key: str | None) -> tuple[NDArray[Any], str]:
    with open(path, "rb") as file:
        if file.read(4) not in ZIP_MAGICS:
            raise DataError(f"{path} is not a NumPy .npz archive: {what_it_is(path)}.")
    try:
        with np.load(path, allow_pickle=False) as archive:
            keys = list(archive.files)
            if not keys:
                raise DataError(f"{path} holds no array.")
            if key is None and len(keys) > 1:
                raise DataError(f"{path} holds several arrays, choose one by its key: {', '.join(sorted(keys))}.")
            if key is not None and key not in keys:
                raise DataError(f"{path} has no array {key!r}; its keys are: {', '.join(sorted(keys))}.")
            key = keys[0] if key is None else key
            array = archive[key]
    except DataError:
        raise
    except Exception as error:
        raise damaged(path, error) from None
    if not isinstance(array, np.ndarray):  # a member that is no .npy file comes back as bytes
        raise DataError(f"{path}: {key!r} is not a NumPy array.")
    return array, key


def damaged(path: Path, error: Exception) -> DataError:
    """The sentence for a file whose content NumPy could not read."""
    if "allow_pickle" in str(error):
        return DataError(f"{path} holds Python objects, which only unpickling could read; save plain numbers instead.")
    if isinstance(error, MemoryError):
        return DataError(f"{path} announces more numbers than memory can hold; it may be damaged.")
    first = (str(error).strip().splitlines() or [""])[0].rstrip(".")
    return DataError(f"{path} is damaged or cut off ({type(error).__name__}: {first}).")


def _read_text(path: Path, notes: list[str]) -> NDArray[Any]:
    data = path.read_bytes()
    if b"\0" in data[:4096] or data.startswith(tuple(_OPENINGS)):
        raise DataError(f"{path} is not a text file: {what_it_is(path)}.")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise DataError(f"{path}, line {line}: not UTF-8 text; save the table as UTF-8.") from None
    lines = text.splitlines()
    first = next((i for i, line in enumerate(lines) if _cells(line, None)), None)
    if first is None:
        raise DataError(f"{path} holds no numbers.")
    delimiter = next((mark for mark in ";,\t" if mark in lines[first]), None)
    names = _cells(lines[first], delimiter)
    indexed = _indexed(names)
    if indexed or all(_number(cell) is None for cell in names) or _counts(path, names, lines, first, delimiter, notes):
        first += 1
    body = "\n".join(lines[first:])
    try:
        import warnings

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # no line of data: said below
            array = np.loadtxt(StringIO(body), delimiter=delimiter, ndmin=2, comments="#", quotechar='"')
    except ValueError as error:
        raise _first_fault(path, lines, first, delimiter, error) from None
    if indexed and array.shape[1] > 1 and np.array_equal(array[:, 0] - array[0, 0], np.arange(len(array))):
        notes.append(f"{path}: the first column has no name and counts the rows; it is left out.")
        array = np.ascontiguousarray(array[:, 1:])
    elif indexed:
        notes.append(f"{path}: the first column has no name; it is read as a coordinate. Drop it if it is an index.")
    if array.size == 0:
        raise DataError(f"{path} holds no numbers{' below its line of column names' if first else ''}.")
    return array


def _indexed(names: list[str]) -> bool:
    """Whether a first line names all columns but the first: by words, or by 0, 1, 2, ..., as pandas and R do."""
    if len(names) < 2 or names[0]:
        return False
    return all(name and _number(name) is None for name in names[1:]) or names[1:] == [
        str(k) for k in range(len(names) - 1)
    ]


def _counts(
    path: Path, names: list[str], lines: list[str], first: int, delimiter: str | None, notes: list[str]
) -> bool:
    """Whether the first line is 0, 1, 2, ... above decimals: names that pandas gives, or of a few perhaps a point."""
    below = next((cells for line in lines[first + 1 :] if (cells := _cells(line, delimiter))), [])
    if len(names) < 2 or names != [str(k) for k in range(len(names))] or not any("." in cell for cell in below):
        return False
    shown = f"{path}, line {first + 1}: {', '.join(names[:4])}{', ...' * (len(names) > 4)}"
    if len(names) < _SURE:
        notes.append(f"{shown} is taken for a point; if these are the columns' names, delete the line.")
        return False
    notes.append(f"{shown} are taken for the columns' names, not for a point.")
    return True


def _cells(line: str, delimiter: str | None) -> list[str]:
    line = line.split("#", 1)[0].strip(" \r\n" if delimiter == "\t" else None)
    if not line.strip():
        return []
    if delimiter is None:
        return ["" if cell == '""' else cell for cell in line.split()]
    return [cell.strip() for cell in next(csv.reader([line], delimiter=delimiter))]


def _number(cell: str) -> float | None:
    try:
        return None if "_" in cell else float(cell)
    except ValueError:
        return None


def _first_fault(path: Path, lines: list[str], start: int, delimiter: str | None, error: ValueError) -> DataError:
    """Line and column of what the fast reader refused."""
    width = None
    for number, line in enumerate(lines[start:], start + 1):
        cells = _cells(line, delimiter)
        if not cells:
            continue
        for column, cell in enumerate(cells, 1):
            if _number(cell) is None:
                shown = "the cell is empty" if not cell else f"{cell[:40]!r} is not a number"
                hint = "; write decimals with a point" if delimiter == ";" and "," in cell else ""
                return DataError(f"{path}, line {number}, column {column}: {shown}{hint}.")
        if width is not None and len(cells) != width:
            return DataError(f"{path}, line {number}: {len(cells)} column(s), the lines above have {width}.")
        width = len(cells)
    return DataError(f"{path} is not a table of numbers ({str(error).rstrip('.')}).")


# ---------------------------------------------------------------- numbers


def _real(array: NDArray[Any], name: str, notes: list[str]) -> NDArray[Any]:
    """Float32 or float64, in the machine's byte order."""
    if array.dtype.kind == "c":
        raise DataError(f"{name} holds complex numbers ({array.dtype}); save real and imaginary parts as two columns.")
    if array.dtype.kind not in "biuf":
        raise DataError(f"{name} does not hold real numbers but {array.dtype}.")
    if array.dtype.kind in "biu":
        return array.astype(np.float64)
    if array.dtype.itemsize == 2:
        notes.append(f"{name}: float16 was converted to float32.")
        return array.astype(np.float32)
    if array.dtype.itemsize > 8:
        notes.append(f"{name}: {array.dtype} was rounded to float64.")
        return array.astype(np.float64)
    return np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("="))


def _require_finite(array: NDArray[Any], name: str) -> None:
    finite = np.isfinite(array)
    if finite.all():
        return
    bad = np.argwhere(~finite)
    where = ", ".join(f"{axis} {i}" for axis, i in zip(("row", "column"), bad[0], strict=False))
    raise DataError(
        f"{name} has {len(bad)} value(s) that are NaN or infinite, the first in {where} (from 0); "
        "remove or repair those rows."
    )
