"""Targets that visit in blocks: the answers of all targets at once, on a CPU where the blocks can be forced."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest
import torch

from otgan import kernels
from otgan.kernels import checks, dispatch, streamed

NAMES = {"assign": (), "top_k": (6,), "soft_moments": (0.3,), "soft_counts": (0.3,), "slack": ()}
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-13}


def problem(m=40, n=131, d=3, dtype=torch.float32):
    g = torch.Generator().manual_seed(n)
    x = torch.randn(m, d, generator=g, dtype=torch.float64).to(dtype)
    y = torch.randn(n, d, generator=g, dtype=torch.float64).to(dtype)
    return x, y, -(y**2).sum(1) / 2


def integers(n=131):
    """Scores are exact, and every score is shared by many targets."""
    g = torch.Generator().manual_seed(n)
    draws = [torch.randint(-2, 3, shape, generator=g).double() for shape in ((60, 2), (n, 2), (n,))]
    return tuple(draws)


def parts(result):
    return result if isinstance(result, tuple) else (result,)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("block", [1, 64, 130, 131])
@pytest.mark.parametrize("name", NAMES)
def test_blocks_change_nothing(name, block, dtype, cpu_backend):
    x, y, h = problem(dtype=dtype)
    expected = parts(dispatch.call(name, x, y, h, *NAMES[name]))
    actual = parts(streamed.stream(name, x, y, h, *NAMES[name], block=block))
    assert len(actual) == len(expected)
    for a, b in zip(actual, expected, strict=True):
        assert a.dtype == b.dtype and a.shape == b.shape
        torch.testing.assert_close(a, b, rtol=0, atol=TOLERANCE[dtype] * (1 + 60 * (name == "soft_counts")))


@pytest.mark.parametrize("block", [1, 10, 130])
def test_ties_across_blocks(block, cpu_backend):
    x, y, h = integers()
    for name in ("assign", "top_k", "slack"):
        for a, b in zip(
            parts(streamed.stream(name, x, y, h, *NAMES[name], block=block)),
            parts(dispatch.call(name, x, y, h, *NAMES[name])),
            strict=True,
        ):
            assert torch.equal(a, b)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("eps", [1e-300, 1e-20, 1e-3, 1.0, 1e6])
def test_ties_share_the_mass_at_every_temperature(eps, dtype, cpu_backend):
    x, y, h = (t.to(dtype) for t in integers())
    h = h + 1000.0  # a temperature far below the rounding of a score
    s = (x @ y.T + h).double()
    p = torch.softmax((s - s.amax(1, keepdim=True)) / max(eps, 1e-30), 1)
    _, mean = streamed.stream("soft_moments", x, y, h, eps, block=10)
    torch.testing.assert_close(mean.double(), p @ y.double(), rtol=0, atol=TOLERANCE[dtype])
    counts = streamed.stream("soft_counts", x, y, h, eps, block=10)
    torch.testing.assert_close(counts, p.sum(0), rtol=0, atol=20 * TOLERANCE[dtype])


def test_slack_is_zero_exactly_at_the_winners(cpu_backend):
    x, y, h = problem(n=400)
    gaps = streamed.stream("slack", x, y, h, block=90)
    won = torch.unique(streamed.stream("assign", x, y, h, block=90)[0])
    assert bool((gaps >= 0).all()) and bool((gaps[won] == 0).all()) and int((gaps > 0).sum()) == 400 - len(won) > 0


@pytest.mark.parametrize("name", NAMES)
def test_through_the_public_functions(name, monkeypatch, cpu_backend):
    """Dead targets (a whole block of them, too), targets far from zero, weights: as without blocks."""
    x, y, h = problem()
    y[:, 0] += 1e4
    h = h - 1e4
    h[::5] = h[40:60] = -math.inf
    more = NAMES[name]
    if name.startswith("soft"):
        more = (*more, torch.rand(len(h), generator=torch.Generator().manual_seed(1)))
    expected = parts(getattr(kernels, name)(x, y, h, *more))
    seen = []
    monkeypatch.setattr(checks, "streams", lambda x, y: True)
    monkeypatch.setattr(streamed, "block_size", lambda x: seen.append(1) or 10)
    for a, b in zip(parts(getattr(kernels, name)(x, y, h, *more)), expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=2e-3 if name == "soft_counts" else 1e-4)
    assert seen == [1]
    with pytest.raises(ValueError, match="y holds NaN"):
        getattr(kernels, name)(x, torch.full_like(y, math.nan), h, *more)
    with pytest.raises(ValueError, match="keep one finite height"):
        getattr(kernels, name)(x, y, h - math.inf, *more)


def test_the_budget_sets_the_block():
    x = torch.zeros(3, 5)
    with kernels.memory_budget(4 * 8 * 4 * 100):
        assert streamed.block_size(x) == 100
    with kernels.memory_budget(1):
        assert streamed.block_size(x) == 1
    with pytest.raises(ValueError, match="at least one target"):
        streamed.stream("assign", x, x, x[:, 0], block=0)


PEAK = """
import resource, numpy, torch
from otgan import kernels
from otgan.kernels import checks
y = torch.from_numpy(numpy.load({path!r}, mmap_mode="c"))
x, h = torch.eye(64)[:4], torch.zeros(len(y))
checks.streams = lambda x, y: True
with kernels.use("torch"), kernels.memory_budget("4MB"):
    kernels.assign(x[:2], y[:100], h[:100])
    peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    before = peak()
    for h[0] in (0.0, -float("inf")):
        kernels.assign(x, y, h), kernels.slack(x, y, h), kernels.soft_moments(x, y, h, 0.1)
print(peak() - before)
"""


def test_peak_memory_of_a_mapped_file(tmp_path):
    """The file takes 51 MB, and its pages are part of the peak, once."""
    np.save(tmp_path / "y.npy", np.ones((200_000, 64), np.float32))
    code = PEAK.format(path=str(tmp_path / "y.npy"))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 80_000


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("home", ["cpu", "cuda"])
def test_host_targets_of_a_gpu(name, home):
    x, y, h = problem(500, 5000, 10)
    expected = parts(getattr(kernels, name)(x.cuda(), y.cuda(), h.cuda(), *NAMES[name]))
    with kernels.memory_budget("100kB"):
        actual = parts(getattr(kernels, name)(x.cuda(), y, h.to(home), *NAMES[name]))
    for a, b in zip(actual, expected, strict=True):
        assert a.is_cuda
        torch.testing.assert_close(a, b, rtol=0, atol=1e-4)
