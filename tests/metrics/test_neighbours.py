"""Neighbour searches, balls, and the metrics that are made of them, against brute force and closed forms."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist
from scipy.special import betainc

import otgan as og
from otgan.metrics._neighbours import Balls, nearest

M = og.metrics


def normal(m: int, d: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(m, d))


def clusters(m: int, d: int, seed: int, small: float = 1e-3) -> np.ndarray:
    """Five tight clusters far apart and far from the origin: hard on float32."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(size=(5, d)) * 10 + 1000
    return centres[rng.integers(5, size=m)] + small * rng.normal(size=(m, d))


def brute_prdc(x: np.ndarray, y: np.ndarray, k: int, k_support: int) -> tuple[float, float, float, float]:
    def radii(z: np.ndarray, count: int) -> np.ndarray:
        return np.sort(cdist(z, z), axis=1)[:, count]

    xy = cdist(x, y)
    return (
        float((xy <= radii(y, k_support)).any(axis=1).mean()),
        float((xy.T <= radii(x, k_support)).any(axis=1).mean()),
        float((xy <= radii(y, k)).sum(axis=1).mean() / k),
        float((xy.min(axis=0) <= radii(y, k)).mean()),
    )


# --- searches ---


@pytest.mark.parametrize("make", [lambda m, d, s: normal(m, d, s), clusters])
@pytest.mark.parametrize(("m", "n", "d", "k"), [(50, 70, 1, 1), (60, 200, 2, 5), (40, 90, 40, 3), (30, 12, 3, 12)])
def test_nearest_is_brute_force(make: object, m: int, n: int, d: int, k: int) -> None:
    x, y = make(m, d, 0), make(n, d, 1)  # type: ignore[operator]
    index, distance = nearest(torch.from_numpy(x), torch.from_numpy(y), k)
    all_ = cdist(x, y)
    assert np.allclose(distance, np.sort(all_, axis=1)[:, :k], rtol=1e-9, atol=1e-12)
    assert np.allclose(np.take_along_axis(all_, index.numpy(), 1), distance, rtol=1e-9, atol=1e-12)


def test_a_point_is_not_its_own_neighbour_but_its_double_is() -> None:
    x = torch.from_numpy(np.concatenate([normal(20, 2)] * 12))  # more doubles than spare candidates
    index, distance = nearest(x, x, 11, same=True)
    assert float(distance.max()) == 0
    assert (index != torch.arange(240)[:, None]).all()
    assert (index % 20 == torch.arange(240)[:, None] % 20).all()


@pytest.mark.parametrize("make", [lambda m, d, s: normal(m, d, s), clusters])
@pytest.mark.parametrize("d", [1, 2, 50])
def test_balls_are_brute_force(make: object, d: int) -> None:
    x, y = make(80, d, 0), make(120, d, 1)  # type: ignore[operator]
    radii = np.random.default_rng(2).uniform(0, 2 if d < 50 else 10, size=120) * (1 if make is not clusters else 1e-3)
    radii[:3] = 0, 1e-12, 1e-300
    inside = cdist(x, y) <= radii
    balls = Balls(torch.from_numpy(y), torch.from_numpy(radii))
    assert np.array_equal(balls.count(torch.from_numpy(x)), inside.sum(axis=1))
    assert np.array_equal(balls.covers(torch.from_numpy(x)), inside.any(axis=1))
    huge = Balls(torch.from_numpy(y), torch.full((120,), 1e6, dtype=torch.float64))
    assert (huge.count(torch.from_numpy(x)) == 120).all()


def test_points_on_a_sphere_are_in_the_ball() -> None:
    grid = np.stack(np.meshgrid(np.arange(5.0), np.arange(5.0)), -1).reshape(-1, 2)
    balls = Balls(torch.from_numpy(grid), torch.ones(25, dtype=torch.float64))
    assert int(balls.count(torch.from_numpy(grid)).sum()) == 25 + 2 * 40  # itself, and both ends of each edge
    assert balls.covers(torch.tensor([[5.0, 4.0], [5.0, 5.0]], dtype=torch.float64)).tolist() == [True, False]


# --- precision, recall, density, coverage ---


@pytest.mark.parametrize("make", [lambda m, d, s: normal(m, d, s), clusters])
@pytest.mark.parametrize(("m", "n", "d"), [(60, 80, 2), (90, 40, 30), (6, 7, 1)])
def test_prdc_is_brute_force(make: object, m: int, n: int, d: int) -> None:
    x, y = make(m, d, 0), make(n, d, 1)  # type: ignore[operator]
    found, expected = M.prdc(x, y), brute_prdc(x, y, 5, 3)
    assert tuple(found.to_dict().values()) == pytest.approx(expected, abs=1e-12)
    alone = (M.precision(x, y), M.recall(x, y), M.density(x, y), M.coverage(x, y))
    assert alone == tuple(found.to_dict().values())


def test_prdc_is_the_authors(capsys: pytest.CaptureFixture[str]) -> None:
    theirs = pytest.importorskip("prdc")
    x, y = normal(150, 4) * 1.2, normal(120, 4, 1)
    for k in (1, 3, 5):
        found = M.prdc(x, y, k=k, k_support=k).to_dict()
        assert found == pytest.approx(theirs.compute_prdc(real_features=y, fake_features=x, nearest_k=k), abs=1e-12)


def test_density_and_coverage_of_real_points_by_formula() -> None:
    m, n, k = 60, 40, 5
    found = [M.prdc(normal(m, 3, s), normal(n, 3, 900 + s), k) for s in range(60)]
    density, cover = np.array([f.density for f in found]), np.array([f.coverage for f in found])
    expected = 1 - np.prod([(n - i) / (m + n - i) for i in range(1, k + 1)])
    assert density.mean() == pytest.approx(1.0, abs=4 * density.std() / 60**0.5)
    assert cover.mean() == pytest.approx(expected, abs=4 * cover.std() / 60**0.5)


