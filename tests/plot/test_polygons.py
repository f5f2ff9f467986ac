"""Power diagrams as exact polygons."""

from __future__ import annotations

import io
import re
import xml.etree.ElementTree as ET

import matplotlib.pyplot as plt
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.path import Path

import otgan as og
from otgan.cells import exact_cells
from otgan.plot import _cells as cells_module
from otgan.plot import power_diagram
from otgan.plot._polygons import distinct_targets, polygon_cells
from otgan.plot._raster import pixel_cells
from otgan.plot._region import region_of

SQUARE = og.UniformBox(dim=2)


def area(polygon):
    x, y = polygon.T
    return 0.5 * float(x @ np.roll(y, -1) - y @ np.roll(x, -1))


def drawn(ax, gid="cells"):
    (found,) = [c for c in ax.collections if c.get_gid() == gid]
    return found


def voronoi(points, noise=0.0):
    return og.BrenierPotential(points, -0.5 * (points**2).sum(1) + noise * np.random.default_rng(9).random(len(points)))


@settings(max_examples=40)
@given(st.integers(1, 200), st.integers(0, 10**6), st.sampled_from([0.0, 0.05, 3.0]), st.sampled_from([0.0, 1e4]))
def test_polygons_and_pixels_are_the_same_cells(n, seed, noise, shift):
    rng = np.random.default_rng(seed)
    points = rng.random((n, 2)) * [1.0, 2.0] + shift
    heights = -0.5 * ((points - shift) ** 2).sum(1) + noise * rng.random(n)
    u = og.BrenierPotential(points, heights)
    extent = (-0.5, 1.5, -1.0, 3.0)
    region = region_of(og.UniformBox([-0.5, -1.0], [1.5, 3.0]), u, None)
    cells = polygon_cells(points, heights, region)
    raster = pixel_cells(points, heights, extent, (40, 20))
    at = np.stack(np.meshgrid(-0.45 + 0.1 * np.arange(20), -0.95 + 0.1 * np.arange(40)), axis=-1).reshape(-1, 2)
    score = at @ (points - shift).T + heights + shift * at.sum(1, keepdims=True)
    best = np.sort(score, axis=1)[:, -2:]
    clear = np.ones(len(at), bool) if n == 1 else best[:, 1] - best[:, 0] > 1e-7 * (1 + np.abs(best[:, 1]))
    for index, polygon in zip(cells.present, cells.polygons, strict=True):
        inside = Path(polygon).contains_points(at) & clear
        assert (raster.index.reshape(-1)[inside] == index).all()
    assert set(raster.index.reshape(-1)[clear]) <= set(cells.present)
    assert sum(area(p) for p in cells.polygons) == pytest.approx(8.0, rel=1e-9)


@pytest.mark.parametrize("noise", [0.0, 0.02, 1.0])
def test_one_polygon_for_each_cell_that_is_not_empty(noise):
    points = np.random.default_rng(0).random((200, 2))
    u = voronoi(points, noise)
    masses = exact_cells(SQUARE, points).moments(u.heights.numpy(), hessian=False).masses
    ax = power_diagram(u, SQUARE)
    paths = drawn(ax).get_paths()
    assert len(paths) == int((masses > 0).sum())
    areas = [area(path.vertices[:-1]) for path in paths]  # the last vertex closes the path
    np.testing.assert_allclose(areas, masses[masses > 0], rtol=1e-9, atol=1e-15)
    assert sum(areas) == pytest.approx(1.0, rel=1e-12)
    assert len(paths) == 200 if noise == 0.0 else len(paths) < 100


def test_cells_outside_a_disc_are_left_out():
    points = np.random.default_rng(1).normal(size=(400, 2))
    u, ball = voronoi(points), og.UniformBall(2, 1.3, [0.2, 0.1])
    masses = exact_cells(ball, points).moments(u.heights.numpy(), hessian=False).masses
    cells = polygon_cells(points, u.heights.numpy(), region_of(ball, u, None))
    np.testing.assert_array_equal(cells.present, np.flatnonzero(masses > 0))
    assert 100 < len(cells.present) < 400
    one = polygon_cells(points[:1], u.heights.numpy()[:1], region_of(ball, u, None))
    assert one.present.tolist() == [0] and one.neighbours().shape == (0, 2)


