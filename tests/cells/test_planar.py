"""Planar power cells against brute-force clipping, finite differences, Monte Carlo and closed forms."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial import ConvexHull

from otgan.cells._planar_diagram import PlanarDiagram
from otgan.cells.planar import PlanarCells, power_polygons

SQUARE = np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
HEXAGON = np.column_stack([np.cos(np.arange(6) * np.pi / 3), np.sin(np.arange(6) * np.pi / 3)])
SETTINGS = settings(max_examples=15, deadline=None)


def clip_by_all(points, heights, domain, i):
    """Sutherland-Hodgman of the domain by the half-planes of all other targets, in plain Python."""
    polygon = [tuple(v) for v in domain]
    for j in range(len(points)):
        if j == i:
            continue
        a, b = points[j] - points[i]
        c = heights[i] - heights[j]
        value = [a * x + b * y - c for x, y in polygon]
        out = []
        for k, (here, s) in enumerate(zip(polygon, value, strict=True)):
            after, t = polygon[(k + 1) % len(polygon)], value[(k + 1) % len(polygon)]
            if s <= 0:
                out.append(here)
            if (s <= 0) != (t <= 0):
                r = s / (s - t)
                out.append((here[0] + r * (after[0] - here[0]), here[1] + r * (after[1] - here[1])))
        polygon = out
        if not polygon:
            return np.zeros((0, 2))
    return np.array(polygon)


def polygon_area(polygon):
    if len(polygon) < 3:
        return 0.0
    a = polygon - polygon[0]
    b = np.roll(a, -1, axis=0)
    return float(np.sum(a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]) / 2)


def shape_area(domain):
    return polygon_area(np.asarray(domain))


def targets(kind, n=120, seed=0):
    rng = np.random.default_rng(seed)
    if kind == "random":
        y = rng.random((n, 2))
    elif kind == "clustered":
        y = rng.random((6, 2))[rng.integers(0, 6, n)] + 1e-3 * rng.standard_normal((n, 2))
    elif kind == "grid":
        m = int(np.sqrt(n))
        y = np.stack(np.meshgrid(np.arange(m) / m, np.arange(m) / m), -1).reshape(-1, 2)
    elif kind == "circle":
        t = 2 * np.pi * np.arange(n) / n
        y = np.column_stack([np.cos(t), np.sin(t)]) / 3 + 0.5
    elif kind == "collinear":
        t = np.sort(rng.random(n))
        y = np.column_stack([0.1 + 0.7 * t, 0.3 + 0.2 * t])
    elif kind == "outside":
        y = 5 + rng.random((n, 2))
    elif kind == "twins":
        y = rng.random((n // 2, 2))
        y = np.concatenate([y, y + 1e-9 * rng.standard_normal(y.shape)])
    elif kind == "huge":
        y = 1e9 * rng.random((n, 2)) - 3e8
    elif kind == "tiny":
        y = 1e-9 * rng.random((n, 2))
    else:
        y = rng.standard_cauchy((n, 2))
    return np.unique(y, axis=0)


KINDS = ["random", "clustered", "grid", "circle", "collinear", "outside", "twins", "huge", "tiny", "heavy-tailed"]


def voronoi_like(y, domain, noise, seed=1):
    """Heights of Voronoi cells of the targets mapped into the domain, perturbed by ``noise`` of their spacing."""
    rng = np.random.default_rng(seed)
    size = np.ptp(y, axis=0).max()
    stretch = 0.9 * np.ptp(domain, axis=0).min() / size / np.sqrt(2)
    centred = y - (y.min(axis=0) + y.max(axis=0)) / 2
    h = -centred @ domain.mean(axis=0) - 0.5 * stretch * (centred**2).sum(axis=1)
    return h + noise * stretch * size**2 / len(y) * rng.standard_normal(len(y))


@pytest.mark.parametrize("domain", [SQUARE, HEXAGON], ids=["square", "hexagon"])
@pytest.mark.parametrize("noise", [0.0, 0.2, 3.0])
@pytest.mark.parametrize("kind", KINDS)
def test_cells_match_brute_force(kind, noise, domain):
    y = targets(kind)
    h = voronoi_like(y, domain, noise)
    soup = power_polygons(y, h, domain)
    expected = np.array([polygon_area(clip_by_all(y, h, domain, i)) for i in range(len(y))])
    total = shape_area(domain)
    # heights are only known to eps |h|, which moves an edge by that over the distance of its targets
    assert np.abs(soup.areas - expected).max() <= (1e-6 if kind == "twins" else 1e-11) * total
    assert soup.areas.sum() == pytest.approx(total, rel=1e-12)


def test_edges_join_the_cells_named_by_their_labels():
    y = targets("random")
    h = voronoi_like(y, HEXAGON, 0.3)
    soup = power_polygons(y, h, HEXAGON)
    start, end = soup.vertices, soup.vertices[soup.next_vertex]
    inner = soup.neighbour >= 0
    for at in (start, end, (start + end) / 2):
        scores = at @ y.T + h
        best = scores.max(axis=1)
        assert np.allclose(scores[np.arange(len(at)), soup.owner], best, atol=1e-12)
        assert np.allclose(scores[inner, soup.neighbour[inner]], best[inner], atol=1e-12)
    edge = -1 - soup.neighbour[~inner]
    a, b = HEXAGON[edge], HEXAGON[(edge + 1) % 6]
    for at in (start[~inner], end[~inner]):
        off = (b - a)[:, 0] * (at - a)[:, 1] - (b - a)[:, 1] * (at - a)[:, 0]
        assert np.abs(off).max() < 1e-13
    boundary = np.linalg.norm((end - start)[~inner], axis=1).sum()
    assert boundary == pytest.approx(6.0, rel=1e-12)


def test_every_inner_edge_appears_reversed_in_the_other_cell():
    y = targets("random", 400)
    soup = power_polygons(y, voronoi_like(y, SQUARE, 0.5), SQUARE)
    owner, end = soup.owner, soup.vertices[soup.next_vertex]
    edges = {(int(i), int(j)): k for k, (i, j) in enumerate(zip(owner, soup.neighbour, strict=True)) if j >= 0}
    assert len(edges) > 800
    for (i, j), k in edges.items():
        back = edges[(j, i)]
        assert np.allclose(soup.vertices[k], end[back], atol=1e-12)
        assert np.allclose(end[k], soup.vertices[back], atol=1e-12)


def test_single_target_owns_the_domain():
    soup = power_polygons([[3.0, -2.0]], [0.7], HEXAGON)
    vertices, labels = soup.cell(0)
    assert np.allclose(vertices, HEXAGON)
    assert labels.tolist() == [-1, -2, -3, -4, -5, -6]
    moments = PlanarCells([[3.0, -2.0]], HEXAGON).moments([0.7])
    assert moments.masses[0] == pytest.approx(1.0, abs=1e-15)
    assert moments.hessian.toarray().tolist() == [[0.0]]


@pytest.mark.parametrize("cut", [-0.2, 0.0, 0.3, 0.999, 1.0, 1.5])
def test_two_targets_split_the_square_by_a_line(cut):
    # <x, y_0> + h_0 >= <x, y_1> on x_1 <= cut
    moments = PlanarCells([[1.0, 5.0], [3.0, 5.0]], SQUARE).moments([2 * cut, 0.0])
    left = min(max(cut, 0.0), 1.0)
    assert moments.masses == pytest.approx([left, 1 - left], abs=1e-14)
    assert moments.first[0] == pytest.approx([left**2 / 2, left / 2], abs=1e-14)
    slope = 0.5 if 0.0 < cut < 1.0 else 0.0
    assert moments.hessian.toarray() == pytest.approx(slope * np.array([[1, -1], [-1, 1]]), abs=1e-12)


def test_three_collinear_targets_with_a_hidden_one():
    moments = PlanarCells([[0.0, 0.0], [0.5, 0.0], [1.0, 0.0]], SQUARE).moments([0.5, 0.1, 0.0])
    assert moments.masses == pytest.approx([0.5, 0.0, 0.5], abs=1e-15)
    assert moments.first[1].tolist() == [0.0, 0.0]
    assert np.isnan(moments.centroids[1]).all()


def test_cone_over_the_hull_when_all_planes_meet_in_one_point():
    # equal heights: every plane passes through (0, 0), so only extreme targets own area
    y = np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0], [0.1, 0.2], [0.0, 0.0], [0.5, 0.5]])
    areas = power_polygons(y, np.zeros(7), SQUARE - 0.5).areas
    assert areas == pytest.approx([0.25, 0.25, 0.25, 0.25, 0.0, 0.0, 0.0], abs=1e-14)


def test_slabs():
    n = 50
    y = np.column_stack([(np.arange(n) + 0.5) / n, np.full(n, 0.5)])
    soup = power_polygons(y, -0.5 * y[:, 0] ** 2, SQUARE)
    for j in range(n):
        vertices, _ = soup.cell(j)
        assert vertices[:, 0].min() == pytest.approx(j / n, abs=1e-13)
        assert vertices[:, 0].max() == pytest.approx((j + 1) / n, abs=1e-13)
    assert soup.areas == pytest.approx(np.full(n, 1 / n), rel=1e-12)


@pytest.mark.parametrize("kind", ["random", "clustered", "collinear", "outside"])
def test_hessian_against_finite_differences(kind):
    y = targets(kind, 60)
    domain = np.array([[-1.0, -0.5], [2.0, -1.0], [1.5, 2.0], [0.0, 2.5]])
    cells = PlanarCells(y, domain)
    h = cells.start(np.full(len(y), 1 / len(y)))
    moments = cells.moments(h)
    hessian = moments.hessian.toarray()
    assert (moments.masses > 0).all()
    assert np.array_equal(hessian, hessian.T)
    assert np.abs(hessian.sum(axis=1)).max() <= 1e-12 * hessian.max()
    rng = np.random.default_rng(3)
    for _ in range(3):
        v = rng.uniform(-1, 1, len(y))
        step = moments.masses.min() / hessian.max()
        # masses are quadratic in the heights, and central differences exact, as long as no neighbours change
        while any(not same_edges(cells, h, h + t * step * v) for t in (1, -1)):
            step /= 4
        slope = (cells.moments(h + step * v).masses - cells.moments(h - step * v).masses) / (2 * step)
        assert np.abs(slope - hessian @ v).max() <= 1e-6 * np.abs(hessian @ v).max()


def same_edges(cells, h, other):
    a, b = cells.polygons(h), cells.polygons(other)
    pairs = [set(zip(s.owner.tolist(), s.neighbour.tolist(), strict=True)) for s in (a, b)]
    return pairs[0] == pairs[1]


def test_masses_against_monte_carlo():
    y = targets("random", 40)
    h = voronoi_like(y, SQUARE, 0.5)
    cells = PlanarCells(y, SQUARE)
    moments = cells.moments(h, hessian=False)
    assert moments.hessian is None
    x = np.random.default_rng(5).random((200_000, 2))
    chosen = np.argmax(x @ y.T + h, axis=1)
    counted = np.bincount(chosen, minlength=len(y)) / len(x)
    error = np.sqrt(moments.masses * (1 - moments.masses) / len(x))
    assert (np.abs(counted - moments.masses) <= 5 * error + 1e-12).all()
    mean = np.stack([np.bincount(chosen, weights=x[:, k], minlength=len(y)) / len(x) for k in (0, 1)], axis=1)
    assert np.abs(mean - moments.first).max() < 5e-3
    assert moments.mean_potential(y, h) == pytest.approx((x @ y.T + h).max(axis=1).mean(), abs=5e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_total_mass_and_mean(kind):
    y = targets(kind, 300)
    cells = PlanarCells(y, HEXAGON + [2.0, 0.0])
    for noise in (0.0, 0.3):
        moments = cells.moments(voronoi_like(y, HEXAGON + [2.0, 0.0], noise))
        assert moments.masses.sum() == pytest.approx(1.0, abs=1e-12)
        assert moments.first.sum(axis=0) == pytest.approx([2.0, 0.0], abs=1e-12)


def test_second_moment():
    assert PlanarCells([[0.0, 0.0]], SQUARE).second_moment == pytest.approx(2 / 3, rel=1e-14)
    assert PlanarCells([[0.0, 0.0]], HEXAGON).second_moment == pytest.approx(5 / 12, rel=1e-14)


def test_successive_calls_equal_fresh_ones():
    y = targets("random", 800)
    rng = np.random.default_rng(2)
    cells = PlanarCells(y, SQUARE)
    for noise in (0.0, 0.01, 0.3, 2.0, 0.1, 50.0, 0.0):
        h = voronoi_like(y, SQUARE, 0.0) + noise / len(y) * rng.standard_normal(len(y))
        assert np.allclose(cells.moments(h).masses, PlanarCells(y, SQUARE).moments(h).masses, rtol=0, atol=1e-15)


def test_wrong_candidates_are_repaired():
    y = targets("random", 300)
    diagram = PlanarDiagram(y, SQUARE)
    h = voronoi_like(y, SQUARE, 0.3)
    expected = power_polygons(y, h, SQUARE).areas
    rng = np.random.default_rng(0)
    for count in (0, 1, 3):
        diagram._graph = (
            np.arange(300, dtype=np.int64) * count,
            np.full(300, count, np.int32),
            rng.integers(0, 300, 300 * count + 1).astype(np.int32),
        )
        assert np.allclose(diagram.soup(h).areas, expected, rtol=0, atol=1e-14)


def test_many_targets_start_from_nearest_ones():
    y = np.random.default_rng(0).random((25_000, 2))
    cells = PlanarCells(y, SQUARE)
    h = cells.start(np.full(len(y), 1 / len(y)))
    assert cells._diagram._graph is not None
    fast = cells.moments(h, hessian=False).masses
    assert np.allclose(fast, PlanarCells(y, SQUARE).moments(h, hessian=False).masses, rtol=0, atol=1e-16)


@SETTINGS
@given(
    seed=st.integers(0, 10_000),
    n=st.integers(1, 40),
    shift=st.tuples(st.floats(-50, 50), st.floats(-50, 50)),
    scale=st.floats(1e-3, 1e3),
    offset=st.floats(-100, 100),
)
def test_invariances(seed, n, shift, scale, offset):
    rng = np.random.default_rng(seed)
    corners = rng.standard_normal((12, 2))
    domain = corners[ConvexHull(corners).vertices]
    y, h = rng.standard_normal((n, 2)), 0.3 * rng.standard_normal(n)
    masses = PlanarCells(y, domain).moments(h).masses
    assert masses.sum() == pytest.approx(1.0, abs=1e-12)
    # x -> scale x + shift leaves the cells alone when <x, y_i> + h_i is preserved up to a factor
    moved = PlanarCells(y, scale * domain + shift).moments(scale * h - y @ shift).masses
    assert moved == pytest.approx(masses, abs=1e-9)
    # y -> scale y + shift adds a term that is common to all targets
    stretched = PlanarCells(scale * y + shift, domain).moments(scale * h + offset).masses
    assert stretched == pytest.approx(masses, abs=1e-9)
    order = rng.permutation(n)
    assert PlanarCells(y[order], domain).moments(h[order]).masses == pytest.approx(masses[order], abs=1e-13)
    cells, order = PlanarCells(y, domain).reordered()
    assert cells.moments(h[order]).masses == pytest.approx(masses[order], abs=1e-13)


@SETTINGS
@given(seed=st.integers(0, 10_000), n=st.integers(1, 60), kind=st.sampled_from(KINDS))
def test_no_cell_is_empty_at_the_start(seed, n, kind):
    rng = np.random.default_rng(seed)
    corners = rng.standard_normal((12, 2)) * [5.0, 1.0] + 3.0
    domain = corners[ConvexHull(corners).vertices]
    y = targets(kind, max(n, 2), seed)
    cells = PlanarCells(y, domain)
    if kind not in ("twins", "heavy-tailed"):
        assert cells.moments(cells.start(np.full(len(y), 1 / len(y)))).masses.min() > 0


class Tent:
    """Density ``2 x_1`` on the unit square, integrated by triangles with a rule exact for cubics."""

    second_moment = 0.5 + 1 / 3

    def integrate(self, soup, domain):
        a = soup.vertices[soup.ptr[:-1][soup.owner]]
        b, c = soup.vertices, soup.vertices[soup.next_vertex]
        area = ((b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0]) / 2
        masses, first = np.zeros(len(b)), np.zeros((len(b), 2))
        for p, q in ((a, b), (b, c), (c, a)):
            middle = (p + q) / 2
            masses += area / 3 * 2 * middle[:, 0]
            first += (area / 3 * 2 * middle[:, 0])[:, None] * middle
        total = np.bincount(soup.owner, masses, soup.n_cells)
        mean = np.stack([np.bincount(soup.owner, first[:, k], soup.n_cells) for k in (0, 1)], axis=1)
        return total, mean, np.linalg.norm(c - b, axis=1) * (b + c)[:, 0]


def test_given_density():
    y = targets("random", 50)
    cells = PlanarCells(y, SQUARE, Tent())
    h = voronoi_like(y, SQUARE, 0.1)
    moments = cells.moments(h)
    assert moments.masses.sum() == pytest.approx(1.0, abs=1e-13)
    assert moments.first.sum(axis=0) == pytest.approx([2 / 3, 1 / 2], abs=1e-13)
    assert cells.second_moment == pytest.approx(5 / 6)
    step, v = 1e-5, np.random.default_rng(0).uniform(-1, 1, len(y)) * (moments.masses > 0)
    slope = (cells.moments(h + step * v).masses - cells.moments(h - step * v).masses) / (2 * step)
    assert np.abs(slope - moments.hessian @ v).max() <= 1e-6 * np.abs(slope).max()
    blend = cells.blended(0.25)
    plain = PlanarCells(y, SQUARE)
    expected = 0.75 * moments.masses + 0.25 * plain.moments(h).masses
    assert blend.moments(h).masses == pytest.approx(expected, abs=1e-15)
    assert blend.second_moment == pytest.approx(0.75 * 5 / 6 + 0.25 * 2 / 3)
    assert plain.blended(0.5) is None


@pytest.mark.parametrize(
    ("points", "heights", "domain", "match"),
    [
        (np.zeros((3, 3)), np.zeros(3), SQUARE, "shape"),
        (np.zeros((0, 2)), np.zeros(0), SQUARE, "n >= 1"),
        ([[0, 0], [np.nan, 1]], np.zeros(2), SQUARE, "finite"),
        ([[0, 0], [1, 1], [0, 0]], np.zeros(3), SQUARE, "targets 0 and 2 coincide"),
        ([[0, 0], [1, 1]], np.zeros(3), SQUARE, "heights must have shape"),
        ([[0, 0], [1, 1]], [0, np.inf], SQUARE, "heights must be finite"),
        ([[0, 0]], [0], SQUARE[::-1], "counter-clockwise"),
        ([[0, 0]], [0], SQUARE[[0, 2, 1, 3]], "counter-clockwise"),
        ([[0, 0]], [0], [[0, 0], [1, 0], [0.1, 0.1], [0, 1]], "convex"),
        ([[0, 0]], [0], [[0, 0], [1, 0], [2, 0]], "convex"),
        ([[0, 0]], [0], SQUARE[:2], "k >= 3"),
        ([[0, 0]], [0], np.vstack([SQUARE[:3], [[0, np.inf]]]), "finite"),
    ],
)
def test_bad_input_is_refused(points, heights, domain, match):
    with pytest.raises(ValueError, match=match):
        power_polygons(points, heights, domain)


def test_smoothed_blended_and_moved_cells():
    from otgan.cells._density_image import ImageDensity

    y = targets("random", 40)
    values = np.zeros((8, 8))
    values[2:4, 5:7] = 1.0
    image = ImageDensity(values)
    cells, plain = PlanarCells(y, SQUARE, image), PlanarCells(y, SQUARE)
    h = voronoi_like(y, SQUARE, 0.1)
    smooth = cells.smoothed(0.25)
    assert smooth.moments(h).masses == pytest.approx(PlanarCells(y, SQUARE, image.smoothed(0.25)).moments(h).masses)
    assert plain.smoothed(0.25) is None and PlanarCells(y, SQUARE, Tent()).smoothed(0.25) is None
    mixed = cells.blended(0.3, smooth)
    expected = 0.7 * cells.moments(h).masses + 0.3 * smooth.moments(h).masses
    assert mixed.moments(h).masses == pytest.approx(expected, abs=1e-14)
    assert mixed.second_moment == pytest.approx(0.7 * cells.second_moment + 0.3 * smooth.second_moment)
    assert cells.extent == plain.extent == 1.0
    assert cells.cell_size == pytest.approx((4 / 64 / 40) ** 0.5) and plain.cell_size == pytest.approx(40**-0.5)
    other = cells.with_points(y[:7])
    assert other.moments(h[:7]).masses == pytest.approx(PlanarCells(y[:7], SQUARE, image).moments(h[:7]).masses)
