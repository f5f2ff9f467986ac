"""Exact power cells on the line, and the closed form of the optimal map."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, stats

from otgan.cells.line import EmpiricalLine, GaussianLine, LineCells, UniformLine, line_wasserstein, solve_line

RNG = np.random.default_rng
SMOOTH = [UniformLine(-1.0, 2.0), GaussianLine(0.3, 2.0)]
SOURCES = [*SMOOTH, EmpiricalLine(RNG(0).normal(size=301), RNG(1).random(301))]


def frozen(source):
    """The same measure in scipy."""
    if isinstance(source, UniformLine):
        return stats.uniform(source.low, source.high - source.low)
    return stats.norm(source.mean, source.sd)


def problem(n, seed=0):
    rng = RNG(seed)
    b = rng.random(n) + 0.1
    return rng.normal(size=n), b / b.sum()


@pytest.mark.parametrize("source", SMOOTH)
@pytest.mark.parametrize("n", [1, 2, 30])
def test_solution_has_the_weights(source, n):
    y, b = problem(n)
    heights = solve_line(y, b, source)
    cells = LineCells(y[:, None], source)
    got = cells.moments(heights)
    assert got.masses == pytest.approx(b, rel=1e-9)
    assert got.masses.sum() == pytest.approx(1.0, abs=1e-14)
    assert b @ heights == pytest.approx(0.0, abs=1e-14)
    assert cells.start(b) == pytest.approx(heights)


@pytest.mark.parametrize("source", SMOOTH)
def test_map_is_the_quantile_map(source):
    """T sends the source's quantile at level t to the target's."""
    y, b = problem(50)
    levels = (np.arange(2000) + 0.5) / 2000
    x = frozen(source).ppf(levels)
    got = y[np.argmax(np.outer(x, y) + solve_line(y, b, source), axis=1)]
    order = np.argsort(y)
    expected = y[order][np.searchsorted(np.cumsum(b[order]), levels)]
    assert got == pytest.approx(expected)


@pytest.mark.parametrize("source", SOURCES)
def test_cells_against_brute_force(source):
    rng = RNG(4)
    y = rng.normal(size=20)
    heights = -0.5 * y**2 + 0.3 * rng.normal(size=20)
    got = LineCells(y, source).moments(heights)
    levels = (np.arange(400_000) + 0.5) / 400_000
    if isinstance(source, EmpiricalLine):
        x, p = source.atoms, source.weights
    else:
        x, p = frozen(source).ppf(levels), np.full(400_000, 1 / 400_000)
    winner = np.argmax(np.outer(x[:: max(1, len(x) // 20_000)], y) + heights, axis=1)
    if len(x) > 20_000:
        x, p = x[::20], np.full(20_000, 1 / 20_000)
    tolerance = 1e-13 if isinstance(source, EmpiricalLine) else 5e-4
    assert got.masses == pytest.approx(np.bincount(winner, p, 20), abs=tolerance)
    assert got.first[:, 0] == pytest.approx(np.bincount(winner, p * x, 20), abs=5 * tolerance)
    assert (got.masses == 0).any()


@pytest.mark.parametrize("source", SMOOTH)
def test_hessian_is_the_derivative(source):
    y, b = problem(25)
    cells = LineCells(y, source)
    heights = solve_line(y, b, source)
    hessian = cells.moments(heights).hessian.toarray()
    assert (hessian == hessian.T).all()
    assert hessian.sum(axis=1) == pytest.approx(0.0, abs=1e-12 * np.abs(hessian).max())
    assert (np.count_nonzero(hessian, axis=1) <= 3).all()
    direction = 1e-7 * RNG(1).normal(size=25) * np.sort(np.diff(np.sort(y)))[0]
    change = (cells.moments(heights + direction).masses - cells.moments(heights - direction).masses) / 2
    assert change == pytest.approx(hessian @ direction, abs=1e-4 * np.abs(change).max())
    direction = 1e-3 * y  # shifts every cut by the same amount
    change = (cells.moments(heights + direction).masses - cells.moments(heights - direction).masses) / 2
    assert change == pytest.approx(hessian @ direction, abs=1e-6 * np.abs(change).max() + 2e-9)


def test_atoms_have_no_hessian():
    assert LineCells([0.0, 1.0], SOURCES[2]).moments(np.zeros(2)).hessian is None


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("n", [1, 2, 40])
def test_duality_gap_is_zero(source, n):
    """``W2^2 / 2 = E x^2 / 2 + sum b y^2 / 2 - E(h)``, for atoms too, where cells cannot have the weights."""
    y, b = problem(n)
    heights = solve_line(y, b, source)
    cells = LineCells(y, source)
    energy = cells.moments(heights).mean_potential(cells.points, heights) - b @ heights
    dual = cells.second_moment / 2 + b @ y**2 / 2 - energy
    assert line_wasserstein(y, b, source) ** 2 / 2 == pytest.approx(dual, rel=1e-12)


@pytest.mark.parametrize("source", SMOOTH)
def test_wasserstein_by_quadrature(source):
    y, b = problem(12, seed=3)
    order = np.argsort(y)
    ends = np.concatenate([[0], np.cumsum(b[order])])
    ends[-1] = 1.0
    law, total = frozen(source), 0.0
    for k, i in enumerate(order):
        low, high = law.ppf(ends[k : k + 2])
        total += integrate.quad(lambda x, i=i: (x - y[i]) ** 2 * law.pdf(x), low, high, epsabs=1e-13, epsrel=1e-12)[0]
    assert line_wasserstein(y, b, source) == pytest.approx(np.sqrt(total), rel=1e-9)


def test_wasserstein_against_network_simplex():
    ot = pytest.importorskip("ot")
    rng = RNG(5)
    for m, n in ((1, 5), (7, 1), (40, 40), (53, 31)):
        x, y = rng.normal(size=m), rng.normal(size=n) * 2
        a, b = (w / w.sum() for w in (rng.random(m) + 0.01, rng.random(n) + 0.01))
        exact = ot.emd2(a, b, (x[:, None] - y) ** 2)
        assert line_wasserstein(y, b, EmpiricalLine(x, a)) ** 2 == pytest.approx(exact, rel=1e-10)
        assert ot.emd2_1d(x, y, a, b) == pytest.approx(exact, rel=1e-10)


def test_grid_in_closed_form():
    """U(0, 1) to n midpoints: ``W2^2 = 1 / (12 n^2)``, to full relative precision."""
    n = 100_000
    y = (np.arange(n) + 0.5) / n
    assert line_wasserstein(y, None, UniformLine()) == pytest.approx(1 / (np.sqrt(12) * n), rel=1e-9)
    heights = solve_line(y, None, UniformLine())
    assert LineCells(y, UniformLine()).moments(heights).masses * n == pytest.approx(1.0, abs=1e-6)


def test_equal_empirical_measures():
    x = RNG(6).normal(size=200)
    assert line_wasserstein(x, None, EmpiricalLine(x)) == 0.0
    heights = solve_line(x, None, EmpiricalLine(x))
    assert LineCells(x, EmpiricalLine(x)).moments(heights).masses == pytest.approx(1 / 200, rel=1e-12)


@pytest.mark.parametrize(("low", "width"), [(0.0, 1e-9), (8.0, 1e-3), (-12.0, 1.0), (25.0, 1e-10), (5.0, np.inf)])
def test_gaussian_tail_is_accurate_relative_to_itself(low, width):
    """Against the integral of ``exp(-low t - t^2 / 2)``, which has no cancellation."""
    source = GaussianLine()
    high = low + width if np.isfinite(width) else np.inf
    reach = min(width, 40.0 / max(1.0, abs(low)))
    density = stats.norm.pdf(low)

    def part(power):
        return (
            density
            * integrate.quad(
                lambda t: (low + t) ** power * np.exp(-low * t - t * t / 2), 0, reach, epsabs=0, epsrel=1e-13
            )[0]
        )

    mass, first = source.moments(np.array([low]), np.array([high]))
    assert mass[0] == pytest.approx(part(0), rel=2e-12)
    assert first[0] == pytest.approx(part(1), rel=2e-12)
    second = source.squared_distance(np.array([low]), np.array([high]), np.zeros(1))
    assert second[0] == pytest.approx(part(2), rel=1e-10)
    mirrored = source.moments(np.array([-high]), np.array([-low]))
    assert mirrored[0][0] == pytest.approx(mass[0], rel=1e-14)
    assert mirrored[1][0] == pytest.approx(-first[0], rel=1e-14)


def test_tiny_weights_in_the_tails():
    weights = np.array([1e-200, 1e-30, 1.0, 1e-40, 1e-300])
    y = np.array([-2.0, -1, 0, 1, 2])
    source = GaussianLine(1.0, 3.0)
    got = LineCells(y, source).moments(solve_line(y, weights, source))
    assert got.masses == pytest.approx(weights, rel=1e-11)


def test_atom_on_a_cut_belongs_to_the_lower_target():
    got = LineCells([0.0, 1.0], EmpiricalLine([0.0, 0.5, 1.0])).moments(np.array([0.5, 0.0]))
    assert got.masses == pytest.approx([2 / 3, 1 / 3])


@settings(max_examples=60)
@given(st.integers(1, 40), st.integers(0, 2**31), st.sampled_from([0, 1, 2]), st.floats(-5, 5), st.floats(0.1, 10))
def test_invariances(n, seed, which, shift, factor):
    rng = RNG(seed)
    y, b = problem(n, seed)
    a, c = UniformLine(-1.0, 2.0), GaussianLine(0.3, 2.0)
    x = rng.normal(size=57)
    source = [a, c, EmpiricalLine(x)][which]
    moved = [
        UniformLine(-factor + shift, 2 * factor + shift),
        GaussianLine(0.3 * factor + shift, 2.0 * factor),
        EmpiricalLine(factor * x + shift),
    ][which]
    heights = -0.5 * y**2 + 0.2 * rng.normal(size=n)
    expected = LineCells(y, source).moments(heights)
    order = rng.permutation(n)
    assert expected.masses.sum() == pytest.approx(1.0, abs=1e-12)
    assert LineCells(y[order], source).moments(heights[order] + 3).masses == pytest.approx(
        expected.masses[order], abs=1e-9
    )
    got = LineCells(y + 1, moved).moments(factor * heights - shift * y)
    assert got.masses == pytest.approx(expected.masses, abs=1e-9)
    assert got.first[:, 0] == pytest.approx(factor * expected.first[:, 0] + shift * expected.masses, abs=1e-7)
    base = line_wasserstein(y, b, source)
    assert line_wasserstein(factor * y[order] + shift, b[order], moved) == pytest.approx(factor * base, rel=1e-8)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: LineCells(np.zeros((3, 2)), SMOOTH[0]), r"\(n, 1\)"),
        (lambda: LineCells([0.0, np.nan], SMOOTH[0]), "NaN"),
        (lambda: LineCells([0.0, 1.0, 0.0], SMOOTH[0]), "targets 0 and 2 coincide"),
        (lambda: LineCells([0.0, 1.0], SMOOTH[0]).moments([1.0]), "one height"),
        (lambda: LineCells([0.0], SMOOTH[0]).moments([np.nan]), "NaN"),
        (lambda: solve_line([0.0, 1.0], [1.0], SMOOTH[0]), "one weight"),
        (lambda: solve_line([0.0, 1.0], [1.0, 0.0], SMOOTH[0]), "positive"),
        (lambda: UniformLine(1.0, 1.0), "low < high"),
        (lambda: GaussianLine(0.0, 0.0), "sd > 0"),
        (lambda: EmpiricalLine([]), "m >= 1"),
        (lambda: EmpiricalLine([1.0, np.inf]), "infinity"),
        (lambda: EmpiricalLine([1.0, 2.0], [0.5, -0.5]), "nonnegative"),
    ],
)
def test_errors_say_what_to_do(build, message):
    with pytest.raises(ValueError, match=message):
        build()
