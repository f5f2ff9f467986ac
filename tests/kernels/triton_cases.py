"""Cases of backend ``triton``, run by ``test_triton.py`` in processes of their own: interpreted, and on a GPU if any.

By hand: ``TRITON_INTERPRET=1 pytest tests/kernels/triton_cases.py``.
"""

from __future__ import annotations

import math
import os

import pytest
import torch

from otgan import kernels
from otgan.kernels import torch_, triton_

DEVICE = "cpu" if os.environ.get("TRITON_INTERPRET") == "1" else "cuda"
DTYPES = (torch.float32, torch.float64)
DIMS = (1, 2, 3, 15, 16, 17, 70)


@pytest.fixture(autouse=True)
def triton():
    state = kernels.status()["triton"]
    assert DEVICE in state.devices, state.reason
    with kernels.use("triton"):
        yield


@pytest.fixture
def passes(monkeypatch):
    """Which passes ran: True for TF32, False for the full one."""
    seen = []
    search = triton_._search

    def spy(*arguments):
        seen.append(arguments[-1])
        return search(*arguments)

    monkeypatch.setattr(triton_, "_search", spy)
    return seen


def problem(m=70, n=150, d=2, dtype=torch.float32, seed=0):
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(m, d, generator=g, dtype=torch.float64).to(dtype)
    y = torch.randn(n, d, generator=g, dtype=torch.float64).to(dtype)
    return x.to(DEVICE), y.to(DEVICE), (-(y**2).sum(1) / 2).to(DEVICE)


def integers(m=30, n=400, d=3, reach=2):
    g = torch.Generator().manual_seed(d)
    draws = (torch.randint(-reach, reach + 1, shape, generator=g).float() for shape in ((m, d), (n, d), (n,)))
    return tuple(t.to(DEVICE) for t in draws)


def full_pass(x, y, h):
    """The scores f: multiply and add in the order of the coordinates (the interpreter does not fuse the two)."""
    score = h.expand(len(x), len(y)).clone()
    for k in range(x.shape[1]):
        score = score + x[:, k : k + 1] * y[None, :, k]
    return score


def first_best(score, k):
    value, index = score.sort(dim=1, descending=True, stable=True)
    return index[:, :k], value[:, :k]


def compare(x, y, h, k):
    """Bit for bit with a full pass when interpreted; with brute force in float64 in any case."""
    s = x.double() @ y.double().T + h.double()
    # f is off by at most gamma_d (|x||y| + |h|).
    size = float(x.double().norm(dim=1).max() * y.double().norm(dim=1).max() + h.abs().max())
    tolerance = (x.shape[1] + 2) * torch.finfo(x.dtype).eps * (size + torch.finfo(x.dtype).tiny)
    index, value = triton_.assign(x, y, h)
    several, values = triton_.top_k(x, y, h, k)
    gaps = triton_.slack(x, y, h)
    assert index.dtype == several.dtype == torch.int64 and value.dtype == values.dtype == gaps.dtype == x.dtype
    if DEVICE == "cpu":
        score = full_pass(x, y, h)
        expected, best = first_best(score, k)
        assert torch.equal(several, expected) and torch.equal(values, best)
        assert torch.equal(index, expected[:, 0]) and torch.equal(value, best[:, 0])
        assert torch.equal(gaps, (best[:, :1] - score).amin(0))
    near = dict(rtol=0, atol=tolerance)
    torch.testing.assert_close(value.double(), s.amax(1), **near)
    torch.testing.assert_close(s.gather(1, index[:, None])[:, 0], s.amax(1), **near)
    torch.testing.assert_close(values.double(), s.topk(k, 1).values, **near)
    torch.testing.assert_close(s.gather(1, several), values.double(), **near)
    assert all(len(set(row)) == k for row in several.tolist())
    torch.testing.assert_close(gaps.double(), (s.amax(1)[:, None] - s).amin(0), rtol=0, atol=2 * tolerance)
    assert bool((gaps >= 0).all()) and bool((gaps[index] == 0).all())


@pytest.mark.parametrize("d", DIMS)
def test_dimensions(d, passes):
    compare(*problem(m=30 + d, n=70 + 3 * d, d=d), k=min(5, d + 1))
    assert passes[0] == (d >= triton_.LOW_FROM)


@pytest.mark.parametrize("d", [2, 20, 130])
def test_float64_is_never_rounded(d, passes):
    compare(*problem(d=d, dtype=torch.float64), k=3)
    assert not any(passes)


@pytest.mark.parametrize(("m", "n", "d"), [(1, 1, 1), (1, 1, 16), (2, 5, 3), (3, 33, 17), (129, 31, 2), (1, 700, 16)])
def test_edges_of_blocks(m, n, d):
    compare(*problem(m, n, d), k=min(n, 7))


@pytest.mark.parametrize("k", [1, 8, 9, 64])
@pytest.mark.parametrize("d", [2, 18])
def test_lists(k, d):
    x, y, h = problem(m=20, n=300, d=d)
    index, value = triton_.top_k(x, y, h, k)
    expected, best = first_best(full_pass(x, y, h) if DEVICE == "cpu" else x @ y.T + h, k)
    assert torch.equal(index, expected)
    torch.testing.assert_close(value, best, rtol=0, atol=1e-5)


