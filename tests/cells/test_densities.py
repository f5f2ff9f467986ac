"""Exact integrals of picture, Gaussian and disc densities over clipped power cells."""

from __future__ import annotations

import math
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.special import ndtr

from otgan.cells._density_disc import DiscDensity
from otgan.cells._density_gaussian import GaussianDensity
from otgan.cells._density_image import ImageDensity
from otgan.cells._planar_soup import PolygonSoup
from otgan.cells.planar import PlanarCells

DATA = Path(os.environ.get("OTGAN_DATA", Path(__file__).parents[3] / "shared" / "data"))
RNG = np.random.default_rng(7)
DENSITIES = {
    "image": ImageDensity(RNG.integers(0, 256, (13, 9)), low=(-1.0, 0.5), high=(2.0, 2.5)),
    "sparse image": ImageDensity(RNG.random((16, 16)) * (RNG.random((16, 16)) < 0.4)),
    "gaussian": GaussianDensity(),
    "disc": DiscDensity((0.7, -0.4), 1.3),
}
MEANS = {"gaussian": (0.0, 0.0), "disc": (0.7, -0.4)}
seeds = st.integers(0, 2**32 - 1)


@pytest.fixture(params=DENSITIES, ids=str)
def named(request):
    return request.param, DENSITIES[request.param]


def as_soup(polygons, labels=None):
    sizes = [len(p) for p in polygons]
    vertices = np.concatenate([np.zeros((0, 2)), *[np.asarray(p, dtype=float).reshape(-1, 2) for p in polygons]])
    labels = np.full(sum(sizes), -1) if labels is None else np.concatenate(labels)
    return PolygonSoup(np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64), vertices, labels.astype(np.int64))


def clip(polygon, labels, normal, offset, label):
    """The part ``<normal, x> + offset >= 0`` of a convex polygon; edge k starts at vertex k and has labels[k]."""
    side = polygon @ normal + offset
    points, marks = [], []
    for k in range(len(polygon)):
        m = (k + 1) % len(polygon)
        if side[k] >= 0:
            points.append(polygon[k])
            marks.append(labels[k])
        if (side[k] >= 0) != (side[m] >= 0):
            points.append(polygon[k] + (polygon[m] - polygon[k]) * (side[k] / (side[k] - side[m])))
            marks.append(label if side[k] >= 0 else labels[k])
    return np.array(points).reshape(-1, 2), np.array(marks, dtype=int)


def power_cells(points, heights, domain):
    """Power cells by cutting the domain with every bisector."""
    cells, labels = [], []
    for i, y in enumerate(points):
        cell, marks = np.asarray(domain, dtype=float), -1 - np.arange(len(domain))
        for j in range(len(points)):
            if j != i and len(cell):
                cell, marks = clip(cell, marks, y - points[j], heights[i] - heights[j], j)
        cells.append(cell)
        labels.append(marks)
    return as_soup(cells, labels)


def random_partition(density, n, rng):
    low, high = density.domain.min(axis=0), density.domain.max(axis=0)
    points = rng.uniform(low, high, (n, 2))
    if isinstance(density, GaussianDensity):
        points = np.clip(points / rng.choice([1.0, 3.0, 8.0]), low, high)
    heights = -0.5 * np.sum(points**2, axis=1)
    heights += rng.normal(size=n) * 0.02 * np.min(high - low) ** 2 / n  # some cells far from their targets, some empty
    return points, heights, power_cells(points, heights, density.domain)


def random_polygon(rng, center, size):
    angles = np.sort(rng.uniform(0.0, 2.0 * np.pi, rng.integers(3, 9)))
    stretch = size * np.diag(rng.uniform(0.2, 1.0, 2))
    turn = rng.uniform(0.0, np.pi)
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    return center + np.column_stack([np.cos(angles), np.sin(angles)]) @ stretch @ rotation.T


def one(density, polygon):
    masses, first, edge = density.integrate(as_soup([polygon]))
    return masses[0], first[0], edge


def rectangle(x0, x1, y0, y1):
    return np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]], dtype=float)


def sections(polygon, y):
    """Left and right end of a convex polygon on the line at height y."""
    a, b = polygon, np.roll(polygon, -1, axis=0)
    crosses = (a[:, 1] <= y) != (b[:, 1] <= y)
    x = a[crosses, 0] + (y - a[crosses, 1]) * (b[crosses, 0] - a[crosses, 0]) / (b[crosses, 1] - a[crosses, 1])
    return (x.min(), x.max()) if len(x) else (0.0, 0.0)


def by_sections(polygon, section, extra=()):
    """Integral over y of section(left, right, y), split where the integrand has a kink."""
    low, high = polygon[:, 1].min(), polygon[:, 1].max()
    knots = np.unique(np.clip(np.concatenate([polygon[:, 1], np.asarray(extra, dtype=float)]), low, high))
    pieces = zip(knots[:-1], knots[1:], strict=True)
    return math.fsum(
        quad(lambda y: section(*sections(polygon, y), y), a, b, epsabs=1e-14, epsrel=1e-12, limit=200)[0]
        for a, b in pieces
    )


