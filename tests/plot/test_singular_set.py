"""The singular set drawn: the sides that are marked are those between the modes."""

import math
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.axes import Axes

import otgan as og
from otgan.generators import ExtensionGenerator
from otgan.plot import singular_set


@pytest.fixture
def generator(result_of):
    """Two clusters left and right of the middle: their cells meet along a line x_1 = const."""
    rng = np.random.default_rng(0)
    points = 0.05 * rng.random((60, 2)) + np.where(np.arange(60)[:, None] < 30, [0.0, 0.0], [1.0, 0.0])
    result = og.solve(og.UniformBox(dim=2), points, seed=0)
    return ExtensionGenerator(result.potential, result.source)


def of(ax, gid):
    return next((artist for artist in ax.collections if artist.get_gid() == gid), None)


def test_singular_sides_are_the_line_between_the_clusters(generator):
    ax = singular_set(generator)
    assert isinstance(ax, Axes)
    sides = np.array(of(ax, "singular").get_segments())
    assert len(sides) >= len(generator.singular_facets())  # the exact diagram has those that no sample found as well
    assert np.abs(sides[..., 0] - 0.5).max() < 0.06
    assert np.hypot(*(sides[:, 1] - sides[:, 0]).T).sum() == pytest.approx(1.0, abs=0.05)
    assert f"{len(sides)} of" in ax.get_legend().get_texts()[0].get_text()


def test_components_are_one_colour_each(generator):
    ax = singular_set(generator)
    cells = ax.collections[0]
    assert cells.get_gid() == "cells"
    colours = np.unique(cells.get_facecolor().round(6), axis=0)
    assert len(cells.get_paths()) == 60 and len(colours) == 2
    corners = np.array([path.vertices.mean(0) for path in cells.get_paths()])
    left = corners[:, 0] < 0.5
    assert len(np.unique(cells.get_facecolor()[left].round(6), axis=0)) == 1


def test_nothing_is_marked_where_nothing_is_singular(generator):
    ax = singular_set(generator, threshold=math.inf)
    assert of(ax, "singular") is None and ax.get_legend() is None
    assert generator.threshold < math.inf  # it is left as it was


def test_result_own_axes_and_window(plane):
    _, ax = plt.subplots()
    assert singular_set(plane, ax=ax, threshold=0.2, extent=(0.0, 0.5, 0.0, 0.5)) is ax
    assert ax.get_xlim() == (0.0, 0.5)
    assert of(ax, "singular") is not None


def test_many_components_that_meet_differ(result_of):
    centres = np.array([[i, j] for i in range(5) for j in range(5)], dtype=float)
    points = (centres[:, None] + 0.05 * np.random.default_rng(0).random((25, 12, 2))).reshape(-1, 2)
    result = og.solve(og.UniformBox(dim=2), points, seed=0)
    generator = ExtensionGenerator(result.potential, result.source)
    assert len(generator.component.unique()) == 25
    ax = singular_set(generator)
    colours = of(ax, "cells").get_facecolor()
    pairs = generator.singular_facets().pairs.numpy()
    assert (np.abs(colours[pairs[:, 0]] - colours[pairs[:, 1]]).max(1) > 0).all()


def test_refusals(generator, plane, result_of):
    with pytest.raises(TypeError, match="ExtensionGenerator or a Result"):
        singular_set(generator.potential)
    with pytest.raises(ValueError, match="threshold"):
        singular_set(generator, threshold=-1.0)
    space = result_of(og.UniformBox(dim=3), np.random.default_rng(0).random((10, 3)))
    with pytest.raises(ValueError, match="got dimension 3"):
        singular_set(space)
    cubic = og.KantorovichPotential(plane.potential.points, np.zeros(30), p=3.0)
    with pytest.raises(ValueError, match="has p = 3"):
        singular_set(replace(plane, potential=cubic))
    with pytest.raises(TypeError, match="ax must be"):
        singular_set(generator, ax=plt.figure())
