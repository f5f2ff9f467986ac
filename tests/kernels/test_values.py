"""Every kernel against brute force in float64."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from otgan import kernels

DTYPES = (torch.float32, torch.float64)
ROUNDING = {torch.float32: 2e-5, torch.float64: 1e-12}


def problem(m=301, n=83, d=2, dtype=torch.float32, seed=0):
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(m, d, generator=g, dtype=torch.float64).to(dtype)
    y = torch.randn(n, d, generator=g, dtype=torch.float64).to(dtype)
    return x, y, (-(y**2).sum(1) / 2 + 0.1 * torch.randn(n, generator=g, dtype=torch.float64).to(dtype))


def scores(x, y, h):
    return x.double() @ y.double().T + h.double()


def close(actual, expected, dtype, scale=1.0):
    torch.testing.assert_close(actual.double(), expected.double(), rtol=0, atol=scale * ROUNDING[dtype])


def check_all(x, y, h, eps=0.1, k=7, weights=None, operations=("assign", "top_k", "soft", "counts", "slack")):
    """Compare with brute force; indices are judged by the exact score of the chosen target."""
    s, dtype = scores(x, y, h), x.dtype
    scale = max(1.0, float(s[s.isfinite()].abs().max()))
    if "assign" in operations:
        index, value = kernels.assign(x, y, h)
        assert index.dtype == torch.int64 and value.dtype == dtype
        close(value, s.amax(1), dtype, scale)
        close(s.gather(1, index[:, None])[:, 0], s.amax(1), dtype, scale)
    if "top_k" in operations:
        index, value = kernels.top_k(x, y, h, k)
        best = s.topk(k, 1).values
        close(value, best, dtype, scale)
        close(s.gather(1, index), best, dtype, scale)
        assert bool((value[:, 1:] <= value[:, :-1]).all())
        assert all(len(set(row)) == k for row in index.tolist())
    b = torch.full_like(s[0], 1 / len(y)) if weights is None else weights.double()
    logits = s / eps + b.log()
    p = torch.softmax(logits, 1)
    if "soft" in operations:
        value, mean = kernels.soft_moments(x, y, h, eps, weights)
        close(value, eps * torch.logsumexp(logits, 1), dtype, scale)
        close(mean, p @ y.double(), dtype, scale / eps)
    if "counts" in operations:
        counts = kernels.soft_counts(x, y, h, eps, weights)
        assert counts.dtype == torch.float64
        close(counts, p.mean(0), dtype, scale / eps)
        assert abs(float(counts.sum()) - 1) < ROUNDING[dtype]
    if "slack" in operations:
        gaps = kernels.slack(x, y, h)
        expected = (s.amax(1)[:, None] - s).amin(0)
        assert bool((gaps >= 0).all()) and torch.equal(gaps.isinf(), expected.isinf())
        close(gaps[gaps.isfinite()], expected[expected.isfinite()], dtype, scale)


def test_assign_on_each_backend(backend):
    check_all(*problem(), operations=("assign",))


def test_soft_moments_on_each_backend(backend):
    check_all(*problem(), operations=("soft",))


@pytest.mark.slow
@pytest.mark.parametrize("dtype", DTYPES)
def test_all_on_each_backend(backend, dtype):
    check_all(*problem(dtype=dtype))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("m", "n", "d"), [(1, 1, 1), (5, 63, 2), (3000, 64, 3), (2049, 700, 10), (17, 5000, 64), (1, 9000, 2)]
)
def test_shapes(m, n, d, dtype, cpu_backend):
    check_all(*problem(m, n, d, dtype), eps=0.5, k=min(7, n))


@pytest.mark.parametrize("budget", [1, 1000, "20kB", "1MB"])
def test_tiny_budget_changes_nothing(budget, cpu_backend):
    x, y, h = problem(400 if budget != 1 else 12, 300 if budget != 1 else 20, 3, torch.float64)
    names = ("assign", "top_k", "soft_moments", "soft_counts", "slack")
    arguments = {"top_k": (5,), "soft_moments": (0.2,), "soft_counts": (0.2,)}
    expected = {name: getattr(kernels, name)(x, y, h, *arguments.get(name, ())) for name in names}
    with kernels.memory_budget(budget):
        actual = {name: getattr(kernels, name)(x, y, h, *arguments.get(name, ())) for name in names}
    assert torch.equal(actual["assign"].index, expected["assign"].index)
    assert torch.equal(actual["top_k"].index, expected["top_k"].index)
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-12)


def test_weights_and_zero_weights(cpu_backend):
    x, y, h = problem(d=3, dtype=torch.float64)
    b = torch.rand(len(y), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    b[::5] = 0
    check_all(x, y, h, weights=b, operations=("soft", "counts"))
    assert torch.equal(kernels.soft_counts(x, y, h, 0.1, b) == 0, b == 0)


def test_small_eps_tends_to_assign(backend):
    x, y, h = problem()
    index, value = kernels.assign(x, y, h)
    for eps in (1e-6, 1e-30, 1e-44, 1e-300):
        soft = kernels.soft_moments(x, y, h, eps)
        torch.testing.assert_close(soft.value, value, rtol=0, atol=2e-5)
        torch.testing.assert_close(soft.mean, y[index], rtol=0, atol=1e-5)


def test_small_eps_counts_are_cell_frequencies(cpu_backend):
    x, y, h = problem()
    frequencies = torch.bincount(kernels.assign(x, y, h).index, minlength=len(y)).double() / len(x)
    counts = kernels.soft_counts(x, y, h, 1e-20)
    torch.testing.assert_close(counts, frequencies, rtol=0, atol=1e-7)
    assert torch.equal(counts == 0, frequencies == 0)


def test_large_eps_is_the_plain_mean(cpu_backend):
    x, y, h = problem(dtype=torch.float64)
    mean = kernels.soft_moments(x, y, h, 1e12).mean
    torch.testing.assert_close(mean, y.mean(0).expand_as(mean), rtol=0, atol=1e-9)


def test_ties_go_to_the_lowest_index(backend):
    y = torch.tensor([[0.0, 0.0], [1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    h = torch.tensor([-4.0, 1.0, 1.0, 1.0, 1.0])
    x = torch.tensor([[2.0, 2.0], [2.0, 1.0], [-8.0, 1.0]])
    assert kernels.assign(x, y, h).index.tolist() == [1, 1, 3]


@pytest.mark.slow
def test_ties_of_top_k(backend):
    x, y = torch.zeros(3, 2), torch.zeros(9, 2)
    assert kernels.top_k(x, y, torch.zeros(9), 7).index.tolist() == [list(range(7))] * 3


@pytest.mark.parametrize("n", [9, 200, 3000])
@pytest.mark.parametrize("budget", ["2kB", "256MB"])
def test_ties_among_many_duplicates(n, budget, cpu_backend):
    g = torch.Generator().manual_seed(n)
    x = torch.randint(-3, 4, (40, 2), generator=g).double()
    y = torch.randint(-2, 3, (n, 2), generator=g).double()
    h = torch.randint(-2, 3, (n,), generator=g).double()
    order = torch.sort(scores(x, y, h), dim=1, descending=True, stable=True)
    with kernels.memory_budget(budget):
        assert torch.equal(kernels.assign(x, y, h).index, order.indices[:, 0])
        index, value = kernels.top_k(x, y, h, 6)
    assert torch.equal(index, order.indices[:, :6]) and torch.equal(value, order.values[:, :6])


def test_minus_infinity_is_never_chosen(cpu_backend):
    x, y, h = problem(dtype=torch.float64)
    h[torch.arange(0, len(h), 3)] = -math.inf
    check_all(x, y, h)
    dead = h == -math.inf
    assert bool((kernels.slack(x, y, h)[dead] == math.inf).all())
    assert bool((kernels.soft_counts(x, y, h, 0.1)[dead] == 0).all())
    assert not bool(dead[kernels.top_k(x, y, h, 5).index].any())


def test_slack_revival_touches_samples_and_keeps_the_potential(cpu_backend):
    x, y, h = problem(dtype=torch.float64, n=400, m=200)
    gaps = kernels.slack(x, y, h)
    won = torch.unique(kernels.assign(x, y, h).index)
    assert bool((gaps[won] == 0).all()) and int((gaps > 0).sum()) == len(y) - len(won) > 0
    raised = h + gaps
    torch.testing.assert_close(kernels.assign(x, y, raised).value, kernels.assign(x, y, h).value, rtol=0, atol=1e-12)
    assert float(kernels.slack(x, y, raised).max()) < 1e-12


def test_far_targets_keep_their_digits(cpu_backend):
    """float32 targets near 1e5: without re-centring, rounding (about 0.03) would hide differences between scores."""
    g = torch.Generator().manual_seed(0)
    offset = torch.tensor([1e5, -1e5, 0.0])
    y = torch.randn(500, 3, generator=g) + offset
    x = torch.randn(2000, 3, generator=g)
    h = -((y - offset) ** 2).sum(1) / 2 + 1e5
    exact = scores(x, y, h)
    loss = exact.amax(1) - exact.gather(1, kernels.assign(x, y, h).index[:, None])[:, 0]
    naive = exact.amax(1) - exact.gather(1, (x @ y.T + h).argmax(1, keepdim=True))[:, 0]
    assert float(loss.max()) < 1e-5 < 1e-3 < float(naive.max())
    torch.testing.assert_close(kernels.assign(x, y, h).value.double(), exact.amax(1), rtol=1e-7, atol=0)
    p = torch.softmax(exact / 0.5, 1)
    torch.testing.assert_close(kernels.soft_moments(x, y, h, 0.5).mean.double(), p @ y.double(), rtol=1e-6, atol=1e-4)
    torch.testing.assert_close(kernels.soft_counts(x, y, h, 0.5), p.mean(0), rtol=1e-4, atol=1e-7)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 10**6),
    st.sampled_from([-1e6, -3.0, 0.5, 1e4]),
    st.integers(1, 150),
    st.integers(1, 5),
    st.sampled_from(["torch", "numba"]),
)
def test_shift_and_permutation(seed, shift, n, d, name):
    with kernels.use(name):
        check_shift_and_permutation(seed, shift, n, d)


def check_shift_and_permutation(seed, shift, n, d):
    x, y, h = problem(37, n, d, torch.float64, seed)
    base = kernels.assign(x, y, h)
    moved = kernels.assign(x, y, h + shift)
    torch.testing.assert_close(moved.value, base.value + shift, rtol=1e-12, atol=1e-9)
    torch.testing.assert_close(scores(x, y, h).gather(1, moved.index[:, None])[:, 0], base.value, rtol=0, atol=1e-8)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    assert torch.equal(order[kernels.assign(x, y[order], h[order]).index], base.index)
    torch.testing.assert_close(
        kernels.slack(x, y[order], h[order] + shift), kernels.slack(x, y, h)[order], rtol=0, atol=1e-8
    )
    soft, permuted = kernels.soft_moments(x, y, h, 0.3), kernels.soft_moments(x, y[order], h[order] + shift, 0.3)
    torch.testing.assert_close(permuted.mean, soft.mean, rtol=0, atol=1e-7)
    torch.testing.assert_close(permuted.value, soft.value + shift, rtol=1e-12, atol=1e-9)
    counts = kernels.soft_counts(x, y, h, 0.3)
    torch.testing.assert_close(kernels.soft_counts(x, y[order], h[order], 0.3), counts[order], rtol=0, atol=1e-10)
    assert bool((soft.value <= base.value + 1e-12).all()) and bool(
        (soft.value >= base.value - 0.3 * math.log(n) - 1e-9).all()
    )


def test_answers_do_not_depend_on_neighbouring_samples(cpu_backend):
    x, y, h = problem(3000, 500, 3, torch.float64)
    whole, part = kernels.assign(x, y, h), kernels.assign(x[100:110], y, h)
    assert torch.equal(whole.index[100:110], part.index)
    torch.testing.assert_close(whole.value[100:110], part.value, rtol=0, atol=1e-12)


def test_mean_is_the_gradient_of_the_value(cpu_backend):
    x, y, h = problem(20, 30, 3, torch.float64)
    step = 1e-5
    for k in range(3):
        shift = torch.zeros(3, dtype=torch.float64)
        shift[k] = step
        up, down = (kernels.soft_moments(x + s * shift, y, h, 0.2).value for s in (1, -1))
        torch.testing.assert_close(
            (up - down) / (2 * step), kernels.soft_moments(x, y, h, 0.2).mean[:, k], rtol=0, atol=1e-8
        )
