"""Scores ``h_j - |x_i - y_j|^p / p`` against brute force in float64, on every backend that knows them."""

from __future__ import annotations

import math

import pytest
import torch

from otgan import kernels
from otgan.kernels import blocks, dispatch

DTYPES = (torch.float32, torch.float64)
ROUNDING = {torch.float32: 1e-5, torch.float64: 1e-12}
EPS = 0.1
EXPONENTS = (1.25, 1.5, 2.7, 3.0, 4.0)
OPERATIONS = {
    "assign": kernels.assign,
    "top_k": lambda x, y, h, p: kernels.top_k(x, y, h, 3, p=p),
    "soft_moments": lambda x, y, h, p: kernels.soft_moments(x, y, h, EPS, p=p),
    "soft_gradient": lambda x, y, h, p: kernels.soft_gradient(x, y, h, EPS, p=p),
    "soft_counts": lambda x, y, h, p: kernels.soft_counts(x, y, h, EPS, p=p),
    "slack": kernels.slack,
}


@pytest.fixture(autouse=True)
def torch_backend():
    with kernels.use("torch"):
        yield


def problem(m=301, n=83, d=2, dtype=torch.float64, seed=0):
    g = torch.Generator().manual_seed(seed)
    x, y = (torch.randn(size, d, generator=g, dtype=torch.float64) for size in (m, n))
    near = min(m, n) // 4
    y[:near] = x[:near] + 1e-3 * y[:near]  # where a matrix product alone would lose all digits
    h = 0.1 * torch.randn(n, generator=g, dtype=torch.float64)
    return x.to(dtype), y.to(dtype), h.to(dtype)


def distances(x, y):
    return (x.double()[:, None] - y.double()).norm(dim=2)


def check_all(x, y, h, p, k=5, weights=None):
    length = distances(x, y)
    s, b = h.double() - length**p / p, torch.full_like(h, 1 / len(y)) if weights is None else weights
    finite = s[s.isfinite()]
    tolerance = ROUNDING[x.dtype] * max(1.0, float(finite.abs().max())) * p

    def close(actual, expected, factor=1.0):
        torch.testing.assert_close(actual.double(), expected, rtol=0, atol=factor * tolerance)

    index, value = kernels.assign(x, y, h, p=p)
    assert index.dtype == torch.int64 and value.dtype == x.dtype
    close(value, s.amax(1))
    close(s.gather(1, index[:, None])[:, 0], s.amax(1))
    index, value = kernels.top_k(x, y, h, k, p=p)
    close(value, s.topk(k, 1).values)
    close(s.gather(1, index), s.topk(k, 1).values)
    assert all(len(set(row)) == k for row in index.tolist())
    logits = s / EPS + b.double().log()
    soft, prob = kernels.soft_moments(x, y, h, EPS, weights, p=p), torch.softmax(logits, 1)
    close(soft.value, EPS * torch.logsumexp(logits, 1))
    close(soft.mean, prob @ y.double(), 1 / EPS)
    found = kernels.soft_gradient(x, y, h, EPS, weights, p=p)
    pull = prob * torch.where(length > 0, length ** (p - 2), 0.0)
    close(found.value, soft.value.double())
    gradient = pull @ y.double() - pull.sum(1, keepdim=True) * x.double()
    close(found.gradient, gradient, 10 / EPS * max(1.0, float(gradient.abs().max())))
    counts = kernels.soft_counts(x, y, h, EPS, weights, p=p)
    assert counts.dtype == torch.float64 and abs(float(counts.sum()) - 1) < ROUNDING[x.dtype]
    close(counts, prob.mean(0), 1 / EPS)
    gaps, expected = kernels.slack(x, y, h, p=p), (s.amax(1)[:, None] - s).amin(0)
    assert bool((gaps >= 0).all()) and torch.equal(gaps.isinf(), expected.isinf())
    close(gaps[gaps.isfinite()], expected[expected.isfinite()], 2)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("p", EXPONENTS)
@pytest.mark.parametrize("d", [1, 2, 5, 20])
def test_brute_force(p, d, dtype):
    check_all(*problem(d=d, dtype=dtype), p)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("m", "n", "d"), [(1, 1, 1), (2500, 64, 3), (2049, 700, 10), (17, 3000, 64), (1, 5000, 2)])
