"""Sources: moments in closed form against their own samples, seeds, devices, refusals."""

import numpy as np
import pytest
import torch

import otgan as og

SOURCES = [
    og.UniformBox(dim=3),
    og.UniformBox([-1.0, 2.0], [0.0, 7.0]),
    og.UniformBall(1),
    og.UniformBall(4, radius=2.5, center=[1.0, 0.0, -3.0, 2.0]),
    og.Gaussian(2),
    og.Gaussian([1.0, -2.0], [[2.0, 1.2], [1.2, 1.0]]),
    og.Gaussian([0.0, 5.0, 1.0], [1.0, 4.0, 0.25]),
    og.Gaussian([0.0, 0.0], [[1.0, 1.0], [1.0, 1.0]]),  # singular
    og.GaussianMixture([[0.0, 3.0], [-2.0, 0.0]], [0.5, 2.0], weights=[1, 3]),
    og.GaussianMixture([[1.0, 0.0, 0.0], [0.0, 5.0, 0.0]], [[[1.0], [2.0], [0.5]], [[0.0], [0.1], [3.0]]]),  # of rank 1
    og.Empirical(np.random.default_rng(0).normal(size=(50, 3))),
    og.Empirical([[0.0, 1.0], [4.0, -1.0], [2.0, 2.0]], weights=[1, 2, 5]),
]


@pytest.mark.parametrize("source", SOURCES, ids=repr)
def test_samples_have_the_stated_moments(source):
    m = 200_000
    x = source.sample(m, seed=1, dtype=torch.float64)
    assert x.shape == (m, source.dim)
    spread = (source.variance / m) ** 0.5
    assert torch.linalg.norm(x.mean(0) - source.mean) < 5 * spread
    square = (x**2).sum(1)
    assert abs(square.mean() - source.second_moment) < 5 * square.std() / m**0.5 + 1e-12
    assert source.second_moment == pytest.approx(source.variance + float(source.mean @ source.mean))


@pytest.mark.parametrize("source", SOURCES, ids=repr)
def test_sobol_points_are_distributed_like_samples_and_more_evenly(source):
    m = 1 << 13
    q = source.sobol(m, seed=3, dtype=torch.float64)
    assert q.shape == (m, source.dim)
    noise = (source.variance / m) ** 0.5
    assert torch.linalg.norm(q.mean(0) - source.mean) < 0.5 * noise + 1e-12
    assert ((q - source.mean) ** 2).sum(1).mean() == pytest.approx(source.variance, rel=1e-2)
    assert torch.equal(q, source.sobol(m, seed=3, dtype=torch.float64))
    assert not torch.equal(q, source.sobol(m, seed=4, dtype=torch.float64))


@pytest.mark.parametrize("source", SOURCES, ids=repr)
def test_seeds_and_dtypes(source):
    a, b = source.sample(10, seed=5), source.sample(10, seed=5)
    assert a.dtype == torch.float32 and torch.equal(a, b)
    before = torch.random.get_rng_state()
    stream = torch.Generator().manual_seed(5)
    assert torch.equal(source.sample(10, generator=stream), a)
    assert not torch.equal(source.sample(10, generator=stream), a)
    source.sample(3)
    assert torch.equal(before, torch.random.get_rng_state()), "global random state was touched"
    assert source.sample(0, seed=0).shape == (0, source.dim)
    assert source.sample(2, seed=0, dtype=torch.float64).dtype == torch.float64


@pytest.mark.parametrize("source", SOURCES, ids=repr)
def test_state_round_trip(source):
    config, tensors = source.state()
    again = type(source).from_state(config, tensors)
    assert torch.equal(again.sample(20, seed=2), source.sample(20, seed=2))
    assert again.second_moment == source.second_moment


def test_ball_is_uniform_in_radius():
    x = og.UniformBall(3).sample(100_000, seed=0, dtype=torch.float64)
    inside_half = (x.norm(dim=1) < 0.5).double().mean()
    assert inside_half == pytest.approx(0.125, abs=0.005)
    assert x.norm(dim=1).max() <= 1


def test_gaussian_covariance_of_samples():
    cov = torch.tensor([[2.0, 1.2], [1.2, 1.0]], dtype=torch.float64)
    x = og.Gaussian([0.0, 0.0], cov).sample(400_000, seed=0, dtype=torch.float64)
    assert torch.allclose(torch.cov(x.T), cov, atol=0.02)


def test_mixture_covariance_and_component_masses():
    factors = [[[1.0, 0.0], [0.5, 0.2]], [[2.0, 0.0], [0.0, 0.1]]]
    mixture = og.GaussianMixture([[0.0, 3.0], [0.0, -3.0]], factors, [3, 1])
    x = mixture.sample(200_000, seed=0, dtype=torch.float64)
    assert torch.allclose(torch.cov(x.T), mixture.cov, rtol=0.02, atol=0.05)
    assert float((x[:, 1] > 0.0).double().mean()) == pytest.approx(0.75, abs=0.005)
    assert mixture.variance == pytest.approx(float(torch.trace(mixture.cov)))


def test_weighted_atoms_are_drawn_in_proportion():
    x = og.Empirical([[0.0], [1.0]], weights=[1, 3]).sample(100_000, seed=0)
    assert float(x.mean()) == pytest.approx(0.75, abs=0.006)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: og.UniformBox(), "dimension"),
        (lambda: og.UniformBox(1.0, 0.0, dim=2), "smaller than high"),
        (lambda: og.UniformBox([0.0, 0.0], [1.0, 1.0, 1.0]), "shape"),
        (lambda: og.UniformBox([0.0, float("nan")], [1.0, 1.0]), "NaN"),
        (lambda: og.UniformBall(0), "at least 1"),
        (lambda: og.UniformBall(2, radius=-1.0), "radius"),
        (lambda: og.UniformBall(2, center=[1.0]), "center"),
        (lambda: og.Gaussian(), "dimension"),
        (lambda: og.Gaussian(-1), "at least 1"),
        (lambda: og.Gaussian([0.0, 0.0], [[1.0, 2.0], [0.0, 1.0]]), "symmetric"),
        (lambda: og.Gaussian([0.0, 0.0], [[1.0, 2.0], [2.0, 1.0]]), "positive semi-definite"),
        (lambda: og.Gaussian([0.0, 0.0], np.eye(3)), "shape"),
        (lambda: og.GaussianMixture([[0.0, 1.0]], np.eye(2)), r"\(1, 2, r\)"),
        (lambda: og.GaussianMixture([[0.0], [1.0]], weights=[1.0]), "shape"),
        (lambda: og.GaussianMixture([[0.0], [1.0]], [1.0, float("inf")]), "infinite"),
        (lambda: og.Empirical(np.zeros((0, 2))), "empty"),
        (lambda: og.Empirical([[0.0], [1.0]], weights=[1.0, 0.0]), "> 0"),
        (lambda: og.UniformBox(dim=2).sample(-1), "at least 0"),
        (lambda: og.UniformBox(dim=2).sample(1, seed=0, generator=torch.Generator()), "not both"),
        (lambda: og.UniformBox(dim=2).sample(1, seed=0, dtype=torch.float16), "float32 or"),
        (lambda: og.Gaussian(30_000).sobol(2), "sample"),
    ],
)
def test_refusals_are_sentences(make, words):
    with pytest.raises((ValueError, TypeError), match=words):
        make()