def test_only_cells_in_the_window():
    points = np.stack(np.meshgrid(np.arange(10) + 0.5, np.arange(10) + 0.5), axis=-1).reshape(-1, 2) / 10
    cells = polygon_cells(points, voronoi(points).heights.numpy(), region_of(SQUARE, voronoi(points), (0, 0.15, 0, 1)))
    assert cells.present.tolist() == [10 * i + j for i in range(10) for j in range(2)]
    assert len(cells.neighbours()) == 10 + 2 * 9
    assert cells.side == pytest.approx(0.1)
    corner = polygon_cells(
        points, voronoi(points).heights.numpy(), region_of(SQUARE, voronoi(points), (0.85, 2, 0.75, 2))
    )
    assert corner.present.tolist() == [78, 79, 88, 89, 98, 99]


def test_the_whole_window_of_a_slanted_gaussian_is_covered():
    source = og.Gaussian([0.0, 0.0], [[1.0, 0.99], [0.99, 1.0]])
    points = np.random.default_rng(3).normal(size=(50, 2))
    u = voronoi(points)
    cells = polygon_cells(points, u.heights.numpy(), region_of(source, u, None))
    assert sum(area(p) for p in cells.polygons) == pytest.approx(36.0, rel=1e-12)


def test_neighbours_have_different_colours():
    points = np.random.default_rng(3).random((1000, 2))
    u = voronoi(points)
    cells = polygon_cells(points, u.heights.numpy(), region_of(SQUARE, u, None))
    fill = drawn(power_diagram(u, SQUARE)).get_facecolor()
    pairs = cells.neighbours()
    assert cells.present.tolist() == list(range(1000)) and len(pairs) > 2800
    assert np.abs(fill[pairs[:, 0]] - fill[pairs[:, 1]]).max(axis=1).min() > 0.01
    assert (pairs[:, 0] < pairs[:, 1]).all() and len(np.unique(pairs, axis=0)) == len(pairs) == len(cells.sides)


def test_sides_are_where_both_scores_are_equal():
    points = np.random.default_rng(4).random((60, 2))
    u = voronoi(points, 0.02)
    cells = polygon_cells(points, u.heights.numpy(), region_of(SQUARE, u, None))
    score = cells.sides @ points.T + u.heights.numpy()
    for (i, j), at in zip(cells.pairs, score, strict=True):
        np.testing.assert_allclose(at[:, i], at.max(axis=1), atol=1e-12)
        np.testing.assert_allclose(at[:, j], at.max(axis=1), atol=1e-12)
    lines = drawn(power_diagram(u, SQUARE), "sides").get_paths()
    assert sum(len(path.vertices) for path in lines) == 2 * len(cells.sides)


def test_switched_off_and_equal_targets():
    points = np.array([[0.0, 0.0], [0.0, 0.0], [1.0, 0.0], [2.0, 0.0], [1.0, 0.0]])
    heights = np.array([0.0, 0.0, -0.7, -np.inf, -0.5])
    assert distinct_targets(points, heights).tolist() == [0, 4]
    ax = power_diagram(og.BrenierPotential(points, heights), SQUARE, values=np.arange(5))
    paths, fill = drawn(ax).get_paths(), drawn(ax).get_facecolor()
    assert len(paths) == 2
    np.testing.assert_allclose([area(p.vertices[:-1]) for p in paths], [0.5, 0.5])
    cmap, norm = drawn(ax).get_cmap(), drawn(ax).norm
    np.testing.assert_allclose(fill, [cmap(norm(0)), cmap(norm(4))])


def test_targets_far_from_the_origin():
    points = np.random.default_rng(5).random((80, 2))
    u = voronoi(points)
    near = polygon_cells(points, u.heights.numpy(), region_of(SQUARE, u, None))
    far = polygon_cells(points + 1e6, u.heights.numpy(), region_of(SQUARE, u, None))
    np.testing.assert_array_equal(near.present, far.present)
    for a, b in zip(near.polygons, far.polygons, strict=True):
        assert area(a) == pytest.approx(area(b), abs=1e-8)


