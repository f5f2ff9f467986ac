from __future__ import annotations

import dataclasses

import matplotlib.pyplot as plt
import numpy as np
import pytest
from scipy.stats import binom, poisson

import otgan as og
from otgan.plot import convergence, mass_histogram, transport_map
from otgan.plot.mass_histogram import cell_counts, expected_histogram
from otgan.plot.transport_map import principal_axes


def by_gid(artists, gid):
    return [artist for artist in artists if artist.get_gid() == gid]


@pytest.mark.parametrize("draw", [convergence, mass_histogram, transport_map])
@pytest.mark.parametrize("dim", [1, 2, 5])
def test_every_dimension_in_given_axes(draw, dim, result_of):
    result = result_of(og.Gaussian(dim), np.random.default_rng(0).standard_normal((20, dim)))
    figure, axes = plt.subplots(1, 2)
    before = plt.get_fignums()
    assert draw(result, ax=axes[0]) is axes[0]
    assert plt.get_fignums() == before and figure.axes == list(axes)
    assert not axes[1].has_data()
    figure.canvas.draw()
    own = draw(result)
    assert own.figure is not figure and len(plt.get_fignums()) == len(before) + 1


@pytest.mark.parametrize("draw", [convergence, mass_histogram, transport_map])
def test_wrong_arguments(draw, plane):
    before = plt.get_fignums()
    with pytest.raises(TypeError, match=f"{draw.__name__} takes what otgan.solve returned, got BrenierPotential"):
        draw(plane.potential)
    with pytest.raises(TypeError, match=r"axes\[0, 0\]"):
        draw(plane, ax=np.zeros(2))
    assert plt.get_fignums() == before


# --- transport map ---


def test_segments_join_samples_to_their_targets(plane):
    ax = transport_map(plane, n_samples=50, seed=3)
    x = plane.source.sample(50, seed=3, dtype=plane.potential.points.dtype)
    segments = np.array(by_gid(ax.collections, "map")[0].get_segments())
    np.testing.assert_allclose(segments[:, 0], x)
    np.testing.assert_allclose(segments[:, 1], plane.potential.transport(x))
    dots = ax.collections[1:]
    np.testing.assert_allclose(dots[0].get_offsets(), x)
    np.testing.assert_allclose(dots[1].get_offsets(), np.unique(segments[:, 1], axis=0))
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["source samples $x$", "their targets $T(x)$"]
    x_low, x_high, y_low, y_high = *ax.get_xlim(), *ax.get_ylim()
    assert x_low <= segments[..., 0].min() and segments[..., 0].max() <= x_high
    assert y_low <= segments[..., 1].min() and segments[..., 1].max() <= y_high


def test_on_a_line_the_map_is_monotone(result_of):
    result = result_of(og.UniformBox(dim=1), np.linspace(-1, 1, 7)[:, None])
    ax = transport_map(result, n_samples=100)
    steps = by_gid(ax.lines, "map")[0]
    x, y = steps.get_data(orig=True)
    assert (np.diff(x) >= 0).all() and (np.diff(y) >= 0).all()
    np.testing.assert_array_equal(result.potential.transport(x[:, None])[:, 0], y)


def test_more_dimensions_are_projected_on_principal_axes(result_of):
    rng = np.random.default_rng(0)
    turn = np.linalg.qr(rng.standard_normal((5, 5)))[0]
    points = rng.standard_normal((200, 5)) * [0.1, 3.0, 0.1, 1.0, 0.1] @ turn.T + 7.0
    result = result_of(og.Gaussian(5), points, rng.random(200) + 0.1)
    centre, axes, shares = principal_axes(result.target)
    np.testing.assert_allclose(centre, result.target.mean)
    np.testing.assert_allclose(axes @ axes.T, np.eye(2), atol=1e-12)
    assert abs(axes[0] @ turn[:, 1]) > 0.99 and abs(axes[1] @ turn[:, 3]) > 0.99
    weights = result.target.weights.numpy()
    spread = weights @ ((points - centre) @ axes.T) ** 2
    np.testing.assert_allclose(shares, spread / result.target.variance)
    ax = transport_map(result, n_samples=30)
    assert ax.get_xlabel() == f"first principal axis of the target ({100 * shares[0]:.0f} % of variance)"
    ends = np.array(by_gid(ax.collections, "map")[0].get_segments())[:, 1]
    table = (points - centre) @ axes.T
    assert all(np.abs(table - end).max(axis=1).min() < 1e-9 for end in ends)


