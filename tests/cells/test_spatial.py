"""Exact power cells in three dimensions."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog
from scipy.spatial import ConvexHull, HalfspaceIntersection

from otgan.cells._spatial_cells import polyhedron_moments
from otgan.cells._spatial_clip import clip, cube, load, make_workspace
from otgan.cells.spatial import Polytope, SpatialCells
from otgan.solvers.newton import newton

BOX = Polytope.box(0, 1)
RNG = np.random.default_rng


def rotation(seed):
    return np.linalg.qr(RNG(seed).normal(size=(3, 3)))[0]


def grid(k):
    return np.stack(np.meshgrid(*[(np.arange(k) + 0.5) / k] * 3), -1).reshape(-1, 3)


def targets(name):
    rng = RNG(5)
    return {
        "random": lambda: rng.random((40, 3)),
        "clustered": lambda: np.repeat(rng.random((6, 3)), 7, axis=0) + 1e-2 * rng.normal(size=(42, 3)),
        "grid": lambda: grid(3),
        "rotated grid": lambda: grid(3) @ rotation(0),
        "coplanar": lambda: np.column_stack([rng.random((30, 2)), np.full(30, 0.3)]),
        "tilted plane": lambda: np.column_stack([rng.random((30, 2)), np.zeros(30)]) @ rotation(1),
        "collinear": lambda: np.outer(rng.random(20), [1.0, -2.0, 0.5]),
        "outside": lambda: 50.0 + rng.random((30, 3)),
        "one": lambda: rng.random((1, 3)),
        "two": lambda: rng.random((2, 3)),
        "three": lambda: rng.random((3, 3)),
        "five": lambda: rng.random((5, 3)),
        "sphere": lambda: (v := rng.normal(size=(40, 3))) / np.linalg.norm(v, axis=1)[:, None],
    }[name]()


NAMES = "random,clustered,grid,rotated grid,coplanar,tilted plane,collinear,outside,one,two,three,five,sphere".split(
    ","
)


def some_heights(cells, seed=0, size=0.3):
    """The start of Newton's method, perturbed so that cells differ and a few are empty."""
    n = len(cells.points)
    start = cells.start(np.full(n, 1.0 / n))
    return start + size * RNG(seed).normal(size=n) * (np.ptp(start) / max(n, 2) ** (2 / 3) + 1e-3)


def brute_force(points, heights, domain):
    """Volume and first moment of each cell by scipy: intersection of all half-spaces, hull of its vertices."""
    volumes, first = np.zeros(len(points)), np.zeros((len(points), 3))
    for i in range(len(points)):
        keep = np.arange(len(points)) != i
        a = np.vstack([domain.normals, points[keep] - points[i]])
        b = np.concatenate([domain.offsets, heights[i] - heights[keep]])
        norm = np.linalg.norm(a, axis=1)
        inner = linprog([0, 0, 0, -1], np.column_stack([a, norm]), b, bounds=[(None, None)] * 3 + [(None, 1)])
        if inner.status != 0 or inner.x[3] < 1e-9:
            continue
        body = HalfspaceIntersection(np.column_stack([a, -b]), inner.x[:3], qhull_options="Qt")
        hull = ConvexHull(body.intersections, qhull_options="QJ Pp")
        apex = inner.x[:3]
        corners = hull.points[hull.simplices] - apex
        parts = np.abs(np.linalg.det(corners)) / 6.0
        volumes[i] = parts.sum()
        first[i] = volumes[i] * apex + parts @ corners.sum(axis=1) / 4.0
    return volumes, first