def test_long_lists_are_left_to_torch():
    x, y, h = problem(m=4, n=90)
    assert torch.equal(triton_.top_k(x, y, h, 80)[0], torch_.top_k(x, y, h, 80)[0])


@pytest.mark.parametrize("d", [1, 3, 16])
def test_exact_ties(d):
    """Integers: every number is a TF32 number too, every score exact, and shared by many targets if d is small."""
    x, y, h = integers(d=d)
    y[200:] = y[:200]
    h[200:] = h[:200]
    for k in (1, 2, 8, 16):
        index, value = first_best(x @ y.T + h, k)
        assert torch.equal(triton_.assign(x, y, h)[0], index[:, 0])
        actual = triton_.top_k(x, y, h, k)
        assert torch.equal(actual[0], index) and torch.equal(actual[1], value)


def test_all_tied():
    x, y, h = torch.ones(5, 17, device=DEVICE), torch.ones(700, 17, device=DEVICE), torch.ones(700, device=DEVICE)
    assert triton_.assign(x, y, h)[0].tolist() == [0] * 5
    assert triton_.top_k(x, y, h, 40)[0].tolist() == [list(range(40))] * 5
    assert triton_.slack(x, y, h).tolist() == [0.0] * 700


@pytest.mark.parametrize("noise", [1e-5, 1e-6])
def test_near_duplicates_overflow_the_list(noise, passes):
    """All targets within the rounding of TF32, in more groups than a list holds: the full pass decides."""
    g = torch.Generator().manual_seed(0)
    x, y, h = problem(m=12, n=1, d=16)
    y = y + noise * torch.randn(600, 16, generator=g).to(DEVICE)
    y[0] *= 30.0  # ... with one far off, so that subtracting the mean does not help
    compare(x, y, h.expand(600).contiguous(), k=3)
    assert passes[:2] == [True, False]


def test_a_group_that_never_enters_the_list_counts_as_lost(passes):
    """300 targets equal in TF32, the last one best by less than TF32 resolves; as many far off keep the mean at 0."""
    y = torch.cat([torch.ones(300, 16), -torch.ones(300, 16)]).to(DEVICE)
    y[299, 0] += 2.0**-13
    index, _ = triton_.assign(torch.ones(3, 16, device=DEVICE), y, torch.zeros(600, device=DEVICE))
    assert index.tolist() == [299] * 3 and passes == [True, False]


def test_only_undecided_samples_get_the_full_pass(monkeypatch):
    """Of two clusters one is tight: its samples overflow, the others do not."""
    g = torch.Generator().manual_seed(0)
    direction = torch.zeros(1, 16)
    direction[:, 0] = 8.0
    y = torch.cat(
        [direction + 1e-6 * torch.randn(600, 16, generator=g), -direction + torch.randn(600, 16, generator=g)]
    )
    x = torch.cat([direction.expand(9, -1), -direction.expand(20, -1)]) + 0.1 * torch.randn(29, 16, generator=g)
    y, x, rows = y.to(DEVICE), x.to(DEVICE), []
    search = triton_._search
    monkeypatch.setattr(triton_, "_search", lambda *a: rows.append(len(a[0])) or search(*a))
    h = -(y**2).sum(1) / 2
    index, _ = triton_.assign(x, y, h)
    assert rows == [29, 9] and bool((index[:9] < 600).all()) and bool((index[9:] >= 600).all())


@pytest.mark.parametrize("offset", [100.0, -3000.0])
def test_far_targets(offset, passes):
    x, y, h = problem(m=20, n=300, d=24)
    compare(x, y + offset, h, k=4)
    passes.clear()
    triton_.assign(x, y + 100.0, h)
    assert passes == [True], "the mean is subtracted before rounding: an offset costs no candidates"


def pairs(d=16, n=128):
    """Targets j and j + n whose scores differ by less than TF32 resolves, h chosen so that half of either win."""
    x, y, h = problem(m=60, n=n, d=d, seed=4)
    g = torch.Generator().manual_seed(5)
    twin = y + 2e-4 * torch.randn(n, d, generator=g).to(DEVICE)
    return x, torch.cat([y, twin]), torch.cat([h, -(twin**2).sum(1) / 2])


def low_scores(x, y, h):
    """What tensor cores see, rounded as documented by NVIDIA's format: 10 stored bits, ties aside."""

    def rounded(t):
        mantissa, exponent = torch.frexp(t.double())
        return torch.ldexp((mantissa * 2**11).round() / 2**11, exponent).float()

    return rounded(x) @ rounded((y.double() - y.double().mean(0)).float()).T + h


def test_planted_pairs_need_the_second_scoring(monkeypatch, passes):
    x, y, h = pairs()
    exact = (x.double() @ y.double().T + h.double()).argmax(1)
    assert float((low_scores(x, y, h).argmax(1) != exact).double().mean()) > 0.1, "the pairs are too easy"
    compare(x, y, h, k=6)
    assert passes[0] and torch.equal(triton_.assign(x, y, h)[0], exact)
    # Without the margin, the group that TF32 prefers is the only candidate.
    monkeypatch.setattr(triton_._Columns, "bound", lambda self, rows, head: torch.zeros_like(rows.norm))
    assert float((triton_.assign(x, y, h)[0] != exact).double().mean()) > 0.1


