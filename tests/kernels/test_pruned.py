"""The pruned ``assign`` of backend ``numba`` against the plain loops, bit by bit, and against float64 brute force."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from otgan import kernels
from otgan.kernels import _cpu_pruned, cpu

DTYPES = (torch.float32, torch.float64)


@pytest.fixture(autouse=True, scope="module")
def numba():
    state = kernels.status()["numba"]
    if not state.available:
        pytest.skip(f"numba: {state.reason}")
    with kernels.use("numba"):
        yield


def plain(x, y, h):
    """The loops that visit every target."""
    return cpu._assign(x, cpu._Panels(y, h, -math.inf), cpu._loops())


def in_turn(work, items):
    for item in items:
        work(item)


def pruned(x, y, h, axes=True, over=in_turn):
    """Pruning whether it pays or not; the object and its result."""
    frame = _cpu_pruned.find_frame(x, y)
    if not axes:
        frame = frame._replace(axes=None, scale=torch.ones(x.shape[1], dtype=torch.float64), residual=0.0)
    z, (t, g) = frame.samples(x, x.dtype), frame.targets(y, h, x.dtype)
    slack = _cpu_pruned.rounding(x, y, h, z, t, g, frame)
    found = _cpu_pruned.Pruned(x, y, h, z, t, g, slack, over)
    return found, found.run(lambda some: plain(some, y, h))


def same(x, y, h, **options):
    found, (index, value) = pruned(x, y, h, **options)
    expected = plain(x, y, h)
    assert torch.equal(index, expected[0]) and torch.equal(value, expected[1])
    return found


def make(kind, m, n, d, dtype, seed):
    """Samples, targets and heights of one kind, from a seed."""
    g = torch.Generator().manual_seed(seed)

    def uniform(rows, columns):
        return torch.rand(rows, columns, generator=g, dtype=torch.float64)

    def normal(rows, columns):
        return torch.randn(rows, columns, generator=g, dtype=torch.float64)

    x, y = uniform(m, d), uniform(n, d)
    if kind == "normal":
        x, y = normal(m, d), normal(n, d)
    elif kind == "clusters":
        centres = 3 * normal(7, d)
        x = centres[torch.randint(7, (m,), generator=g)] + 1e-3 * x
        y = centres[torch.randint(7, (n,), generator=g)] + 1e-3 * y
    elif kind == "line":
        y = uniform(n, 1) @ normal(1, d) + normal(1, d)
    elif kind == "plane":
        y = uniform(n, 2) @ normal(2, d)
    elif kind == "curve":
        rate = torch.arange(1, d + 1, dtype=torch.float64)
        x, y = torch.cos(uniform(m, 1) * rate), torch.cos(uniform(n, 1) * rate)
    elif kind == "duplicates":
        y = y[torch.randint(max(1, n // 20), (n,), generator=g)]
    elif kind == "integers":
        x, y = (6 * x).floor() - 2, (4 * y).floor() - 1
    elif kind == "equal":
        y = y[:1].repeat(n, 1)
    elif kind == "same samples":
        x = x[:1].repeat(m, 1)
    elif kind == "far":
        x, y = x + 1e4, y - 3e4
    elif kind == "tiny spread":
        x, y = 1 + 1e-6 * x, 1 + 1e-6 * y
    elif kind == "scales":
        x, y = x * 10.0 ** torch.arange(-d, 0), y * 10.0 ** torch.arange(d, 0, -1)
    h = -(y**2).sum(1) / 2
    if kind == "integers":
        h = (3 * uniform(n, 1)[:, 0]).floor()
    return x.to(dtype), y.to(dtype), h.to(dtype)


KINDS = (
    "uniform", "normal", "clusters", "line", "plane", "curve", "duplicates", "integers", "equal", "same samples", "far",
    "tiny spread", "scales",
)  # fmt: skip


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", KINDS)
def test_the_same_as_the_plain_loops(kind, dtype, monkeypatch):
    """Every kind, several dimensions; chunks that may give up and chunks that may not."""
    for d in (1, 2, 3, 7, 16):
        x, y, h = make(kind, 2500, 1111, d, dtype, seed=d)
        same(x, y, h)
        same(x, y, h, axes=False)
        monkeypatch.setattr(_cpu_pruned, "LEAST_PIECE", 200)
        same(x, y, h)
        monkeypatch.undo()


@settings(max_examples=150, deadline=None)
@given(
    kind=st.sampled_from(KINDS),
    m=st.integers(1, 400),
    n=st.integers(1, 700),
    d=st.integers(1, 6),
    dtype=st.sampled_from(DTYPES),
    heights=st.sampled_from(["plain", "zero", "random", "most empty", "huge offset", "steep"]),
    seed=st.integers(0, 2**16),
)
def test_any_problem(kind, m, n, d, dtype, heights, seed):
    x, y, h = make(kind, m, n, d, dtype, seed)
    noise = torch.rand(n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)
    changed = {
        "plain": h,
        "zero": 0 * h,
        "random": h + noise,
        "most empty": torch.where(noise < 0.05, h, h - 10),
        "huge offset": h + 1e6,
        "steep": 100 * h,
    }
    same(x, y, changed[heights])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("d", [1, 2, 3, 4])
def test_most_panels_are_skipped(d, dtype):
    x, y, h = make("uniform", 6000, 20_000, d, dtype, seed=0)
    found = same(x, y, h)
    assert found.visited < 0.02 * 3**d and (found.left == 0 or d == 4)


@pytest.mark.parametrize("dtype", DTYPES)
def test_low_rank_is_found(dtype):
    """Targets on a plane in 40 dimensions: two coordinates of the samples decide."""
    x, y, h = make("plane", 4000, 8000, 40, dtype, seed=1)
    frame = _cpu_pruned.find_frame(x, y)
    assert frame.axes is not None and frame.axes.shape == (40, 2)
    found = same(x, y, h)
    assert found.visited < 0.1 and found.left == 0


def test_samples_where_nothing_can_be_skipped_are_left():
    x, y, h = make("normal", 8000, 2000, 12, torch.float32, seed=0)
    assert same(x, y, h).left > 6000


@pytest.mark.parametrize("dtype", DTYPES)
def test_against_exact_scores(dtype, monkeypatch):
    """Through the public function, -inf heights and constant coordinates included, on a problem that is pruned."""
    monkeypatch.setattr(_cpu_pruned, "LEAST_WORK", 1)
    m, n = 30_000, 24_000
    x, y, h = make("uniform", m, n, 3, dtype, seed=5)
    y[:, 1] = 0.5
    h[::3] = -math.inf
    calls = []
    original = _cpu_pruned.Pruned.run
    try:
        _cpu_pruned.Pruned.run = lambda self, *rest: calls.append(self) or original(self, *rest)
        index, value = kernels.assign(x, y, h)
    finally:
        _cpu_pruned.Pruned.run = original
    assert len(calls) == 1 and len(calls[0].z) == 2 and calls[0].left == 0
    assert not torch.isinf(h[index]).any()
    for rows in torch.arange(m)[::50].split(200):
        s = x[rows].double() @ y.double().T + h.double()
        rounding = 8 * torch.finfo(dtype).eps * 3
        torch.testing.assert_close(value[rows].double(), s.amax(1), rtol=0, atol=rounding)
        torch.testing.assert_close(s.gather(1, index[rows][:, None])[:, 0], s.amax(1), rtol=0, atol=rounding)


@pytest.mark.parametrize(("dtype", "large"), [(torch.float32, 1e17), (torch.float64, 1e152)])
def test_outliers_that_no_subsample_sees(dtype, large, monkeypatch):
    """Squares overflow, and so may the coordinates of the bounds; the scores do not."""
    monkeypatch.setattr(_cpu_pruned, "LEAST_WORK", 1)
    monkeypatch.setattr(_cpu_pruned, "PROMISING", 1.0)
    for at, size in ((1, large), (0, large), (1, 1e6)):
        x, y, h = make("uniform", 5000, 4500, 2, dtype, seed=3)
        x[at, 0], y[at, 1] = size, -size
        x[:, 1] *= 1e-12
        index, value = kernels.assign(x, y, h)
        expected = plain(x, y, h)
        assert torch.equal(index, expected[0]) and torch.equal(value, expected[1])


@pytest.mark.parametrize("threads", [1, 2])
def test_threads_change_nothing(threads, monkeypatch):
    before = torch.get_num_threads()
    monkeypatch.setattr(_cpu_pruned, "LEAST_WORK", 1)
    monkeypatch.setattr(_cpu_pruned, "ORDERED", 1000)
    x, y, h = make("uniform", 9000, 7000, 2, torch.float32, seed=2)
    try:
        torch.set_num_threads(threads)
        index, value = kernels.assign(x, y, h)
    finally:
        torch.set_num_threads(before)
    expected = plain(x, y, h)
    assert torch.equal(index, expected[0]) and torch.equal(value, expected[1])


def test_coordinates_without_targets_count_for_nothing():
    """The slabs: only the first of 1,000 coordinates varies, so the others cost nothing and change nothing."""
    n, d = 300, 1000
    y = torch.full((n, d), 0.5)
    y[:, 0] = (torch.arange(n) + 0.5) / n
    x = torch.rand(500, d, generator=torch.Generator().manual_seed(0))
    h = -(y[:, 0] ** 2) / 2
    index, value = kernels.assign(x, y, h)
    assert torch.equal(index, torch.floor(x[:, 0] * n).long())
    mean = kernels.soft_moments(x, y, h, 0.01).mean
    p = torch.softmax((x[:, :1] @ y[:, :1].T + h).double() / 0.01, 1)
    torch.testing.assert_close(mean.double(), p @ y.double(), rtol=0, atol=1e-4)
    assert cpu._varying(x, y - 0.5)[0].shape == (500, 1)
    assert cpu._varying(x, 0 * y)[1].shape == (n, 1)