def pixelwise(density, polygon):
    """Mass, first moment and edge integrals from one clipped polygon, and one clipped segment, per pixel."""
    rows, cols = density.values.shape
    (px, py), (x0, y1) = density.pixel, (density.low[0], density.high[1])
    total = density.values.sum() * px * py
    mass, first, edge = 0.0, np.zeros(2), np.zeros(len(polygon))
    nothing = np.zeros(len(polygon), dtype=int)
    for r in range(rows):
        for c in range(cols):
            sides = [
                (np.array([1.0, 0.0]), -(x0 + c * px)),
                (np.array([-1.0, 0.0]), x0 + (c + 1) * px),
                (np.array([0.0, 1.0]), -(y1 - (r + 1) * py)),
                (np.array([0.0, -1.0]), y1 - r * py),
            ]
            piece, labels = polygon, nothing
            for normal, offset in sides:
                if len(piece):
                    piece, labels = clip(piece, labels, normal, offset, 0)
            if len(piece) >= 3:
                a, b = piece - piece[0], np.roll(piece, -1, axis=0) - piece[0]
                twice = a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]
                mass += density.values[r, c] * twice.sum() / 2
                first += density.values[r, c] * (twice @ (a + b) / 6 + piece[0] * twice.sum() / 2)
            for k in range(len(polygon)):
                a, b = polygon[k], polygon[(k + 1) % len(polygon)]
                t0, t1 = 0.0, 1.0
                for normal, offset in sides:
                    start, end = a @ normal + offset, b @ normal + offset
                    if start < 0 and end < 0:
                        t0, t1 = 1.0, 0.0
                    elif start < 0:
                        t0 = max(t0, start / (start - end))
                    elif end < 0:
                        t1 = min(t1, start / (start - end))
                edge[k] += density.values[r, c] * max(t1 - t0, 0.0) * np.linalg.norm(b - a)
    return mass / total, first / total, edge / total


# ---- every density -------------------------------------------------------------------------------------------------


@settings(max_examples=20, deadline=None)
@given(seed=seeds, name=st.sampled_from(sorted(DENSITIES)), n=st.integers(1, 30))
def test_partition_has_mass_one_and_the_mean(seed, name, n):
    density = DENSITIES[name]
    _, _, soup = random_partition(density, n, np.random.default_rng(seed))
    masses, first, edge = density.integrate(soup)
    assert masses.shape == (n,) and first.shape == (n, 2) and edge.shape == (len(soup.vertices),)
    assert masses.min() >= 0.0 and edge.min() >= 0.0
    assert abs(math.fsum(masses) - 1.0) <= 1e-13
    mean = MEANS.get(name)
    if mean is None:
        mean = one(density, density.domain)[1]
    np.testing.assert_allclose(first.sum(axis=0), mean, atol=1e-13)


def test_edges_are_the_derivatives_of_the_masses(named):
    _, density = named
    rng = np.random.default_rng(3)
    points, heights, soup = random_partition(density, 12, rng)
    if isinstance(density, GaussianDensity):  # spread over the mass
        points = rng.normal(size=(12, 2))
        heights = -0.5 * np.sum(points**2, axis=1)
        soup = power_cells(points, heights, density.domain)
    _, _, edge = density.integrate(soup)
    slope = np.zeros((12, 12))
    owner, inner = soup.owner, soup.neighbour >= 0
    i, j = owner[inner], soup.neighbour[inner]
    np.add.at(slope, (i, j), -edge[inner] / np.linalg.norm(points[i] - points[j], axis=1))
    step = 1e-6
    for j in range(12):
        shift = step * (np.arange(12) == j)
        above = density.integrate(power_cells(points, heights + shift, density.domain))[0]
        below = density.integrate(power_cells(points, heights - shift, density.domain))[0]
        others = np.arange(12) != j
        difference = (above - below) / (2 * step)
        np.testing.assert_allclose(difference[others], slope[others, j], rtol=1e-6, atol=1e-6 * np.abs(slope).max())
        assert difference[j] == pytest.approx(-slope[others, j].sum(), rel=1e-6)
    assert np.count_nonzero(np.abs(slope) > 1e-3 * np.abs(slope).max()) > 30


def test_both_sides_of_an_edge_agree(named):
    _, density = named
    points, _, soup = random_partition(density, 60, np.random.default_rng(5))
    _, _, edge = density.integrate(soup)
    value = {(i, j): e for i, j, e in zip(soup.owner, soup.neighbour, edge, strict=True) if j >= 0}
    both = np.array([[e, value[j, i]] for (i, j), e in value.items() if (j, i) in value])
    assert len(both) > 100
    # relative to each edge for the Gaussian, whose edges span many powers of ten
    atol = 0.0 if isinstance(density, GaussianDensity) else 1e-11 * edge.max()
    strong = both.max(axis=1) > (1e-30 if isinstance(density, GaussianDensity) else 0.0)
    np.testing.assert_allclose(both[strong, 0], both[strong, 1], rtol=1e-10, atol=atol)