@pytest.mark.parametrize("d", [16, 70, 300])
@pytest.mark.parametrize("scale", [1.0, 1e-3, 1e4])
def test_the_bound_holds_and_is_not_vacuous(d, scale):
    x, y, h = problem(m=50, n=200, d=d)
    x, y, h = x * scale, (y + 3) * scale, h * scale**2
    columns = triton_._Columns(y, h, 8, 32, True, False, len(x))
    low = triton_._Low.of(x, None, triton_.ROWS, columns.width)
    centre = y.double().mean(0)
    computed = low.points[:50] @ columns.rounded.points[:200].T + h
    error = (computed.double() - (full_pass(x, y, h).double() - x.double() @ centre[:, None])).abs()
    ratio = error.amax(1) / columns.bound(low, None)
    assert 0.005 < float(ratio.max()) < 1.0


@pytest.mark.parametrize("rounded", ["rows", "columns"])
def test_the_bound_is_nearly_attained(rounded):
    """Rounding errors along the other factor: Cauchy and Schwarz hold with equality."""
    exact = torch.ones(4, 16, device=DEVICE)
    off = exact + 0.49 * 2.0**-10
    x, y = (off, exact) if rounded == "rows" else (exact, off)
    y, h = torch.cat([y, -y]), torch.zeros(8, device=DEVICE)
    columns = triton_._Columns(y, h, 8, 32, True, False, 4)
    low = triton_._Low.of(x, None, triton_.ROWS, columns.width)
    error = (low.points[:4] @ columns.rounded.points[:8].T).double() - x.double() @ y.double().T
    ratio = float((error.abs().amax(1) / columns.bound(low, None)).max())
    assert 0.9 < ratio < 1.0


def test_rounding_to_tf32():
    values = torch.tensor([1.0, -1.0, 1.0 + 2.0**-10, 1.0 + 2.0**-12, 3.0 + 2.0**-9 + 2.0**-13, 0.0, 1e-40])
    expected = [1.0, -1.0, 1.0 + 2.0**-10, 1.0, 3.0 + 2.0**-9, 0.0]
    assert triton_._tf32(values)[:6].tolist() == expected
    g = torch.Generator().manual_seed(0)
    x = torch.randn(10_000, generator=g) * torch.exp2(torch.randint(-60, 60, (10_000,), generator=g).float())
    rounded = triton_._tf32(x)
    assert bool(((x - rounded).abs() <= x.abs() * 2.0**-11).all())
    assert bool((rounded.view(torch.int32) & 0x1FFF == 0).all())


@pytest.mark.parametrize("d", [2, 16])
def test_splits_and_chunks_change_nothing(d, monkeypatch):
    x, y, h = problem(m=140, n=400, d=d)
    expected = [triton_.assign(x, y, h), triton_.top_k(x, y, h, 3), (triton_.slack(x, y, h),)]
    monkeypatch.setattr(triton_, "_processors", lambda device: 64)
    columns = triton_._Columns(y, h, 2, 32, False, False, len(x))
    assert columns.splits > 1 and columns.span % triton_.COLUMNS == 0
    with kernels.memory_budget(1):
        actual = [triton_.assign(x, y, h), triton_.top_k(x, y, h, 3), (triton_.slack(x, y, h),)]
    for a, b in zip(actual, expected, strict=True):
        assert all(torch.equal(s, t) for s, t in zip(a, b, strict=True))


def test_layouts():
    x, y, h = problem(m=40, n=90, d=17)
    wide = torch.empty(17, 80, device=DEVICE)[:, ::2]
    wide[:] = x.T
    expected = triton_.assign(x, y, h)
    actual = triton_.assign(wide.T, y.T.contiguous().T, h.repeat_interleave(2)[::2])
    assert all(torch.equal(a, b) for a, b in zip(actual, expected, strict=True))


def test_through_the_public_functions():
    x, y, h = problem(m=60, n=200, d=18)
    h[::3] = -math.inf
    arguments = {"assign": (), "top_k": (4,), "slack": (), "soft_moments": (0.5,), "soft_counts": (0.5,)}
    actual = {name: getattr(kernels, name)(x, y, h, *more) for name, more in arguments.items()}
    with kernels.use("torch"):
        expected = {name: getattr(kernels, name)(x, y, h, *more) for name, more in arguments.items()}
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("scale", [1e20, 3e38])
def test_overflow_is_reported(scale):
    x, y, h = problem(d=16)
    for operation in (kernels.assign, kernels.slack, lambda *a: kernels.top_k(*a, 3)):
        with pytest.raises(ValueError, match="overflow"):
            operation(x.sign() * scale, y.sign() * scale, h)


def test_vanishing_numbers():
    x, y, h = problem(d=16)
    compare(x * 1e-25, y * 1e-20, h * 1e-44, k=3)
