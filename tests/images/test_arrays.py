"""Images in NumPy files and in memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from otgan.datasets import DataError
from otgan.images import ArrayDataset, Images, read

GREY = np.random.default_rng(0).integers(0, 256, (6, 5, 4), dtype=np.uint8)
COLOUR = np.random.default_rng(1).integers(0, 256, (6, 3, 5, 4), dtype=np.uint8)


def npy(folder: Path, array: np.ndarray) -> Path:
    np.save(folder / "a.npy", array)
    return folder / "a.npy"


# --- shapes and kinds of numbers ---


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (GREY, GREY[:, None]),
        (GREY[:, None], GREY[:, None]),
        (GREY[..., None], GREY[:, None]),
        (COLOUR, COLOUR),
        (COLOUR.transpose(0, 2, 3, 1), COLOUR),
    ],
)
@pytest.mark.parametrize("dtype", ["uint8", "int64", ">i2", "float64"])
def test_every_layout_is_read(tmp_path: Path, array: np.ndarray, expected: np.ndarray, dtype: str) -> None:
    found = read(npy(tmp_path, array.astype(dtype)))
    assert found.pixels.dtype == torch.uint8
    assert np.array_equal(found.pixels.numpy(), expected)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_reals_in_the_unit_interval_are_scaled(tmp_path: Path, dtype: str) -> None:
    assert np.array_equal(read(npy(tmp_path, (GREY / 255).astype(dtype))).pixels[:, 0].numpy(), GREY)


def test_booleans_are_black_and_white(tmp_path: Path) -> None:
    assert read(npy(tmp_path, GREY > 99)).pixels.unique().tolist() == [0, 255]


def test_npz_finds_images_labels_and_names(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, pixels=GREY, labels=[0, 1, 2, 0, 1, 2], names=["a", "b", "c"])
    found = read(path)
    assert found.labels is not None
    assert (found.labels.tolist(), found.names) == ([0, 1, 2, 0, 1, 2], ("a", "b", "c"))
    assert found.class_of("b") == 1
    assert torch.equal(found.of_class("b").pixels, found.pixels[[1, 4]])
    np.savez(path, train=GREY, test=GREY[:2], y=np.arange(6))
    assert len(read(path, key="train")) == 6
    with pytest.raises(DataError, match="several arrays.*test, train, y"):
        read(path)


def test_rows_of_pixels_need_their_size(tmp_path: Path) -> None:
    path = npy(tmp_path, GREY.reshape(6, 20))
    with pytest.raises(
        DataError, match=r"rows of pixels pass their size, such as 28 for rows of 784 \(size=, --size\)"
    ):
        read(path)
    assert np.array_equal(read(path, size=(5, 4)).pixels[:, 0].numpy(), GREY)
    with pytest.raises(DataError, match="not c x 7 x 7"):
        read(path, size=7)
    assert np.array_equal(read(npy(tmp_path, COLOUR.reshape(6, 60)), size=(5, 4)).pixels.numpy(), COLOUR)


def test_a_npy_file_is_mapped(tmp_path: Path) -> None:
    dataset = ArrayDataset(npy(tmp_path, COLOUR.transpose(0, 2, 3, 1)))
    assert isinstance(dataset._array, np.memmap)
    image, label = dataset[2]
    assert label == -1
    assert np.array_equal(image.numpy() * 255, COLOUR[2])


# --- what is refused ---


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (GREY[0], "rows of pixels"),
        (GREY[0, 0], r"expected \(n, h, w\)"),
        (GREY[:0], "is empty"),
        (np.zeros((6, 5, 4, 4)), "drop the fourth channel"),
        (np.zeros((2, 2, 5, 4)), "c = 1 or 3"),
        (np.zeros((2, 1, 5, 3)), "first or last"),
        (GREY.astype(float) / 16.0, "from 0 to 15.*rescale"),
        (GREY.astype(float) - 128.0, "rescale"),
        (GREY.astype(np.uint16) * 200, "rescale"),
        (np.where(GREY == GREY[0, 0, 0], np.nan, 0.5), "NaN"),
        (GREY.astype(complex), "complex"),
        (np.array([["a"]]), "expected"),
    ],
)
def test_what_is_no_image_is_told(tmp_path: Path, array: np.ndarray, said: str) -> None:
    with pytest.raises(DataError, match=said):
        read(npy(tmp_path, array))


def test_damaged_files_are_told(tmp_path: Path) -> None:
    whole = npy(tmp_path, GREY).read_bytes()
    for name, content, said in (
        ("b.npy", whole[:-5], "damaged or cut off"),
        ("b.npy", b"\x89PNG\r\n", "looks like a PNG"),
        ("b.npz", whole, "not a NumPy .npz"),
        ("b.npz", b"PK\x03\x04 and nothing", "damaged or cut off"),
        ("b.pkl", b"\x80\x04abc", "pickle, which is never opened"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match=said):
            read(tmp_path / name)
    np.save(tmp_path / "objects.npy", np.array([{}, {}], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match="Python objects"):
        read(tmp_path / "objects.npy")


@pytest.mark.parametrize(
    ("labels", "said"), [([0, 1], "holds 2 labels"), ([0.0] * 6, "float64"), ([-1, 0, 0, 0, 0, 0], "classes >= 0")]
)
def test_labels_that_do_not_fit_are_told(tmp_path: Path, labels: list[float], said: str) -> None:
    np.savez(tmp_path / "a.npz", images=GREY, labels=labels)
    with pytest.raises(DataError, match=said):
        read(tmp_path / "a.npz")


def test_keys_are_told(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", images=GREY)
    with pytest.raises(DataError, match="no array 'x'; it holds: images"):
        read(tmp_path / "a.npz", key="x")
    with pytest.raises(DataError, match="key selects"):
        read(npy(tmp_path, GREY), key="x")


# --- in memory ---


def test_images_check_themselves() -> None:
    pixels = torch.zeros(4, 1, 2, 2, dtype=torch.uint8)
    for arguments, said in (
        ((pixels.float(),), "uint8 tensor"),
        ((pixels[:, 0],), "uint8 tensor"),
        ((pixels[:0],), "n >= 1"),
        ((pixels.expand(-1, 2, -1, -1),), "c = 1 or 3"),
        ((pixels, torch.zeros(3, dtype=torch.long)), "labels must be 4 integers"),
        ((pixels, torch.zeros(4)), "labels must be 4 integers"),
        ((pixels, torch.tensor([0, 1, 2, 3]), ("a", "b")), "classes 0 to 1, got 0 to 3"),
        ((pixels, None, ("a",)), "without labels"),
    ):
        with pytest.raises(DataError, match=said):
            Images(*arguments)


def test_classes_are_asked_for_by_number_or_name() -> None:
    images = Images.of(GREY, [0, 0, 2, 2, 2, 0], ("a", "b", "c"))
    assert len(images.of_class("c")) == len(images.of_class(2)) == 3
    for label in ("b", 1, "d", 7, -1):
        with pytest.raises(ValueError, match="no image of class"):
            images.of_class(label)
    with pytest.raises(ValueError, match="no labels"):
        Images.of(GREY).of_class(0)


def test_split_is_a_partition_and_repeats() -> None:
    images = Images.of(np.arange(250, dtype=np.uint8).reshape(250, 1, 1), np.arange(250) % 7)
    train, held = images.split(0.2, seed=3)
    again = images.split(50, seed=3)
    assert torch.equal(train.pixels, again[0].pixels) and torch.equal(held.pixels, again[1].pixels)
    assert sorted([*train.pixels.flatten().tolist(), *held.pixels.flatten().tolist()]) == list(range(250))
    assert held.labels is not None
    assert torch.equal(held.labels, held.pixels.flatten().long() % 7)
    for share in (0.0, 1.0, 250, 0):
        with pytest.raises(ValueError, match="both sides"):
            images.split(share)


def test_resizing_keeps_constants_means_and_the_centre() -> None:
    flat = Images.of(np.full((2, 30, 20), 77, dtype=np.uint8)).resized(12)
    assert flat.shape == (1, 12, 12)
    assert flat.pixels.unique().tolist() == [77]
    halved = Images.of(GREY[:, :4]).resized(2).pixels[:, 0].double()
    blocks = torch.from_numpy(GREY[:, :4]).double().reshape(6, 2, 2, 2, 2).mean(dim=(2, 4))
    assert (halved.mean(dim=(1, 2)) - blocks.mean(dim=(1, 2))).abs().max() < 40
    wide = np.zeros((1, 4, 12), dtype=np.uint8)
    wide[:, :, 4:8] = 200
    assert Images.of(wide).resized(4).pixels.unique().tolist() == [200]


def test_channels_there_and_back() -> None:
    images = Images.of(GREY)
    assert images.resized(channels=3).shape == (3, 5, 4)
    assert torch.equal(images.resized(channels=3).resized(channels=1).pixels, images.pixels)
    red = Images.of(np.array([255, 0, 0], dtype=np.uint8).reshape(1, 3, 1, 1).repeat(4, 2).repeat(4, 3))
    assert red.resized(channels=1).pixels.unique().tolist() == [76]
    with pytest.raises(ValueError, match="channels must be 1"):
        images.resized(channels=2)