@settings(max_examples=60, deadline=None)
@given(seed=seeds, name=st.sampled_from(sorted(DENSITIES)))
def test_cutting_a_polygon_in_two_adds_up(seed, name):
    density, rng = DENSITIES[name], np.random.default_rng(seed)
    low, high = density.domain.min(axis=0), density.domain.max(axis=0)
    if name == "gaussian":
        low, high = low / 3, high / 3
    polygon = random_polygon(rng, rng.uniform(low, high), rng.uniform(0.01, 1.0) * (high - low).max())
    marks = np.zeros(len(polygon), dtype=int)
    angle = rng.uniform(0, 2 * np.pi)
    normal = np.array([np.cos(angle), np.sin(angle)])
    offset = -normal @ (rng.dirichlet(np.ones(len(polygon))) @ polygon)
    left, at = clip(polygon, marks, normal, offset, 1)
    right, other = clip(polygon, marks, -normal, -offset, 1)
    masses, first, edge = density.integrate(as_soup([polygon, left, right], [marks, at, other]))
    assert masses[0] == pytest.approx(masses[1] + masses[2], abs=2e-15)
    np.testing.assert_allclose(first[0], first[1] + first[2], atol=2e-14)
    n = len(polygon)
    cut = np.concatenate([at, other]) == 1
    assert edge[:n].sum() == pytest.approx(edge[n:][~cut].sum(), abs=1e-13 * (1 + edge.sum()))


