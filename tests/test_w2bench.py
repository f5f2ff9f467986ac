"""Benchmark pairs: the map is the gradient of its potential, and the files' own figures come out."""

import numpy as np
import pytest
import torch

from otgan.datasets import DataError
from otgan.w2bench import BenchmarkPair, load_pair


def invented(dim=3, width=5, rank=2):
    """Arrays of a small pair with random weights."""
    rng = np.random.default_rng(0)
    arrays = {
        "centers": rng.normal(size=(3, dim)),
        "maps": rng.normal(size=(3, dim, dim)),
        "shift": rng.normal(size=dim),
        "scale": np.float64(0.7),
        "strong_convexity": np.float64(0.01),
        "half_w2_sq": np.float64(1.0),
        "linear_l2_uvp": np.float64(1.0),
    }
    for v in ("v1", "v2"):
        for layer in range(3):
            arrays[f"{v}/quadratic_layers.{layer}.quadratic_decomposed"] = 0.3 * rng.normal(size=(dim, rank, width))
            arrays[f"{v}/quadratic_layers.{layer}.weight"] = rng.normal(size=(width, dim))
            arrays[f"{v}/quadratic_layers.{layer}.bias"] = rng.normal(size=width) - 2.0
        for layer in range(2):
            arrays[f"{v}/convex_layers.{layer}.weight"] = rng.uniform(0, 0.3, size=(width, width))
        arrays[f"{v}/final_layer.weight"] = rng.uniform(0, 0.5, size=(1, width))
    return arrays


def check_gradient_and_monotone(pair):
    x = pair.source.sample(200, seed=1, dtype=torch.float64).requires_grad_()
    (gradient,) = torch.autograd.grad(pair.potential(x).sum(), x)
    transported = pair.transport(x.detach())
    assert torch.allclose(transported, gradient, rtol=1e-10, atol=1e-10)
    a, b = x.detach()[:100], x.detach()[100:]
    inner = ((transported[:100] - transported[100:]) * (a - b)).sum(1)
    strong = 2 * 0.01 * pair._scale * ((a - b) ** 2).sum(1)
    assert (inner >= strong * (1 - 1e-9)).all()


def test_map_is_the_gradient_of_a_strongly_convex_potential():
    check_gradient_and_monotone(BenchmarkPair(invented()))


def test_scores_of_known_maps():
    pair = BenchmarkPair(invented())
    perfect = pair.score(pair.transport, seed=3)
    assert perfect.l2_uvp < 1e-6 and perfect.cosine == pytest.approx(1.0, abs=1e-6)
    off = pair.score(lambda x: pair.transport(x) + 0.1, seed=3)
    assert off.l2_uvp == pytest.approx(1.0, rel=1e-3)  # 100 * d * 0.1^2 / d
    back = pair.score(lambda x: 2 * x - pair.transport(x), seed=3)
    assert back.cosine == pytest.approx(-1.0, abs=1e-6)
    with pytest.raises(ValueError, match="shape"):
        pair.score(lambda x: x[:, :1])


def test_target_is_reproducible_and_not_the_image_of_the_plain_seed():
    pair = BenchmarkPair(invented())
    y = pair.target(50, seed=4)
    assert y.dtype == torch.float32 and torch.equal(y, pair.target(50, seed=4))
    x = pair.source.sample(50, seed=4, dtype=torch.float64)
    assert (y - pair.transport(x)).abs().amax(1).min() > 1e-3


def test_missing_arrays_and_files_are_named(tmp_path, monkeypatch):
    arrays = invented()
    del arrays["v2/final_layer.weight"]
    with pytest.raises(DataError, match="final_layer"):
        BenchmarkPair(arrays)
    with pytest.raises(DataError, match="no file"):
        load_pair(3, tmp_path)
    monkeypatch.delenv("OTGAN_DATA", raising=False)
    with pytest.raises(DataError, match="OTGAN_DATA"):
        load_pair(2)


@pytest.fixture(scope="module", params=[2, 4, 8, 16])
def real(request, data_dir):
    if not (data_dir / "w2bench").is_dir():
        pytest.skip(f"no benchmark pairs in {data_dir}")
    return load_pair(request.param, data_dir)


def test_real_pairs_are_optimal_maps(real):
    check_gradient_and_monotone(real)


def test_real_pairs_reproduce_the_figures_of_their_files(real):
    x = real.source.sample(30_000, seed=1, dtype=torch.float64)
    y = real.transport(x)
    cost = ((x - y) ** 2).sum(1)
    assert y.mean(0).abs().max() < 5 * (real.dim / 30_000) ** 0.5
    assert float(y.var(0).sum()) == pytest.approx(real.dim, rel=0.04)
    assert float(cost.mean() / 2) == pytest.approx(real.half_w2_sq, rel=0.04)
    # The best affine optimal map is that between Gaussians of the same moments.
    cx, cy = torch.cov(x.T), torch.cov(y.T)
    root = power(cx, 0.5)
    bures = power(cx, -0.5) @ power(root @ cy @ root, 0.5) @ power(cx, -0.5)
    error = ((x - x.mean(0)) @ bures + y.mean(0) - y).square().sum(1).mean()
    assert 100 * float(error) / real.dim == pytest.approx(real.linear_l2_uvp, rel=0.06)


def power(matrix, exponent):
    values, vectors = torch.linalg.eigh(matrix)
    return (vectors * values**exponent) @ vectors.T
