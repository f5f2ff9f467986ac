"""Folders of pictures: what is decoded, and what each bad one is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from otgan.datasets import DataError
from otgan.images import FolderDataset, read

RNG = np.random.default_rng(0)


def picture(path: Path, array: np.ndarray, **settings: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **settings)
    return path


def noise(*shape: int) -> np.ndarray:
    return RNG.integers(0, 256, shape, dtype=np.uint8)


# --- what is decoded ---


def test_grey_pictures_in_the_order_of_their_names(tmp_path: Path) -> None:
    arrays = [noise(6, 5) for _ in range(3)]
    for name, array in zip("cab", arrays, strict=True):
        picture(tmp_path / f"{name}.PNG", array)
    (tmp_path / "notes.txt").write_text("not a picture")
    (tmp_path / ".hidden.png").write_bytes(b"")
    found = read(tmp_path)
    assert found.labels is None
    assert np.array_equal(found.pixels.numpy()[:, 0], np.stack([arrays[1], arrays[2], arrays[0]]))


def test_subfolders_are_classes(tmp_path: Path) -> None:
    for name in ("10", "9", "cat"):
        for i in range(2):
            picture(tmp_path / name / "deeper" / f"{i}.png", noise(4, 4, 3))
    (tmp_path / "empty").mkdir()
    found = read(tmp_path)
    assert found.labels is not None
    assert (found.names, found.labels.tolist(), found.shape) == (("9", "10", "cat"), [0, 0, 1, 1, 2, 2], (3, 4, 4))


def test_colour_in_one_makes_all_colour(tmp_path: Path) -> None:
    grey = noise(4, 4)
    picture(tmp_path / "a.png", grey)
    colour = noise(4, 4, 3)
    picture(tmp_path / "b.png", colour)
    found = read(tmp_path).pixels.numpy()
    assert np.array_equal(found[0], np.stack([grey] * 3))
    assert np.array_equal(found[1], colour.transpose(2, 0, 1))
    assert read(tmp_path, channels=1).shape == (1, 4, 4)


@pytest.mark.parametrize("suffix", ["jpg", "bmp", "gif", "tif", "webp", "pgm"])
def test_every_format_is_decoded(tmp_path: Path, suffix: str) -> None:
    ramp = np.arange(0, 256, 4, dtype=np.uint8).reshape(1, 64).repeat(64, axis=0)
    picture(tmp_path / f"a.{suffix}", ramp)
    found = read(tmp_path, channels=1).pixels.numpy()[0, 0].astype(int)
    assert np.abs(found - ramp).max() <= 6
    assert read(tmp_path).shape[0] == (3 if suffix == "webp" else 1)


def test_sixteen_bits_palettes_and_transparency(tmp_path: Path) -> None:
    grey = noise(4, 4)
    picture(tmp_path / "deep" / "a.png", grey.astype(np.uint16) * 257)
    assert np.array_equal(read(tmp_path / "deep").pixels.numpy()[0, 0], grey)
    (tmp_path / "palette").mkdir()
    Image.fromarray(grey).convert("P").save(tmp_path / "palette" / "a.png")
    assert np.array_equal(read(tmp_path / "palette").pixels.numpy()[0, 0], grey)
    clear = np.zeros((4, 4, 4), dtype=np.uint8)
    clear[:2, :, 3] = 255  # black above, nothing below: white
    picture(tmp_path / "clear" / "a.png", clear)
    assert read(tmp_path / "clear", channels=1).pixels[0, 0, :, 0].tolist() == [0, 0, 255, 255]


def test_the_way_up_is_heeded(tmp_path: Path) -> None:
    ramp = np.arange(0, 256, 8, dtype=np.uint8).reshape(1, 32).repeat(16, axis=0)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    picture(tmp_path / "a.jpg", ramp, exif=exif, quality=95)
    found = read(tmp_path)
    assert found.shape == (1, 32, 16)
    assert bool((found.pixels[0, 0, 1:].int() >= found.pixels[0, 0, :-1].int() - 3).all())


def test_sizes_are_made_equal_on_demand(tmp_path: Path) -> None:
    picture(tmp_path / "a.png", np.full((8, 12), 50, dtype=np.uint8))
    picture(tmp_path / "b.png", np.full((20, 9), 90, dtype=np.uint8))
    with pytest.raises(
        DataError, match=r"b\.png has 20 x 9 pixels, .*a\.png has 8 x 12: pass a size, such as 8 \(size=, --size\)"
    ):
        read(tmp_path)
    found = read(tmp_path, size=8)
    assert found.shape == (1, 8, 8)
    assert [image.unique().tolist() for image in found.pixels] == [[50], [90]]
    assert read(tmp_path, size=(4, 6)).shape == (1, 4, 6)


def test_a_dataset_decodes_when_asked(tmp_path: Path) -> None:
    arrays = [noise(4, 4) for _ in range(3)]
    for k, array in enumerate(arrays):
        picture(tmp_path / str(k) / "a.png", array)
    dataset = FolderDataset(tmp_path)
    image, label = dataset[1]
    assert label == 1
    assert np.array_equal(image[0].numpy() * 255, arrays[1])
    assert torch.equal(dataset.load().pixels, torch.from_numpy(np.stack(arrays)[:, None]))


# --- what is refused ---


def damaged_png(path: Path, how: str) -> None:
    content = bytearray(picture(path, noise(40, 40)).read_bytes())
    if how == "cut off":
        content = content[: len(content) // 2]
    elif how == "checksum":
        content[len(content) // 2] ^= 0xFF
    elif how == "signature":
        content[0] = 0
    elif how == "text":
        content = bytearray(b"no picture")
    elif how == "empty":
        content = bytearray()
    path.write_bytes(bytes(content))


@pytest.mark.parametrize("how", ["cut off", "checksum", "signature", "text", "empty"])
def test_a_damaged_picture_is_named(tmp_path: Path, how: str) -> None:
    for i in range(5):
        picture(tmp_path / f"{i}.png", noise(40, 40))
    damaged_png(tmp_path / "3.png", how)
    with pytest.raises(DataError, match=r"3\.png is (damaged|not a picture)"):
        read(tmp_path)


def test_folders_without_pictures_are_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds no pictures; expected files that end in \.png"):
        read(tmp_path)
    (tmp_path / "a.docx").write_text("x")
    with pytest.raises(DataError, match=r"holds no pictures \(it holds a\.docx\)"):
        read(tmp_path)
    with pytest.raises(DataError, match="There is no file or folder"):
        read(tmp_path / "missing")
    with pytest.raises(DataError, match="There is no"):
        FolderDataset(tmp_path / "missing")


def test_one_picture_and_mixed_folders_are_told(tmp_path: Path) -> None:
    path = picture(tmp_path / "a.png", noise(4, 4))
    with pytest.raises(DataError, match="is one picture, expected many"):
        read(path)
    picture(tmp_path / "class" / "b.png", noise(4, 4))
    with pytest.raises(DataError, match="beside subfolders"):
        read(tmp_path)


@pytest.mark.parametrize("size", [0, -3, (4,), (0, 4), 2.5])
def test_bad_sizes_are_told(tmp_path: Path, size: Any) -> None:
    picture(tmp_path / "a.png", noise(4, 4))
    with pytest.raises((ValueError, TypeError), match="size"):
        read(tmp_path, size=size)
