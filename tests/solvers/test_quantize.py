"""Optimal quantisation: closed forms, descent, masses, symmetries, refusals."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

import otgan as og

SQUARE = og.UniformBox(dim=2)
HEXAGON = 5 * np.sqrt(3) / 54  # second moment of a regular hexagon of unit area: no cells do better (L. Fejes Toth)
# Two soft spots of different size on a ground without mass.
ROWS, COLUMNS = np.mgrid[0:40, 0:50]
SPOTS = np.maximum(0.0, 1.0 - ((COLUMNS - 12) ** 2 + (ROWS - 20) ** 2) / 90.0)
SPOTS = SPOTS + 2.0 * np.maximum(0.0, 1.0 - ((COLUMNS - 37) ** 2 + (ROWS - 15) ** 2) / 60.0)


def values(result):
    return np.array([entry["value"] for entry in result.history])


def assert_sound(result, mass_tol=1e-6):
    """What holds of every result: right masses, a falling distance, values that belong to the points."""
    n = len(result.points)
    assert result.masses.numpy() == pytest.approx(result.weights.numpy(), rel=mass_tol)
    assert (np.diff(values(result)) < 0).all()
    assert result.value == result.history[-1]["value"] and result.error == result.history[-1]["error"]
    gain = float(result.weights @ ((result.centroids - result.points) ** 2).sum(1))
    assert gain / result.value == pytest.approx(result.error, rel=1e-6, abs=1e-20)
    assert [entry["n_iter"] for entry in result.history] == list(range(result.n_iter + 1))
    assert result.heights.shape == (n,) and float(result.weights @ result.heights) == pytest.approx(0.0, abs=1e-12)
    again = og.solve(result.source, result.measure)
    assert again.value == pytest.approx(result.value, rel=1e-7)


# ------------------------------------------------------------------ closed forms


@pytest.mark.parametrize("n", [1, 2, 7, 1000])
def test_uniform_on_the_line_gives_midpoints(n):
    result = og.quantize(og.UniformBox(-1.0, 3.0, dim=1), n)
    assert result.converged and result.n_iter == 1
    midpoints = -1.0 + 4.0 * (2 * np.arange(1, n + 1) - 1) / (2 * n)
    assert np.sort(result.points[:, 0].numpy()) == pytest.approx(midpoints, abs=1e-12)
    assert result.value == pytest.approx(16.0 / (12 * n**2), rel=1e-12)


def test_gaussian_on_the_line_gives_means_between_quantiles():
    weights = np.array([0.1, 0.2, 0.3, 0.4])
    result = og.quantize(og.Gaussian([1.0], 4.0), 4, weights, start=np.arange(4.0)[:, None])
    cuts = np.concatenate([[-np.inf], norm.ppf(np.cumsum(weights)[:-1]), [np.inf]])
    means = 1.0 - 2.0 * np.diff(norm.pdf(cuts)) / weights
    assert result.points[:, 0].numpy() == pytest.approx(means, abs=1e-12)
    assert result.value == pytest.approx(4.0 - weights @ (means - 1.0) ** 2, rel=1e-12)
    x = og.Gaussian([1.0], 4.0).sample(1000, seed=0, dtype=torch.float64)
    expected = torch.from_numpy(np.digitize((x[:, 0].numpy() - 1.0) / 2.0, cuts[1:-1]))
    assert torch.equal(result.potential.assign(x), expected)


def test_atoms_on_the_line_are_split_between_points():
    x = np.array([[3.0], [0.0], [1.0]])
    result = og.quantize(og.Empirical(x), 2, start=[[0.0], [1.0]])  # 0, half of 1 | half of 1, 3
    assert result.points[:, 0].numpy() == pytest.approx([1 / 3, 7 / 3])
    assert result.value == pytest.approx((1 / 9 * 2 + 4 / 9 + 16 / 9 + 4 / 9 * 2) / 6)
    every = og.quantize(og.Empirical(x), 3)
    assert np.sort(every.points[:, 0].numpy()) == pytest.approx([0.0, 1.0, 3.0])
    assert every.value == pytest.approx(0.0, abs=1e-12) and every.converged


@pytest.mark.parametrize(
    "source", [SQUARE, og.UniformBall(2), og.Gaussian([1.0, 2.0], [[2.0, 0.5], [0.5, 1.0]]), og.UniformBox(dim=3)]
)
def test_one_point_is_the_mean(source):
    result = og.quantize(source, 1)
    assert result.points[0].numpy() == pytest.approx(source.mean.numpy(), abs=1e-9)
    assert result.value == pytest.approx(source.variance, rel=1e-9)


def test_two_points_halve_a_rectangle():
    result = og.quantize(og.UniformBox([0.0, 0.0], [2.0, 1.0]), 2, tol=1e-12)
    order = result.points[:, 0].argsort()
    assert result.points[order].numpy() == pytest.approx(np.array([[0.5, 0.5], [1.5, 0.5]]), abs=1e-5)
    assert result.value == pytest.approx(1 / 6, rel=1e-9)


def test_two_points_of_a_standard_normal_lie_at_the_mean_of_its_halves():
    result = og.quantize(og.Gaussian(2), 2, tol=1e-12)
    assert result.points.norm(dim=1).numpy() == pytest.approx(np.sqrt(2 / np.pi), abs=1e-6)
    assert result.points.sum(dim=0).numpy() == pytest.approx(0.0, abs=1e-6)
    assert result.value == pytest.approx(2 - 2 / np.pi, rel=1e-9)


def test_hexagonal_constant_of_the_square():
    n = 800
    result = og.quantize(SQUARE, n)
    assert_sound(result)
    assert result.converged and HEXAGON < result.value * n < 0.168


def test_a_centred_grid_is_critical():
    side = (np.arange(4) + 0.5) / 4
    grid = np.stack(np.meshgrid(side, side), axis=-1).reshape(-1, 2)
    result = og.quantize(SQUARE, 16, start=grid)
    assert result.converged and result.n_iter == 0
    assert result.value == pytest.approx(2 / (12 * 16), rel=1e-12)


# -------------------------------------------------------------- any source


@pytest.mark.parametrize(
    "source",
    [
        og.UniformBall(2),
        og.Gaussian([5.0, -3.0], [[2.0, 0.9], [0.9, 1.0]]),
        og.UniformBox([100.0, 0.0], [101.0, 0.001]),
        og.UniformPolytope([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]]),
        og.UniformBox(dim=3),
        og.GridDensity(SPOTS),
    ],
    ids=repr,
)
@pytest.mark.parametrize("accelerate", [True, False])
def test_every_source_descends_with_exact_masses(source, accelerate):
    weights = np.random.default_rng(1).uniform(0.5, 2.0, 40)
    result = og.quantize(source, 40, weights, tol=1e-4, accelerate=accelerate)
    assert_sound(result)
    assert result.converged and result.error <= 1e-4
    assert values(result)[-1] < 0.9 * values(result)[0]


def test_points_keep_away_from_where_there_is_no_mass():
    source = og.GridDensity(SPOTS)
    result = og.quantize(source, 60, tol=1e-6)
    column = (result.points[:, 0] * 50).long()
    row = ((0.8 - result.points[:, 1]) * 50).long()
    # All but a point whose cell joins both spots.
    assert int((torch.from_numpy(SPOTS)[row, column] > 0).sum()) >= 59
    left = SPOTS[:, :25].sum() / SPOTS.sum()
    assert abs(float((column < 25).double().mean()) - left) <= 1 / 60


def test_lloyd_moves_every_point_to_its_centre():
    first = og.quantize(SQUARE, 30, max_iter=0)
    second = og.quantize(SQUARE, 30, max_iter=1, accelerate=False)
    assert first.status == "max_iter" and "start=result.points" in first.message
    assert second.points.numpy() == pytest.approx(first.centroids.numpy(), abs=1e-4)
    assert second.value <= first.value * (1 - first.error)  # what theory promises


def test_acceleration_saves_iterations():
    fast, plain = (og.quantize(SQUARE, 200, accelerate=a, max_iter=500) for a in (True, False))
    assert fast.converged and plain.converged
    assert 2 * fast.n_iter < plain.n_iter
    assert fast.value < 1.005 * plain.value


def test_units_and_origin_do_not_matter():
    start = SQUARE.sobol(25, seed=3, dtype=torch.float64)
    plain = og.quantize(SQUARE, 25, start=start, max_iter=8)
    corner = torch.tensor([50.0, -20.0])
    moved = og.quantize(og.UniformBox(corner, corner.double() + 1e-3), 25, start=corner + start / 1e3, max_iter=8)
    assert moved.value * 1e6 == pytest.approx(plain.value, rel=1e-6)
    assert ((moved.points - corner) * 1e3).numpy() == pytest.approx(plain.points.numpy(), abs=1e-4)


@settings(max_examples=8)
@given(st.integers(2, 12), st.integers(0, 10**6))
def test_permuting_the_start_permutes_the_answer(n, seed):
    rng = np.random.default_rng(seed)
    start, weights, order = rng.random((n, 2)), rng.uniform(0.5, 1.5, n), rng.permutation(n)
    one = og.quantize(SQUARE, n, weights, start=start, max_iter=4)
    two = og.quantize(SQUARE, n, weights[order], start=start[order], max_iter=4)
    assert two.points.numpy() == pytest.approx(one.points.numpy()[order], abs=1e-6)
    assert two.value == pytest.approx(one.value, rel=1e-8)


def test_seeds():
    a, b, c, fresh = (og.quantize(SQUARE, 20, seed=s, max_iter=5).points for s in (4, 4, 5, None))
    assert torch.equal(a, b)
    assert not torch.equal(a, c) and not torch.equal(a, fresh)


# ------------------------------------------------------------ stopping early


def test_callback_sees_every_iteration_and_stops():
    seen = []

    def callback(state):
        seen.append(state)
        return state.n_iter == 3

    result = og.quantize(SQUARE, 20, tol=1e-12, callback=callback)
    assert result.status == "stopped" and not result.converged
    assert [state.n_iter for state in seen] == [0, 1, 2, 3]
    assert seen[-1].detail["points"].numpy() == pytest.approx(result.points.numpy())
    assert seen[-1].heights.numpy() == pytest.approx(result.heights.numpy(), abs=1e-3)
    assert [state.detail["value"] for state in seen] == pytest.approx(list(values(result)), rel=1e-6)
    moved = seen[-1].detail["points"] - seen[-2].detail["points"]
    assert seen[-1].detail["movement"] == pytest.approx(float((moved**2).sum(1).mean() ** 0.5))


def test_interrupt_returns_the_best_so_far():
    def callback(state):
        if state.n_iter == 2:
            raise KeyboardInterrupt

    result = og.quantize(SQUARE, 20, tol=1e-12, callback=callback)
    assert result.status == "interrupted" and result.n_iter == 2
    assert_sound(result)


def test_interrupt_inside_a_solve_returns_the_points_before(monkeypatch):
    from otgan.cells.planar import PlanarCells

    honest, calls = PlanarCells.moments, []

    def moments(self, *args, **kwargs):
        calls.append(1)
        if len(calls) == 12:
            raise KeyboardInterrupt
        return honest(self, *args, **kwargs)

    monkeypatch.setattr(PlanarCells, "moments", moments)
    result = og.quantize(SQUARE, 20, tol=1e-12)
    assert result.status == "interrupted" and len(calls) > 12
    assert result.n_iter >= 1 and values(result)[-1] < values(result)[0]
    assert result.masses.numpy() == pytest.approx(np.full(20, 1 / 20), rel=1e-6)


def test_time_limit():
    result = og.quantize(SQUARE, 400, tol=1e-14, max_iter=10**6, max_time=0.3)
    assert result.status == "max_time" and "max_time" in result.message
    assert 0.3 <= result.seconds < 30


def test_continue_from_a_result():
    first = og.quantize(SQUARE, 50, max_iter=5)
    second = og.quantize(SQUARE, 50, start=first.points)
    assert values(second)[0] == pytest.approx(first.value, rel=1e-6)
    assert second.converged and second.value < first.value


def test_no_cells_for_the_start_is_an_answer_not_a_crash():
    result = og.quantize(SQUARE, 50, max_time=1e-9)
    assert result.status == "max_time" and np.isnan(result.value) and result.history == []
    assert "start" in result.message and torch.isfinite(result.points).all()


def test_progress_goes_to_standard_error(capsys):
    og.quantize(SQUARE, 10, max_iter=3, progress=True)
    out, err = capsys.readouterr()
    assert out == "" and "quantize" in err


# ---------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: og.quantize(np.zeros((3, 2)), 2), TypeError, "og.UniformBox"),
        (lambda: og.quantize(og.Gaussian(3), 2), ValueError, "exact cells.*dimension 3"),
        (lambda: og.quantize(og.Empirical(np.eye(2)), 2), ValueError, "exact cells"),
        (lambda: og.quantize(SQUARE, 0), ValueError, "n must be at least 1"),
        (lambda: og.quantize(SQUARE, 2.0), TypeError, "n must be an integer"),
        (lambda: og.quantize(SQUARE, 2, [1.0]), ValueError, r"shape \(2,\)"),
        (lambda: og.quantize(SQUARE, 2, [1.0, 0.0]), ValueError, "> 0"),
        (lambda: og.quantize(SQUARE, 2, tol=0), ValueError, "tol"),
        (lambda: og.quantize(SQUARE, 2, max_iter=-1), ValueError, "max_iter"),
        (lambda: og.quantize(SQUARE, 2, max_time=0), ValueError, "max_time"),
        (lambda: og.quantize(SQUARE, 2, seed=-1), ValueError, "seed"),
        (lambda: og.quantize(SQUARE, 2, start=np.eye(3)), ValueError, "dimension 3"),
        (lambda: og.quantize(SQUARE, 3, start=np.eye(2)), ValueError, r"shape \(3, 2\)"),
        (lambda: og.quantize(SQUARE, 2, start=np.zeros((2, 2))), ValueError, "distinct"),
        (lambda: og.quantize(SQUARE, 2, start=np.full((2, 2), np.nan)), ValueError, "NaN"),
    ],
)
def test_refusals_are_sentences(call, error, words):
    with pytest.raises(error, match=words):
        call()


# ------------------------------------------------------------- real pictures


@pytest.mark.parametrize("name", ["morse_a", "blobs_b"])
def test_support_in_pieces(data_dir, name):
    image = np.load(data_dir / "shapes2d" / "shapes2d.npz")[name].astype(float)
    result = og.quantize(og.GridDensity(image), 60, max_iter=4)
    assert result.masses.numpy() == pytest.approx(np.full(60, 1 / 60), rel=1e-6)
    assert (np.diff(values(result)) < 0).all() and result.n_iter == 4
