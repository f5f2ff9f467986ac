"""IDX files: what is read, and what each damaged one is told."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from otgan.datasets import DataError
from otgan.images import IDXDataset, fashion_mnist, mnist, read, read_idx

PIXELS = np.random.default_rng(0).integers(0, 256, (5, 4, 3), dtype=np.uint8)
LABELS = np.array([3, 1, 4, 1, 5], dtype=np.uint8)


def idx(array: np.ndarray, code: int = 8) -> bytes:
    """The format, from its description."""
    return bytes([0, 0, code, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def saved(folder: Path, name: str, content: bytes) -> Path:
    path = folder / name
    path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    return path


# --- what is read ---


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_every_byte_is_read(tmp_path: Path, suffix: str) -> None:
    path = saved(tmp_path, "a-images-idx3-ubyte" + suffix, idx(PIXELS))
    assert np.array_equal(read_idx(path), PIXELS)
    found = read(path)
    assert found.labels is None
    assert found.pixels.dtype == torch.uint8
    assert np.array_equal(found.pixels.numpy()[:, 0], PIXELS)


@pytest.mark.parametrize(
    ("code", "dtype"), [(8, "u1"), (9, "i1"), (0x0B, ">i2"), (0x0C, ">i4"), (0x0D, ">f4"), (0x0E, ">f8")]
)
def test_every_kind_of_number_is_read(tmp_path: Path, code: int, dtype: str) -> None:
    array = np.array([[0, 1, 2], [3, 100, 7]]).astype(dtype)
    path = saved(tmp_path, "a.idx", idx(array, code))
    assert np.array_equal(read_idx(path), array.astype(float))


@pytest.mark.parametrize(
    "names", [("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte"), ("images.idx3", "labels.idx1.gz")]
)
def test_labels_beside_are_found_by_name(tmp_path: Path, names: tuple[str, str]) -> None:
    path = saved(tmp_path, names[0], idx(PIXELS))
    saved(tmp_path, names[1], idx(LABELS))
    found = read(path)
    assert found.labels is not None
    assert found.labels.tolist() == LABELS.tolist()
    assert found.names == ("0", "1", "2", "3", "4", "5")


def test_a_dataset_reads_single_images(tmp_path: Path) -> None:
    path = saved(tmp_path, "x-images", idx(PIXELS))
    dataset = IDXDataset(path, labels=saved(tmp_path, "classes", idx(LABELS)))
    image, label = dataset[-1]
    assert (len(dataset), dataset.shape, label) == (5, (1, 4, 3), 5)
    assert torch.equal(image, torch.from_numpy(PIXELS[-1:]).float() / 255)
    with pytest.raises(IndexError):
        dataset[5]
    loader = torch.utils.data.DataLoader(dataset, batch_size=2)
    assert [len(batch[0]) for batch in loader] == [2, 2, 1]


def test_a_folder_reads_the_training_set(tmp_path: Path) -> None:
    saved(tmp_path, "t10k-images-idx3-ubyte.gz", idx(PIXELS[:2]))
    saved(tmp_path, "train-images-idx3-ubyte.gz", idx(PIXELS))
    saved(tmp_path, "train-labels-idx1-ubyte.gz", idx(LABELS))
    assert len(read(tmp_path)) == 5
    assert len(mnist(True, tmp_path)) == 5
    assert len(mnist(False, tmp_path)) == 2
    assert fashion_mnist(True, tmp_path).names[9] == "ankle boot"


def test_mnist_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTGAN_DATA", str(tmp_path))
    with pytest.raises(DataError, match=r"There is no folder .*fetch\.py mnist"):
        mnist()
    (tmp_path / "mnist").mkdir()
    with pytest.raises(DataError, match="has no t10k-images-idx3-ubyte"):
        mnist(train=False)
    monkeypatch.delenv("OTGAN_DATA")
    with pytest.raises(DataError, match="set OTGAN_DATA"):
        fashion_mnist()


def test_mnist_is_mnist(data_dir: Path) -> None:
    train, test = mnist(True, data_dir / "mnist"), mnist(False, data_dir / "mnist")
    assert (len(train), len(test), train.shape, train.names[7]) == (60000, 10000, (1, 28, 28), "7")
    assert train.labels is not None
    assert train.labels.bincount().tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert float(train.pixels.double().mean()) / 255 == pytest.approx(0.1306604762738429, rel=1e-12)


# --- what is refused ---


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "begins with nothing"),
        (b"\0\0\x08", "begins with 00 00 08"),
        (b"\0\0\x07\x03" + bytes(12), "not an IDX file: it begins with 00 00 07 03"),
        (b"\x89PNG\r\n\x1a\n", "not an IDX file"),
        (idx(PIXELS)[:10], "cut off within its header"),
        (idx(PIXELS)[:-1], "is cut off: shape .5, 4, 3. needs 60 bytes, it holds 59"),
        (idx(PIXELS) + b"\0", "bytes beyond its end: shape .5, 4, 3. needs 60 bytes, it holds 61"),
        (idx(PIXELS)[:4] + struct.pack(">3I", 2**32 - 1, 2**32 - 1, 28), "is cut off"),
        (idx(PIXELS[:0]), "is empty"),
        (idx(LABELS), "holds 5 labels, expected images"),
        (idx(np.full((2, 2, 2), 300.0).astype(">f4"), 0x0D), "numbers from 300 to 300"),
    ],
)
def test_a_damaged_file_is_told(tmp_path: Path, content: bytes, said: str, suffix: str) -> None:
    path = saved(tmp_path, "x-images-idx3-ubyte" + suffix, content)
    with pytest.raises(DataError, match=said) as caught:
        read(path)
    assert str(path) in str(caught.value)


def test_damaged_gzip_is_told(tmp_path: Path) -> None:
    packed = gzip.compress(idx(np.random.default_rng(0).integers(0, 256, (50, 28, 28), dtype=np.uint8)))
    for content in (packed[:-200], packed[:1000] + bytes(100) + packed[1100:], packed[:12]):
        (tmp_path / "x-images-idx3-ubyte.gz").write_bytes(content)
        with pytest.raises(DataError, match="damaged or cut off"):
            read(tmp_path / "x-images-idx3-ubyte.gz")


def test_labels_that_do_not_match_are_told(tmp_path: Path) -> None:
    path = saved(tmp_path, "x-images-idx3-ubyte", idx(PIXELS))
    saved(tmp_path, "x-labels-idx1-ubyte", idx(LABELS[:4]))
    with pytest.raises(DataError, match="holds 4 labels, .* 5 images: they do not match"):
        read(path)
    saved(tmp_path, "x-labels-idx1-ubyte", idx(PIXELS))
    with pytest.raises(DataError, match="expected 5 labels"):
        read(path)


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    for function in (read, read_idx):
        with pytest.raises(DataError, match="There is no file"):
            function(tmp_path / "images-idx3-ubyte")
    with pytest.raises(DataError, match="is a folder"):
        read_idx(tmp_path)
