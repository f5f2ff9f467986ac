"""Every exact cell oracle against many samples of its source, at heights far from the solution."""

import numpy as np
import pytest
import torch

import otgan as og
from otgan.cells import exact_cells

SOURCES = [
    og.UniformBox(dim=1),
    og.Gaussian([1.0], [[4.0]]),
    og.UniformBox([0.0, -1.0], [2.0, 0.0]),
    og.UniformBall(2, radius=0.5, center=[1.0, 1.0]),
    og.UniformPolytope([[0.0, 0.0], [2.0, 0.0], [1.5, 1.0], [0.2, 0.8]]),
    og.Gaussian([1.0, 2.0], [[2.0, 1.0], [1.0, 2.0]]),
    og.GridDensity(np.random.default_rng(0).random((8, 12)) > 0.4),
    og.UniformBox([0.0, 1.0, 2.0], [1.0, 3.0, 5.0]),
    og.UniformPolytope(np.random.default_rng(1).normal(size=(9, 3))),
]


def compare(source, m, n=40):
    """Largest deviation of cell counts from exact masses in standard errors, and of first moments."""
    rng = np.random.default_rng(2)
    y = rng.normal(size=(n, source.dim))
    h = -(y @ source.mean.numpy()) - 0.5 * source.variance**0.5 * (y**2).sum(1) * rng.uniform(0.8, 1.2, n)
    moments = exact_cells(source, y).moments(h, hessian=False)
    assert moments.masses.sum() == pytest.approx(1.0, abs=1e-12)
    assert (moments.masses > 0).sum() > n // 4
    u = og.BrenierPotential(y, h, center=source.mean)
    counts, first = torch.zeros(n, dtype=torch.float64), torch.zeros(n, source.dim, dtype=torch.float64)
    stream = torch.Generator().manual_seed(0)
    for _ in range(m // 250_000):
        x = source.sample(250_000, generator=stream, dtype=torch.float64)
        index = u.assign(x)
        counts += torch.bincount(index, minlength=n)
        first.index_add_(0, index, x)
    w = moments.masses
    deviation = np.abs(counts.numpy() / m - w) / np.sqrt(np.maximum(w * (1 - w), 1e-12) / m)
    spread = np.sqrt(np.maximum(w, 1e-12) * source.second_moment / m)[:, None]
    return deviation.max(), (np.abs(first.numpy() / m - moments.first) / spread).max()


@pytest.mark.parametrize("source", SOURCES, ids=repr)
def test_masses_and_first_moments(source):
    masses, first = compare(source, 250_000)
    assert masses < 5 and first < 8


@pytest.mark.slow
@pytest.mark.parametrize("source", SOURCES, ids=repr)
def test_masses_and_first_moments_on_ten_million_samples(source):
    masses, first = compare(source, 10_000_000)
    assert masses < 5 and first < 8
