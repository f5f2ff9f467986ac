from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.axes import Axes

import otgan as og
from otgan.plot import power_diagram
from otgan.plot._colours import cell_palette, label_palette, proper_colouring
from otgan.plot._raster import pixel_cells


def centres(extent, shape):
    x0, x1, y0, y1 = extent
    xs = x0 + (np.arange(shape[1]) + 0.5) * (x1 - x0) / shape[1]
    ys = y0 + (np.arange(shape[0]) + 0.5) * (y1 - y0) / shape[0]
    return np.stack(np.meshgrid(xs, ys), axis=-1)


def painted(ax, places):
    """Whether there is anything but the background at these places of the figure."""
    ax.set_axis_off()
    ax.figure.set_facecolor("lime")
    ax.figure.canvas.draw()
    pixels = np.asarray(ax.figure.canvas.buffer_rgba())
    found = []
    for x, y in places:
        column, row = ax.transData.transform((x, y))
        found.append(pixels[pixels.shape[0] - 1 - round(row), round(column), :3].tolist() != [0, 255, 0])
    return found


# --- the raster ---


@settings(max_examples=30)
@given(st.integers(1, 300), st.integers(0, 10**6), st.sampled_from([0.0, 0.1, 3.0]), st.sampled_from([0.0, 1e4]))
def test_pixels_lie_in_the_cell_that_assign_names(n, seed, noise, shift):
    rng = np.random.default_rng(seed)
    points = rng.random((n, 2)) * [1.0, 4.0] + shift
    heights = -0.5 * ((points - shift) ** 2).sum(1) + noise * rng.random(n)
    extent, shape = (-0.5, 1.5, -1.0, 5.0), (45, 37)
    found = pixel_cells(points, heights, extent, shape)
    x = centres(extent, shape).reshape(-1, 2)
    expected = og.BrenierPotential(points, heights).assign(x).numpy().reshape(shape)
    differ = found.index != expected
    if differ.any():  # only where two scores are equal to rounding
        score = x[differ.reshape(-1)] @ (points - shift).T + heights + 0.0
        score += shift * x[differ.reshape(-1)].sum(1, keepdims=True)
        gap = score.max(1) - score[np.arange(len(score)), found.index[differ]]
        assert gap.max() <= 1e-11 * np.abs(heights).max() + 1e-11 * abs(shift)


def test_distance_to_the_nearest_side():
    points, heights = np.array([[0.0, 0.0], [1.0, 0.0], [0.5, 3.0]]), np.array([0.0, -0.5, -2.0])
    extent, shape = (0.0, 1.0, 0.0, 1.0), (100, 100)
    cells = pixel_cells(points, heights, extent, shape)
    x = centres(extent, shape)
    score = x @ points.T + heights
    best = score.argmax(2)
    away = np.full((*shape, 3), np.inf)
    for j in range(3):
        apart = np.hypot(*(points[best] - points[j]).transpose(2, 0, 1))
        ok = best != j
        away[..., j][ok] = ((score.max(2) - score[..., j]) / np.where(ok, apart, 1))[ok] * 100
    near = away.min(2) <= 2.0
    np.testing.assert_array_equal(cells.index, best)
    np.testing.assert_allclose(cells.distance[near], away.min(2)[near], rtol=0, atol=1e-9)
    assert np.isinf(cells.distance[away.min(2) > 2.0 + 1e-9]).all()
    np.testing.assert_array_equal(cells.across[near], away.argmin(2)[near])
    assert cells.neighbours().tolist() == [[0, 1], [0, 2], [1, 2]]
    assert cells.present.tolist() == [0, 1, 2]


def test_switched_off_and_equal_targets():
    points = np.array([[0.0, 0.0], [0.0, 0.0], [1.0, 0.0], [2.0, 0.0]])
    cells = pixel_cells(points, np.array([0.0, 0.0, -0.5, -np.inf]), (0.0, 1.0, 0.0, 1.0), (10, 10))
    assert cells.present.tolist() == [0, 2]
    assert cells.neighbours().tolist() == [[0, 2]]


# --- colours ---


def test_neighbours_have_different_colours(plane):
    rng = np.random.default_rng(3)
    points = rng.random((3000, 2))
    cells = pixel_cells(points, -0.5 * (points**2).sum(1), (0, 1, 0, 1), (400, 400))
    pairs = cells.neighbours()
    palette = cell_palette()
    colour = proper_colouring(3000, pairs, len(palette))
    assert len(pairs) > 8000
    assert (colour[pairs[:, 0]] != colour[pairs[:, 1]]).all()
    assert len(np.unique(colour)) == len(palette) == len(np.unique(palette.round(3), axis=0))


@pytest.mark.parametrize("k", range(1, 13))
def test_labels_have_different_colours(k):
    palette = label_palette(k)
    assert palette.shape == (k, 3)
    assert len(np.unique(palette.round(3), axis=0)) == k


# --- the figure ---


