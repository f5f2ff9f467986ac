from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from otgan.plot import beside, image_grid


def canvas(ax):
    return np.asarray(ax.images[-1].get_array())


def test_grey_images_lie_row_by_row():
    images = np.random.default_rng(0).random((5, 20, 30))
    out = canvas(image_grid(images, n_cols=2))
    gap = 2  # 6 percent of the longer side
    assert out.shape == (3 * 20 + 2 * gap, 2 * 30 + gap)
    for k in range(5):
        top, left = (k // 2) * (20 + gap), (k % 2) * (30 + gap)
        np.testing.assert_array_equal(out[top : top + 20, left : left + 30], images[k])
    assert (out[20:22] == 1.0).all() and (out[44:, 32:] == 1.0).all()


@pytest.mark.parametrize(("k", "columns"), [(1, 1), (8, 8), (9, 3), (10, 4), (64, 8)])
def test_default_columns(k, columns):
    out = canvas(image_grid(np.zeros((k, 4, 4))))
    assert out.shape[1] == columns * 5 - 1


def test_colour_and_tensors_and_whole_numbers():
    images = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3)).astype(np.uint8)
    out = canvas(image_grid(torch.from_numpy(images)))
    np.testing.assert_allclose(out[:, :8], images[0] / 255)
    grey = canvas(image_grid(np.full((2, 4, 4), 51, dtype=np.uint8)))
    np.testing.assert_allclose(grey[:, :4], 0.2)
    np.testing.assert_allclose(canvas(image_grid(np.array([[[True]]]))), 1.0)


def test_grey_numbers_are_scaled_together():
    images = np.stack([np.full((4, 4), -1.0), np.full((4, 4), 3.0), np.full((4, 4), 1.0)])
    out = canvas(image_grid(images))
    assert [out[0, 0], out[0, 5], out[0, 10]] == [0.0, 1.0, 0.5]


def test_titles_and_row_labels():
    ax = image_grid(np.zeros((4, 16, 16)), n_cols=2, titles=[3, 1, 4, 1], row_labels=["a", "b"])
    assert [text.get_text() for text in ax.texts] == ["3", "1", "4", "1", "a", "b"]
    ax.figure.canvas.draw()
    figure = ax.figure.bbox
    for text in ax.texts:
        box = text.get_window_extent()
        assert box.x0 >= figure.x0 and box.x1 <= figure.x1 and box.y0 >= figure.y0 and box.y1 <= figure.y1


def test_beside_pairs_the_images():
    rng = np.random.default_rng(0)
    new, nearest = rng.random((2, 5, 16, 16))
    ax = beside(new, nearest, n_cols=3)
    out = canvas(ax)
    extra = round(0.35 * 16)
    tops = [0, 17, 34 + extra, 51 + extra]
    assert out.shape == (67 + extra, 3 * 17 - 1)
    for k in range(5):
        top, left = tops[2 * (k // 3)], 17 * (k % 3)
        np.testing.assert_array_equal(out[top : top + 16, left : left + 16], new[k])
        top = tops[2 * (k // 3) + 1]
        np.testing.assert_array_equal(out[top : top + 16, left : left + 16], nearest[k])
    assert [text.get_text() for text in ax.texts] == ["new", "nearest in\ntraining set"] * 2
    ax.figure.canvas.draw()
    assert all(text.get_window_extent().x0 >= 0 for text in ax.texts)


def test_given_axes():
    figure, axes = plt.subplots(2)
    before = plt.get_fignums()
    assert image_grid(np.zeros((3, 4, 4)), ax=axes[0]) is axes[0]
    assert beside(torch.zeros(3, 4, 4), torch.ones(3, 4, 4), axes[1]) is axes[1]
    assert plt.get_fignums() == before and len(axes[0].images) == len(axes[1].images) == 1


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ((np.zeros((4, 4)),), ValueError, r"\(k, h, w\) or \(k, h, w, 3\), got \(4, 4\)"),
        ((np.zeros((0, 4, 4)),), ValueError, r"got \(0, 4, 4\)"),
        ((np.zeros((2, 1, 4, 4)),), ValueError, r"images\[:, 0\]"),
        ((np.zeros((2, 3, 4, 4)),), ValueError, r"transpose\(0, 2, 3, 1\)"),
        ((np.full((2, 4, 4), np.nan),), ValueError, "32 NaN"),
        ((np.full((2, 4, 4, 3), 2.0),), ValueError, r"\[0, 1\], got 2 to 2"),
        ((np.zeros((2, 4, 4), dtype=complex),), TypeError, "real numbers"),
        ((np.zeros((2, 4, 4)), 0), ValueError, "n_cols must be at least 1"),
    ],
)
def test_errors(arguments, error, words):
    with pytest.raises(error, match=words):
        image_grid(*arguments)
    assert plt.get_fignums() == []


def test_errors_of_words_and_pairs():
    images = np.zeros((4, 4, 4))
    with pytest.raises(ValueError, match="titles must be 4, one an image, got 1"):
        image_grid(images, titles=["a"])
    with pytest.raises(ValueError, match="row_labels must be 2, one a row, got 1"):
        image_grid(images, n_cols=2, row_labels=["a"])
    with pytest.raises(ValueError, match=r"one shape, got \(4, 4, 4\) and \(3, 4, 4\)"):
        beside(images, images[:3])
    with pytest.raises(ValueError, match="one scale, got dtypes float64 and uint8"):
        beside(images, images.astype(np.uint8))
    with pytest.raises(ValueError, match="labels must be 2"):
        beside(images, images, labels=("a",))
    assert plt.get_fignums() == []
