"""Sliced and exact W2, energy distance, MMD: closed forms, brute force, other implementations, and properties."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.spatial.distance import cdist
from scipy.special import gamma, hyp1f1

import otgan as og
from otgan.metrics import _pairs

M = og.metrics


def normal(m: int, d: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(m, d))


def mean_norm(shift: float, std: float, d: int) -> float:
    """E |N(v, std^2 I)| with |v| = shift: Laguerre's function."""
    s2 = shift**2 / (2 * std**2)
    return std * 2**0.5 * gamma((d + 1) / 2) / gamma(d / 2) * hyp1f1(-0.5, d / 2, -s2)


# --- sliced W2 ---


def test_sliced_w2_of_a_shift_is_its_length_over_the_root_of_d() -> None:
    a, v = normal(300, 5), np.array([3.0, 0, 4.0, 0, 0])
    found = M.sliced_w2(a, a + v, 4000)
    assert found.value == pytest.approx(5 / 5**0.5, abs=4 * found.stderr)
    assert 0 < found.stderr < 0.05
    # Two Gaussians that differ by the shift: the same, up to their sampling noise.
    assert float(M.sliced_w2(a, normal(300, 5, 1) + v)) == pytest.approx(5 / 5**0.5, rel=0.1)


@pytest.mark.parametrize(("m", "n"), [(40, 40), (40, 60), (7, 100), (1, 5), (13, 11)])
def test_sliced_w2_is_pots_with_the_same_directions(m: int, n: int) -> None:
    import ot

    a, b = normal(m, 3), normal(n, 3, 1) * 2 + 1
    lines = normal(3, 64, 2)
    lines /= np.linalg.norm(lines, axis=0)
    pot = ot.sliced_wasserstein_distance(a, b, projections=lines)
    assert M.sliced_w2(a, b, projections=lines).value == pytest.approx(pot, rel=1e-9)
    each = [ot.emd2_1d(a @ lines[:, k], b @ lines[:, k]) for k in range(64)]
    assert M.sliced_w2(a, b, projections=lines).value == pytest.approx(np.mean(each) ** 0.5, rel=1e-9)


def test_sliced_w2_error_is_that_of_the_directions() -> None:
    a, b = normal(50, 4), normal(50, 4, 1) + [2, 0, 0, 0]
    found = [M.sliced_w2(a, b, 100, seed=seed) for seed in range(60)]
    spread = np.std([f.value for f in found], ddof=1)
    assert np.mean([f.stderr for f in found]) == pytest.approx(spread, rel=0.3)
    assert M.sliced_w2(a, b, 100, seed=1) == found[1]


def test_sliced_w2_checks_directions() -> None:
    with pytest.raises(ValueError, match="columns of length 1"):
        M.sliced_w2(normal(4, 3), normal(4, 3), projections=2 * np.eye(3))
    with pytest.raises(ValueError, match="shape \\(3, L\\)"):
        M.sliced_w2(normal(4, 3), normal(4, 3), projections=np.eye(2))
    with pytest.raises(ValueError, match="n_projections"):
        M.sliced_w2(normal(4, 3), normal(4, 3), 1)


# --- exact W2 ---


def test_w2_is_pots_for_equal_and_unequal_sizes() -> None:
    import ot

    a, b = normal(30, 3), normal(30, 3, 1) + 1
    for second in (b, b[:17]):
        expected = ot.emd2(ot.unif(30), ot.unif(len(second)), cdist(a, second, "sqeuclidean")) ** 0.5
        assert M.w2(a, second) == pytest.approx(expected, rel=1e-9)
    assert M.w2(a, a[::-1]) == pytest.approx(0, abs=1e-7)
    assert M.sliced_w2(a, b).value <= M.w2(a, b) / 3**0.5
    with pytest.raises(ValueError, match="sliced_w2"):
        M.w2(np.zeros((6000, 1)), np.zeros((6000, 1)))


# --- energy distance ---


def brute_energy(a: np.ndarray, b: np.ndarray, unbiased: bool) -> float:
    m, n = len(a), len(b)
    own = (m * (m - 1), n * (n - 1)) if unbiased else (m**2, n**2)
    return 2 * cdist(a, b).mean() - cdist(a, a).sum() / own[0] - cdist(b, b).sum() / own[1]