@pytest.mark.parametrize("name", NAMES)
def test_brute_force(name):
    points = targets(name)
    cells = SpatialCells(points, BOX)
    heights = some_heights(cells)
    got = cells.moments(heights)
    masses, first = brute_force(points, heights, BOX)
    assert got.masses == pytest.approx(masses, abs=2e-9)
    assert got.first == pytest.approx(first, abs=2e-9)
    assert abs(got.masses.sum() - 1.0) < 1e-12
    assert got.first.sum(axis=0) == pytest.approx([0.5] * 3, abs=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_hessian_is_the_derivative(name):
    cells = SpatialCells(targets(name), BOX)
    heights = newton(cells, np.full(len(cells.points), 1.0), tol=0.1).heights
    hessian = cells.moments(heights).hessian.toarray()
    n = len(heights)
    assert (hessian == hessian.T).all()
    assert np.abs(hessian.sum(axis=1)).max() <= 1e-13 * max(np.abs(hessian).max(), 1e-300)
    assert (hessian - np.diag(np.diag(hessian)) <= 0).all()
    direction = RNG(1).normal(size=n)
    direction -= direction.mean()
    exact = hessian @ direction
    if n == 1:
        return
    # Masses are cubic in the heights while no facet appears: Richardson leaves the error of new facets and rounding.
    unit = 0.01 / (np.abs(hessian).max() * n)
    best = np.inf
    for step in unit * 10.0 ** -np.arange(5):
        wide, narrow = (
            (cells.moments(heights + t * direction).masses - cells.moments(heights - t * direction).masses) / (2 * t)
            for t in (step, step / 2)
        )
        best = min(best, np.abs((4 * narrow - wide) / 3 - exact).max())
    degenerate = name in ("grid", "rotated grid")  # facets appear at every step there
    assert best <= (1e-4 if degenerate else 1e-6) * np.abs(exact).max()


@pytest.mark.parametrize("domain", ["box", "hull", "simplex", "ball"])
def test_masses_against_monte_carlo(domain):
    rng = RNG(3)
    v = rng.normal(size=(300, 3))
    ball = v / np.linalg.norm(v, axis=1)[:, None]
    polytope = {
        "box": Polytope.box([-1, 0, 2], [1, 0.5, 2.5]),
        "hull": Polytope.hull(rng.random((20, 3)) @ np.array([[1, 0, 0], [2, 1, 0], [0, 0, 3]])),
        "simplex": Polytope.hull([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]]),
        "ball": Polytope.hull(ball),
    }[domain]
    low, high = polytope.bounds()
    x = low + (high - low) * rng.random((200_000, 3))
    x = x[(x @ polytope.normals.T <= polytope.offsets).all(axis=1)]
    points = rng.normal(size=(25, 3))
    cells = SpatialCells(points, polytope)
    heights = some_heights(cells, size=0.1)
    got = cells.moments(heights)
    winner = np.argmax(x @ points.T + heights, axis=1)
    masses = np.bincount(winner, minlength=25) / len(x)
    noise = np.sqrt(got.masses * (1 - got.masses) / len(x))
    assert (np.abs(masses - got.masses) <= 5 * noise + 1e-12).all()
    assert got.first.sum(axis=0) == pytest.approx(x.mean(axis=0), abs=5 * x.std() / np.sqrt(len(x)))
    second = (x**2).sum(axis=1)
    assert cells.second_moment == pytest.approx(second.mean(), abs=5 * second.std() / np.sqrt(len(x)))


@pytest.mark.parametrize(
    ("domain", "expected"),
    [
        (Polytope.box([0, 0, 0], [1, 2, 3]), (1 + 4 + 9) / 3),
        (Polytope.box([-1, -1, 9], [1, 1, 11]), 2 / 3 + 100 + 1 / 3),
        (Polytope.hull([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]]), 0.3),
    ],
)
def test_second_moment(domain, expected):
    assert SpatialCells([[0.0, 0, 0]], domain).second_moment == pytest.approx(expected, rel=1e-13)


def test_single_target_takes_all():
    got = SpatialCells([[3.0, -2, 7]], Polytope.box([0, 0, 0], [1, 2, 3])).moments([5.0])
    assert got.masses == pytest.approx([1.0], abs=1e-15)
    assert got.first[0] == pytest.approx([0.5, 1.0, 1.5], rel=1e-14)
    assert got.hessian.toarray() == pytest.approx(0.0)