def test_shapes(m, n, d, dtype):
    check_all(*problem(m, n, d, dtype), 1.5, k=min(5, n))


@pytest.mark.parametrize("d", [2, 12])
@pytest.mark.parametrize("p", [1.25, 3.0])
def test_weights_and_minus_infinity(p, d):
    x, y, h = problem(d=d)
    b = torch.rand(len(y), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    b[::5] = 0
    h[torch.arange(0, len(h), 3)] = -math.inf
    check_all(x, y, h, p, weights=b)
    assert bool((kernels.slack(x, y, h, p=p)[::3] == math.inf).all())
    assert bool((kernels.soft_counts(x, y, h, EPS, b, p=p)[::5] == 0).all())


@pytest.mark.parametrize("n", [9, 200, 1000])
@pytest.mark.parametrize("budget", ["2kB", "256MB"])
@pytest.mark.parametrize("d", [2, 10])
def test_ties_go_to_the_lowest_index(n, budget, d):
    g = torch.Generator().manual_seed(n)
    x = torch.randint(-3, 4, (40, d), generator=g).double()
    y = torch.randint(-1, 2, (n, d), generator=g).double()
    h = torch.randint(-2, 3, (n,), generator=g).double()
    s = h - ((x[:, None] - y) ** 2).sum(2) ** 2 / 4  # exact: numbers are small and whole
    order = torch.sort(s, dim=1, descending=True, stable=True)
    with kernels.memory_budget(budget):
        assert torch.equal(kernels.assign(x, y, h, p=4.0).index, order.indices[:, 0])
        index, value = kernels.top_k(x, y, h, 6, p=4.0)
    assert torch.equal(index, order.indices[:, :6]) and torch.equal(value, order.values[:, :6])


@pytest.mark.parametrize("budget", [1, "20kB"])
@pytest.mark.parametrize("d", [3, 11])
def test_tiny_budget_changes_nothing(budget, d):
    x, y, h = problem(12 if budget == 1 else 200, 20 if budget == 1 else 150, d)
    expected = {name: operation(x, y, h, p=1.5) for name, operation in OPERATIONS.items()}
    with kernels.memory_budget(budget):
        actual = {name: operation(x, y, h, p=1.5) for name, operation in OPERATIONS.items()}
    assert torch.equal(actual["top_k"].index, expected["top_k"].index)
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("d", [3, 16])
@pytest.mark.parametrize("p", [1.5, 3.0])
def test_a_common_shift_costs_no_digits(p, d):
    """Points near 1e4, rounded to float32 there and then shifted back exactly: nothing more may be lost."""
    x, y, h = problem(500, 200, d, torch.float32)
    x, y = x + 1e4, y + 1e4
    near = h.double() - distances(x, y) ** p / p
    index, value = kernels.assign(x, y, h, p=p)
    torch.testing.assert_close(value.double(), near.amax(1), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(near.gather(1, index[:, None])[:, 0], near.amax(1), rtol=0, atol=1e-5)
    back = kernels.assign(x - 1e4, y - 1e4, h, p=p)
    torch.testing.assert_close(value, back.value, rtol=1e-5, atol=1e-6)
    naive = h - torch.cdist(x, y, compute_mode="use_mm_for_euclid_dist") ** p / p
    assert float((naive.amax(1).double() - near.amax(1)).abs().max()) > 0.1


@pytest.mark.parametrize("share", [0.0, 0.02, 1.0])
def test_near_pairs_are_summed_again(share):
    """Squared distances to float32's own accuracy, relative to each, however near the points."""
    g = torch.Generator().manual_seed(0)
    x, y = torch.randn(400, 32, generator=g), torch.randn(300, 32, generator=g)
    close = int(share * 300)
    y[:close] = x[:close] + 1e-4 * torch.randn(close, 32, generator=g)
    if share == 1.0:
        x, y = 1e-2 * x + 1, 1e-2 * y[:300] + 1
        x[0] = -100.0
        y[-1] = -100.0  # an outlier takes the centre away from all others
    found = blocks.CostBlocks(x, y, torch.zeros(len(y)), p=2.0)
    for rows, samples in found.row_blocks():
        for cols, scores in found.score_blocks(samples):
            exact = distances(x[rows], y)[:, cols][:, : scores.shape[1]] ** 2
            error = (-2 * scores.double()[:, : exact.shape[1]] - exact).abs() / exact.clamp_min(1e-30)
            assert float(error.max()) < 6e-6


@pytest.mark.parametrize("p", [1.25, 1.5, 3.0])
def test_gradient_is_that_of_the_value(p):
    x, y, h = problem(20, 30, 3)
    step = 1e-6
    for k in range(3):
        shift = torch.zeros(3, dtype=torch.float64)
        shift[k] = step
        up, down = (kernels.soft_gradient(x[10:] + s * shift, y, h, EPS, p=p).value for s in (1, -1))
        gradient = kernels.soft_gradient(x[10:], y, h, EPS, p=p).gradient[:, k]
        torch.testing.assert_close((up - down) / (2 * step), gradient, rtol=0, atol=1e-6)


def test_sample_on_a_target():
    x = torch.zeros(1, 2)
    for p in (1.25, 3.0):
        found = kernels.soft_gradient(x, torch.tensor([[0.0, 0.0], [1.0, 0.0]]), torch.zeros(2), 1e-3, p=p)
        assert float(found.gradient.abs().max()) < 1e-30
        assert kernels.assign(x, torch.tensor([[1.0, 0.0], [0.0, 0.0]]), torch.zeros(2), p=p).index.tolist() == [1]


def test_slack_revives_every_cell():
    x, y, h = problem(200, 400, 3)
    gaps = kernels.slack(x, y, h, p=3.0)
    raised = h + gaps
    assert int((gaps > 0).sum()) > 0
    torch.testing.assert_close(kernels.assign(x, y, raised, p=3.0).value, kernels.assign(x, y, h, p=3.0).value)
    assert float(kernels.slack(x, y, raised, p=3.0).max()) < 1e-12


def test_p_2_is_the_quadratic_path():
    x, y, h = problem()
    assert torch.equal(kernels.assign(x, y, h, p=2).value, kernels.assign(x, y, h).value)
    assert torch.equal(kernels.soft_gradient(x, y, h, EPS).gradient, kernels.soft_moments(x, y, h, EPS).mean)


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize(
    ("p", "error"),
    [(1.0, ValueError), (0, ValueError), (math.nan, ValueError), (math.inf, ValueError), ("3", TypeError)],
)
def test_exponents_refused(operation, p, error):
    with pytest.raises(error, match="p must be"):
        OPERATIONS[operation](*problem(4, 5), p=p)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_overflow_and_empty(operation):
    x, y, h = problem(4, 5, dtype=torch.float32)
    with pytest.raises(ValueError, match="overflow"):
        OPERATIONS[operation](x + 1e15, y, h, p=4.0)
    if operation != "soft_counts":
        found = OPERATIONS[operation](x[:0], y, h, p=3.0)
        assert len(found[0] if isinstance(found, tuple) else found) in (0, 5)


def test_backends_that_know_p_2_only(monkeypatch):
    x, y, h = problem()
    if kernels.status()["numba"].available:
        assert dispatch.choose("cpu", 2) == "numba" and dispatch.choose("cpu", 2, 3.0) == "torch"
        with kernels.use("numba"), pytest.raises(RuntimeError, match="p = 2 only, got 3; use torch, keops"):
            kernels.assign(x, y, h, p=3.0)
    with kernels.use("auto"):
        assert kernels.assign(x, y, h, p=3.0).index.shape == (301,)


@pytest.mark.slow
@pytest.mark.parametrize("p", [1.5, 3.0])
def test_keops_agrees(p):
    state = kernels.status()["keops"]
    if not state.available:
        pytest.skip(state.reason)
    x, y, h = problem(d=3, dtype=torch.float32)
    y[:5] = x[:5]
    expected = {name: operation(x, y, h, p=p) for name, operation in OPERATIONS.items()}
    with kernels.use("keops"):
        actual = {name: operation(x, y, h, p=p) for name, operation in OPERATIONS.items()}
    torch.testing.assert_close(actual, expected, rtol=0, atol=2e-5)
