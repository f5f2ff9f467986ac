"""Newton's method on densities with holes: real pictures, the easier problems on the way, what is told of them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otgan.cells._density_disc import DiscDensity
from otgan.cells._density_image import ImageDensity
from otgan.cells.planar import PlanarCells
from otgan.solvers._continuation import Level, hierarchy, ladder, lift, prolong
from otgan.solvers.newton import newton

SQUARE = np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])


def targets(kind, n, seed=0):
    """Targets (n, 2) and weights (n,)."""
    rng = np.random.default_rng(seed)
    if kind == "clusters":
        label = rng.integers(0, 10, n)
        y = rng.random((10, 2))[label] + 0.01 * rng.standard_normal((n, 2))
        b = np.logspace(0, 2, 10)[label]
    elif kind == "outside":
        y, b = 3.0 + rng.random((n, 2)), np.ones(n)
    else:
        y, b = rng.random((n, 2)), 100.0 ** rng.random(n) if kind == "ratio" else np.ones(n)
    return y, b / b.sum()


def island(pixels=32):
    """A black picture with one white disc and one white bar, which do not touch."""
    x, y = (np.indices((pixels, pixels)) + 0.5) / pixels
    values = ((x - 0.3) ** 2 + (y - 0.3) ** 2 < 0.02).astype(float)
    values[(abs(x - 0.8) < 0.05) & (abs(y - 0.6) < 0.3)] = 0.5
    return ImageDensity(values)


def cells_of(density, y):
    return PlanarCells(y, density.domain, density)


def check(outcome, b, density, y):
    assert outcome.status == "converged", outcome.message
    assert outcome.masses == pytest.approx(b, rel=1e-8)
    again = cells_of(density, y).moments(outcome.heights)
    assert again.masses == pytest.approx(b, rel=1e-7)


@pytest.mark.parametrize("kind", ["uniform", "clusters", "outside", "ratio"])
@pytest.mark.parametrize("n", [1, 2, 30, 1000])
def test_separate_islands(kind, n):
    y, b = targets(kind, n)
    outcome = newton(cells_of(island(), y), b, max_time=60)
    check(outcome, b, island(), y)
    assert outcome.n_iter <= 120


def test_islands_that_hold_whole_cells_only():
    # both halves have mass 1/2 and 20 targets each: no cell crosses the gap at the solution
    values = np.zeros((16, 16))
    values[:, :5] = values[:, 11:] = 1.0
    density = ImageDensity(values)
    y, b = targets("uniform", 40)
    outcome = newton(cells_of(density, y), b, max_time=60)
    check(outcome, b, density, y)


@pytest.mark.parametrize(("name", "kind"), [("A", "uniform"), ("noisyblobs_b", "clusters"), ("knee_a", "outside")])
def test_real_pictures(name, kind, data_dir):
    path = data_dir / "shapes2d" / "shapes2d.npz"
    if not path.exists():
        pytest.skip(f"no pictures at {path}")
    with np.load(path, allow_pickle=False) as shapes:
        density = ImageDensity(shapes[name])
    y, b = targets(kind, 800)
    check(newton(cells_of(density, y), b, max_time=60), b, density, y)


def test_rough_pictures():
    density = ImageDensity(10.0 ** np.random.default_rng(5).uniform(-4, 0, (40, 40)))
    y, b = targets("uniform", 2000)
    outcome = newton(cells_of(density, y), b, max_time=60)
    check(outcome, b, density, y)
    assert outcome.n_iter <= 60


def test_disc():
    y, b = targets("ratio", 1500)
    outcome = newton(PlanarCells(y, DiscDensity().domain, DiscDensity()), b, max_time=60)
    assert outcome.converged and outcome.n_iter <= 30


def test_history_tells_the_stage_of_every_step():
    y, b = targets("uniform", 500)
    seen = []
    outcome = newton(cells_of(island(), y), b, callback=lambda entry: seen.append(entry))
    stages = [entry["stage"] for entry in seen]
    assert [entry["step"] for entry in seen] == list(range(outcome.n_iter + 1))
    assert [{name: value for name, value in entry.items() if name != "heights"} for entry in seen] == outcome.history
    final = stages.index("source")
    assert final > 0 and set(stages[final:]) == {"source"}
    assert stages[0].startswith("32 targets") and any(name.startswith("500 targets") for name in stages)
    assert all(entry["heights"].shape == (500,) and abs(b @ entry["heights"]) < 1e-12 for entry in seen)
    assert outcome.history[-1]["error"] == outcome.error


def test_a_start_that_is_good_needs_no_easier_problem():
    y, b = targets("uniform", 400)
    outcome = newton(PlanarCells(y, SQUARE, ImageDensity(np.ones((4, 4)))), b)
    assert {entry["stage"] for entry in outcome.history} == {"source"}
    assert outcome.n_iter <= 12


@pytest.mark.parametrize("step", [0, 1, 5])
def test_stopped_on_the_way(step):
    y, b = targets("uniform", 500)
    cells = cells_of(island(), y)
    stopped = newton(cells, b, callback=lambda entry: entry["step"] == step)
    assert (stopped.status, stopped.n_iter) == ("interrupted", step)
    short = newton(cells, b, max_iter=step)
    assert (short.status, short.n_iter) == ("max_iter", step)
    for outcome in (stopped, short):
        assert outcome.heights.shape == (500,)
        masses = cells.moments(outcome.heights).masses
        assert outcome.masses == pytest.approx(masses, abs=1e-12)
        assert outcome.error == pytest.approx(np.abs(masses / b - 1).max(), rel=1e-6)


def test_hierarchy_keeps_mass_and_centre():
    y, b = targets("clusters", 1000)
    cells, order = cells_of(island(), y).reordered()
    levels = hierarchy(cells, b[order])
    assert [len(level.b) for level in levels] == [1000, 250, 63]
    for fine, coarse in zip(levels, levels[1:], strict=False):
        assert coarse.b.sum() == pytest.approx(1.0)
        assert coarse.b @ coarse.cells.points == pytest.approx(b @ y)
        assert np.bincount(coarse.group, fine.b) == pytest.approx(coarse.b)
        assert np.bincount(coarse.member, b[order]) == pytest.approx(coarse.b)


def test_densities_on_the_ladder_change_by_a_bounded_factor():
    y, b = targets("uniform", 300)
    cells, order = cells_of(island(), y).reordered()
    at, before = SQUARE[[0]] + 0.999 * np.random.default_rng(0).random((300, 2)), None
    for _, easier, _ in ladder(cells, b[order]):
        # Voronoi cells of fixed places: their masses show the density alone
        masses = easier.with_points(at).moments(-0.5 * (at**2).sum(1), hessian=False).masses
        assert masses.min() > 0
        if before is not None:
            assert (masses / before).min() > 1 / 8 and (masses / before).max() < 8
        before = masses


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), n=st.integers(101, 400), kind=st.sampled_from(["uniform", "clusters", "ratio"]))
def test_prolonged_heights_leave_no_cell_empty(seed, n, kind):
    y, b = targets(kind, n, seed)
    cells, order = PlanarCells(y, SQUARE).reordered()
    fine, coarse = hierarchy(cells, b[order])[:2]
    outcome = newton(coarse.cells, coarse.b, tol=0.5)
    # newton answers in the order of its input, and with the gauge of the weights
    moments = coarse.cells.moments(outcome.heights)
    heights = prolong(fine, coarse, outcome.heights, moments)
    assert fine.cells.moments(heights).masses.min() > 0
    # the tangents through the centroids lie on or below the piece of their own group
    assert (lift(coarse, fine.cells.points, outcome.heights, moments) >= heights - 1e-9).all()


def test_prolongation_needs_neighbours():
    y, b = targets("uniform", 200)
    fine, coarse = hierarchy(PlanarCells(y, SQUARE), b)[:2]
    heights = coarse.cells.start(coarse.b)
    with pytest.raises(ValueError, match="Hessian"):
        prolong(fine, coarse, heights, coarse.cells.moments(heights, hessian=False))


def test_a_level_is_a_plain_record():
    cells = PlanarCells([[0.0, 0.0], [1.0, 0.0]], SQUARE)
    level = Level(cells, np.array([0.5, 0.5]), np.arange(2), np.arange(2))
    moments = cells.moments(np.zeros(2))
    assert lift(level, cells.points, np.array([1.0, 2.0]), moments) == pytest.approx([1.0, 2.0])


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["uniform", "clusters", "outside"])
def test_many_targets_on_separate_islands(kind):
    y, b = targets(kind, 10_000)
    density = island(512)
    check(newton(cells_of(density, y), b), b, density, y)
