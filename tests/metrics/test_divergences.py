"""KL, JS and W1: closed forms, other people's code, brute force, and the parallel segments."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.spatial.distance import jensenshannon

import otgan.metrics as M


def normal_density(mean: float, std: float) -> tuple[np.ndarray, float]:
    x = np.linspace(-15, 15, 60_001)
    return stats.norm(mean, std).pdf(x), x[1] - x[0]


@pytest.mark.parametrize(("mean", "std"), [(0.0, 1.0), (1.5, 1.0), (-0.5, 2.0)])
def test_kl_of_two_gaussians_by_formula(mean: float, std: float) -> None:
    p, q = normal_density(0.0, 1.0)[0], normal_density(mean, std)[0]
    expected = math.log(std) + (1 + mean**2) / (2 * std**2) - 0.5
    assert M.kl_divergence(p, q) == pytest.approx(expected, abs=1e-9)


@given(
    seed=st.integers(0, 10**6), n=st.integers(1, 30), zeros=st.floats(0, 0.9), scale=st.sampled_from([1e-250, 1, 1e200])
)
@settings(max_examples=40)
def test_js_is_scipys_and_at_most_log_2(seed: int, n: int, zeros: float, scale: float) -> None:
    rng = np.random.default_rng(seed)
    p, q = (rng.random(n) * (rng.random(n) > zeros) + 1e-9 * np.eye(n)[rng.integers(n)] for _ in range(2))
    js = M.js_divergence(scale * p, q)
    assert js == pytest.approx(jensenshannon(p, q) ** 2, abs=1e-9)
    assert 0 <= js <= math.log(2) and js == pytest.approx(M.js_divergence(q, p), abs=1e-12)
    assert js <= (M.kl_divergence(p, q) + M.kl_divergence(q, p)) / 4 + 1e-12  # Lin's bound by Jeffreys' divergence
    assert M.js_divergence(p, p) == M.kl_divergence(p, p) == 0


@given(
    seed=st.integers(0, 10**6), m=st.integers(1, 20), n=st.integers(1, 20),
    scale=st.sampled_from([1e-6, 1.0, 1e8]), shift=st.floats(-1e3, 1e3),
)  # fmt: skip
@settings(max_examples=40)
def test_w1_on_the_line_is_scipys(seed: int, m: int, n: int, scale: float, shift: float) -> None:
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=m).round(1), rng.normal(size=n).round(1)  # with ties
    p, q = rng.uniform(0.1, 1, m), rng.uniform(0.1, 1, n)
    expected = scale * stats.wasserstein_distance(a, b, p, q)
    found = M.w1(scale * (a + shift), scale * (b + shift), a_weights=p, b_weights=q)
    assert found == pytest.approx(expected, rel=1e-9, abs=scale * 1e-9)


def test_w1_off_the_line() -> None:
    import ot
    from scipy.spatial.distance import cdist

    rng = np.random.default_rng(0)
    a, b, p = rng.normal(size=(20, 3)), rng.normal(size=(15, 3)) + 1, rng.uniform(0.5, 1, 20)
    expected = ot.emd2(p / p.sum(), np.full(15, 1 / 15), cdist(a, b))
    assert M.w1(a, b, a_weights=p) == pytest.approx(expected, rel=1e-9)
    line = np.zeros((20, 3))
    line[:, 1] = a[:, 0]
    assert M.w1(line, line + [0, 2, 0]) == pytest.approx(M.w1(a[:, 0], a[:, 0] + 2), rel=1e-9)


@pytest.mark.parametrize("t", [1.0, 0.1, 1e-3, 0.0])
def test_parallel_segments(t: float) -> None:
    """{0} x [0, 1] and {t} x [0, 1]: W1 = t, while JS is log 2 and KL infinite for every t but 0."""
    height = np.linspace(0, 1, 101)
    a, b = (np.stack([np.full(101, x), height], axis=1) for x in (0.0, t))
    support, place = np.unique(np.concatenate([a, b]), axis=0, return_inverse=True)
    p, q = (np.bincount(place.ravel()[part], minlength=len(support)) for part in (slice(0, 101), slice(101, None)))
    assert M.w1(a, b) == pytest.approx(t, abs=1e-12)
    assert M.js_divergence(p, q) == (pytest.approx(math.log(2), abs=1e-15) if t else 0)
    assert M.kl_divergence(p, q) == (math.inf if t else 0)


def test_histograms_share_a_grid() -> None:
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=200_000), rng.normal(size=200_000) + 1
    p, q, (edges,) = M.histograms(a, b, 60)
    assert p.shape == q.shape == (60,) and len(edges) == 61
    assert p.sum() == pytest.approx(1) and q.sum() == pytest.approx(1)
    x, density = normal_density(0, 1), normal_density(1, 1)
    assert M.js_divergence(p, q) == pytest.approx(M.js_divergence(x[0], density[0]), rel=0.02)
    plane = M.histograms(rng.normal(size=(50, 2)), rng.normal(size=(70, 2)), 5)
    assert plane[0].shape == (5, 5) and plane[1].sum() == pytest.approx(1)
    assert M.histograms([1.0, 1.0], [1.0], 3)[0].sum() == 1


def test_bad_masses_and_points_are_named() -> None:
    with pytest.raises(ValueError, match="same shape"):
        M.kl_divergence([1, 2], [1, 2, 3])
    with pytest.raises(ValueError, match="not all 0"):
        M.js_divergence([0, 0], [1, 1])
    with pytest.raises(ValueError, match=">= 0"):
        M.js_divergence([1, 1], [-1, 2])
    with pytest.raises(ValueError, match="NaN"):
        M.kl_divergence([1, np.nan], [1, 1])
    with pytest.raises(ValueError, match="sliced_w2"):
        M.w1(np.zeros((6000, 2)), np.zeros((6000, 2)))
    with pytest.raises(ValueError, match="dimension 3, expected 2"):
        M.w1(np.zeros((3, 2)), np.zeros((3, 3)))
    with pytest.raises(ValueError, match="a_weights"):
        M.w1([0.0, 1.0], [1.0], a_weights=[1.0, 0.0])
    with pytest.raises(ValueError, match="project"):
        M.histograms(np.zeros((3, 4)), np.zeros((3, 4)))
