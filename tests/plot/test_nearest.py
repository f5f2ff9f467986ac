"""New points beside training points, new images above the nearest training image, and the histogram of classes."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from otgan.plot import class_histogram, nearest_images, nearest_points
from otgan.plot.nearest import nearest_image


def of(ax, gid):
    return [artist for artist in ax.get_children() if artist.get_gid() == gid]


def test_images_stand_above_their_nearest():
    rng = np.random.default_rng(0)
    train = torch.from_numpy(rng.integers(0, 256, (50, 3, 6, 5)).astype(np.uint8))
    near = train[[7, 3, 44]].clone()
    near[:, :, 0, 0] ^= 8  # a copy, slightly changed
    out = np.asarray(nearest_images(near, train).images[-1].get_array())
    np.testing.assert_allclose(out[:6, 6:11], near[1].permute(1, 2, 0).numpy() / 255)
    np.testing.assert_allclose(out[7:, 6:11], train[3].permute(1, 2, 0).numpy() / 255)
    grey = torch.from_numpy(rng.random((4, 1, 8, 8)))
    assert np.asarray(nearest_images(grey, grey[:2]).images[-1].get_array()).ndim == 2
    with pytest.raises(ValueError, match=r"train has images of shape \(1, 8, 8\)"):
        nearest_images(near, grey)


def test_the_nearest_image_is_that_of_brute_force(monkeypatch):
    monkeypatch.setattr("otgan.plot.nearest._ROWS", 16)
    rng = np.random.default_rng(1)
    x, y = (torch.from_numpy(rng.integers(0, 256, (n, 1, 4, 4)).astype(np.uint8)) for n in (30, 70))
    apart = (x.flatten(1).long()[:, None] - y.flatten(1).long()[None]).square().sum(dim=2)
    assert torch.equal(nearest_image(x, y), apart.argmin(dim=1))


@pytest.mark.parametrize("d", [1, 2, 5])
def test_points_and_lines_to_their_nearest(d):
    rng = np.random.default_rng(0)
    train, new = rng.normal(size=(60, d)), rng.normal(size=(40, d))
    ax = nearest_points(new, train, n_lines=25)
    (points,), (fresh,), (lines,) = of(ax, "train"), of(ax, "new"), of(ax, "nearest")
    assert len(points.get_offsets()) == 60 and len(fresh.get_offsets()) == 40
    segments = np.array(lines.get_segments())
    assert segments.shape == (25, 2, 2)
    np.testing.assert_allclose(segments[:, 0], fresh.get_offsets()[:25])
    closest = np.linalg.norm(new[:25, None] - train[None], axis=2).argmin(axis=1)
    np.testing.assert_allclose(segments[:, 1], points.get_offsets()[closest])
    if d == 2:
        np.testing.assert_allclose(segments[:, 1], train[closest])
    ax.figure.canvas.draw()


def test_many_points_are_thinned_and_copies_have_no_length():
    train = np.random.default_rng(0).normal(size=(300, 2))
    ax = nearest_points(train[:20], train, max_points=100)
    assert len(of(ax, "train")[0].get_offsets()) == 100
    segments = np.array(of(ax, "nearest")[0].get_segments())
    np.testing.assert_allclose(segments[:, 0], segments[:, 1])
    with pytest.raises(ValueError, match="dimension 3"):
        nearest_points(train, np.zeros((5, 3)))


def test_shares_of_the_classes_and_the_band_of_chance():
    ax = class_histogram([30, 60, 10], real=[500, 300, 200], names=["a", "b", "c"])
    np.testing.assert_allclose([bar.get_height() for bar in ax.containers[0]], [0.3, 0.6, 0.1])
    np.testing.assert_allclose(of(ax, "expected")[0].get_data().values, [0.5, 0.3, 0.2])
    band = of(ax, "band")[0].get_data()
    p = np.array([0.5, 0.3, 0.2])
    np.testing.assert_allclose(band.values - p, 2 * np.sqrt(p * (1 - p) * (1 / 100 + 1 / 1000)))
    assert [label.get_text() for label in ax.get_xticklabels()] == ["a", "b", "c"]
    figure, own = plt.subplots()
    assert class_histogram(torch.tensor([1, 2]), ax=own) is own
    np.testing.assert_allclose(of(own, "expected")[0].get_data().values, 0.5)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (([1],), r"shape \(K,\)"),
        (([0, 0],), "not all 0"),
        (([1, -1],), ">= 0"),
        (([1, 2], [1, 2, 3]), r"one shape, got \(2,\) and \(3,\)"),
    ],
)
def test_errors(arguments, words):
    with pytest.raises(ValueError, match=words):
        class_histogram(*arguments)
    with pytest.raises(ValueError, match="names must be 2"):
        class_histogram([1, 2], names=["a"])
    assert plt.get_fignums() == []
