"""Targets in tight groups far apart: which are grouped, and that Newton's method reaches the limit of rounding."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import otgan as og
from otgan.cells.planar import PlanarCells
from otgan.solvers._clusters import APART, merged, tight_groups

SOURCES = {"box": og.UniformBox(dim=2), "ball": og.UniformBall(2), "gaussian": og.Gaussian(2)}


def same_groups(found, expected):
    pairs = set(zip(found.tolist(), expected.tolist(), strict=True))
    return len(pairs) == len(set(found)) == len(set(expected))


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1), dim=st.integers(1, 3), sizes=st.lists(st.integers(1, 40), min_size=2, max_size=6)
)
def test_planted_groups_are_found(seed, dim, sizes):
    """Groups 1e5 times smaller than their distances; a group of one is alone. Order and unit do not matter."""
    rng = np.random.default_rng(seed)
    label = np.repeat(np.arange(len(sizes)), sizes)
    places = np.stack([np.arange(len(sizes)) + 0.1 * rng.random(len(sizes)) for _ in range(dim)], axis=1)
    inside = np.concatenate([np.arange(size) + 0.5 * rng.random(size) for size in sizes]) / 40.0  # no near pairs
    points = places[label] + 1e-6 * np.stack([inside, *rng.random((dim - 1, len(label)))], axis=1)
    mixed = rng.permutation(len(label))
    assert same_groups(tight_groups(1e30 * (points[mixed] - 7.0)), label[mixed])


def test_innermost_groups_come_first_and_their_level_has_groups_again():
    rng = np.random.default_rng(0)
    outer, inner = np.repeat(np.arange(3), 20), np.repeat(np.arange(12), 5)
    points = rng.random((3, 2))[outer] + 1e-5 * rng.random((12, 2))[inner] + 1e-10 * rng.random((60, 2))
    assert same_groups(tight_groups(points), inner)
    square = [[0, 0], [1, 0], [1, 1], [0, 1]]
    level = merged(PlanarCells(points, square), np.full(60, 1 / 60))
    assert len(level.b) == 12 and level.b == pytest.approx(1 / 12)
    again = merged(level.cells, level.b)
    assert len(again.b) == 3 and merged(again.cells, again.b) is None


def test_ordinary_targets_form_no_groups():
    rng = np.random.default_rng(1)
    for points in (rng.random((3000, 2)), rng.normal(size=(3000, 3)), rng.standard_cauchy((300, 2))):
        groups = tight_groups(points)
        # Near pairs exist by chance, with probability of about pi / APART^2 a target in the plane.
        assert len(np.unique(groups)) >= len(points) - 2
    assert len(np.unique(tight_groups(np.zeros((1, 2))))) == 1
    far = np.array([[0.0, 0.0], [1.0, 0.0], [0.5 * APART, 0.0]])
    assert len(np.unique(tight_groups(far))) == 3
    far[2, 0] = 2.0 * APART
    assert same_groups(tight_groups(far), np.array([0, 0, 1]))


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("gap", [1e5, 1e7])
def test_groups_and_outliers_far_apart(source, gap):
    """Without a start from the groups these ended after 200 steps or in a singular Hessian, chi2 30 to 100."""
    rng = np.random.default_rng(0)
    far = np.array([gap, gap / 3.0])
    for points in (
        np.concatenate([rng.normal(size=(100, 2)), rng.normal(size=(200, 2)) + far]),
        np.concatenate([rng.normal(size=(150, 2)), far[None]]),
    ):
        result = og.solve(SOURCES[source], points)
        assert result.n_iter <= 20
        worst = float(np.abs(result.masses.numpy() * len(points) - 1.0).max())
        # Heights are as large as the gap: their rounding moves a facet within a group by gap * eps.
        assert worst < 1e-8 if result.converged else worst < 1e-13 * gap * len(points) and "Rounding" in result.message


@pytest.mark.parametrize("source", SOURCES)
def test_groups_within_groups_and_amid_others(source):
    rng = np.random.default_rng(0)
    places = rng.normal(size=(30, 2))
    nested = places[:6, None, None] * 1e8 + places[None, :5, None] * 1e4 + rng.normal(size=(6, 5, 8, 2))
    pair = [[0.7, 0.7], [0.7, 0.7 + 1e-9]]
    amid = np.concatenate([rng.uniform(size=(300, 2)), 0.3 + 1e-7 * rng.normal(size=(50, 2)), pair])
    for points in (nested.reshape(-1, 2), amid):
        result = og.solve(SOURCES[source], points)
        assert float(np.abs(result.masses.numpy() * len(points) - 1.0).max()) < 1e-5
        assert result.n_iter <= 25


def test_in_space_too():
    rng = np.random.default_rng(0)
    points = np.concatenate([rng.normal(size=(60, 3)), rng.normal(size=(40, 3)) + [1e6, 3e5, 1e5], [[0.0, 0.0, 1e9]]])
    result = og.solve(og.UniformBox(dim=3), points)
    assert float(np.abs(result.masses.numpy() * len(points) - 1.0).max()) < 1e-5


def test_steps_on_groups_are_counted_told_and_kept():
    """Callbacks see them with heights of all targets; who stops there gets a start in which no cell is empty."""
    rng = np.random.default_rng(0)
    places = rng.normal(size=(40, 2))
    points = (places[:, None] * 1e6 + rng.normal(size=(40, 5, 2))).reshape(-1, 2)
    seen = []
    whole = og.solve(og.UniformBox(dim=2), points, callback=lambda state: seen.append(state) and False)
    stages = [state.detail["stage"] for state in seen]
    assert stages[0] == "40 groups" and stages[-1] == "source"
    assert whole.n_iter == seen[-1].n_iter and [s.n_iter for s in seen] == sorted(s.n_iter for s in seen)
    assert all(state.heights.shape == (200,) for state in seen)
    assert len(whole.history) == len(seen)
    stopped = og.solve(og.UniformBox(dim=2), points, callback=lambda state: state.detail["stage"] == "40 groups")
    assert stopped.status == "stopped" and stopped.n_iter == 0 and stopped.certificate.empty_cells == 0

    def interrupt(state):
        if state.n_iter == 1:
            raise KeyboardInterrupt

    cut = og.solve(og.UniformBox(dim=2), points, callback=interrupt)
    assert cut.status == "interrupted" and cut.n_iter == 1 and cut.certificate.empty_cells == 0