def test_two_targets_cut_a_half_space():
    """The bisector ``x + y + z = s``: the corner tetrahedron has volume ``s^3 / 6``."""
    s = 0.7
    got = SpatialCells([[0.0, 0, 0], [1, 1, 1]], BOX).moments([s, 0.0])
    assert got.masses[0] == pytest.approx(s**3 / 6, rel=1e-13)
    assert got.first[0] == pytest.approx([s**4 / 24] * 3, rel=1e-13)
    # d/ds of s^3/6: the facet's area over the distance of the targets
    assert got.hessian.toarray() == pytest.approx(s**2 / 2 * np.array([[1, -1], [-1, 1]]), rel=1e-12)


def test_slabs():
    n = 50
    points = np.column_stack([(np.arange(n) + 0.5) / n, np.full((n, 2), 0.5)])
    cells = SpatialCells(points, BOX)
    outcome = newton(cells, np.full(n, 1.0 / n))
    assert outcome.converged
    got = cells.moments(outcome.heights)
    assert got.masses == pytest.approx(np.full(n, 1.0 / n), rel=1e-8)
    assert got.centroids == pytest.approx(points, abs=1e-9)
    cost = cells.second_moment + (points**2).sum(1).mean() - 2 * np.sum(got.first * points)
    assert cost == pytest.approx(1 / (12 * n**2) + 2 / 12, rel=1e-9)


def test_empty_cells_are_exactly_zero():
    points = RNG(0).random((20, 3))
    heights = np.zeros(20)
    heights[7] = -10.0
    got = SpatialCells(points, BOX).moments(heights)
    assert got.masses[7] == 0.0
    assert (got.first[7] == 0.0).all()
    assert np.isnan(got.centroids[7]).all()
    assert got.hessian[[7]].nnz == 0 or abs(got.hessian[[7]]).max() == 0.0


@pytest.mark.parametrize("name", ["random", "clustered", "grid", "tilted plane", "collinear", "outside", "sphere"])
def test_planted_potential(name):
    """Masses of known heights as weights: the heights come back."""
    points = targets(name)
    cells = SpatialCells(points, BOX)
    planted = newton(cells, RNG(2).random(len(points)) + 0.5, tol=1e-2).heights
    weights = cells.moments(planted).masses
    outcome = newton(SpatialCells(points, BOX), weights, tol=1e-11)
    assert outcome.error < 1e-9
    gap = outcome.heights - planted
    assert gap - gap.mean() == pytest.approx(0.0, abs=1e-8 * max(np.ptp(planted), 1.0))


def test_scales_far_from_one():
    rng = RNG(4)
    points = rng.random((60, 3))
    unit = SpatialCells(points, BOX)
    heights = some_heights(unit, size=0.1)
    expected = unit.moments(heights)
    for a, b in ((1e-9, 1.0), (1e9, 1e-7), (3.0, 1e12)):
        got = SpatialCells(b * points, Polytope.box(0, a)).moments(a * b * heights)
        assert got.masses == pytest.approx(expected.masses, rel=1e-10, abs=1e-14)
        assert got.first == pytest.approx(a * expected.first, rel=1e-10, abs=1e-14 * a)
        assert got.hessian.toarray() == pytest.approx(expected.hessian.toarray() / (a * b), rel=1e-9, abs=1e-12 / a / b)


def test_thin_domain():
    """Axes may have any scale: x = a x' and y = y' / a leave masses and Hessian as they are."""
    points, axes = RNG(4).random((60, 3)), np.array([1e-9, 1.0, 1e6])
    unit = SpatialCells(points, BOX)
    heights = some_heights(unit, size=0.1)
    got = SpatialCells(points / axes, Polytope.box(0, axes)).moments(heights)
    expected = unit.moments(heights)
    assert got.masses == pytest.approx(expected.masses, rel=1e-10, abs=1e-14)
    assert got.first == pytest.approx(expected.first * axes, rel=1e-10, abs=1e-24)
    assert got.hessian.toarray() == pytest.approx(expected.hessian.toarray(), rel=1e-10, abs=1e-12)


