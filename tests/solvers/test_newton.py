"""Newton's method against planted potentials, closed forms and hard targets; linear solves against dense algebra."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array
from scipy.sparse.linalg import LinearOperator, cg

from otgan.cells._density_disc import DiscDensity
from otgan.cells._density_gaussian import GaussianDensity
from otgan.cells.base import CellMoments, ExactCells
from otgan.cells.planar import PlanarCells
from otgan.solvers import _linear, _multigrid
from otgan.solvers._linear import solve_laplacian
from otgan.solvers._multigrid import Multigrid
from otgan.solvers.newton import newton

SQUARE = np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
SETTINGS = settings(max_examples=15, deadline=None)


def uniform(n, seed=0):
    return np.random.default_rng(seed).random((n, 2))


def clusters(n, seed=0, deviation=0.01):
    """Ten tight clusters whose weights differ by up to a factor 100."""
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 10, n)
    y = rng.random((10, 2))[label] + deviation * rng.standard_normal((n, 2))
    weight = np.logspace(0, 2, 10)[label]
    return y, weight / weight.sum()


class Line(ExactCells):
    """Cells on [0, 1] under the uniform density, kept as plain as possible: the smallest other dimension."""

    @property
    def second_moment(self):
        return 1 / 3

    def moments(self, heights, hessian=True):
        y = self.points[:, 0]
        order = np.argsort(y)
        y, h = y[order], np.asarray(heights)[order]
        n = len(y)
        low, high = np.zeros(n), np.ones(n)
        for i in range(n):
            for j in range(n):
                if j != i:
                    cut = (h[i] - h[j]) / (y[j] - y[i])
                    if j > i:
                        high[i] = min(high[i], cut)
                    else:
                        low[i] = max(low[i], cut)
        masses = np.maximum(high - low, 0)
        first = np.where(masses > 0, (high**2 - low**2) / 2, 0)
        back = np.argsort(order)
        slope = 1 / np.diff(y)
        dense = np.diag(np.r_[slope, 0] + np.r_[0, slope]) - np.diag(slope, 1) - np.diag(slope, -1)
        return CellMoments(masses[back], first[back][:, None], csr_array(dense[back][:, back]) if hessian else None)


@pytest.mark.parametrize("n", [1, 2, 3, 30, 1000])
def test_uniform_targets(n):
    y = uniform(n)
    outcome = newton(PlanarCells(y, SQUARE), np.ones(n))
    assert outcome.converged
    assert outcome.error <= 1e-8
    assert outcome.n_iter <= 15
    assert outcome.masses == pytest.approx(np.full(n, 1 / n), rel=1e-8)
    assert PlanarCells(y, SQUARE).moments(outcome.heights).masses == pytest.approx(outcome.masses, rel=1e-9)
    assert abs(outcome.heights.mean()) < 1e-13
    assert [entry["step"] for entry in outcome.history] == list(range(outcome.n_iter + 1))
    assert outcome.history[-1]["error"] == outcome.error
    assert set(outcome.history[0]) == {"step", "error", "damping", "seconds", "stage"}


@pytest.mark.parametrize("n", [5, 100, 2000])
def test_planted_potential_is_recovered(n):
    y = uniform(n, 1)
    cells = PlanarCells(y, SQUARE)
    rng = np.random.default_rng(2)
    planted = cells.start(np.full(n, 1 / n))
    noise = rng.standard_normal(n) / n
    while cells.moments(planted + noise).masses.min() <= 0:
        noise /= 2
    planted = planted + noise
    b = cells.moments(planted).masses
    planted = planted - b @ planted
    outcome = newton(PlanarCells(y, SQUARE), b, tol=1e-10)
    assert outcome.converged
    assert np.abs(outcome.heights - planted).max() <= 1e-9


def test_slabs():
    n = 40
    y = np.column_stack([(np.arange(n) + 0.5) / n, np.full(n, 0.5)])
    outcome = newton(PlanarCells(y, SQUARE), np.ones(n), tol=1e-12)
    assert outcome.converged
    expected = -0.5 * y[:, 0] ** 2
    assert outcome.heights == pytest.approx(expected - expected.mean(), abs=1e-12)
    centres = outcome.moments.centroids
    assert centres == pytest.approx(y, abs=1e-10)
    # W2^2 = E (x_1 - T_1)^2 + E (x_2 - 1/2)^2
    cells = PlanarCells(y, SQUARE)
    cost = cells.second_moment - 2 * np.einsum("ij,ij->", outcome.moments.first, y) + outcome.masses @ (y**2).sum(1)
    assert cost == pytest.approx(1 / (12 * n**2) + 1 / 12, rel=1e-10)


def hard_problem(kind):
    n = 600
    rng = np.random.default_rng(7)
    if kind == "clusters":
        return clusters(n)
    if kind == "tighter clusters":
        return clusters(n, deviation=1e-4)
    if kind == "weights over six decades":
        b = 10.0 ** rng.uniform(-6, 0, n)
        return uniform(n), b / b.sum()
    if kind == "grid":
        g = np.arange(24) / 24
        return np.stack(np.meshgrid(g, g), -1).reshape(-1, 2), np.full(576, 1 / 576)
    if kind == "collinear":
        t = np.sort(rng.standard_normal(n))
        return np.column_stack([t, 2 - 3 * t]), np.full(n, 1 / n)
    if kind == "nearly collinear":
        t = rng.random(n)
        return np.column_stack([t, t + 1e-9 * rng.random(n)]), np.full(n, 1 / n)
    if kind == "far outside":
        return 30 + rng.random((n, 2)), np.full(n, 1 / n)
    if kind == "heavy-tailed":
        return rng.standard_cauchy((n, 2)), np.full(n, 1 / n)
    t = 2 * np.pi * np.arange(n) / n
    return np.column_stack([np.cos(t), np.sin(t)]), np.full(n, 1 / n)


@pytest.mark.parametrize(
    "kind",
    [
        "clusters",
        "tighter clusters",
        "weights over six decades",
        "grid",
        "collinear",
        "nearly collinear",
        "far outside",
        "heavy-tailed",
        "circle",
    ],
)
def test_hard_targets(kind):
    y, b = hard_problem(kind)
    outcome = newton(PlanarCells(y, SQUARE), b, tol=1e-7, max_time=60)
    assert outcome.status == "converged", outcome.message
    assert PlanarCells(y, SQUARE).moments(outcome.heights).masses == pytest.approx(b, rel=2e-7)


@SETTINGS
@given(seed=st.integers(0, 10_000), n=st.integers(1, 50), spread=st.floats(0.0, 3.0))
def test_map_is_invariant(seed, n, spread):
    rng = np.random.default_rng(seed)
    y, b = rng.standard_normal((n, 2)), np.exp(spread * rng.uniform(-1, 1, n))
    b /= b.sum()
    base = newton(PlanarCells(y, SQUARE), b, tol=1e-10)
    assert base.converged
    assert abs(b @ base.heights) < 1e-12
    order = rng.permutation(n)
    shuffled = newton(PlanarCells(y[order], SQUARE), 7.0 * b[order], tol=1e-10)
    assert shuffled.heights == pytest.approx(base.heights[order], abs=1e-8)
    moved = newton(PlanarCells(2.0 * y + 5.0, SQUARE), b, tol=1e-10)
    assert moved.moments.first == pytest.approx(base.moments.first, abs=1e-8)


def test_start_is_used():
    y, b = clusters(300)
    solved = newton(PlanarCells(y, SQUARE), b)
    again = newton(PlanarCells(y, SQUARE), b, start=solved.heights + 3.0)
    assert again.n_iter == 0
    assert again.heights == pytest.approx(solved.heights, abs=1e-12)
    # a start with empty cells is moved just far enough towards the default one
    empty = newton(PlanarCells(y, SQUARE), b, start=np.zeros(300))
    assert empty.converged
    assert empty.heights == pytest.approx(solved.heights, abs=1e-6)


@pytest.mark.parametrize("density", [GaussianDensity(), DiscDensity()], ids=["gaussian", "disc"])
def test_start_follows_the_bulk_of_the_density(density):
    y, b = clusters(200)
    outcome = newton(PlanarCells(10.0 + 3.0 * y, density.domain, density), b)
    assert outcome.status == "converged", outcome.message
    assert outcome.n_iter <= 30


class TwoRooms:
    """Uniform on the parts x_1 < 0.4 and x_1 > 0.6 of the unit square, with masses 1/2 each."""

    second_moment = 0.5 * (0.16 / 3 + (1 - 0.6**3) / 1.2) + 1 / 3

    def integrate(self, soup, domain):
        total, mean, edge = 0.0, 0.0, np.zeros(len(soup.vertices))
        for low, high in ((-1.0, 0.4), (0.6, 2.0)):
            area, first, length = self._strip(soup, low, high)
            total, mean, edge = total + area / 0.8, mean + first / 0.8, edge + length / 0.8
        return total, mean, edge

    @staticmethod
    def _strip(soup, low, high):
        """Integrals over the cells cut to low <= x_1 <= high, edge by edge (Green)."""
        a, b = soup.vertices, soup.vertices[soup.next_vertex]
        run = np.where(b[:, 0] == a[:, 0], 1.0, b[:, 0] - a[:, 0])
        t = np.clip((np.array([[low], [high]]) - a[:, 0]) / run, 0, 1)
        t = np.where(b[:, 0] == a[:, 0], [[0.0], [1.0]], np.sort(t, axis=0))
        p, q = a + t[0][:, None] * (b - a), a + t[1][:, None] * (b - a)
        inside = ((p + q)[:, 0] / 2 >= low) & ((p + q)[:, 0] / 2 <= high)
        dx = np.where(inside, q[:, 0] - p[:, 0], 0.0)
        # area = -integral of y dx, first moments = -integral of x y dx and of y^2 / 2 dx over the boundary
        mid, y0, y1, x0, x1 = (p + q) / 2, p[:, 1], q[:, 1], p[:, 0], q[:, 0]
        area = -dx * mid[:, 1]
        mx = -dx * (x0 * y0 + 4 * mid[:, 0] * mid[:, 1] + x1 * y1) / 6
        my = -dx * (y0**2 + 4 * mid[:, 1] ** 2 + y1**2) / 12
        sums = [np.bincount(soup.owner, v, soup.n_cells) for v in (area, mx, my)]
        return np.maximum(sums[0], 0.0), np.stack(sums[1:], axis=1), np.where(inside, np.hypot(*(q - p).T), 0.0)


@pytest.mark.parametrize("n", [7, 61, 301])
def test_source_with_a_gap(n):
    y = 0.5 + 0.05 * np.random.default_rng(0).standard_normal((n, 2))
    outcome = newton(PlanarCells(y, SQUARE, TwoRooms()), np.ones(n), max_time=60)
    assert outcome.status == "converged", outcome.message
    assert outcome.masses == pytest.approx(np.full(n, 1 / n), rel=1e-8)


def test_source_with_a_gap_that_splits_the_targets_evenly():
    # at the solution no cell crosses the gap: the Hessian becomes singular, and the method must say so or succeed
    y = uniform(40, 3)
    outcome = newton(PlanarCells(y, SQUARE, TwoRooms()), np.ones(40), max_time=60)
    assert outcome.status in ("converged", "singular", "stalled")
    assert outcome.error < 1e-3


@pytest.mark.parametrize("n", [1, 2, 25])
def test_one_dimension(n):
    y = np.random.default_rng(n).standard_normal((n, 1)) + 4
    b = np.random.default_rng(1).uniform(1, 5, n)
    b /= b.sum()
    outcome = newton(Line(y), b, tol=1e-11)
    assert outcome.converged
    order = np.argsort(y[:, 0])
    cuts = np.cumsum(b[order])[:-1]
    h = outcome.heights[order]
    assert -np.diff(h) / np.diff(y[order, 0]) == pytest.approx(cuts, abs=1e-9)


def test_limits_and_statuses():
    y, b = clusters(500)
    few = newton(PlanarCells(y, SQUARE), b, max_iter=3)
    assert (few.status, few.n_iter, few.converged) == ("max_iter", 3, False)
    assert "max_iter" in few.message
    late = newton(PlanarCells(y, SQUARE), b, max_time=0.0)
    assert (late.status, late.n_iter) == ("max_time", 0)
    assert late.masses.sum() == pytest.approx(1)
    impossible = newton(PlanarCells(y, SQUARE), b, tol=1e-18)
    assert impossible.status == "stalled"
    assert impossible.error < 1e-7
    assert "Rounding" in impossible.message


def test_targets_beyond_double_precision_end_in_a_status():
    y = np.concatenate([uniform(50), uniform(50) + 1e-15])
    y = np.unique(y, axis=0)
    outcome = newton(PlanarCells(y, SQUARE), np.ones(len(y)), max_time=20)
    assert outcome.status in ("stalled", "singular", "empty_cells")
    assert np.isfinite(outcome.heights).all()


def test_callback_sees_every_step_and_can_stop():
    y, b = clusters(200)
    seen = []
    outcome = newton(PlanarCells(y, SQUARE), b, callback=lambda entry: seen.append(entry))
    assert [entry["step"] for entry in seen] == list(range(outcome.n_iter + 1))
    assert np.array_equal(seen[-1]["heights"], outcome.heights)
    stopped = newton(PlanarCells(y, SQUARE), b, callback=lambda entry: entry["step"] == 2)
    assert (stopped.status, stopped.n_iter) == ("interrupted", 2)


def test_keyboard_interrupt_returns_what_is_there():
    y, b = clusters(200)

    def press(entry):
        if entry["step"] == 3:
            raise KeyboardInterrupt

    outcome = newton(PlanarCells(y, SQUARE), b, callback=press)
    assert (outcome.status, outcome.n_iter) == ("interrupted", 3)
    assert outcome.error == outcome.history[-1]["error"]
    resumed = newton(PlanarCells(y, SQUARE), b, start=outcome.heights)
    assert resumed.converged


@pytest.mark.parametrize(
    ("weights", "options", "match"),
    [
        (np.ones(4), {}, "weights must have shape"),
        ([1, 1, 0], {}, "positive"),
        ([1, 1, -1], {}, "positive"),
        ([1, 1, np.nan], {}, "finite"),
        (np.ones(3), {"start": np.zeros(2)}, "start"),
        (np.ones(3), {"start": [0, 0, np.inf]}, "start"),
        (np.ones(3), {"tol": 0.0}, "tol"),
    ],
)
def test_bad_input_is_refused(weights, options, match):
    with pytest.raises(ValueError, match=match):
        newton(PlanarCells(uniform(3), SQUARE), weights, **options)


@pytest.mark.parametrize("iterative", [False, True])
@pytest.mark.parametrize("problem", ["uniform", "clusters"])
def test_linear_solver(iterative, problem, monkeypatch):
    if iterative:
        monkeypatch.setattr(_linear, "_direct_limit", lambda per_row: 0)
    y, b = clusters(800) if problem == "clusters" else (uniform(800), np.full(800, 1 / 800))
    cells = PlanarCells(y, SQUARE)
    laplacian = cells.moments(cells.start(b)).hessian
    rhs = np.random.default_rng(0).standard_normal(800)
    x = solve_laplacian(laplacian, rhs, rtol=1e-10)
    assert abs(x.mean()) < 1e-12 * np.abs(x).max()
    expected = rhs - rhs.mean()
    assert np.linalg.norm(laplacian @ x - expected) <= 1e-8 * np.linalg.norm(expected)
    exact = np.linalg.lstsq(laplacian.toarray(), expected, rcond=None)[0]
    assert np.abs(x - exact).max() <= 1e-6 * np.abs(exact).max()
    assert solve_laplacian(laplacian, np.ones(800)) == pytest.approx(np.zeros(800))


@pytest.mark.parametrize("n", [150, 3000])
def test_multigrid_needs_few_iterations(n):
    y, b = clusters(n)
    cells = PlanarCells(y, SQUARE)
    laplacian = cells.moments(cells.start(b)).hessian
    precondition = Multigrid(laplacian)
    sizes = [level.matrix.shape[0] for level in precondition.levels] + [len(precondition.coarse)]
    assert sizes[0] == n
    assert all(after < before / 2 for before, after in zip(sizes, sizes[1:], strict=False))
    rng = np.random.default_rng(0)
    u, v = rng.standard_normal((2, n))
    u, v = u - u.mean(), v - v.mean()
    assert u @ precondition(v) == pytest.approx(v @ precondition(u), rel=1e-8)
    assert u @ precondition(u) > 0
    left = []
    solution = conjugate_gradients(laplacian, u, tol=1e-8, precondition=precondition, residuals=left)
    assert np.linalg.norm(laplacian @ solution - u) <= 1e-7 * np.linalg.norm(u)
    assert len(left) <= 60


def conjugate_gradients(matrix, b, tol, precondition, residuals):
    """Conjugate gradients of SciPy."""
    operator = LinearOperator(matrix.shape, matvec=precondition, dtype=float)
    x, info = cg(matrix, b, rtol=tol, M=operator, callback=lambda z: residuals.append(z))
    assert info == 0
    return x


@pytest.mark.parametrize("parallel", [10, 10**9])
def test_residual(parallel, monkeypatch):
    monkeypatch.setattr(_multigrid, "PARALLEL", parallel)
    y, b = clusters(200)
    cells = PlanarCells(y, SQUARE)
    matrix = cells.moments(cells.start(b)).hessian
    x, out = np.random.default_rng(0).standard_normal(200), np.empty(200)
    _multigrid.residual(matrix.indptr, matrix.indices, matrix.data, b, x, out)
    assert out == pytest.approx(b - matrix @ x, abs=1e-12 * np.abs(matrix.data).max())


def test_linear_solver_refuses_a_disconnected_graph():
    path = np.array([[1.0, -1.0, 0.0], [-1.0, 1.0, 0.0], [0.0, 0.0, 0.0]])
    with pytest.raises(RuntimeError, match="zero rows"):
        solve_laplacian(csr_array(path), np.array([1.0, -1.0, 0.0]))


@pytest.mark.slow
def test_many_targets():
    outcome = newton(PlanarCells(uniform(100_000), SQUARE), np.ones(100_000))
    assert outcome.converged
    assert outcome.n_iter <= 15


def test_multigrid_does_not_solve_a_crowd_of_lonely_unknowns_directly():
    # Newton's method on few samples makes such matrices: most cells have no neighbour in common with any other
    from scipy.sparse import block_diag, csr_array, diags_array

    chain = diags_array([-np.ones(49), np.full(50, 2.1), -np.ones(49)], offsets=[-1, 0, 1])
    alone = diags_array(np.linspace(0.5, 2.0, 60_000))
    matrix = csr_array(block_diag([chain, alone], format="csr"))
    matrix.indptr, matrix.indices = matrix.indptr.astype(np.int32), matrix.indices.astype(np.int32)
    b = np.random.default_rng(0).normal(size=matrix.shape[0])
    x = Multigrid(matrix)(b)
    np.testing.assert_allclose(x[50:], b[50:] / alone.diagonal())
