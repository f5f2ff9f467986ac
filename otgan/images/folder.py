"""Folders of pictures (PNG, JPEG and what else Pillow reads), a subfolder for each class."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from otgan.datasets import DataError, what_it_is
from otgan.images._convert import as_channels, as_size, centre_cut
from otgan.images.base import ImageDataset

if TYPE_CHECKING:
    from PIL.Image import Image

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".pgm", ".ppm")
"""Endings of the files that count as pictures; others are passed over."""

_TURNED = (5, 6, 7, 8)  # EXIF orientations that swap height and width
_ORIENTATION = 0x0112
_GREY = ("1", "L", "LA", "La", "I", "I;16", "I;16B", "I;16L")
_WORKERS = 4


class FolderDataset(ImageDataset):
    """Pictures of a folder, decoded when they are asked for.

    Subfolders are the classes, numbered in the order of their names (numbers by value); pictures deeper down belong to
    the subfolder. Without subfolders there are no labels. Hidden files and files that do not end as pictures do are
    passed over. Of an animation the first frame counts; a transparent picture lies on white; what a camera noted
    about the way up is heeded.

    Args:
        path: the folder.
        size: side, or (h, w): every picture is cut to that ratio about its centre and resampled. When left out, all
            must have one size.
        channels: 1 or 3; when left out, 1 if all pictures are grey and 3 otherwise.

    Raises:
        DataError: no folder, no pictures in it, one that is damaged or not a picture, several sizes without ``size``.
    """

    def __init__(
        self, path: str | Path, size: int | tuple[int, int] | None = None, channels: int | None = None
    ) -> None:
        where = Path(path)
        self.files, labels, self.names = _listed(where)
        self.labels = None if labels is None else torch.tensor(labels)
        wanted, channels = as_size(size), as_channels(channels)
        with ThreadPoolExecutor(_WORKERS) as pool:
            headers = list(pool.map(_header, self.files))
        if wanted is None:
            wanted = headers[0][0]
            other = next((i for i, (found, _) in enumerate(headers) if found != wanted), None)
            if other is not None:
                (h, w), (h2, w2) = wanted, headers[other][0]
                raise DataError(
                    f"{self.files[other]} has {h2} x {w2} pixels, {self.files[0]} has {h} x {w}: pass a size, such "
                    f"as {min(h, w, h2, w2)} (size=, --size), to cut and resample all to it."
                )
        if channels is None:
            channels = 1 if all(grey for _, grey in headers) else 3
        self.shape = (channels, *wanted)

    def __len__(self) -> int:
        return len(self.files)

    def pixels_at(self, first: int, end: int) -> Tensor:
        """Pictures first to end - 1, decoded, uint8."""
        channels, height, width = self.shape

        def decode(file: Path) -> np.ndarray[Any, Any]:
            return _decoded(file, channels, (height, width))

        files = self.files[first:end]
        if len(files) == 1:
            return torch.from_numpy(decode(files[0])[None])
        with ThreadPoolExecutor(_WORKERS) as pool:  # Pillow decodes without the interpreter's lock
            return torch.from_numpy(np.stack(list(pool.map(decode, files))))


def _listed(where: Path) -> tuple[list[Path], list[int] | None, tuple[str, ...]]:
    """Files, their classes and the classes' names."""
    try:
        if not where.is_dir():
            raise DataError(f"{where} is a file, expected a folder." if where.exists() else f"There is no {where}.")
        inside = sorted(path for path in where.iterdir() if not path.name.startswith("."))
        here = [path for path in inside if _is_picture(path)]
        classes = {
            path.name: sorted(file for file in path.rglob("*") if _is_picture(file)) for path in inside if path.is_dir()
        }
    except OSError as error:
        raise DataError(f"{error.filename or where} cannot be read: {error.strerror or error}.") from None
    classes = {name: files for name, files in classes.items() if files}
    if here and classes:
        raise DataError(
            f"{where} holds pictures ({here[0].name}, ...) beside subfolders with pictures "
            f"({', '.join(sorted(classes))}): put all into subfolders, one a class, or none."
        )
    if here:
        return here, None, ()
    if not classes:
        files = [path for path in inside if path.is_file()]
        there = f" (it holds {files[0].name}{', ...' if len(files) > 1 else ''})" if files else ""
        raise DataError(f"{where} holds no pictures{there}; expected files that end in {', '.join(SUFFIXES)}.")
    names = sorted(classes, key=lambda name: (0, int(name), name) if name.isdecimal() else (1, 0, name))
    labels = [k for k, name in enumerate(names) for _ in classes[name]]
    return [file for name in names for file in classes[name]], labels, tuple(names)


def _is_picture(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()


def _header(file: Path) -> tuple[tuple[int, int], bool]:
    """Height and width, and whether it is grey, without decoding it."""
    with _opened(file) as image:
        width, height = image.size
        try:
            turned = _by_camera(image) and image.getexif().get(_ORIENTATION) in _TURNED
        except Exception as error:
            raise _damaged(file, error) from None
        return (width, height) if turned else (height, width), image.mode in _GREY or _grey_palette(image)


def _by_camera(image: Image) -> bool:
    return image.format != "PNG"  # whose notes follow its pixels: all would have to be decoded


def _grey_palette(image: Image) -> bool:
    palette = np.array((image.getpalette() if image.mode == "P" else None) or [0, 1, 2]).reshape(-1, 3)
    return bool((palette == palette[:, :1]).all())


def _opened(file: Path) -> Image:
    from PIL import Image as pillow
    from PIL import UnidentifiedImageError

    try:
        return pillow.open(file)
    except UnidentifiedImageError:
        empty = file.stat().st_size == 0
        what = "it is empty (0 bytes)" if empty else what_it_is(file)
        raise DataError(f"{file} is not a picture that can be read: {what}; repair it or take it away.") from None
    except Exception as error:  # whatever Pillow trips over, it is the file's content
        raise _damaged(file, error) from None


def _decoded(file: Path, channels: int, wanted: tuple[int, int]) -> np.ndarray[Any, Any]:
    """One picture, uint8, shape (c, h, w)."""
    from PIL import Image as pillow
    from PIL import ImageOps

    with _opened(file) as opened:
        try:
            opened.load()
            image = ImageOps.exif_transpose(opened) if _by_camera(opened) else opened
        except Exception as error:
            raise _damaged(file, error) from None
        if image.mode == "F":
            raise DataError(f"{file} holds real numbers, expected grey levels or colours of 8 or 16 bits.")
        if image.mode.startswith("I"):  # 16 bits; the upper eight are those of the 8-bit picture
            image = pillow.fromarray((np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8))
        if image.has_transparency_data:
            image = image.convert("RGBA")
            image = pillow.alpha_composite(pillow.new("RGBA", image.size, "white"), image).convert("RGB")
        image = image.convert("L" if channels == 1 else "RGB")
        if (image.height, image.width) != wanted:
            top, left, height, width = centre_cut(image.height, image.width, wanted)
            box = (left, top, left + width, top + height)
            image = image.resize((wanted[1], wanted[0]), pillow.Resampling.BILINEAR, box)
        array = np.array(image)
    return array[None] if channels == 1 else np.ascontiguousarray(array.transpose(2, 0, 1))


def _damaged(file: Path, error: Exception) -> DataError:
    first = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
    return DataError(f"{file} is damaged or cut off ({first}); repair it or take it away.")