def test_nearly_equal_targets():
    """Pairs 1e-7 apart share their cell by a plane; masses stay complete, and add up to those of single targets."""
    rng = RNG(6)
    base = rng.random((15, 3))
    heights = -0.5 * (base**2).sum(axis=1)
    twin = base + 1e-7 * rng.normal(size=base.shape)
    points = np.vstack([base, twin])
    shared = SpatialCells(points, BOX).moments(np.concatenate([heights, -0.5 * (twin**2).sum(axis=1)]))
    single = SpatialCells(base, BOX).moments(heights)
    assert abs(shared.masses.sum() - 1.0) < 1e-12
    assert shared.masses.min() > 0
    assert shared.masses[:15] + shared.masses[15:] == pytest.approx(single.masses, abs=1e-5)


@pytest.mark.parametrize("name", ["random", "grid", "tilted plane", "sphere", "clustered"])
def test_memory_never_changes_an_answer(name):
    """After any other heights, also far away ones, the cells are those of a fresh start."""
    cells = SpatialCells(targets(name), BOX)
    for seed, size in enumerate((0.1, 0.5, 3.0, 0.1)):
        heights = some_heights(cells, seed, size)
        warm, cold = cells.moments(heights), SpatialCells(cells.points, BOX).moments(heights)
        assert warm.masses == pytest.approx(cold.masses, rel=1e-9, abs=1e-14)
        assert warm.hessian.toarray() == pytest.approx(cold.hessian.toarray(), abs=1e-9)


def test_many_neighbours():
    """One target in the middle of a sphere of others: a cell with hundreds of facets, beyond the first workspace."""
    v = RNG(7).normal(size=(800, 3))
    points = np.vstack([np.zeros((1, 3)), v / np.linalg.norm(v, axis=1)[:, None]])
    cells = SpatialCells(points, Polytope.box(-1, 1))
    got = cells.moments(-0.5 * (points**2).sum(axis=1))
    assert got.hessian[[0]].nnz > 700
    assert got.masses[0] == pytest.approx(np.pi / 6 / 8, rel=0.02)
    assert abs(got.masses.sum() - 1) < 1e-12
    soup = cells.polyhedra(-0.5 * (points**2).sum(axis=1))
    assert len(soup.faces(0)) > 700


def test_threads_agree():
    points = RNG(8).random((1500, 3))
    heights = -0.5 * (points**2).sum(axis=1)
    one, two = (SpatialCells(points, BOX, threads=k).moments(heights) for k in (1, 2))
    assert (one.masses == two.masses).all()
    assert (one.hessian != two.hessian).nnz == 0


@pytest.mark.parametrize("name", NAMES)
def test_polyhedra(name):
    """Closed, oriented outwards, of the right volume, and labelled by the plane they lie on."""
    points = targets(name)
    cells = SpatialCells(points, BOX)
    heights = some_heights(cells)
    soup, moments = cells.polyhedra(heights), cells.moments(heights)
    assert len(soup.cell_offsets) == len(points) + 1
    assert soup.face_offsets[-1] == len(soup.loops)
    for i in range(len(points)):
        faces = soup.faces(i)
        volume, area = 0.0, np.zeros(3)
        edges = []
        for f, polygon in zip(range(soup.cell_offsets[i], soup.cell_offsets[i + 1]), faces, strict=True):
            loop = soup.loops[soup.face_offsets[f] : soup.face_offsets[f + 1]]
            edges += [*pairwise(loop), (loop[-1], loop[0])]
            cross = np.cross(polygon[1:-1] - polygon[0], polygon[2:] - polygon[0])
            volume += (cross @ polygon[0]).sum() / 6
            area += cross.sum(axis=0) / 2
            j = soup.neighbours[f]
            if j >= 0:
                gap = polygon @ (points[i] - points[j]) + heights[i] - heights[j]
                scale = np.linalg.norm(points[i] - points[j])
            else:
                gap, scale = polygon @ BOX.normals[-1 - j] - BOX.offsets[-1 - j], 1.0
            assert np.abs(gap).max() <= 1e-12 * max(scale, np.abs(points).max())
        assert volume == pytest.approx(moments.masses[i], abs=1e-13)
        assert area == pytest.approx(0.0, abs=1e-13)
        assert len(set(edges)) == len(edges)
        assert {(b, a) for a, b in edges} == set(edges)
        assert (len(faces) == 0) == (moments.masses[i] == 0.0)