@pytest.mark.parametrize("kind", ["svg", "pdf"])
def test_vector_files_hold_paths_and_no_picture(kind):
    points = np.random.default_rng(0).random((300, 2))
    ax = power_diagram(voronoi(points), SQUARE)
    file = io.BytesIO()
    ax.figure.savefig(file, format=kind)
    data = file.getvalue()
    assert len(data) < (250_000 if kind == "svg" else 60_000)
    if kind == "pdf":
        assert b"/Subtype /Image" not in data
        return
    tree = ET.fromstring(data)
    space = "{http://www.w3.org/2000/svg}"
    (group,) = [g for g in tree.iter(f"{space}g") if g.get("id") == "cells"]
    paths = [p for p in group.iter(f"{space}path") if re.search(r"fill: #[0-9a-f]{6}", p.get("style") or "")]
    assert len(paths) == 300
    assert all(p.get("d").rstrip().endswith("z") for p in paths)
    assert not list(tree.iter(f"{space}image"))


def test_many_cells_and_cells_beyond_double_precision_become_pixels(monkeypatch):
    points = np.random.default_rng(0).random((40, 2))
    monkeypatch.setattr(cells_module, "_MANY", 39)
    assert power_diagram(voronoi(points), SQUARE, resolution=40).images
    assert drawn(power_diagram(voronoi(points), SQUARE, renderer="polygons"))

    def fails(*_):
        raise RuntimeError("too degenerate")

    monkeypatch.setattr(cells_module, "_MANY", 100)
    monkeypatch.setattr(cells_module, "polygon_cells", fails)
    assert power_diagram(voronoi(points), SQUARE, resolution=40).images
    with pytest.raises(RuntimeError, match="too degenerate"):
        power_diagram(voronoi(points), SQUARE, renderer="polygons")


def test_lines_and_dots_vanish_with_small_cells():
    points = np.random.default_rng(0).random((20_000, 2))
    ax = power_diagram(voronoi(points), SQUARE)
    assert [c.get_gid() for c in ax.collections] == ["cells"]
    assert len(ax.collections[0].get_paths()) == 20_000


@pytest.mark.parametrize(
    "source", [og.GridDensity(np.arange(1.0, 13.0).reshape(3, 4)), og.Gaussian([1.0, 0.0], [[4.0, 1.0], [1.0, 1.0]])]
)
def test_density_lies_under_the_sides(source):
    points = np.random.default_rng(0).random((30, 2))
    ax = power_diagram(voronoi(points), source, density=True)
    (image,) = ax.images
    shades = np.asarray(image.get_array())
    assert image.get_gid() == "density" and image.get_zorder() < drawn(ax, "sides").get_zorder()
    assert not len(drawn(ax).get_facecolor()) and image.origin == "upper"
    assert tuple(image.get_extent()) == tuple(ax.axis())
    if isinstance(source, og.GridDensity):
        np.testing.assert_array_equal(shades, source.values.numpy())
    else:
        x0, x1, y0, y1 = image.get_extent()
        row, column = np.unravel_index(shades.argmax(), shades.shape)
        top = (x0 + (column + 0.5) * (x1 - x0) / 300, y1 - (row + 0.5) * (y1 - y0) / 300)
        np.testing.assert_allclose(top, [1.0, 0.0], atol=0.03)
        x = np.array([x0 + 40.5 * (x1 - x0) / 300, y1 - 170.5 * (y1 - y0) / 300]) - [1.0, 0.0]
        expected = np.exp(-0.5 * x @ np.linalg.inv(source.cov.numpy()) @ x)
        assert shades[170, 40] == pytest.approx(expected, rel=1e-9)


def test_a_solved_picture():
    source = og.GridDensity(np.random.default_rng(0).random((6, 8)))
    result = og.solve(source, np.random.default_rng(1).random((40, 2)))
    before = plt.get_fignums()
    ax = power_diagram(result, values=result.masses.numpy())
    assert len(plt.get_fignums()) == len(before) + 1
    assert len(drawn(ax).get_paths()) == 40 and len(ax.figure.axes) == 2
    assert sum(area(p.vertices[:-1]) for p in drawn(ax).get_paths()) == pytest.approx(0.75, rel=1e-12)