@pytest.mark.parametrize("n", [1, 2, 30, 2000])
def test_pixel_colours_follow_cells(n, result_of):
    result = result_of(og.UniformBox(dim=2), np.random.default_rng(n).random((n, 2)))
    values = np.random.default_rng(0).permutation(n) / n + 0.5
    ax = power_diagram(
        result, renderer="raster", edges=False, targets=False, resolution=150, values=values, cmap="viridis"
    )
    image = np.asarray(ax.images[0].get_array())
    x = torch.from_numpy(centres((0, 1, 0, 1), (150, 150)))
    index = result.potential.assign(x.reshape(-1, 2)).numpy().reshape(150, 150)
    expected = plt.get_cmap("viridis")((values - values.min()) / max(np.ptp(values), 1e-9))[:, :3]
    inside = np.zeros(index.shape, dtype=bool)
    same = np.ones((148, 148), dtype=bool)
    for i in range(3):
        for j in range(3):
            same &= index[i : 148 + i, j : 148 + j] == index[1:-1, 1:-1]
    inside[1:-1, 1:-1] = same
    assert image.shape == (150, 150, 3)
    assert n == 2000 or inside.mean() > 0.7
    np.testing.assert_allclose(image[inside], expected[index[inside]], atol=1e-12)


def test_sides_are_smooth_and_white_lines_cover_them():
    u = og.BrenierPotential([[0.0, 0.0], [1.0, 0.0]], [0.0, -0.5])
    box = og.UniformBox(dim=2)
    values = np.array([0, 1])
    raster = {"renderer": "raster", "values": values}
    plain = np.asarray(power_diagram(u, box, edges=False, resolution=11, **raster).images[0].get_array())
    colours = label_palette(2)
    np.testing.assert_allclose(plain[:, :5], np.broadcast_to(colours[0], (11, 5, 3)))
    np.testing.assert_allclose(plain[:, 5], np.broadcast_to(colours.mean(0), (11, 3)))  # cut in the middle
    np.testing.assert_allclose(plain[:, 6:], np.broadcast_to(colours[1], (11, 5, 3)))
    lined = np.asarray(power_diagram(u, box, resolution=600, **raster).images[0].get_array())
    np.testing.assert_allclose(lined[:, 299:301], 1.0)
    np.testing.assert_allclose(lined[:, :297], np.broadcast_to(colours[0], (600, 297, 3)))


RENDERERS = pytest.mark.parametrize("renderer", ["polygons", "raster"])


@RENDERERS
def test_returns_axes_in_a_figure_of_its_own(plane, renderer):
    before = plt.get_fignums()
    ax = power_diagram(plane, renderer=renderer, resolution=60)
    assert isinstance(ax, Axes)
    assert len(plt.get_fignums()) == len(before) + 1
    assert ax.get_xlim() == ax.get_ylim() == (0.0, 1.0)
    assert [a.get_gid() for a in (*ax.images, *ax.collections)] == (
        ["cells", "targets"] if renderer == "raster" else ["cells", "sides", "targets"]
    )
    assert len(ax.figure.axes) == 1
    np.testing.assert_allclose(ax.collections[-1].get_offsets(), plane.potential.points)


@RENDERERS
def test_given_axes_are_used_and_no_figure_is_made(plane, renderer):
    figure, axes = plt.subplots(1, 2)
    before = plt.get_fignums()
    drawn = power_diagram(plane, renderer=renderer, ax=axes[1], resolution=40, values=np.arange(30.0))
    assert drawn is axes[1]
    assert plt.get_fignums() == before
    assert not axes[0].images and not axes[0].collections and len(figure.axes) == 2
    cells = (axes[1].images or axes[1].collections)[0]
    bar = figure.colorbar(cells, ax=axes[1])
    assert cells.get_clim() == (0.0, 29.0) == (bar.vmin, bar.vmax)


@RENDERERS
def test_options_leave_things_out(plane, renderer):
    ax = power_diagram(plane, renderer=renderer, targets=False, edges=False, resolution=40, cmap="tab20")
    assert [a.get_gid() for a in (*ax.images, *ax.collections)] == ["cells"] and ax.get_legend() is None


def test_many_cells_have_neither_dots_nor_lines():
    points = np.random.default_rng(0).random((4000, 2))
    u = og.BrenierPotential(points, -0.5 * (points**2).sum(1))
    ax = power_diagram(u, og.UniformBox(dim=2), renderer="raster", resolution=100)
    assert not ax.collections
    assert (np.asarray(ax.images[0].get_array()) < 0.999).any(axis=2).all()