clouds = st.builds(
    lambda n, seed, kind: (
        RNG(seed).random((n, 3))
        if kind == 0
        else RNG(seed).integers(0, 4, size=(n, 3)) / 4.0
        if kind == 1
        else RNG(seed).random((n, 3)) * np.array([1.0, 1e-6, 0.0]) + 0.2
    ),
    st.integers(1, 30),
    st.integers(0, 2**31),
    st.integers(0, 2),
).map(lambda y: np.unique(y, axis=0))
SETTINGS = settings(max_examples=40, suppress_health_check=list(HealthCheck))


@SETTINGS
@given(clouds, st.integers(0, 2**31), st.floats(-3, 3), st.floats(-20, 20), st.floats(0.01, 100))
def test_invariances(points, seed, constant, shift, factor):
    """Gauge, translation of the targets and of the domain, scaling of both, permutation."""
    cells = SpatialCells(points, BOX)
    heights = some_heights(cells, seed)
    expected = cells.moments(heights)
    assert abs(expected.masses.sum() - 1) < 1e-12
    rng = RNG(seed)
    move, order = shift * rng.random(3), rng.permutation(len(points))

    def same(got, order=slice(None), factor=1.0, offset=0.0, tolerance=1e-10):
        assert got.masses == pytest.approx(expected.masses[order], abs=tolerance)
        reference = factor * (expected.first[order] + offset * expected.masses[order, None])
        assert got.first == pytest.approx(reference, abs=tolerance * factor * (1 + abs(shift)))

    loose = 1e-10 if len(points) == 1 or points.max(axis=0)[1] - points.min(axis=0)[1] > 1e-3 else 1e-6
    same(cells.moments(heights + constant), tolerance=loose)
    same(SpatialCells(points[order], BOX).moments(heights[order]), order, tolerance=loose)
    same(SpatialCells(points + move, BOX).moments(heights), tolerance=1e-6)  # the targets themselves are rounded
    domain = Polytope.box(move, move + 1)
    same(SpatialCells(points, domain).moments(heights - points @ move), offset=move, tolerance=1e-6)
    same(SpatialCells(points, Polytope.box(0, factor)).moments(factor * heights), factor=factor, tolerance=loose)