def test_monte_carlo(named):
    name, density = named
    rng = np.random.default_rng(11)
    m = 400_000
    if name == "gaussian":
        sample = rng.normal(size=(m, 2))
    elif name == "disc":
        radius, angle = np.sqrt(rng.random(m)), rng.uniform(0, 2 * np.pi, m)
        sample = density.center + density.radius * radius[:, None] * np.column_stack([np.cos(angle), np.sin(angle)])
    else:
        rows, cols = density.values.shape
        pixel = rng.choice(rows * cols, m, p=(density.values / density.values.sum()).ravel())
        sample = np.column_stack([pixel % cols, rows - 1 - pixel // cols]) + rng.random((m, 2))
        sample = density.low + density.pixel * sample
    points, heights, soup = random_partition(density, 9, rng)
    masses, first, _ = density.integrate(soup)
    best = np.argmax(sample @ points.T + heights, axis=1)
    counts = np.bincount(best, minlength=9) / m
    np.testing.assert_array_less(np.abs(counts - masses), 5 * np.sqrt(masses * (1 - masses) / m) + 1e-5)
    reach = np.abs(sample).max()
    for d in range(2):
        sums = np.bincount(best, weights=sample[:, d], minlength=9) / m
        np.testing.assert_array_less(np.abs(sums - first[:, d]), 5 * reach * np.sqrt(masses / m) + 1e-5)
    assert np.mean(np.sum(sample**2, axis=1)) == pytest.approx(density.second_moment, rel=1e-2)


def test_empty_and_degenerate_cells_have_mass_zero(named):
    _, density = named
    center = density.domain.mean(axis=0)
    square = center + 0.1 * rectangle(-1, 1, -1, 1)
    cells = [[], square, [], [center, center + 0.1, center], np.repeat(center[None], 4, axis=0), square[:2]]
    masses, first, edge = density.integrate(as_soup(cells))
    assert np.all(masses[[0, 2, 4, 5]] == 0.0) and abs(masses[3]) < 1e-18
    assert np.all(first[[0, 2, 4, 5]] == 0.0)
    assert np.all(np.isfinite(edge)) and masses[1] > 0.0
    none = density.integrate(as_soup([]))
    assert [a.shape for a in none] == [(0,), (0, 2), (0,)]


def test_cells_of_the_library_agree_with_brute_force(named):
    _, density = named
    points, heights, soup = random_partition(density, 25, np.random.default_rng(9))
    masses, first, _ = density.integrate(soup)
    got = PlanarCells(points, density.domain, density).moments(heights)
    np.testing.assert_allclose(got.masses, masses, rtol=1e-9, atol=1e-14)
    np.testing.assert_allclose(got.first, first, rtol=1e-9, atol=1e-13)
    hessian = got.hessian.toarray()
    np.testing.assert_allclose(hessian, hessian.T, rtol=1e-9, atol=1e-13)
    np.testing.assert_allclose(hessian.sum(axis=1), 0.0, atol=1e-12)


def test_a_repeated_vertex_changes_nothing(named):
    _, density = named
    rng = np.random.default_rng(2)
    polygon = random_polygon(rng, density.domain.mean(axis=0), 0.4)
    twice = np.repeat(polygon, 2, axis=0)
    mass, first, edge = one(density, polygon)
    again, first_again, edge_again = one(density, twice)
    assert again == pytest.approx(mass, rel=1e-14)
    np.testing.assert_allclose(first_again, first, rtol=1e-13)
    assert np.all(edge_again[::2] == 0.0)
    np.testing.assert_allclose(edge_again[1::2], edge, rtol=1e-13)


def test_domain_is_counter_clockwise_and_holds_everything(named):
    _, density = named
    a, b = density.domain, np.roll(density.domain, -1, axis=0)
    assert np.sum(a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]) > 0
    assert one(density, density.domain)[0] == pytest.approx(1.0, abs=1e-15)


# ---- pictures ------------------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(seed=seeds, size=st.floats(1e-3, 1.5))
def test_image_against_pixel_by_pixel_clipping(seed, size):
    rng = np.random.default_rng(seed)
    density = ImageDensity(rng.random((rng.integers(1, 7), rng.integers(1, 7))) ** 4, low=(-1.0, 2.0), high=(1.5, 3.0))
    polygon = random_polygon(rng, rng.uniform(density.low, density.high), size)  # often partly outside the box
    mass, first, edge = one(density, polygon)
    want = pixelwise(density, polygon)
    assert mass == pytest.approx(want[0], rel=1e-11, abs=1e-16)
    np.testing.assert_allclose(first, want[1], rtol=1e-11, atol=1e-14)
    np.testing.assert_allclose(edge, want[2], rtol=1e-9, atol=1e-12)


def test_row_zero_is_the_top_of_the_picture():
    density = ImageDensity([[1.0, 2.0], [3.0, 4.0]], low=(0, 0), high=(2, 2))
    quarters = [rectangle(0, 1, 1, 2), rectangle(1, 2, 1, 2), rectangle(0, 1, 0, 1), rectangle(1, 2, 0, 1)]
    masses, first, _ = density.integrate(as_soup(quarters))
    np.testing.assert_allclose(masses, [0.1, 0.2, 0.3, 0.4], rtol=1e-15)
    np.testing.assert_allclose(first / masses[:, None], [[0.5, 1.5], [1.5, 1.5], [0.5, 0.5], [1.5, 0.5]], rtol=1e-15)


def test_edge_along_a_pixel_boundary_has_the_mean_of_both_sides():
    density = ImageDensity([[1.0, 2.0], [3.0, 4.0]], low=(0, 0), high=(2, 2))
    _, _, edge = one(density, rectangle(0, 1, 0, 2))
    # bottom (inside only), x = 1 (mean of both sides), top, left
    np.testing.assert_allclose(edge, [0.3, (0.35 + 0.15), 0.1, 0.4], rtol=1e-14)
    _, _, edge = one(density, rectangle(0, 2, 1, 2))
    np.testing.assert_allclose(edge, [0.2 + 0.3, 0.2, 0.3, 0.1], rtol=1e-14)
    # from either side, and whatever the last digits of the vertices
    for shift in (-1e-12, 1e-12):
        assert one(density, rectangle(1 + shift, 2, 0, 2))[2][3] == pytest.approx(0.5, rel=1e-11)
        assert one(density, rectangle(0, 2, 0, 1 + shift))[2][2] == pytest.approx(0.5, rel=1e-11)
    # just beside it the density of that side
    assert one(density, rectangle(0, 1 - 1e-6, 0, 2))[2][1] == pytest.approx(0.4, rel=1e-12)


def test_the_mean_of_both_sides_is_the_central_difference():
    density = ImageDensity([[1.0, 2.0], [3.0, 4.0]], low=(0, 0), high=(2, 2))
    points = np.array([[0.5, 1.0], [1.75, 1.0]])  # heights chosen so that the cells meet at x = 1 exactly
    heights, step = np.array([1.25, 0.0]), 1e-5
    soup = power_cells(points, heights, density.domain)
    _, _, edge = density.integrate(soup)
    above = density.integrate(power_cells(points, heights + [step, 0.0], density.domain))[0]
    below = density.integrate(power_cells(points, heights - [step, 0.0], density.domain))[0]
    np.testing.assert_allclose((above - below) / (2 * step), [edge[1] / 1.25, -edge[1] / 1.25], rtol=1e-9)
    assert edge[1] == pytest.approx(0.5, rel=1e-14)


def test_flat_image_is_the_uniform_density():
    density = ImageDensity(np.full((5, 7), 3), low=(-1, -2), high=(3, 2))
    polygon = random_polygon(np.random.default_rng(0), np.array([1.0, 0.0]), 1.0)
    mass, first, edge = one(density, polygon)
    a, b = polygon, np.roll(polygon, -1, axis=0)
    twice = a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]
    assert mass == pytest.approx(twice.sum() / 32, rel=1e-13)
    np.testing.assert_allclose(first, twice @ (a + b) / 96, rtol=1e-12)
    np.testing.assert_allclose(edge, np.linalg.norm(b - a, axis=1) / 16, rtol=1e-13)
    assert density.second_moment == pytest.approx((28 / 3 + 16 / 3) / 4, rel=1e-14)
    np.testing.assert_allclose(one(density, density.domain)[2], 0.25, rtol=1e-14)