@pytest.mark.parametrize("unbiased", [True, False])
@pytest.mark.parametrize(("m", "n", "d"), [(2, 3, 1), (50, 80, 3), (40, 30, 100)])
def test_energy_is_brute_force(m: int, n: int, d: int, unbiased: bool) -> None:
    a, b = normal(m, d), normal(n, d, 1) + 0.3
    assert M.energy(a, b, unbiased=unbiased) == pytest.approx(brute_energy(a, b, unbiased), rel=1e-9)


def test_energy_on_the_line_is_scipys() -> None:
    a, b = normal(60, 1), normal(40, 1, 1) * 2 + 1
    assert M.energy(a, b, unbiased=False) == pytest.approx(stats.energy_distance(a[:, 0], b[:, 0]) ** 2)


@pytest.mark.parametrize(("d", "shift"), [(1, 1.0), (2, 2.0), (20, 1.0)])
def test_energy_of_two_gaussians_by_formula(d: int, shift: float) -> None:
    v = np.zeros(d)
    v[0] = shift
    expected = 2 * mean_norm(shift, 2**0.5, d) - 2 * mean_norm(0.0, 2**0.5, d)
    found = [M.energy(normal(400, d, s), normal(400, d, 100 + s) + v) for s in range(20)]
    assert np.mean(found) == pytest.approx(expected, abs=4 * np.std(found) / 20**0.5)


# --- MMD ---


def gauss(a: np.ndarray, b: np.ndarray, s: float) -> np.ndarray:
    return np.exp(-cdist(a, b, "sqeuclidean") / (2 * s**2))


@pytest.mark.parametrize("unbiased", [True, False])
@pytest.mark.parametrize("kernel", ["gaussian", "mixture"])
def test_mmd_is_brute_force(kernel: str, unbiased: bool) -> None:
    a, b = normal(40, 6), normal(30, 6, 1) + 0.4
    widths = (1.7,) if kernel == "gaussian" else tuple(1.7 * w for w in (0.25, 0.5, 1, 2, 4))
    expected = 0.0
    for s in widths:
        aa, bb, ab = gauss(a, a, s), gauss(b, b, s), gauss(a, b, s)
        if unbiased:
            own = (aa.sum() - 40) / (40 * 39) + (bb.sum() - 30) / (30 * 29)
        else:
            own = aa.mean() + bb.mean()
        expected += (own - 2 * ab.mean()) / len(widths)
    assert M.mmd2(a, b, kernel=kernel, bandwidth=1.7, unbiased=unbiased) == pytest.approx(expected, rel=1e-9)


def test_mmd_of_two_gaussians_by_formula() -> None:
    d, s, shift = 3, 1.5, 1.2  # E k(X, Y) = (s^2 / (s^2 + 2))^(d/2) exp(-|v|^2 / (2 (s^2 + 2)))
    top = (s**2 / (s**2 + 2)) ** (d / 2)
    expected = 2 * top * (1 - np.exp(-(shift**2) / (2 * (s**2 + 2))))
    v = np.array([shift, 0, 0])
    found = [M.mmd2(normal(300, d, i), normal(300, d, 50 + i) + v, kernel="gaussian", bandwidth=s) for i in range(20)]
    assert np.mean(found) == pytest.approx(expected, abs=4 * np.std(found) / 20**0.5)


def test_median_is_the_default_bandwidth() -> None:
    a, b = normal(40, 2), normal(40, 2, 1)
    from scipy.spatial.distance import pdist

    width = M.median_distance(np.concatenate([a, b]))
    assert width == pytest.approx(np.median(pdist(np.concatenate([a, b]))))
    assert M.mmd2(a, b) == M.mmd2(a, b, bandwidth=width)
    assert M.median_distance(normal(5000, 2)) == pytest.approx(2**0.5 * stats.chi.median(2), rel=0.1)


@pytest.mark.parametrize("metric", [M.energy, M.mmd2])
def test_null_is_zero_in_the_mean(metric: object) -> None:
    found = [metric(normal(60, 3, s), normal(90, 3, 500 + s)) for s in range(100)]  # type: ignore[operator]
    assert abs(np.mean(found)) < 4 * np.std(found) / 10
    assert min(found) < 0 < max(found)