@SETTINGS
@given(clouds, st.integers(0, 2**31))
def test_masses_are_where_the_maximum_is(points, seed):
    """Points drawn in the domain lie in the polyhedron of their best target."""
    cells = SpatialCells(points, BOX)
    heights = some_heights(cells, seed)
    soup = cells.polyhedra(heights)
    x = RNG(seed).random((20, 3))
    scores = x @ points.T + heights
    for point, best in zip(x, np.argmax(scores, axis=1), strict=True):
        for polygon in soup.faces(best):
            normal = np.cross(polygon[1:-1] - polygon[0], polygon[2:] - polygon[0]).sum(axis=0)
            assert normal @ (point - polygon[0]) <= 1e-9
        assert len(soup.faces(best)) >= 4


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: SpatialCells([[0.0, 1.0]], BOX), r"\(n, 3\)"),
        (lambda: SpatialCells(np.empty((0, 3)), BOX), "n >= 1"),
        (lambda: SpatialCells([[0.0, np.nan, 1.0]], BOX), "NaN"),
        (lambda: SpatialCells([[0.0, 0, 0], [1, 1, 1], [0, 0, 0]], BOX), "targets 0 and 2 coincide"),
        (lambda: SpatialCells([[0.0, 0, 0]], BOX).moments([1.0, 2.0]), "one height"),
        (lambda: SpatialCells([[0.0, 0, 0]], BOX).moments([np.inf]), "infinity"),
        (lambda: Polytope.box(1, 0), "low < high"),
        (lambda: Polytope.hull([[0, 0, 0], [1, 0, 0], [0, 1, 0], [1, 1, 0]]), "one plane"),
        (lambda: Polytope.hull([[0, 0, 0]]), "at least 4"),
        (lambda: Polytope(np.zeros((1, 3)), np.zeros(1)), "is zero"),
        (lambda: Polytope(np.eye(2), np.zeros(2)), r"\(k, 3\)"),
        (lambda: SpatialCells([[0.0, 0, 0]], Polytope(np.eye(3), np.ones(3))), "unbounded"),
        (lambda: Polytope(np.ones((1, 3)), np.ones(1)).bounds(), "unbounded"),
        (lambda: Polytope([[1, 1, 0], [-1, -1, 0]], [-1, -1]).bounds(), "empty"),
        (lambda: Polytope(np.vstack([-np.eye(3), np.eye(3)]), [0, 0, 0, 1, 1, 0]).bounds(), "flat"),
    ],
)
def test_errors_say_what_to_do(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_redundant_half_spaces_are_harmless():
    points = RNG(9).random((30, 3))
    heights = -0.5 * (points**2).sum(axis=1)
    more = Polytope(
        np.vstack([BOX.normals, 5 * BOX.normals, [[1, 1, 1]]]), np.concatenate([BOX.offsets, 5 * BOX.offsets, [4]])
    )
    got, expected = (SpatialCells(points, domain).moments(heights).masses for domain in (more, BOX))
    assert got == pytest.approx(expected, abs=1e-14)


@pytest.mark.parametrize("lift", [[1, -1, -1, 1], [1, -1, -1, 5], [-1, 1, 2, -3], [1, -1, 1, 1]])
def test_cut_through_a_face_warped_by_rounding(lift):
    """Opposite corners of a face stick out by rounding: what is cut off stays connected, a polyhedron is left."""
    position, topology = cube(0.5)
    position[4:, 2] += 1e-14 * np.array(lift)
    real, corners, work = make_workspace(64)
    count, cut = clip(real, corners, work, load(real, corners, position, topology), 0.0, 0.0, 1.0, 0.5, 7)
    assert cut
    corners = corners[:count]
    assert count % 2 == 0
    assert len(np.unique(corners[:, :3])) == count // 2 + 2  # Euler's formula for a cubic polyhedron
    for v in range(count):
        for k in range(3):
            w, back = corners[v, 3 + k], corners[v, 6 + k]
            assert (corners[w, 3 + back], corners[w, 6 + back]) == (v, k)
            assert corners[w, (back + 1) % 3] == corners[v, (k + 2) % 3]
    volume, mean, _ = polyhedron_moments(np.ascontiguousarray(real[:3, :count].T), corners)
    assert volume == pytest.approx(1.0, abs=1e-12)
    assert mean == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("where", ["around", "elsewhere"])
def test_surface_of_a_solid(data_dir, where):
    """Vertices of a closed surface as targets: long cells, and neighbours across the solid."""
    points = np.load(data_dir / "pointclouds" / "spot.npz", allow_pickle=False)["vertices"].astype(float)[::2]
    low, high = points.min(axis=0), points.max(axis=0)
    domain = Polytope.box(low - 0.1, high + 0.1) if where == "around" else Polytope.box(high + 1, high + 3)
    outcome = newton(SpatialCells(points, domain), np.full(len(points), 1.0))
    assert outcome.converged
    assert abs(outcome.masses.sum() - 1.0) < 1e-12