def test_black_pixels_have_mass_exactly_zero():
    values = np.zeros((8, 8))
    values[:, :2], values[:, 6:] = 0.3, 1e6 / 3.0
    density = ImageDensity(values, high=(8, 8))
    rng = np.random.default_rng(4)
    cells = [random_polygon(rng, rng.uniform([3, 0.5], [5, 7.5]), 0.4) for _ in range(50)]
    masses, first, edge = density.integrate(as_soup(cells))
    assert np.all(masses == 0.0) and np.all(first == 0.0) and np.all(edge == 0.0)


def test_dim_pixels_beside_bright_ones_keep_their_digits():
    rng = np.random.default_rng(8)
    values = rng.random((6, 60))
    values[:, 30:] *= 1e-14
    density = ImageDensity(values, high=(60, 6))
    dim = ImageDensity(values[:, 30:], low=(30, 0), high=(60, 6))
    cells = [random_polygon(rng, rng.uniform([32, 2], [58, 4]), 1.5) for _ in range(20)]
    share = values[:, 30:].sum() / values.sum()
    np.testing.assert_allclose(
        density.integrate(as_soup(cells))[0], share * dim.integrate(as_soup(cells))[0], rtol=1e-12
    )


def test_cells_much_smaller_than_a_pixel_keep_their_digits():
    density = ImageDensity([[1.0, 3.0], [2.0, 5.0]], low=(-1, -1), high=(1, 1))
    for size in (1e-2, 1e-5, 1e-8):
        masses, first, _ = density.integrate(as_soup([rectangle(-size, size, -size, size)]))
        assert masses[0] == pytest.approx(size**2, rel=1e-14)
        np.testing.assert_allclose(first[0] / masses[0], [5 / 22 * size, -3 / 22 * size], rtol=1e-10, atol=4e-16)


def test_prefix_sums_do_not_depend_on_the_scale_of_the_values():
    rng = np.random.default_rng(1)
    values = rng.random((5, 5))
    polygon = random_polygon(rng, np.array([0.5, 0.5]), 0.4)
    want = one(ImageDensity(values), polygon)
    for factor in (2.0**-900, 2.0**900):
        for a, b in zip(one(ImageDensity(values * factor), polygon), want, strict=True):
            np.testing.assert_array_equal(a, b)


def test_image_keeps_its_own_copy():
    values = np.ones((2, 2))
    density = ImageDensity(values)
    values[:] = 0.0
    assert one(density, density.domain)[0] == 1.0


@pytest.mark.parametrize(
    ("values", "error", "words"),
    [
        ([[1.0, np.nan]], ValueError, "finite"),
        ([[1.0, np.inf]], ValueError, "finite"),
        ([[1.0, -0.5]], ValueError, ">= 0"),
        ([[0.0, 0.0]], ValueError, "all 0"),
        ([1.0, 2.0], ValueError, "shape"),
        (np.ones((3, 3, 3)), ValueError, "grey"),
        (np.ones((0, 3)), ValueError, "shape"),
        ([["a"]], TypeError, "real"),
        ([[1j]], TypeError, "real"),
    ],
)
def test_bad_images_are_refused(values, error, words):
    with pytest.raises(error, match=words):
        ImageDensity(values)


@pytest.mark.parametrize(
    ("low", "high"), [((0, 0), (0, 1)), ((0, 1), (1, 0)), ((0, 0, 0), (1, 1, 1)), ((0, np.nan), (1, 1)), (0, 1)]
)
def test_bad_boxes_are_refused(low, high):
    with pytest.raises(ValueError, match="box|points"):
        ImageDensity([[1.0]], low=low, high=high)


