"""The data-copying test, the classifier test and mode counting."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from scipy.spatial.distance import cdist

import otgan as og
from otgan.metrics.copying import Partition, copying, mann_whitney

M = og.metrics


def normal(m: int, d: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(m, d))


# --- C_T ---


@given(
    a=st.lists(st.integers(0, 12), min_size=1, max_size=30),
    b=st.lists(st.integers(0, 12), min_size=1, max_size=30),
)
def test_mann_whitney_is_scipys_with_ties(a: list[int], b: list[int]) -> None:
    x, y = np.array(a, float), np.array(b, float)
    z = mann_whitney(x, y)
    if len({*a, *b}) == 1:
        assert z == 0
        return
    p = stats.mannwhitneyu(x, y, alternative="less", method="asymptotic", use_continuity=False).pvalue
    assert stats.norm.cdf(z) == pytest.approx(p, abs=1e-12)


def test_it_is_the_published_sum_over_cells() -> None:
    import torch
    from sklearn.neighbors import NearestNeighbors

    train, test, samples = normal(400, 2), normal(300, 2, 1), normal(350, 2, 2) * 0.9
    partition = Partition.of(torch.from_numpy(train), 5, seed=0)
    centres = partition.centres.numpy()
    cells = [cdist(points, centres).argmin(axis=1) for points in (train, test, samples)]
    total = weight = 0.0
    for c in range(5):
        inside = [points[cell == c] for points, cell in zip((train, test, samples), cells, strict=True)]
        if min(len(inside[1]), len(inside[2])) < 20:
            continue
        tree = NearestNeighbors(n_neighbors=1).fit(inside[0])
        test_l, sample_l = (tree.kneighbors(points)[0][:, 0] for points in inside[1:])
        n, m = len(test_l), len(sample_l)
        u = stats.mannwhitneyu(sample_l, test_l).statistic
        total += n / 300 * (u - n * m / 2) / (n * m * (n + m + 1) / 12) ** 0.5
        weight += n / 300
    found = M.data_copying(samples, test, train, n_cells=5)
    assert found.value == pytest.approx(total / weight, rel=1e-9)
    assert found == copying(partition.reach(torch.from_numpy(samples)), partition.reach(torch.from_numpy(test)))


def test_copies_are_negative_underfit_positive_fresh_neither() -> None:
    train, test = normal(600, 3), normal(500, 3, 1)
    noise = normal(500, 3, 2)
    assert M.data_copying(train[:500] + 1e-3 * noise, test, train).value < -6
    assert M.data_copying(train[:500], test, train).value < -6
    assert M.data_copying(1.5 * noise, test, train).value > 2
    assert abs(M.data_copying(noise, test, train).value) < 3


@pytest.mark.parametrize("n_cells", [1, 4])
def test_fresh_samples_have_the_stated_spread(n_cells: int) -> None:
    found = [
        M.data_copying(normal(200, 2, s), normal(200, 2, 1000 + s), normal(150, 2, 2000 + s), n_cells=n_cells)
        for s in range(80)
    ]
    z = np.array([f.value / f.stderr for f in found])
    assert abs(z.mean()) < 4 / 80**0.5
    assert z.std() == pytest.approx(1.0, abs=4 / (2 * 80) ** 0.5)
    assert (np.abs([f.value for f in found]) < 3).mean() >= 0.96
    assert np.mean([f.stderr for f in found]) == pytest.approx(n_cells**-0.5, rel=0.15)


def test_copying_of_one_mode_only_is_seen() -> None:
    rng = np.random.default_rng(0)
    modes = np.repeat([[0.0, 0.0], [50.0, 0.0]], 300, axis=0)
    train, test, fresh = (modes + rng.normal(size=(600, 2)) for _ in range(3))
    half = np.where(modes[:, :1] > 0, train, fresh)
    score = M.data_copying(half, test, train, n_cells=2)
    both = M.data_copying(train, test, train, n_cells=2)
    # Z is the same on the copied mode, and near 0 on the other.
    assert score.value == pytest.approx(both.value / 2, abs=3 * 0.5)
    assert score.value < -6


def test_copying_of_constant_and_few_points() -> None:
    same = np.ones((60, 2))
    assert M.data_copying(same, same, same).value == 0
    assert M.data_copying(normal(60, 2), normal(60, 2, 1), same, n_cells=3).value == pytest.approx(0, abs=4)
    with pytest.raises(ValueError, match="no cell holds 20"):
        M.data_copying(normal(10, 2), normal(100, 2), normal(100, 2))
    with pytest.raises(ValueError, match="n_cells = 9"):
        M.data_copying(normal(30, 2), normal(30, 2), normal(5, 2), n_cells=9)


# --- C2ST ---


@pytest.mark.parametrize("classifier", ["trees", "logistic", "knn"])
def test_c2st_is_one_half_for_one_law_and_one_for_separate_clouds(classifier: str) -> None:
    a, b = normal(150, 3), normal(200, 3, 1)
    null = M.c2st(a, b, classifier=classifier)
    assert null.value == pytest.approx(0.5, abs=0.12)
    assert null.stderr == pytest.approx((0.25 / 300) ** 0.5, rel=0.05)
    assert M.c2st(a, b + 10, classifier=classifier).value == 1
    assert M.c2st(a, b, classifier=classifier) == null
    assert M.c2st(1e6 * a + 7, 1e6 * b + 7, classifier=classifier).value == pytest.approx(null.value, abs=0.02)


def test_c2st_of_shifted_gaussians_is_near_the_best_possible() -> None:
    v = np.array([1.5, 0, 0])
    best = stats.norm.cdf(1.5 / 2)  # Bayes: project on v and cut in the middle
    found = M.c2st(normal(1500, 3), normal(1500, 3, 1) + v, classifier="logistic")
    assert found.value == pytest.approx(best, abs=4 * found.stderr)
    trees = M.c2st(normal(1500, 3), normal(1500, 3, 1) + v)
    assert best - 0.06 < trees.value < best + 0.02


def test_c2st_of_shapes_needs_more_than_a_line() -> None:
    a, b = normal(600, 2), 2 * normal(600, 2, 1)
    assert M.c2st(a, b).value > 0.62
    assert M.c2st(a, b, classifier="logistic").value < 0.56


def test_c2st_null_is_unbiased_and_its_spread_as_documented() -> None:
    found = [M.c2st(normal(60, 2, s), normal(60, 2, 500 + s), classifier="logistic", folds=3).value for s in range(80)]
    assert np.mean(found) == pytest.approx(0.5, abs=4 * np.std(found) / 80**0.5)
    assert 0.8 < np.std(found) * (4 * 120) ** 0.5 < 2.0


def test_c2st_takes_an_estimator_and_says_what_is_wrong() -> None:
    from sklearn.naive_bayes import GaussianNB

    assert M.c2st(normal(200, 2), 3 * normal(200, 2, 1), classifier=GaussianNB()).value > 0.7
    with pytest.raises(ValueError, match="'trees'"):
        M.c2st(normal(9, 2), normal(9, 2), classifier="svm")
    with pytest.raises(TypeError, match="fit"):
        M.c2st(normal(9, 2), normal(9, 2), classifier=3)
    with pytest.raises(ValueError, match="at least 2 of each"):
        M.c2st(normal(1, 2), normal(9, 2))
    assert M.c2st(np.ones((20, 2)), np.ones((20, 2))).value == pytest.approx(0.5, abs=0.3)


# --- modes ---


RING = 2 * np.stack([np.cos(np.arange(8) * np.pi / 4), np.sin(np.arange(8) * np.pi / 4)], 1)


def test_modes_of_the_mixture_itself() -> None:
    rng = np.random.default_rng(0)
    kls, good = [], []
    for _ in range(200):
        found = M.count_modes(RING[rng.integers(8, size=500)] + 0.02 * rng.normal(size=(500, 2)), RING, 0.02)
        assert found.captured == 8
        kls.append(found.reverse_kl)
        good.append(found.high_quality)
    assert found.captured_null == pytest.approx(8)
    assert np.mean(kls) == pytest.approx(found.reverse_kl_null, rel=0.2)
    assert np.std(kls) == pytest.approx(found.reverse_kl_null_std, rel=0.3)
    assert found.high_quality_null == pytest.approx(1 - np.exp(-4.5))
    assert np.mean(good) == pytest.approx(found.high_quality_null, abs=0.002)


def test_modes_of_a_generator_that_drops_and_blurs() -> None:
    rng = np.random.default_rng(0)
    x = RING[rng.integers(2, size=1000)] + 0.02 * rng.normal(size=(1000, 2))
    x[:100] = 0.9 * RING[5]  # nearest to mode 5, but far from it
    found = M.count_modes(x, RING, 0.02)
    assert found.captured == 2
    assert found.high_quality == pytest.approx(0.9 * found.high_quality_null, abs=0.01)
    q = np.array(found.histogram)
    assert q[5] == 0.1
    assert found.reverse_kl == pytest.approx(sum(p * np.log(8 * p) for p in q if p > 0))
    assert "2 of 8" in found.table()
    assert found.to_dict()["histogram"] == list(found.histogram)


def test_modes_of_their_own_width_weight_and_radius() -> None:
    centres, std = [[0.0], [10.0]], [0.1, 1.0]
    x = [[0.25], [0.35], [12.5], [13.5]]
    found = M.count_modes(x, centres, std, weights=[1, 3])
    assert (found.captured, found.high_quality) == (2, 0.5)
    assert found.reverse_kl == pytest.approx(0.5 * np.log(0.5 / 0.25) + 0.5 * np.log(0.5 / 0.75))
    assert M.count_modes(x, centres, std, radius=4).high_quality == 1


def test_reverse_kl_by_hand_and_bounded() -> None:
    assert M.reverse_kl([5, 5], [0.5, 0.5]) == 0
    assert M.reverse_kl([1, 0, 0, 0]) == pytest.approx(np.log(4))
    assert M.reverse_kl([30, 10], [1, 1]) == pytest.approx(stats.entropy([0.75, 0.25], [0.5, 0.5]))
    for bad in ([], [[1]], [0, 0], [-1, 2], [np.nan, 1]):
        with pytest.raises(ValueError, match="counts"):
            M.reverse_kl(bad)


def test_modes_check_their_arguments() -> None:
    with pytest.raises(ValueError, match="std must be > 0"):
        M.count_modes(normal(5, 2), RING, 0.0)
    with pytest.raises(ValueError, match=r"shape \(8,\)"):
        M.count_modes(normal(5, 2), RING, [1.0, 2.0])
    with pytest.raises(ValueError, match="dimension"):
        M.count_modes(normal(5, 3), RING, 1.0)
    with pytest.raises(ValueError, match="weights"):
        M.count_modes(normal(5, 2), RING, 1.0, weights=[1, 2])