def test_one_target_and_a_count(result_of):
    transport_map(result_of(og.UniformBox(dim=3), np.ones((1, 3)))).figure.canvas.draw()
    with pytest.raises(ValueError, match="n_samples must be at least 1"):
        transport_map(result_of(og.UniformBox(dim=2), np.ones((1, 2))), n_samples=0)


# --- convergence ---


@pytest.mark.parametrize(
    ("x", "name"), [("n_iter", "iterations"), ("seconds", "seconds"), ("n_samples", "source samples")]
)
def test_curve_band_and_bar(plane, x, name):
    ax = convergence(plane, x=x)
    curve = by_gid(ax.lines, "convergence")[0]
    np.testing.assert_allclose(curve.get_xdata(), [record[x] for record in plane.history])
    np.testing.assert_allclose(curve.get_ydata(), [record["chi2"] for record in plane.history])
    bar = by_gid(ax.lines, "tol")[0]
    assert set(bar.get_ydata()) == {0.05} and bar.get_linestyle() == "--"
    band = ax.collections[0].get_paths()[0].vertices
    for record in plane.history:
        here = band[np.isclose(band[:, 0], record[x]), 1]
        assert np.isclose(here, record["chi2"] + record["chi2_stderr"]).any()
    assert (ax.get_yscale(), ax.get_xscale(), ax.get_xlabel()) == ("log", "linear", name)
    assert not by_gid(ax.lines, "floor")


def test_estimates_below_zero_stand_on_the_floor(plane):
    history = [{**r, "chi2": r["chi2"] - 0.1, "chi2_stderr": 0.2, "n_iter": r["n_iter"] ** 2} for r in plane.history]
    ax = convergence(dataclasses.replace(plane, history=history))
    error = np.array([record["chi2"] for record in history])
    floor = 0.5 * min(error[error > 0].min(), plane.tol)
    marks = by_gid(ax.lines, "floor")[0]
    assert len(marks.get_xdata()) == (error <= 0).sum() > 0
    np.testing.assert_allclose(marks.get_ydata(), floor)
    assert by_gid(ax.lines, "convergence")[0].get_ydata().min() == floor
    assert ax.collections[0].get_paths()[0].vertices[:, 1].min() >= floor
    assert ax.get_xscale() == "log"
    ax.figure.canvas.draw()


def test_exact_solvers_and_comparison(plane):
    history = [{"step": k, "error": 10.0 ** (-2 * k), "seconds": 0.1} for k in range(5)] + [
        {"step": 5, "error": 0.0, "seconds": 1}
    ]
    exact = dataclasses.replace(plane, method="newton", tol=1e-6, history=history)
    ax = convergence(exact)
    assert "w_i / b_i" in ax.get_ylabel() and not ax.collections
    assert "exactly 0, drawn at the floor" in [t.get_text() for t in ax.get_legend().get_texts()]
    assert ax.get_xscale() == "linear"
    assert convergence(plane, ax, label="other") is ax
    first, second = by_gid(ax.lines, "convergence")
    assert first.get_color() != second.get_color() and second.get_label() == "other"
    assert len(by_gid(ax.lines, "tol")) == 2
    convergence(plane, ax)
    assert len(by_gid(ax.lines, "tol")) == 2  # one bar a value


def test_no_history_is_said(plane):
    for history in ([], [{"n_iter": 1}], [{"n_iter": 1, "chi2": np.inf}]):
        ax = convergence(dataclasses.replace(plane, history=history, method="discrete"))
        assert "discrete recorded no errors" in by_gid(ax.texts, "empty")[0].get_text()
        assert not ax.lines


def test_unknown_horizontal(plane):
    with pytest.raises(ValueError, match=r"x must be one of \['n_iter', 'n_samples', 'seconds'\], got 'time'"):
        convergence(plane, x="time")
    short = dataclasses.replace(plane, history=[{"n_iter": 1, "error": 1.0, "seconds": 1.0}])
    with pytest.raises(ValueError, match="does not record 'n_samples'; it has n_iter, seconds"):
        convergence(short, x="n_samples")
    assert plt.get_fignums() == []