@pytest.mark.skipif(
    not (DATA / "shapes2d" / "shapes2d.npz").exists(),
    reason="shapes2d.npz not found: set OTGAN_DATA to the data folder",
)
@pytest.mark.parametrize("name", ["A", "moon_a", "pot_duck", "Worm_a"])
def test_real_pictures(name):
    with np.load(DATA / "shapes2d" / "shapes2d.npz", allow_pickle=False) as shapes:
        values = shapes[name]
    density = ImageDensity(values)
    rows, cols = values.shape
    _, _, soup = random_partition(density, 50, np.random.default_rng(6))
    masses, first, _ = density.integrate(soup)
    assert abs(math.fsum(masses) - 1.0) <= 1e-14
    share = values / values.sum(dtype=float)
    x, y = (np.arange(cols) + 0.5) / cols, 1.0 - (np.arange(rows) + 0.5) / rows
    np.testing.assert_allclose(first.sum(axis=0), [share.sum(axis=0) @ x, share.sum(axis=1) @ y], rtol=1e-12)
    # blocks of whole pixels: the sums of their values
    k = 8
    blocks = [rectangle(c / cols, (c + k) / cols, 1 - (r + k) / rows, 1 - r / rows)
              for r in range(0, rows - k, rows // 9) for c in range(0, cols - k, cols // 9)]  # fmt: skip
    want = [share[r : r + k, c : c + k].sum() for r in range(0, rows - k, rows // 9)
            for c in range(0, cols - k, cols // 9)]  # fmt: skip
    np.testing.assert_allclose(density.integrate(as_soup(blocks))[0], want, rtol=1e-10, atol=1e-16)


# ---- Gaussian ------------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(seed=seeds, distance=st.floats(0.0, 7.5), size=st.floats(1e-2, 4.0))
def test_gaussian_against_quadrature_of_sections(seed, distance, size):
    rng = np.random.default_rng(seed)
    angle = rng.uniform(0, 2 * np.pi)
    polygon = random_polygon(rng, distance * np.array([np.cos(angle), np.sin(angle)]), size)
    mass, first, edge = one(GaussianDensity(), polygon)

    def phi(t):
        return math.exp(-0.5 * t * t) / math.sqrt(2 * math.pi)

    def strip(left, right):
        return ndtr(right) - ndtr(left) if left < 0 else ndtr(-left) - ndtr(-right)

    assert mass == pytest.approx(by_sections(polygon, lambda a, b, y: strip(a, b) * phi(y)), rel=1e-9, abs=1e-14)
    x = by_sections(polygon, lambda a, b, y: (phi(a) - phi(b)) * phi(y))
    y = by_sections(polygon, lambda a, b, y: strip(a, b) * phi(y) * y)
    np.testing.assert_allclose(first, [x, y], rtol=1e-8, atol=1e-13)
    a, b = polygon, np.roll(polygon, -1, axis=0)
    length = np.linalg.norm(b - a, axis=1)
    tangent = (b - a) / length[:, None]
    offset = a[:, 0] * tangent[:, 1] - a[:, 1] * tangent[:, 0]
    start = np.einsum("ij,ij->i", a, tangent)
    density = np.exp(-0.5 * offset**2) / np.sqrt(2 * np.pi)
    np.testing.assert_allclose(edge, density * (ndtr(start + length) - ndtr(start)), rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize("turn", np.linspace(0.0, 2 * np.pi, 12))
@pytest.mark.parametrize(("x0", "x1", "y0", "y1"), [
    (-1.0, 2.0, -0.5, 0.7), (0.0, 9.0, 0.0, 9.0), (3.0, 3.5, -0.2, 0.1), (5.0, 9.0, -9.0, 9.0), (7.0, 7.1, 3.0, 3.2),
    (1e-3, 2e-3, -1e-3, 1e-3), (0.9, 1.1, -0.1, 0.1), (-9.0, 9.0, -9.0, 9.0), (8.0, 9.0, -9.0, 9.0),
])  # fmt: skip
def test_gaussian_rectangles_in_any_direction(x0, x1, y0, y1, turn):
    """Closed form, to 1e-11 of the mass itself even where it is 1e-16."""
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    mass, first, edge = one(GaussianDensity(), rectangle(x0, x1, y0, y1) @ rotation.T)

    def strip(a, b):  # without cancellation for a short or far interval
        return quad(lambda t: math.exp(-0.5 * t * t) / math.sqrt(2 * math.pi), a, b, epsabs=0, epsrel=1e-13)[0]

    def phi(t):
        return math.exp(-0.5 * t * t) / math.sqrt(2 * math.pi)

    sx, sy = strip(x0, x1), strip(y0, y1)
    assert mass == pytest.approx(sx * sy, rel=1e-11, abs=0.0)
    want = rotation @ [(phi(x0) - phi(x1)) * sy, (phi(y0) - phi(y1)) * sx]
    np.testing.assert_allclose(first, want, rtol=1e-10, atol=1e-9 * mass)
    np.testing.assert_allclose(edge, [phi(y0) * sx, phi(x1) * sy, phi(y1) * sx, phi(x0) * sy], rtol=1e-12)


@pytest.mark.parametrize("sectors", [3, 4, 7, 12])
def test_gaussian_sectors(sectors):
    angles = 2 * np.pi * np.arange(sectors + 1) / sectors + 0.1
    ring = 9.0 / np.cos(np.pi / sectors) * np.column_stack([np.cos(angles), np.sin(angles)])
    cells = [np.stack([np.zeros(2), ring[k], ring[k + 1]]) for k in range(sectors)]
    masses, first, edge = GaussianDensity().integrate(as_soup(cells))
    np.testing.assert_allclose(masses, 1 / sectors, rtol=0, atol=5e-16)
    np.testing.assert_allclose(np.linalg.norm(first, axis=1), np.sin(np.pi / sectors) / np.sqrt(2 * np.pi) * 2 / 2,
                               rtol=1e-14)  # fmt: skip
    np.testing.assert_allclose(edge[::3], 0.5 / np.sqrt(2 * np.pi), rtol=1e-14)


def test_gaussian_near_and_far_formulas_meet():
    """The two formulas change over at distance 1: masses on both sides of it are those of the closed form."""
    for x0 in (1 - 1e-9, 1.0, 1 + 1e-9):
        for size in (1e-3, 0.1, 5.0):
            mass, _, _ = one(GaussianDensity(), rectangle(x0, x0 + size, -size, size))
            strip = quad(lambda t: math.exp(-0.5 * t * t), x0, x0 + size, epsabs=0, epsrel=1e-13)[0]
            across = quad(lambda t: math.exp(-0.5 * t * t), -size, size, epsabs=0, epsrel=1e-13)[0]
            assert mass == pytest.approx(strip * across / (2 * np.pi), rel=1e-11)


# ---- disc ----------------------------------------------------------------------------------------------------------


@settings(max_examples=80, deadline=None)
@given(seed=seeds, size=st.floats(1e-2, 3.0))
def test_disc_against_quadrature_of_sections(seed, size):
    rng = np.random.default_rng(seed)
    center, radius = rng.normal(size=2), rng.uniform(0.3, 3.0)
    polygon = random_polygon(rng, rng.uniform(-1.2, 1.2, 2), size)  # in units of the disc
    a, b = polygon, np.roll(polygon, -1, axis=0)
    # heights at which an edge crosses the circle
    d = b - a
    p, q, s = np.sum(d * d, axis=1), np.sum(a * d, axis=1), np.sum(a * a, axis=1) - 1
    root = np.sqrt(np.maximum(q * q - p * s, 0.0))
    knots = np.concatenate([a[:, 1] + d[:, 1] * (-q + root) / p, a[:, 1] + d[:, 1] * (-q - root) / p, [-1.0, 1.0]])

    def inside(left, right, y):
        half = math.sqrt(max(1.0 - y * y, 0.0))
        return max(left, -half), max(min(right, half), max(left, -half))

    def section(power):
        def value(left, right, y):
            lo, hi = inside(left, right, y)
            return (hi - lo, 0.5 * (hi - lo) * (hi + lo), y * (hi - lo))[power]

        return value

    want = np.array([by_sections(polygon, section(k), knots) for k in range(3)]) / np.pi
    mass, first, edge = one(DiscDensity(center, radius), center + radius * polygon)
    assert mass == pytest.approx(want[0], rel=1e-8, abs=1e-9)
    np.testing.assert_allclose(first, center * want[0] + radius * want[1:], atol=1e-8 * (1 + np.abs(center).max()))
    lo, hi = np.clip((-q - root) / p, 0, 1), np.clip((-q + root) / p, 0, 1)
    np.testing.assert_allclose(edge, (hi - lo) * np.sqrt(p) / (np.pi * radius), rtol=1e-9, atol=1e-12)


def segment_share(height):
    """Share of the unit disc in x >= height, and its first moment."""
    half = math.acos(height)
    return (half - math.sin(half) * math.cos(half)) / math.pi, 2.0 / 3.0 * math.sin(half) ** 3 / math.pi


@pytest.mark.parametrize("height", [-0.999, -0.5, 0.0, 0.3, 0.9, 0.999])
@pytest.mark.parametrize("turn", [0.0, 0.7, 2.0, 3.5, 5.9])
def test_disc_cut_by_a_line(height, turn):
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    mass, first, edge = one(DiscDensity(), rectangle(height, 3, -3, 3) @ rotation.T)
    share, moment = segment_share(height)
    assert mass == pytest.approx(share, rel=1e-11)
    np.testing.assert_allclose(first, rotation @ [moment, 0.0], atol=1e-14)
    np.testing.assert_allclose(edge, [0, 0, 0, 2 * math.sqrt(1 - height**2) / np.pi], rtol=1e-12)


@pytest.mark.parametrize("depth", [1e-4, 1e-7, 1e-10])
def test_a_small_cap_keeps_its_digits(depth):
    """Height eps of the unit disc: area 4/3 sqrt(2) eps^1.5 (1 - 3/20 eps + ...)."""
    mass, _, _ = one(DiscDensity(), rectangle(1 - depth, 2, -2, 2))
    exact_depth = 1 - (1 - depth)
    want = 4 / 3 * math.sqrt(2) * exact_depth**1.5 * (1 - 0.15 * exact_depth) / np.pi
    assert mass == pytest.approx(want, rel=1e-5)
    rest, _, _ = one(DiscDensity(), rectangle(-2, 1 - depth, -2, 2))
    assert rest == pytest.approx(1 - want, rel=1e-15)


def test_disc_and_polygon_contain_each_other_or_nothing():
    disc = DiscDensity((2.0, 1.0), 0.5)
    cells = [
        rectangle(-5, 5, -5, 5),  # contains the disc
        rectangle(1.9, 2.1, 0.9, 1.2),  # inside it
        rectangle(-5, 1, -5, 5),  # apart
        np.array([[2.6, 1.6], [2.4, 1.5], [2.6, 1.4]]) + [0.0, 0.1],  # apart, in a corner of the square
        rectangle(2.5, 3, 0, 2),  # tangent from outside
        rectangle(1.5, 2.5, 0.5, 1.5),  # tangent on all four sides from inside
        np.array([[2.0, 1.0], [5.0, 1.0], [5.0, 4.0], [2.0, 4.0]]),  # a quarter, one corner at the centre
    ]
    masses, first, edge = disc.integrate(as_soup(cells))
    assert masses[0] == 1.0 and masses[2] == 0.0 and masses[3] == 0.0
    assert masses[1] == pytest.approx(0.06 / (np.pi * 0.25), rel=1e-14)
    assert masses[4] == pytest.approx(0.0, abs=1e-20)
    assert masses[5] == pytest.approx(1.0, abs=1e-15) and masses[6] == pytest.approx(0.25, rel=1e-14)
    np.testing.assert_allclose(first[[0, 5]], [[2.0, 1.0]] * 2, rtol=1e-14)
    np.testing.assert_allclose(first[6] / masses[6], np.array([2.0, 1.0]) + 0.5 * 4 / (3 * np.pi), rtol=1e-14)
    assert np.all(edge[:4] == 0.0) and np.all(edge[8:15] == 0.0)


def test_disc_inscribed_polygons_with_vertices_on_the_circle():
    for sides in range(3, 40):
        angles = 2 * np.pi * np.arange(sides) / sides + 0.3
        for radius in (1.0, 1.0 + 1e-15, 1.0 - 1e-15, 1.0 + 1e-9, 1.0 - 1e-9):
            polygon = radius * np.column_stack([np.cos(angles), np.sin(angles)])
            mass, first, _ = one(DiscDensity(), polygon)
            assert mass == pytest.approx(sides / 2 * math.sin(2 * np.pi / sides) / np.pi, rel=1e-8)
            np.testing.assert_allclose(first, 0.0, atol=1e-14)


def test_disc_with_a_single_small_cap_missing_on_each_side():
    """Arcs longer than half a turn, and several arcs between the chords of one cell."""
    for height in (0.2, 0.75, 0.99, 1 - 1e-9):
        share, _ = segment_share(height)
        mass, first, edge = one(DiscDensity(), rectangle(-height, height, -3, 3))
        assert mass == pytest.approx(1 - 2 * share, rel=1e-13)
        np.testing.assert_allclose(first, 0.0, atol=1e-15)
        corner = max(2 * height**2 - 1, 0.0)  # the corners of the square are outside while height > sqrt(1/2)
        square, _, _ = one(DiscDensity(), rectangle(-height, height, -height, height))
        assert square == pytest.approx(1 - 4 * share if corner else 4 * height**2 / np.pi, rel=1e-13)


@settings(max_examples=30, deadline=None)
@given(seed=seeds, scale=st.floats(1e-3, 1e3))
def test_disc_moves_and_scales_with_its_cells(seed, scale):
    rng = np.random.default_rng(seed)
    polygon = random_polygon(rng, rng.uniform(-1, 1, 2), rng.uniform(0.1, 2.0))
    mass, first, edge = one(DiscDensity(), polygon)
    center = scale * rng.normal(size=2)
    moved = one(DiscDensity(center, scale), center + scale * polygon)
    assert moved[0] == pytest.approx(mass, rel=1e-8, abs=1e-14)
    np.testing.assert_allclose(moved[1], center * mass + scale * first, atol=1e-13 * scale)
    np.testing.assert_allclose(moved[2] * scale, edge, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(
    ("center", "radius"), [((0, 0), 0.0), ((0, 0), -1.0), ((0, 0), np.inf), ((0, 0, 0), 1.0), ((np.nan, 0), 1.0)]
)
def test_bad_discs_are_refused(center, radius):
    with pytest.raises(ValueError, match="must be"):
        DiscDensity(center, radius)


@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (40, 25)])
def test_smoothed_pictures_are_positive_and_change_by_a_bounded_factor(shape):
    rng = np.random.default_rng(4)
    values = rng.random(shape) * (rng.random(shape) < 0.3)
    values[0, 0] = 1.0
    density = ImageDensity(values, high=(shape[1] / 10, shape[0] / 10))
    _, _, soup = random_partition(density, 200, rng)
    before = None
    for width in 4.0 * 0.5 ** np.arange(7):
        smooth = density.smoothed(width)
        masses = smooth.integrate(soup)[0]
        assert smooth.values.min() > 0.0
        masses = masses[masses > 0.0]  # some cells of the partition are empty polygons
        assert math.fsum(masses) == pytest.approx(1.0, abs=1e-12)
        if before is not None:  # 4, and something for the pixels
            assert (masses / before).max() < 5.0 and (masses / before).min() > 0.2
        before = masses


def test_a_narrow_kernel_changes_little_and_keeps_orientation():
    values = np.zeros((6, 8))
    values[1, 2], values[4, 6] = 3.0, 1.0
    density = ImageDensity(values, low=(-1.0, 2.0), high=(7.0, 8.0))
    _, _, soup = random_partition(density, 30, np.random.default_rng(0))
    wide, narrow = (
        np.abs(density.smoothed(w).integrate(soup)[0] - density.integrate(soup)[0]).sum() for w in (1, 0.05)
    )
    assert narrow < 0.1 < wide
    assert density.smoothed(0.05).second_moment == pytest.approx(density.second_moment, rel=0.05)


def test_effective_area_is_that_of_the_white_pixels():
    values = np.zeros((10, 20))
    values[2:5, 3:9] = 7.0
    assert ImageDensity(values, high=(20.0, 10.0)).effective_area == pytest.approx(18.0)