def test_window_of_each_source(result_of):
    points = np.random.default_rng(1).random((9, 2))
    cases = {
        og.UniformBox([0.0, 1.0], [4.0, 2.0]): (0, 4, 1, 2),
        og.UniformBall(2, 2.0, [1.0, 0.0]): (-1, 3, -2, 2),
        og.Gaussian([1.0, 0.0], [4.0, 1.0]): (-5, 7, -3, 3),
        og.Empirical([[0.0, 0.0], [1.0, 2.0]]): (-0.08, 1.08, -0.16, 2.16),
        og.UniformPolytope([[0.0, 0.0], [2.0, 0.0], [0.0, 1.0]]): (0, 2, 0, 1),
        og.GridDensity(np.eye(4)[:2]): (0, 1, 0, 0.5),
    }
    for source, window in cases.items():
        assert power_diagram(result_of(source, points)).axis() == pytest.approx(window)
        ax = power_diagram(result_of(source, points), renderer="raster", resolution=40)
        np.testing.assert_allclose([*ax.get_xlim(), *ax.get_ylim()], window)
        rows, columns = ax.images[0].get_array().shape[:2]
        assert abs(columns / rows - (window[1] - window[0]) / (window[3] - window[2])) < 0.1


def test_a_potential_alone_is_drawn_around_its_targets(plane):
    ax = power_diagram(plane.potential, resolution=40)
    points = plane.potential.points.numpy()
    low, high = points.min(0), points.max(0)
    assert ax.get_xlim()[0] < low[0] and ax.get_xlim()[1] > high[0]
    assert ax.get_ylim()[0] < low[1] and ax.get_ylim()[1] > high[1]


@RENDERERS
def test_outside_a_disc_nothing_is_painted(result_of, renderer):
    result = result_of(og.UniformBall(2), np.random.default_rng(0).random((5, 2)))
    ax = power_diagram(result, renderer=renderer, resolution=50, targets=False)
    assert painted(ax, [(-0.9, -0.9), (0.9, -0.9), (0.0, 0.0), (0.69, 0.69)]) == [False, False, True, True]


@RENDERERS
def test_outside_a_polygon_nothing_is_painted(result_of, renderer):
    triangle = og.UniformPolytope([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    result = result_of(triangle, np.random.default_rng(0).random((5, 2)))
    ax = power_diagram(result, renderer=renderer, resolution=50, targets=False)
    assert painted(ax, [(0.55, 0.55), (0.9, 0.9), (0.45, 0.45), (0.9, 0.05)]) == [False, False, True, True]


@RENDERERS
def test_a_wider_window_shows_the_box_in_it(plane, renderer):
    ax = power_diagram(plane, renderer=renderer, extent=(-1, 2, -0.5, 1.5), resolution=60)
    assert (ax.get_xlim(), ax.get_ylim()) == ((-1.0, 2.0), (-0.5, 1.5))
    assert painted(ax, [(-0.05, 0.5), (0.05, 0.5), (0.5, 0.95), (0.5, 1.05)]) == [False, True, True, False]


def test_labels_get_a_legend_and_scales_a_bar(plane):
    labelled = power_diagram(plane, values=np.arange(30) % 3, resolution=30)
    assert [text.get_text() for text in labelled.get_legend().get_texts()] == ["0", "1", "2"]
    assert [t.get_text() for t in power_diagram(plane, values=np.arange(30) > 9).get_legend().get_texts()] == [
        "False",
        "True",
    ]
    assert len(power_diagram(plane, values=np.ones(30), resolution=30).figure.axes) == 2
    assert len(power_diagram(plane, values=np.arange(30), resolution=30).figure.axes) == 2


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"values": np.ones(7)}, ValueError, r"values must have shape \(30,\).*got \(7,\)"),
        ({"values": np.full(30, np.nan)}, ValueError, "30 NaN"),
        ({"values": np.array(["a"] * 30)}, TypeError, "number the classes"),
        ({"extent": (1, 0, 0, 1)}, ValueError, "x0 < x1"),
        ({"extent": (0, 1, 0)}, ValueError, "x0 < x1"),
        ({"extent": (2, 3, 0, 1)}, ValueError, "shows nothing of UniformBox"),
        ({"renderer": "svg"}, ValueError, "renderer must be 'auto', 'polygons' or 'raster', got 'svg'"),
        ({"density": True}, ValueError, "needs a source with a density to show"),
        ({"density": True, "values": np.ones(30)}, ValueError, "leave out values"),
        ({"density": True, "renderer": "raster"}, ValueError, "leave out values, raster"),
        ({"resolution": 1}, ValueError, "resolution must be at least 2"),
        ({"source": og.Gaussian(3)}, ValueError, "source has dimension 3"),
        ({"source": "box"}, TypeError, "source must be a measure"),
        ({"ax": "here"}, TypeError, "ax must be a matplotlib Axes"),
    ],
)
def test_errors_say_what_is_wrong(plane, arguments, error, words):
    before = plt.get_fignums()
    with pytest.raises(error, match=words):
        power_diagram(plane, **arguments)
    assert plt.get_fignums() == before


@pytest.mark.parametrize("dim", [1, 3, 5])
def test_only_in_the_plane(dim, result_of):
    with pytest.raises(ValueError, match=f"power_diagram needs dimension 2, got {dim}"):
        power_diagram(result_of(og.UniformBox(dim=dim), np.random.default_rng(0).random((4, dim))))
    with pytest.raises(TypeError, match="takes a Result or a BrenierPotential, got ndarray"):
        power_diagram(np.zeros((3, 2)))