# --- masses ---


def test_bars_count_the_cells(plane):
    ax = mass_histogram(plane, n_samples=5000, seed=4)
    counts = cell_counts(plane.potential, plane.source, 5000, 4)
    bars = next(c for c in ax.containers if c.get_label() == "cells")
    assert counts.sum() == 5000
    assert sum(bar.get_height() for bar in bars) == (counts > 0).sum()
    ratio = counts[counts > 0] / (5000 / 30)
    half = 0.5 * (bars[1].get_x() - bars[0].get_x())
    for bar in bars:
        middle = bar.get_x() + bar.get_width() / 2
        assert bar.get_height() == ((ratio >= middle - half - 1e-9) & (ratio < middle + half - 1e-9)).sum()


def test_empty_cells_stand_at_zero(result_of):
    points = np.array([[0.2, 0.2], [0.8, 0.8], [0.5, 0.5], [0.51, 0.5]])
    result = result_of(og.UniformBox(dim=2), points)
    heights = result.potential.heights.clone()
    heights[2:] -= 10.0
    potential = og.BrenierPotential(points, heights)
    ax = mass_histogram(dataclasses.replace(result, potential=potential), n_samples=1000)
    (bar,) = next(c for c in ax.containers if c.get_label() == "empty cells")
    assert bar.get_height() == 2 and abs(bar.get_x() + bar.get_width() / 2) < 1e-12
    assert ax.get_xlim()[0] < bar.get_x()
    assert "2 of 4 cells empty" in by_gid(ax.texts, "note")[0].get_text()
    assert not any(c.get_label() == "empty cells" for c in mass_histogram(result).containers)


def test_expected_noise_is_binomial():
    edges = np.array([0.0, 0.45, 0.95, 1.55, 3.05])
    mean, low, high = expected_histogram(np.full(50, 1 / 50), 500, edges)
    p = binom.pmf(np.arange(501), 500, 1 / 50)
    parts = np.array([p[1:5].sum(), p[5:10].sum(), p[10:16].sum(), p[16:31].sum()])
    np.testing.assert_allclose(mean, 50 * parts)
    assert (poisson.cdf(high, mean) >= 0.975).all() and (poisson.cdf(low - 1, mean) < 0.025).all()
    assert (low <= mean).all() and (mean <= high).all()


def test_band_holds_multinomial_noise(result_of):
    # Cells of equal mass by symmetry: a grid of targets under the square.
    grid = (np.stack(np.meshgrid(np.arange(20), np.arange(20)), -1).reshape(-1, 2) + 0.5) / 20
    result = result_of(og.UniformBox(dim=2), grid)
    ax = mass_histogram(result, seed=1)
    bars = np.array([bar.get_height() for bar in next(c for c in ax.containers if c.get_label() == "cells")])
    band = by_gid(ax.patches, "band")[0].get_data()
    outside = (bars > band.values + 1e-9) | (bars < np.asarray(band.baseline) - 1e-9)
    assert outside.sum() <= 2 < 20 < len(bars)
    note = by_gid(ax.texts, "note")[0].get_text()
    assert note == "20,000 samples, 50 a cell\nno empty cells"


def test_many_weights_are_grouped():
    weights = np.random.default_rng(0).random(3000) + 0.1
    weights /= weights.sum()
    edges = np.linspace(0.0, 3.0, 31)
    mean, _, _ = expected_histogram(weights, 60_000, edges)
    least = np.maximum(np.ceil(edges[None] * 60_000 * weights[:, None] - 1e-9), 1.0)
    exact = np.diff(binom.cdf(least - 1, 60_000, weights[:, None]), axis=1).sum(0)
    np.testing.assert_allclose(mean, exact, atol=0.02 * exact.max())


def test_one_cell_and_reproducible(result_of):
    mass_histogram(result_of(og.Gaussian(2), np.ones((1, 2)))).figure.canvas.draw()
    result = result_of(og.Gaussian(2), np.eye(2))
    one, two, three = (cell_counts(result.potential, result.source, 70_000, seed) for seed in (0, 0, 1))
    assert (one == two).all() and (one != three).any() and one.sum() == 70_000
