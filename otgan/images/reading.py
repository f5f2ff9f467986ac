"""One verb for images on disk, whatever they are; and the sets that many know by name."""

from __future__ import annotations

from pathlib import Path

from otgan.datasets import DataError, data_folder, what_it_is
from otgan.images._convert import as_channels, as_size
from otgan.images.arrays import ArrayDataset
from otgan.images.base import ImageDataset, Images
from otgan.images.folder import SUFFIXES, FolderDataset
from otgan.images.idx import IDXDataset, is_idx

FASHION = (
    "T-shirt/top", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot",
)  # fmt: skip
"""Classes of Fashion-MNIST (H. Xiao, K. Rasul, R. Vollgraf, 2017)."""

_PREFIX = {True: "train", False: "t10k"}


def read(
    path: str | Path,
    size: int | tuple[int, int] | None = None,
    channels: int | None = None,
    *,
    key: str | None = None,
) -> Images:
    """Read images and their classes.

    Args:
        path: an IDX file of images (plain or .gz; labels beside it are found by name), a .npy or .npz file, a folder of
            pictures (a subfolder for each class), or a folder of IDX files, of which the training images are read.
        size: side, or (h, w): all images are cut to that ratio about the centre and resampled; of rows of pixels in a
            .npy or .npz file, what they are the pixels of.
        channels: 1 (grey) or 3 (colour); as the images are when left out.
        key: which array of an .npz file.

    Returns:
        :class:`Images`, in memory.

    Raises:
        DataError: missing, damaged, no images, or images of several sizes; the message says which file and what to do.

    Example:
        >>> images = read("photographs", size=64)  # doctest: +SKIP
    """
    return open_images(path, size, channels, key=key).load().resized(size, channels)


def open_images(
    path: str | Path,
    size: int | tuple[int, int] | None = None,
    channels: int | None = None,
    *,
    key: str | None = None,
) -> ImageDataset:
    """The images of a path as a torch ``Dataset`` that reads them as they are asked for; arguments as of :func:`read`.

    Only pictures are resampled to ``size`` here; other sets keep theirs, which ``load().resized(size)`` changes.
    """
    where = Path(path)
    as_size(size), as_channels(channels)
    if "\0" in str(path):
        raise DataError(f"{str(path)!r} is not a file name.")
    if key is not None and where.suffix.lower() != ".npz":
        raise DataError(f"A key selects an array of an .npz file; {where} is none, leave the key out.")
    if where.is_dir():
        files = _idx_files(where)
        return IDXDataset(files[0]) if files else FolderDataset(where, size, channels)
    if not where.exists():
        raise DataError(f"There is no file or folder {where}.")
    if where.suffix.lower() in (".npy", ".npz"):
        return ArrayDataset(where, key, size, channels)
    if where.suffix.lower() in SUFFIXES:
        raise DataError(f"{where} is one picture, expected many: name the folder that it is in.")
    if is_idx(where) or "idx" in where.name.lower():
        return IDXDataset(where)  # which says what is wrong with one that is none
    raise DataError(
        f"{where} is no set of images: expected an IDX file, .npy, .npz, or a folder of pictures; {what_it_is(where)}."
    )


def mnist(train: bool = True, path: str | Path | None = None) -> Images:
    """MNIST: handwritten digits, 60,000 to learn from or 10,000 to test with, grey, 28 x 28.

    Y. LeCun, C. Cortes, C. J. C. Burges; CC BY-SA 3.0. Nothing is fetched: ``data/fetch.py`` of the source does that.

    Args:
        train: which of the two.
        path: folder of the files ``train-images-idx3-ubyte``, ``t10k-labels-idx1-ubyte``, ..., plain or .gz, also of
            another set that is kept so; ``mnist`` in the folder that ``OTGAN_DATA`` names when left out.

    Raises:
        DataError: no such files, or damaged ones.
    """
    return _known("mnist", train, path)


def fashion_mnist(train: bool = True, path: str | Path | None = None) -> Images:
    """Fashion-MNIST: articles of clothing, in the form of :func:`mnist`; ``fashion-mnist`` in ``OTGAN_DATA``.

    H. Xiao, K. Rasul, R. Vollgraf, "Fashion-MNIST: a novel image dataset for benchmarking machine learning algorithms",
    2017; MIT licence.
    """
    return _known("fashion-mnist", train, path, FASHION)


def _known(name: str, train: bool, path: str | Path | None, classes: tuple[str, ...] = ()) -> Images:
    if path is None:
        folder = data_folder()
        if folder is None:
            raise DataError(
                f"No folder of {name}: set OTGAN_DATA to the folder that holds {name}/, or pass path=. `python "
                f"data/fetch.py {name}` of the source fetches it."
            )
        path = folder / name
    where = Path(path)
    if not where.is_dir():
        raise DataError(f"There is no folder {where}; `python data/fetch.py {name}` of the source fetches {name}.")
    files = [file for file in _idx_files(where) if file.name.startswith(_PREFIX[bool(train)])]
    if not files:
        raise DataError(
            f"{where} has no {_PREFIX[bool(train)]}-images-idx3-ubyte, plain or .gz: fetch it, or name the folder."
        )
    return IDXDataset(files[0], names=classes).load()


def _idx_files(folder: Path) -> list[Path]:
    """Files of images among the IDX files of a folder, those to learn from first."""
    try:
        inside = sorted(folder.iterdir())
    except OSError as error:
        raise DataError(f"{folder} cannot be read: {error.strerror or error}.") from None
    found = [file for file in inside if "images" in file.name and "idx" in file.name and file.is_file()]
    return sorted(found, key=lambda file: not file.name.startswith("train"))
