"""Frechet distance: closed forms, another matrix root, the coupling's bound, and the bias that is stated."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg
import torch

from otgan.metrics import frechet_distance, w2
from otgan.metrics.frechet import frechet_of_moments, moments


def normal(m: int, d: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(m, d))


def test_on_the_line_it_is_the_gap_of_means_and_deviations() -> None:
    a, b = normal(50, 1) * 3 + 1, normal(70, 1, 1) - 2
    expected = (a.mean() - b.mean()) ** 2 + (a.std(ddof=1) - b.std(ddof=1)) ** 2
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-12)


def test_the_usual_formula_with_the_root_of_a_product() -> None:
    a, b = normal(60, 5) @ normal(5, 5, 2), normal(80, 5, 1) @ normal(5, 5, 3) + 1
    c1, c2 = np.cov(a.T), np.cov(b.T)
    root = scipy.linalg.sqrtm(c1 @ c2).real
    expected = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(c1 + c2 - 2 * root)
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-9)
    assert frechet_distance(b, a) == pytest.approx(expected, rel=1e-9)
    turn = np.linalg.qr(normal(5, 5, 4))[0]
    assert frechet_distance(3 * a @ turn + 7, 3 * b @ turn + 7) == pytest.approx(9 * expected, rel=1e-9)


def test_equal_clouds_and_singular_ones() -> None:
    a = normal(4, 10)  # 4 points span 3 of 10 dimensions
    assert frechet_distance(a, a) == pytest.approx(0.0, abs=1e-12)
    # Covariances e e^T and f f^T with orthogonal e, f have no common part: nothing is gained by the coupling.
    e, f = torch.eye(3, dtype=torch.float64)[:2]
    zero = torch.zeros(3, dtype=torch.float64)
    assert frechet_of_moments(zero, torch.outer(e, e), zero, torch.outer(f, f)) == pytest.approx(2.0, rel=1e-12)


def test_it_is_below_the_wasserstein_distance_of_the_clouds() -> None:
    """Gelbrich's bound, for the covariances of the clouds themselves (divided by n)."""
    for seed in range(5):
        a, b = torch.from_numpy(normal(40, 3, seed)), torch.from_numpy(normal(40, 3, 100 + seed) ** 3)
        (m1, c1), (m2, c2) = moments(a), moments(b)
        assert frechet_of_moments(m1, c1 * 39 / 40, m2, c2 * 39 / 40) <= w2(a, b) ** 2 + 1e-9


def test_bias_is_the_one_that_is_stated() -> None:
    m, n, values = 150, 100, np.array([4.0, 1.0, 1.0, 0.25])
    pairs = values[:, None] * values / (2 * (values[:, None] + values))
    expected = (1 / m + 1 / n) * (1.25 * values.sum() + pairs.sum())
    found = [
        frechet_distance(normal(m, 4, 2 * s) * values**0.5, normal(n, 4, 2 * s + 1) * values**0.5) for s in range(200)
    ]
    assert np.mean(found) == pytest.approx(expected, rel=0.08)
    unit = [frechet_distance(normal(200, 6, 2 * s), normal(200, 6, 2 * s + 1)) for s in range(100)]
    assert np.mean(unit) == pytest.approx((2 / 200) * 6 * 11 / 4, rel=0.08)


def test_errors() -> None:
    with pytest.raises(ValueError, match="at least 2"):
        frechet_distance([[0.0]], [[0.0], [1.0]])
    with pytest.raises(ValueError, match="dimension"):
        frechet_distance(normal(5, 2), normal(5, 3))