@pytest.mark.parametrize("d", [3, 150])
def test_large_clouds_in_single_precision_agree_with_double(d: int, monkeypatch: pytest.MonkeyPatch) -> None:
    # Clusters far smaller than their distance: products in float32 alone would lose the small distances.
    centres = 20 * normal(8, d, 3)
    labels = np.random.default_rng(4).integers(8, size=700)
    a = centres[labels] + 0.05 * normal(700, d, 5)
    b = centres[labels[:500]] + 0.05 * normal(500, d, 6)
    exact = M.energy(a, b), M.mmd2(a, b, bandwidth=0.2)
    monkeypatch.setattr(_pairs, "_SMALL", 0)
    monkeypatch.setattr(_pairs, "_WIDE_SIDE", 100)
    assert M.energy(a, b) == pytest.approx(exact[0], abs=1e-6 * 20 * d**0.5)
    assert M.mmd2(a, b, bandwidth=0.2) == pytest.approx(exact[1], abs=1e-6)


# --- properties ---


@settings(max_examples=25)
@given(
    m=st.integers(2, 30),
    n=st.integers(2, 30),
    d=st.integers(1, 6),
    scale=st.sampled_from([1e-6, 0.3, 7.0, 1e8]),
    shift=st.floats(-1e3, 1e3),
    seed=st.integers(0, 10**6),
)
def test_units_shifts_and_order(m: int, n: int, d: int, scale: float, shift: float, seed: int) -> None:
    a, b = normal(m, d, seed), normal(n, d, seed + 1) + 0.5
    c, e = scale * (a + shift), scale * (b + shift)
    for metric, unit in ((lambda x, y: M.sliced_w2(x, y, 16).value, scale), (M.energy, scale), (M.mmd2, 1.0)):
        value = metric(a, b)
        assert metric(c, e) == pytest.approx(unit * value, rel=1e-6, abs=unit * 1e-8)
        assert metric(b, a) == pytest.approx(value, rel=1e-9, abs=1e-12)
    assert M.energy(a, b, unbiased=False) > 0
    assert M.energy(a, a, unbiased=False) == pytest.approx(0, abs=1e-7)  # the root of a rounded square
    assert M.sliced_w2(a, a).value == pytest.approx(0, abs=1e-12)


# --- input ---


def test_arrays_tensors_and_precisions_agree() -> None:
    a, b = normal(30, 2).astype(np.float32), normal(30, 2, 1).astype(np.float32)
    assert M.energy(a, b) == M.energy(torch.from_numpy(a), torch.from_numpy(b).double())
    assert isinstance(M.energy(a, b), float)


@pytest.mark.parametrize("metric", [M.sliced_w2, M.w2, M.energy, M.mmd2, M.c2st, M.precision, M.authenticity])
def test_bad_input_is_named(metric: object) -> None:
    good = normal(10, 2)
    with pytest.raises(ValueError, match="dimension 3, expected 2"):
        metric(good, normal(10, 3))  # type: ignore[operator]
    with pytest.raises(ValueError, match="NaN"):
        metric(good, np.where(good > 1, np.nan, good))  # type: ignore[operator]
    with pytest.raises(ValueError, match="shape"):
        metric(good[:, 0], good)  # type: ignore[operator]


def test_too_few_or_constant_points() -> None:
    with pytest.raises(ValueError, match="a holds 1 point"):
        M.energy(normal(1, 2), normal(5, 2))
    with pytest.raises(ValueError, match="coincide"):
        M.mmd2(np.ones((5, 2)), np.ones((5, 2)))
    assert M.mmd2(np.ones((5, 2)), np.ones((5, 2)), bandwidth=1.0) == pytest.approx(0)
    assert M.energy(np.ones((5, 2)), np.ones((5, 2))) == 0
    assert M.sliced_w2(np.ones((5, 2)), np.ones((5, 2))) == M.Estimate(0.0, 0.0)
    with pytest.raises(ValueError, match="kernel"):
        M.mmd2(normal(5, 2), normal(5, 2), kernel="laplace")  # type: ignore[arg-type]
