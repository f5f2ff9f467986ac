"""`solve` with exact cells: every source, known distances, agreement with samples and with POT, ways to end."""

import numpy as np
import ot
import pytest
import torch

import otgan as og
from otgan.cells import exact_cells, has_exact_cells

RNG = np.random.default_rng(0)
SOURCES = [
    og.UniformBox(dim=1),
    og.UniformBall(1, radius=2.0, center=[3.0]),
    og.Gaussian([1.0], [[4.0]]),
    og.UniformBox([0.0, -1.0], [2.0, 0.0]),
    og.UniformBall(2, radius=0.5, center=[1.0, 1.0]),
    og.UniformPolytope([[0.0, 0.0], [2.0, 0.0], [1.5, 1.0], [0.2, 0.8]]),
    og.Gaussian([1.0, 2.0], [[2.0, 1.0], [1.0, 2.0]]),
    og.GridDensity(RNG.random((8, 12))),
    og.UniformBox([0.0, 1.0, 2.0], [1.0, 3.0, 5.0]),
    og.UniformPolytope(RNG.normal(size=(9, 3))),
]


@pytest.mark.parametrize("source", SOURCES, ids=repr)
def test_exact_masses_moments_and_distance_agree_with_samples(source):
    y = RNG.normal(size=(60, source.dim)) * 2 + 3
    target = og.DiscreteMeasure(y, RNG.uniform(0.5, 2, 60))
    result = og.solve(source, target)
    assert result.method == "newton" and "exact cells" in result.reason
    assert result.converged, result.message
    cert = result.certificate
    assert cert.exact and cert.n_samples == 0 and cert.empty_cells == 0
    assert cert.max_ratio < 1e-7 and cert.chi2 < 1e-14
    assert cert.w2_lower <= result.value**0.5 <= cert.w2_upper <= cert.w2_lower * (1 + 1e-6)
    sampled = og.certify(result.potential, source, 200_000, seed=1)
    assert abs(sampled.chi2) < 5 * sampled.chi2_stderr
    assert sampled.w2_lower <= result.value**0.5 <= sampled.w2_upper
    x = source.sample(200_000, seed=2, dtype=torch.float64)
    index = result.potential.assign(x)
    centroids = torch.zeros(60, source.dim, dtype=torch.float64).index_add_(0, index, x)
    centroids /= torch.bincount(index, minlength=60)[:, None]
    assert torch.allclose(centroids, result.centroids, atol=0.15 * source.variance**0.5)
    assert torch.allclose(result.masses, target.weights, rtol=1e-7)
    # the barycentre of the cells is the mean of the source
    assert torch.allclose(result.masses @ result.centroids, source.mean, atol=1e-9 * (1 + source.mean.abs().max()))


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_slabs(dim):
    n = 25
    y = np.full((n, dim), 0.5)
    y[:, 0] = (np.arange(n) + 0.5) / n
    result = og.solve(og.UniformBox(dim=dim), y)
    assert result.value == pytest.approx(1 / (12 * n**2) + (dim - 1) / 12, rel=1e-12)
    x = og.UniformBox(dim=dim).sample(1000, seed=0, dtype=torch.float64)
    assert torch.equal(result.potential.assign(x), (x[:, 0] * n).long())


def test_gaussian_on_the_line_and_in_the_plane_agree_on_a_product():
    y = RNG.normal(size=(30, 1))
    flat = np.concatenate([y, np.zeros((30, 1))], axis=1)
    line = og.solve(og.Gaussian([1.0], [[2.0]]), y)
    plane = og.solve(og.Gaussian([1.0, 0.0], np.diag([2.0, 3.0])), flat)
    assert plane.value == pytest.approx(line.value + 3.0, rel=1e-9)
    assert torch.allclose(plane.potential.heights, line.potential.heights, atol=1e-7)