def test_a_dropped_mode_is_missed_by_recall_and_coverage_and_an_invented_one_by_precision() -> None:
    rng = np.random.default_rng(0)
    near, far = rng.normal(size=(400, 2)), rng.normal(size=(400, 2)) + 50
    one, both = rng.normal(size=(800, 2)), np.concatenate([near, far])
    dropped = M.prdc(one, both)
    assert dropped.precision > 0.95
    assert dropped.recall == pytest.approx(0.5, abs=0.03)
    assert dropped.coverage == pytest.approx(0.5, abs=0.03)
    assert dropped.density == pytest.approx(2 * 0.5, abs=0.2)  # all mass where half belongs, half of the balls
    invented = M.prdc(both, one)
    assert invented.precision == pytest.approx(0.5, abs=0.03)
    assert invented.recall > 0.95


def test_a_collapsed_generator_is_measured_and_small_clouds_are_refused() -> None:
    found = M.prdc(np.zeros((50, 2)), normal(50, 2))
    assert found.recall == 0.0
    assert found.coverage < 0.6
    for metric in (M.precision, M.density, M.coverage):
        with pytest.raises(ValueError, match="real holds 5 point"):
            metric(normal(9, 2), normal(5, 2), k=5)
    with pytest.raises(ValueError, match="samples holds 3 point"):
        M.recall(normal(3, 2), normal(9, 2))
    with pytest.raises(ValueError, match="k must be at least 1"):
        M.precision(normal(9, 2), normal(9, 2), k=0)


# --- memorisation ---


def test_distances_to_the_closest_record_are_brute_force() -> None:
    x, y, z = normal(70, 3), normal(50, 3, 1), normal(50, 3, 2)
    two = np.sort(cdist(x, y), axis=1)[:, :2]
    assert M.nearest_distance(x, y) == pytest.approx(np.median(two[:, 0]))
    assert M.nearest_ratio(x, y) == pytest.approx(np.median(two[:, 0] / two[:, 1]))
    assert M.train_share(x, y, z) == (two[:, 0] < cdist(x, z).min(axis=1)).mean()
    own = np.sort(cdist(y, y), axis=1)[:, 1]
    assert M.authenticity(x, y) == (two[:, 0] > own[cdist(x, y).argmin(axis=1)]).mean()


def test_copies_are_found_up_to_rounding() -> None:
    y = normal(200, 3)
    x = np.concatenate([y[:30], y[:20].astype(np.float32), normal(150, 3, 1)])
    assert M.copies(x, y) == 50 / 200
    assert M.copies(x, y, tol=0) == 30 / 200
    assert M.copies(x, y, tol=100) == 1
    assert M.copies((y + 5000).astype(np.float32), y + 5000) == 1
    assert M.copies(normal(150, 3, 1), y) == 0
    with pytest.raises(ValueError, match="tol"):
        M.copies(x, y, tol=-1)


def test_copies_have_no_authenticity_ratio_or_distance() -> None:
    y = normal(300, 3)
    assert (M.authenticity(y, y), M.nearest_ratio(y, y), M.nearest_distance(y, y)) == (0, 0, 0)
    assert M.train_share(y, y, normal(300, 3, 1)) == 1
    doubled = np.concatenate([y, y])
    assert (M.authenticity(y, doubled), M.nearest_ratio(y, doubled)) == (0, 0)


@pytest.mark.parametrize("d", [1, 2, 3])
def test_authenticity_of_fresh_points_is_that_of_mutual_neighbours(d: int) -> None:
    rng = np.random.default_rng(d)
    found = [M.authenticity(rng.uniform(size=(2000, d)), rng.uniform(size=(2000, d))) for _ in range(4)]
    expected = 1 - 1 / (2 - betainc((d + 1) / 2, 0.5, 0.75))
    assert np.mean(found) == pytest.approx(expected, abs=0.03)


def test_train_share_of_fresh_points_is_one_half() -> None:
    found = [M.train_share(normal(100, 4, s), normal(90, 4, 200 + s), normal(40, 4, 400 + s)) for s in range(60)]
    assert np.mean(found) == pytest.approx(0.5, abs=4 * np.std(found) / 60**0.5)
    assert M.train_share(normal(10, 2), np.zeros((5, 2)), np.zeros((5, 2))) == 0.5


@settings(max_examples=20)
@given(
    m=st.integers(6, 30),
    d=st.integers(1, 5),
    scale=st.sampled_from([2.0**-20, 1.0, 2.0**30]),
    shift=st.sampled_from([0.0, 3.0, -64.0]),
    seed=st.integers(0, 10**6),
)
def test_neighbour_metrics_have_no_unit_or_origin(m: int, d: int, scale: float, shift: float, seed: int) -> None:
    a, b, c = normal(m, d, seed), normal(m + 3, d, seed + 1), normal(m, d, seed + 2)

    def all_of(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> list[float]:
        shares = [M.authenticity(x, y), M.nearest_ratio(x, y), M.train_share(x, y, z), M.copies(x, y)]
        return [*M.prdc(x, y).to_dict().values(), *shares]

    moved = [scale * (points + shift) for points in (a, b, c)]
    assert all_of(*moved) == pytest.approx(all_of(a, b, c), rel=1e-9)
    assert M.nearest_distance(moved[0], moved[1]) == pytest.approx(scale * M.nearest_distance(a, b), rel=1e-9)
    assert M.precision(a, b) == M.recall(b, a)
