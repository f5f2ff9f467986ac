from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pytest

import otgan as og
from otgan.plot import stippling


def diameters(ax):
    return np.ravel(ax.collections[-1].get_widths())


def ink(ax):
    return float((np.pi / 4 * diameters(ax) ** 2).sum())


@pytest.fixture
def points():
    return np.random.default_rng(0).random((200, 2)) * [1.0, 0.5]


def test_dots_are_where_the_points_are(points):
    ax = stippling(points)
    np.testing.assert_allclose(ax.collections[-1].get_offsets(), points)
    assert not ax.axison and ax.get_aspect() == 1.0
    assert len(np.unique(diameters(ax))) == 1


def test_ink_follows_the_picture(points):
    values = np.array([[0.0, 4.0], [2.0, 2.0], [0.0, 0.0]])
    for image in (values, og.GridDensity(values)):
        ax = stippling(points, image)
        assert ax.axis() == pytest.approx((0, 2 / 3, 0, 1))
        assert ink(ax) == pytest.approx(0.75 * (8 / 6 / 4) * (2 / 3), rel=1e-9)
        width, height = ax.figure.get_size_inches()
        assert width / height == pytest.approx(2 / 3)
    shifted = og.GridDensity(values, [1.0, 2.0], [3.0, 5.0])
    assert stippling(points, shifted).axis() == pytest.approx((1, 3, 2, 5))


def test_areas_are_proportional_to_weights(points):
    weights = np.arange(1.0, 201.0)
    ax = stippling(points, np.ones((2, 4)), weights)
    np.testing.assert_allclose(diameters(ax) ** 2 / diameters(ax)[0] ** 2, weights)
    assert ink(ax) == pytest.approx(0.75 * 0.5)


def test_painted_area_is_the_ink():
    centres = (np.stack(np.meshgrid(np.arange(12), np.arange(12)), axis=-1).reshape(-1, 2) + 0.5) / 12
    ax = stippling(centres, np.ones((3, 3)))
    ax.figure.canvas.draw()
    paper = np.asarray(ax.figure.canvas.buffer_rgba())[..., :3].mean(axis=2)
    black = paper.min()
    assert float(((255 - paper) / (255 - black)).mean()) == pytest.approx(0.75, abs=0.02)


def test_dots_do_not_touch_without_a_picture():
    grid = np.stack(np.meshgrid(np.arange(9.0), np.arange(5.0)), axis=-1).reshape(-1, 2)
    np.testing.assert_allclose(diameters(stippling(grid)), 0.62)
    assert diameters(stippling([[3.0, 4.0]]))[0] > 0


def test_given_axes(points):
    figure, axes = plt.subplots(1, 2)
    before = plt.get_fignums()
    assert stippling(points, ax=axes[1]) is axes[1]
    assert plt.get_fignums() == before and not axes[0].collections


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"points": np.zeros((3, 3))}, ValueError, "points"),
        ({"points": [[np.nan, 0.0]]}, ValueError, "points"),
        ({"weights": [1.0]}, ValueError, "weights must have shape"),
        ({"image": np.ones(4)}, ValueError, "grey image"),
        ({"image": -np.ones((2, 2))}, ValueError, "values must be >= 0"),
        ({"ax": 3}, TypeError, "ax must be a matplotlib Axes"),
    ],
)
def test_errors(points, arguments, error, words):
    before = plt.get_fignums()
    with pytest.raises(error, match=words):
        stippling(**{"points": points, **arguments})
    assert plt.get_fignums() == before