@pytest.mark.parametrize("units", [1e-3, 1.0, 1e3])
@pytest.mark.parametrize("dim", [1, 2, 3])
def test_units_and_origin_change_nothing_but_rounding(dim, units):
    y = RNG.normal(size=(40, dim))
    plain = og.solve(og.UniformBox(dim=dim), y)
    box = og.UniformBox([7.0] * dim, [7.0 + units] * dim)
    moved = og.solve(box, units * y + 1e4 * units)
    assert moved.converged
    shift = (7.0 + units / 2 - 1e4 * units) - units * y.mean(0)
    centred = plain.value - ((0.5 - y.mean(0)) ** 2).sum()
    assert moved.value - (shift**2).sum() == pytest.approx(units**2 * centred, rel=1e-5, abs=1e-12 * (shift**2).sum())
    x = torch.rand(2000, dim, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert (moved.potential.assign(7.0 + units * x) == plain.potential.assign(x)).double().mean() > 0.999


def test_against_pot_on_a_fine_discretisation():
    y = RNG.random((15, 2)) * 2
    result = og.solve(og.UniformBox(dim=2), y)
    k = 60
    ticks = (np.arange(k) + 0.5) / k
    grid = np.stack(np.meshgrid(ticks, ticks), axis=-1).reshape(-1, 2)
    discrete = ot.emd2([], [], ot.dist(grid, y), numItermax=1_000_000)
    # the grid is within 1/(sqrt 6 k) of the square in W2
    assert abs(discrete**0.5 - result.value**0.5) <= 1 / (6**0.5 * k)


@pytest.mark.parametrize(
    ("y", "n"),
    [
        (np.zeros((1, 2)), 1),
        (np.ones((6, 2)), 1),
        (np.array([[0.0, 0.0], [1.0, 1.0]]), 2),
        (np.stack([np.linspace(-1, 3, 50)] * 2, axis=1), 50),  # collinear
        (np.stack(np.meshgrid(np.arange(7.0), np.arange(7.0)), -1).reshape(-1, 2), 49),  # cocircular
        (100 + RNG.random((30, 2)), 30),  # far outside
        (np.concatenate([RNG.normal(size=(20, 2)) * 1e-3 + c for c in RNG.random((5, 2))]), 100),
    ],
)
def test_degenerate_and_hard_targets(y, n):
    for source in (og.UniformBox(dim=2), og.UniformBall(2), og.Gaussian(2)):
        result = og.solve(source, y)
        assert result.converged, (source, result.message)
        assert result.target.n == n
        assert np.isfinite(result.value)


def test_image_with_a_hole():
    image = np.ones((20, 20))
    image[5:15, 5:15] = 0.0
    result = og.solve(og.GridDensity(image), RNG.random((80, 2)))
    assert result.converged and result.certificate.max_ratio < 1e-8


def test_ways_to_end():
    y = RNG.normal(size=(200, 2))
    short = og.solve(og.UniformBox(dim=2), y, max_iter=1)
    assert short.status == "max_iter" and short.value is None and "max_iter" in short.message
    assert short.certificate.w2_lower < short.certificate.w2_upper
    stopped = og.solve(og.UniformBox(dim=2), y, callback=lambda state: state.n_iter >= 2)
    assert stopped.status == "stopped" and stopped.n_iter == 2

    def interrupt(state):
        raise KeyboardInterrupt

    assert og.solve(og.UniformBox(dim=2), y, callback=interrupt).status == "interrupted"
    with pytest.raises(og.ConvergenceError) as caught:
        og.solve(og.UniformBox(dim=2), y, max_iter=1, on_failure="raise")
    assert caught.value.result.potential.n == 200


def test_what_is_exact_and_what_is_not():
    assert not has_exact_cells(og.Gaussian(3)) and not has_exact_cells(og.UniformBall(3))
    assert not has_exact_cells(og.Gaussian([0.0, 0.0], [[1.0, 1.0], [1.0, 1.0]]))
    assert not has_exact_cells(og.UniformBox(dim=4))
    with pytest.raises(ValueError, match="no exact cells"):
        exact_cells(og.Gaussian(5), np.zeros((1, 5)))
    with pytest.raises(ValueError, match="no exact cells"):
        og.solve(og.UniformBox(dim=4), np.eye(4), method="newton")


def test_round_trip_keeps_the_cells(tmp_path):
    result = og.solve(og.GridDensity(RNG.random((5, 5))), RNG.random((10, 2)))
    again = og.load(result.save(tmp_path))
    assert torch.equal(again.centroids, result.centroids) and torch.equal(again.masses, result.masses)
    assert again.value == result.value and again.certificate.exact


def test_reflected_gaussian_polygons():
    """A factor of negative determinant turns polygons around; they must stay counter-clockwise and keep neighbours."""
    from otgan.cells.affine import AffineCells
    from otgan.cells.planar import PlanarCells

    square = np.array([[-1.0, -1.0], [1.0, -1.0], [1.0, 1.0], [-1.0, 1.0]])
    y = RNG.normal(size=(12, 2))
    factor, shift = np.array([[0.0, 1.0], [1.0, 0.3]]), np.array([2.0, -1.0])
    cells = AffineCells(PlanarCells(y @ factor, square), y, factor, shift)
    h = -(y @ shift) - 0.1 * (y**2).sum(1)
    soup, moments = cells.polygons(h), cells.moments(h)
    assert np.allclose(soup.areas / soup.areas.sum(), moments.masses, atol=1e-12)
    middle = (soup.vertices + soup.vertices[soup.next_vertex]) / 2
    scores = middle @ y.T + h
    inner = soup.neighbour >= 0
    assert np.allclose(scores[inner, soup.neighbour[inner]], scores.max(1)[inner])
    assert cells.second_moment == pytest.approx(float(shift @ shift + (factor**2).sum() / 3))


def test_on_the_line_the_status_follows_the_masses_and_the_value_is_exact():
    """Two targets that no height in double precision separates: the map cannot be right, the distance still is."""
    close = np.array([[0.3], [np.nextafter(0.3, 1.0)], [0.8]])
    result = og.solve(og.UniformBox(dim=1), close)
    assert result.status == "stalled" and "double precision" in result.message
    merged = og.solve(og.UniformBox(dim=1), og.DiscreteMeasure([[0.3], [0.8]], [2, 1]))
    assert merged.converged and result.value == pytest.approx(merged.value, rel=1e-12)
    far = og.solve(og.UniformBox([1e6], [1e6 + 1]), RNG.normal(size=(500, 1)))
    assert far.value == pytest.approx((1e6 + 0.5) ** 2, rel=1e-5)


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_targets_that_centring_merges_are_named(dim):
    y = np.zeros((3, dim))
    y[:, 0] = [1e-17, 2e-17, 1.0]
    with pytest.raises(ValueError, match="closer than about 1e-16"):
        og.solve(og.UniformBox(dim=dim), y)


@pytest.mark.parametrize("moment", [3, 9, 15, 21, 27, 33, 36])
def test_an_interrupt_at_any_moment_of_the_continuation_ends_in_a_result(moment, monkeypatch):
    from otgan.cells.planar import PlanarCells

    image = np.ones((32, 32))
    image[8:24] = 0.0
    calls, moments = iter(range(10_000)), PlanarCells.moments

    def interrupted(self, heights, hessian=True):
        if next(calls) == moment:
            raise KeyboardInterrupt
        return moments(self, heights, hessian)

    monkeypatch.setattr(PlanarCells, "moments", interrupted)
    result = og.solve(og.GridDensity(image), np.random.default_rng(0).random((1500, 2)))
    assert result.status in ("interrupted", "converged") and result.potential.n == 1500
    assert torch.isfinite(result.potential.heights).all()


@pytest.mark.skipif(not hasattr(__import__("os"), "fork"), reason="no fork on this system")
def test_a_forked_child_is_told_to_use_another_start_method():
    import subprocess
    import sys

    code = """
import os, sys, numpy as np, otgan as og
y = np.random.default_rng(0).random((50, 2))
og.solve(og.UniformBox(dim=2), y)
if os.fork() == 0:
    try:
        og.solve(og.UniformBox(dim=2), y)
    except RuntimeError as error:
        print(error, flush=True)
    os._exit(0)
os.wait()
"""
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert "'spawn'" in out.stdout, out
