"""Figures in space: cells as polyhedra, maps onto surfaces."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from mpl_toolkits.mplot3d import Axes3D

import otgan as og
from otgan.cells import exact_cells
from otgan.plot import cells_3d, surface_map
from otgan.plot._solid import Faces, lit, polygon_normals
from otgan.plot.surface_map import _centroids, origin_colours

CUBE = og.UniformBox(dim=3)
DATA = Path(os.environ.get("OTGAN_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))


@pytest.fixture
def u():
    points = np.random.default_rng(0).random((40, 3))
    return og.BrenierPotential(points, -0.5 * (points**2).sum(1))


def faces_of(ax):
    (found,) = [c for c in ax.collections if isinstance(c, Faces)]
    return found


def areas(faces):
    offsets = np.concatenate([[0], np.cumsum([len(p) for p in faces.polygons])])
    return np.linalg.norm(polygon_normals(np.concatenate(faces.polygons), offsets), axis=1) / 2


def volume(faces):
    """Of the bodies whose boundary is drawn, by the divergence theorem."""
    offsets = np.concatenate([[0], np.cumsum([len(p) for p in faces.polygons])])
    normals = polygon_normals(np.concatenate(faces.polygons), offsets) / 2
    return float(sum(n @ p[0] for n, p in zip(normals, faces.polygons, strict=True)) / 3)


# --- cells ---


def test_normals_of_polygons():
    square = np.array([[0.0, 0.0, 1.0], [2.0, 0.0, 1.0], [2.0, 3.0, 1.0], [0.0, 3.0, 1.0]])
    both = np.concatenate([square, square[::-1][:3]])
    np.testing.assert_allclose(polygon_normals(both, np.array([0, 4, 7])), [[0, 0, 12], [0, 0, -6]])


def test_only_the_outside_is_drawn(u):
    ax = cells_3d(u, CUBE)
    assert isinstance(ax, Axes3D)
    faces = faces_of(ax)
    assert areas(faces).sum() == pytest.approx(6.0, rel=1e-9)
    assert volume(faces) == pytest.approx(1.0, rel=1e-9)
    assert all(np.isclose(p, 0).all(0).any() or np.isclose(p, 1).all(0).any() for p in faces.polygons)


def test_exploded_cells_keep_their_volume_and_all_their_faces(u):
    faces = faces_of(cells_3d(u, CUBE, explode=0.5))
    soup = exact_cells(CUBE, u.points.numpy()).polyhedra(u.heights.numpy())
    assert len(faces.polygons) == len(soup.neighbours)
    np.testing.assert_allclose(np.sort(areas(faces)), np.sort(areas(faces_of(cells_3d(u, CUBE, explode=2.0)))))
    low, high = np.concatenate(faces.polygons).min(0), np.concatenate(faces.polygons).max(0)
    assert (high - low > 1.2).all() and (high - low < 1.5).all()
    middle = np.array([p.mean(0) for p in faces.polygons])
    shift = middle - np.array([soup.vertices[soup.loops[a:b]].mean(0) for a, b in _spans(soup.face_offsets)])
    owner = np.repeat(np.arange(u.n), np.diff(soup.cell_offsets))
    for i in range(u.n):  # each cell moves as a whole
        np.testing.assert_allclose(shift[owner == i], shift[owner == i][:1].repeat((owner == i).sum(), 0), atol=1e-12)


def _spans(offsets):
    return list(zip(offsets[:-1], offsets[1:], strict=True))


def test_a_cut_goes_through_cells(u):
    faces = faces_of(cells_3d(u, CUBE, cut=((1, 1, 0), 1.0)))
    assert volume(faces) == pytest.approx(0.5, rel=1e-9)
    assert areas(faces).sum() == pytest.approx(2 * 0.5 + 2 + 2**0.5, rel=1e-9)
    assert np.concatenate(faces.polygons)[:, :2].sum(1).max() <= 1 + 1e-12


def test_whole_cells_are_kept_or_dropped(u):
    cut = ((0, 0, 2.0), 1.0)
    faces = faces_of(cells_3d(u, CUBE, cut=cut, whole_cells=True))
    masses = exact_cells(CUBE, u.points.numpy()).moments(u.heights.numpy(), hessian=False).masses
    found = volume(faces)
    soup = exact_cells(CUBE, u.points.numpy()).polyhedra(u.heights.numpy())
    centres = np.array([np.concatenate(soup.faces(i)).mean(0) for i in range(u.n)])
    assert found == pytest.approx(masses[centres[:, 2] <= 0.5].sum(), rel=1e-9)
    top = np.concatenate(faces.polygons)[:, 2].max()
    assert 0.5 < top < 1.0


def test_neighbours_differ_and_values_colour_cells(u):
    points = u.points.numpy()
    soup = exact_cells(CUBE, points).polyhedra(u.heights.numpy())
    owner = np.repeat(np.arange(u.n), np.diff(soup.cell_offsets))
    faces = faces_of(cells_3d(u, CUBE, explode=1e-9))
    assert len(faces.polygons) == len(owner)
    # The colour without light is the same on all faces of a cell, and differs between neighbours.
    plain = faces.rgb / lit(np.ones_like(faces.normals), faces.normals, "z")
    first = np.array([plain[owner == i][0] for i in range(u.n)])
    np.testing.assert_allclose(plain, first[owner], atol=1e-9)
    inner = soup.neighbours >= 0
    assert np.abs(first[owner[inner]] - first[soup.neighbours[inner]]).max(1).min() > 0.01

    values = np.arange(u.n) % 3
    ax = cells_3d(u, CUBE, values=values, explode=0.2)
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["0", "1", "2"]
    coloured = faces_of(ax)
    plain = coloured.rgb / lit(np.ones_like(coloured.normals), coloured.normals, "z")
    assert len(np.unique(plain.round(6), axis=0)) == 3
    assert len(cells_3d(u, CUBE, values=np.linspace(0, 1, u.n)).figure.axes) == 2


def test_faces_that_look_away_are_left_out_at_each_drawing(u):
    ax = cells_3d(u, CUBE)
    faces = faces_of(ax)
    for azimuth, sides in ((-45.0, {(0, 1.0), (1, 0.0), (2, 1.0)}), (135.0, {(0, 0.0), (1, 1.0), (2, 1.0)})):
        for projection in ("persp", "ortho"):
            ax.set_proj_type(projection)
            ax.view_init(elev=30.0, azim=azimuth)
            ax.figure.canvas.draw()
            seen = [p for p, ok in zip(faces.polygons, faces.facing(), strict=True) if ok]
            found = {(k, float(p[0, k].round(9))) for p in seen for k in range(3) if np.ptp(p[:, k]) < 1e-9}
            assert found == sides
            assert len(faces.get_facecolor()) == len(seen) < len(faces.polygons)


def test_empty_switched_off_and_equal_targets():
    points = np.array([[0.2, 0.5, 0.5], [0.8, 0.5, 0.5], [0.8, 0.5, 0.5], [5.0, 5.0, 5.0], [0.5, 0.5, 0.5]])
    heights = np.array([0.3, 0.0, -1.0, -np.inf, -9.0])
    faces = faces_of(cells_3d(og.BrenierPotential(points, heights), CUBE, explode=0.3))
    assert len(faces.polygons) == 12
    assert volume(faces) == pytest.approx(1.0, rel=1e-9)


def test_a_polytope_and_given_axes(u):
    corners = np.vstack([np.zeros(3), np.eye(3)])
    figure = plt.figure()
    ax = figure.add_subplot(projection="3d")
    before = plt.get_fignums()
    assert cells_3d(u, og.UniformPolytope(corners), ax=ax, up="y", values=np.arange(40)) is ax
    assert plt.get_fignums() == before and len(figure.axes) == 1
    assert volume(faces_of(ax)) == pytest.approx(1 / 6, rel=1e-9)
    figure.canvas.draw()


def test_everything_fits_into_the_figure(u):
    for options in ({}, {"explode": 1.0}, {"cut": ((0, 0, 1), 0.2)}, {"up": "x"}):
        ax = cells_3d(u, CUBE, **options)
        ax.figure.canvas.draw()
        points = np.concatenate(faces_of(ax).polygons)
        seen = np.column_stack([points, np.ones(len(points))]) @ ax.get_proj().T
        pixels = ax.transData.transform(seen[:, :2] / seen[:, 3:])
        width, height = ax.figure.canvas.get_width_height()
        assert (pixels > 0).all() and (pixels < [width, height]).all()
        assert np.ptp(pixels, axis=0).max() > 0.85 * width


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"source": None}, ValueError, "needs its source"),
        ({"source": "cube"}, TypeError, "source must be a measure"),
        ({"source": og.UniformBox(dim=2)}, ValueError, "needs dimension 3"),
        ({"source": og.UniformBall(3)}, ValueError, "no polyhedral cells"),
        ({"explode": -1.0}, ValueError, "explode must be a finite number >= 0"),
        ({"cut": 3}, TypeError, r"cut must be \(normal, offset\)"),
        ({"cut": ((0, 0, 0), 1.0)}, ValueError, "non-zero normal"),
        ({"cut": ((1, 0), 1.0)}, ValueError, "shape \\(3,\\)"),
        ({"cut": ((1, 0, 0), -1.0)}, ValueError, "cut leaves nothing"),
        ({"cut": ((1, 0, 0), -1.0), "whole_cells": True}, ValueError, "keeps no cell"),
        ({"values": np.ones(3)}, ValueError, r"values must have shape \(40,\)"),
        ({"up": "w"}, ValueError, "up must be"),
        ({"ax": "here"}, TypeError, "3-D matplotlib Axes, got str"),
    ],
)
def test_errors_of_cells(u, arguments, error, words):
    before = plt.get_fignums()
    with pytest.raises(error, match=words):
        cells_3d(u, **{"source": CUBE, **arguments})
    assert plt.get_fignums() == before


def test_plane_axes_and_plane_potentials_are_refused(u, plane):
    with pytest.raises(TypeError, match="3-D matplotlib Axes, got Axes: make them by"):
        cells_3d(u, CUBE, ax=plt.subplots()[1])
    with pytest.raises(ValueError, match="power_diagram is for the plane"):
        cells_3d(plane)
    with pytest.raises(TypeError, match="takes a Result or a BrenierPotential, got int"):
        cells_3d(3)


# --- surfaces ---

TETRAHEDRON = np.array([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
OUTWARD = np.array([[0, 2, 1], [0, 1, 3], [1, 2, 3], [2, 0, 3]])


@pytest.fixture
def solved():
    return og.solve(CUBE, TETRAHEDRON)


def test_triangles_and_points(solved):
    faces = faces_of(surface_map(solved, OUTWARD))
    np.testing.assert_allclose(faces.polygons, TETRAHEDRON[OUTWARD])
    assert faces.normals is None and faces.facing().all()
    ax = surface_map(solved)
    ax.figure.canvas.draw()
    (dots,) = ax.collections
    assert isinstance(ax, Axes3D)
    np.testing.assert_allclose(np.sort(np.asarray(dots.get_facecolor())[:, :3], axis=0),
                               np.sort(origin_colours(solved.centroids.numpy()), axis=0))  # fmt: skip


def test_light_does_not_depend_on_the_orientation_of_all_triangles(solved):
    one, other = (faces_of(surface_map(solved, faces)).rgb for faces in (OUTWARD, OUTWARD[:, ::-1]))
    np.testing.assert_allclose(one, other)


def test_light_falls_from_above_whatever_is_up():
    for k, up in enumerate("xyz"):
        normals = np.roll([[0.0, 0.0, 1.0], [0.0, 0.0, -1.0]], k - 2, axis=1)
        above, below = lit(np.ones((2, 3)), normals, up)
        assert normals[0, k] == 1.0 and above[0] > 0.8 > 0.6 > below[0]


def test_duplicates_keep_their_triangles():
    given = np.concatenate([TETRAHEDRON, TETRAHEDRON[1:2]])
    result = og.solve(CUBE, given)
    again = OUTWARD.copy()
    again[1, 1] = 4
    np.testing.assert_allclose(faces_of(surface_map(result, again)).polygons, TETRAHEDRON[OUTWARD])


def test_displacement_has_a_scale(solved):
    ax = surface_map(solved, OUTWARD, color="displacement")
    bar = ax.figure.axes[1]
    expected = np.linalg.norm(TETRAHEDRON - solved.centroids.numpy(), axis=1)
    np.testing.assert_allclose(bar.get_ylim(), [expected.min(), expected.max()])
    assert bar.get_ylabel() == "displacement"


def test_missing_centroids_are_sampled(solved):
    sampled = replace(solved, centroids=None)

    def colours(result):
        ax = surface_map(result)
        ax.figure.canvas.draw()
        return np.asarray(ax.collections[0].get_facecolor())[:, :3]

    exact, estimated = colours(solved), colours(sampled)
    np.testing.assert_allclose(exact, estimated, atol=0.25)
    np.testing.assert_allclose(_centroids(sampled), solved.centroids, atol=0.1)
    far = og.BrenierPotential(TETRAHEDRON, [0.0, 0.0, 0.0, -9.0])
    grey = colours(replace(sampled, potential=far))
    assert (np.abs(grey - np.array([154, 154, 164]) / 255).max(1) < 1e-6).sum() == 2


def test_colours_of_places():
    places = np.array([[0.0, 0.0, 0.0], [0.0, 0.0, 1.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [np.nan] * 3])
    rgb = origin_colours(places)
    assert len(np.unique(rgb.round(3), axis=0)) == 5 and (rgb >= 0).all() and (rgb <= 1).all()
    assert rgb[1].sum() > rgb[0].sum() + 0.3
    np.testing.assert_allclose(origin_colours(np.roll(places, -1, axis=1), "y"), rgb, atol=1e-12)
    assert np.isfinite(origin_colours(np.full((2, 3), np.nan))).all()


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"faces": np.zeros((2, 4), int)}, ValueError, r"shape \(f, 3\), got \(2, 4\)"),
        ({"faces": np.zeros((2, 3))}, TypeError, "whole numbers"),
        ({"faces": [[0, 1, 4]]}, ValueError, r"0\.\.3, got 0 to 4"),
        ({"color": "red"}, ValueError, "color must be 'origin' or 'displacement'"),
        ({"up": 2}, ValueError, "up must be"),
        ({"ax": 3}, TypeError, "3-D matplotlib Axes"),
    ],
)
def test_errors_of_surfaces(solved, arguments, error, words):
    before = plt.get_fignums()
    with pytest.raises(error, match=words):
        surface_map(solved, **arguments)
    assert plt.get_fignums() == before


def test_surfaces_are_in_space(plane):
    with pytest.raises(ValueError, match="surface_map needs dimension 3, got 2"):
        surface_map(plane)
    with pytest.raises(TypeError, match="takes what otgan.solve returned"):
        surface_map(TETRAHEDRON)


def test_a_real_surface():
    path = DATA / "pointclouds" / "spot.npz"
    if not path.exists():
        pytest.skip(f"no data at {path}: set OTGAN_DATA")
    with np.load(path, allow_pickle=False) as file:
        vertices, triangles = file["vertices"], file["faces"]
    result = og.solve(og.UniformBox([-1.0] * 3, [1.0] * 3), vertices.astype(np.float64))
    ax = surface_map(result, triangles, up="y")
    ax.figure.canvas.draw()
    assert len(faces_of(ax).polygons) == 5856
    assert isinstance(result.centroids, torch.Tensor)
    assert len(np.unique(faces_of(ax).rgb.round(2), axis=0)) > 500
