"""Backend ``numba``: shapes that do not fit its tiles, ties, threads, forks, interrupts, instruction sets."""

from __future__ import annotations

import _thread
import math
import os
import platform
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from otgan import kernels
from otgan.kernels import cpu, torch_

DTYPES = (torch.float32, torch.float64)
ROUNDING = {torch.float32: 2e-6, torch.float64: 4e-15}
OPERATIONS = {
    "assign": kernels.assign,
    "top_k": lambda x, y, h: kernels.top_k(x, y, h, 9),
    "soft_moments": lambda x, y, h: kernels.soft_moments(x, y, h, 0.3),
    "soft_counts": lambda x, y, h: (kernels.soft_counts(x, y, h, 0.3),),
    "slack": lambda x, y, h: (kernels.slack(x, y, h),),
}


@pytest.fixture(autouse=True)
def numba():
    state = kernels.status()["numba"]
    if not state.available:
        pytest.skip(f"numba: {state.reason}")
    with kernels.use("numba"):
        yield


def problem(m, n, d, dtype=torch.float32, seed=0):
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(m, d, generator=g, dtype=torch.float64)
    y = torch.randn(n, d, generator=g, dtype=torch.float64)
    return x.to(dtype), y.to(dtype), (-(y**2).sum(1) / 2).to(dtype)


def run(code, **environment):
    env = {k: v for k, v in os.environ.items() if not k.startswith(("OTGAN_", "NUMBA_"))}
    env.update(OTGAN_KERNELS="numba", **environment)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


def compare(x, y, h, k):
    """All operations against float64 brute force; ``assign`` also against torch, index by index."""
    s = x.double() @ y.double().T + h.double()
    tolerance = ROUNDING[x.dtype] * math.sqrt(x.shape[1]) * max(1.0, float(s.abs().max()))

    def close(actual, expected, factor=1.0):
        torch.testing.assert_close(actual.double(), expected, rtol=0, atol=factor * tolerance)

    index, value = kernels.assign(x, y, h)
    close(value, s.amax(1))
    differs = index != torch_.assign(x, y, h)[0]
    close(s.gather(1, index[:, None])[differs, 0], s.amax(1)[differs])
    assert float(differs.double().mean()) < (0.2 if x.shape[1] == 1 and x.dtype == torch.float32 else 0.01)
    index, value = kernels.top_k(x, y, h, k)
    best = s.topk(k, 1).values
    close(value, best)
    close(s.gather(1, index), best)
    assert all(len(set(row)) == k for row in index.tolist())
    close(kernels.slack(x, y, h), (s.amax(1)[:, None] - s).amin(0), 2)
    eps = 0.3 * math.sqrt(x.shape[1])
    p = torch.softmax(s / eps, 1)
    value, mean = kernels.soft_moments(x, y, h, eps)
    close(value, eps * (torch.logsumexp(s / eps, 1) - math.log(len(y))), 2)
    close(mean, p @ y.double(), 4 / eps)
    close(kernels.soft_counts(x, y, h, eps), p.mean(0), 4 / eps)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("d", range(1, 131))
def test_every_dimension(d, dtype):
    m, n = 65 + 37 * d % 150, 64 + 53 * d % 211
    compare(*problem(m, n, d, dtype, seed=d), k=min(1 + d, n))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("m", "n"), [(16, 1), (17, 15), (64, 16), (63, 17), (65, 33), (2049, 31), (2048, 64), (4101, 70), (19, 20_003)]
)
def test_edges_of_tiles_panels_and_chunks(m, n, dtype):
    compare(*problem(m, n, 3, dtype), k=min(20, n))


@pytest.mark.parametrize("dtype", DTYPES)
def test_blocks_of_panels_and_many_dimensions(dtype):
    compare(*problem(130, 517, 700, dtype), k=40)
    compare(*problem(70, 30_011, 5, dtype), k=100)


@pytest.mark.parametrize("n", [1, 16, 17, 200, 5000])
def test_all_tied(n):
    x, y, h = torch.ones(70, 2), torch.ones(n, 2), torch.full((n,), 0.5)
    k = min(n, 40)
    assert kernels.assign(x, y, h).index.tolist() == [0] * 70
    assert kernels.top_k(x, y, h, k).index.tolist() == [list(range(k))] * 70
    assert kernels.slack(x, y, h).tolist() == [0.0] * n
    torch.testing.assert_close(kernels.soft_counts(x, y, h, 1e-20), torch.full((n,), 1 / n, dtype=torch.float64))


@pytest.mark.parametrize("dtype", DTYPES)
def test_exact_ties_everywhere(dtype):
    """Integers: scores are exact, and every score is shared by many targets."""
    g = torch.Generator().manual_seed(0)
    x = torch.randint(-3, 4, (300, 3), generator=g).to(dtype)
    y = torch.randint(-2, 3, (3000, 3), generator=g).to(dtype)
    h = torch.randint(-2, 3, (3000,), generator=g).to(dtype)
    h[::7] = -math.inf
    order = torch.sort(x @ y.T + h, dim=1, descending=True, stable=True)
    assert torch.equal(kernels.assign(x, y, h).index, order.indices[:, 0])
    for k in (1, 16, 64, 200):
        index, value = kernels.top_k(x, y, h, k)
        assert torch.equal(index, order.indices[:, :k]) and torch.equal(value, order.values[:, :k])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("eps", [1e-300, 1e-6, 0.01, 1.0, 100.0, 1e12])
def test_every_temperature(eps, dtype):
    x, y, h = problem(200, 300, 3, dtype)
    actual, counts = kernels.soft_moments(x, y, h, eps), kernels.soft_counts(x, y, h, eps)
    with kernels.use("torch"):
        expected = kernels.soft_moments(x, y, h, eps)
        torch.testing.assert_close(counts, kernels.soft_counts(x, y, h, eps), rtol=0, atol=ROUNDING[dtype] * 10)
    torch.testing.assert_close(actual.mean, expected.mean, rtol=0, atol=ROUNDING[dtype] * 100)
    # The value is eps log(sum) - eps log(n), each with its rounding.
    torch.testing.assert_close(actual.value, expected.value, rtol=0, atol=ROUNDING[dtype] * 10 * max(1.0, eps))


@pytest.mark.parametrize("operation", OPERATIONS)
def test_overflow_is_reported(operation):
    x, y, h = problem(100, 100, 2)
    for scale in (1e20, 3e38):
        with pytest.raises(ValueError, match="overflow"):
            OPERATIONS[operation](x.sign() * scale, y.sign() * scale, h)


def test_large_k_and_layouts():
    x, y, h = problem(80, 1000, 4)
    index, value = kernels.top_k(x, y, h, 300)
    assert torch.equal(index, torch_.top_k(x, y, h, 300)[0])
    wide = torch.empty(4, 160)[:, ::2]
    wide[:] = x.T
    for operation in OPERATIONS.values():
        expected = operation(x, y, h)
        actual = operation(wide.T, y.T.contiguous().T, h)
        assert all(torch.equal(a, b) for a, b in zip(actual, expected, strict=True))


@pytest.fixture
def many_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


def test_threads_change_nothing(many_threads, monkeypatch):
    x, y, h = problem(3000, 700, 3)
    monkeypatch.setattr(cpu, "WORK_PER_THREAD", 2**60)
    expected = {name: operation(x, y, h) for name, operation in OPERATIONS.items()}
    monkeypatch.setattr(cpu, "WORK_PER_THREAD", 1)
    for name, operation in OPERATIONS.items():
        assert all(torch.equal(a, b) for a, b in zip(operation(x, y, h), expected[name], strict=True)), name


def test_concurrent_callers(monkeypatch):
    monkeypatch.setattr(cpu, "WORK_PER_THREAD", 2**14)
    problems = [problem(500 + 100 * s, 300 + 17 * s, 2 + s, seed=s) for s in range(4)]
    jobs = [(name, s) for name in OPERATIONS for s in range(4)] * 3

    def answer(job):
        with kernels.use("numba"):
            return OPERATIONS[job[0]](*problems[job[1]])

    expected = {job: answer(job) for job in set(jobs)}
    with ThreadPoolExecutor(6) as pool:
        for job, result in zip(jobs, pool.map(answer, jobs), strict=True):
            assert all(torch.equal(a, b) for a, b in zip(result, expected[job], strict=True)), job


def test_interrupt(many_threads):
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        pytest.skip("Ctrl-C is ignored here, as a shell does for what it starts in the background")
    x, y, h = problem(300_000, 4096, 2)
    kernels.assign(x[:5000], y, h)  # starts the helpers, which stay
    threads = threading.active_count()
    # Python drops an interrupt that arrives in the callback of a weak reference, such as a pool has: press again.
    presses = [threading.Timer(seconds, _thread.interrupt_main) for seconds in (0.1, 5.0, 10.0, 15.0)]
    for press in presses:
        press.start()
    with pytest.raises(KeyboardInterrupt):
        while True:
            kernels.assign(x, y, h)
    for press in presses:
        press.cancel()
        press.join()
    assert threading.active_count() <= threads
    compare(*problem(100, 100, 2), k=3)


FORK = """
import os, torch
from otgan import kernels
torch.set_num_threads(2)
x = torch.randn(20_000, 3, generator=torch.Generator().manual_seed(0))
y, h = x[:2000], -(x[:2000] ** 2).sum(1) / 2
expected = kernels.assign(x, y, h).index
child = os.fork()
if child == 0:
    from otgan.kernels import cpu, _cpu_loops
    cpu.WORK_PER_THREAD = 1
    panels = cpu._Panels(y, h, -float("inf"))
    os._exit(0 if torch.equal(cpu._assign(x, panels, _cpu_loops)[0], expected) else 1)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_forked_child():
    assert run(FORK).strip() == "0"


CACHED = """
import torch
from otgan import kernels
from otgan.kernels import _cpu_loops
kernels.assign(torch.ones(20, 2), torch.eye(2), torch.zeros(2))
print(sum(_cpu_loops.assign_chunk.stats.cache_hits.values()))
"""


@pytest.mark.slow
def test_compiled_code_is_cached(tmp_path):
    assert run(CACHED, NUMBA_CACHE_DIR=str(tmp_path)).strip() == "0"
    assert run(CACHED, NUMBA_CACHE_DIR=str(tmp_path)).strip() == "1"


INSTRUCTIONS = """
import torch
from otgan import kernels
from otgan.kernels import _cpu_pruned, _cpu_vectors, torch_
for dtype, tolerance in ((torch.float32, 1e-4), (torch.float64, 1e-11)):
    g = torch.Generator().manual_seed(0)
    x, y = torch.randn(203, 5, generator=g, dtype=dtype), torch.randn(301, 5, generator=g, dtype=dtype)
    h = -(y ** 2).sum(1) / 2
    more = {"assign": (), "top_k": (9,), "soft_moments": (0.3,), "soft_counts": (0.3,), "slack": ()}
    for name, arguments in more.items():
        actual = getattr(kernels, name)(x, y, h, *arguments)
        with kernels.use("torch"):
            expected = getattr(kernels, name)(x, y, h, *arguments)
        torch.testing.assert_close(actual, expected, rtol=0, atol=tolerance)
    x, y = torch.rand(3000, 2, generator=g, dtype=dtype), torch.rand(5000, 2, generator=g, dtype=dtype)
    h = -(y ** 2).sum(1) / 2
    plain = kernels.assign(x, y, h)
    least, _cpu_pruned.LEAST_WORK = _cpu_pruned.LEAST_WORK, 1
    seen, run = [], _cpu_pruned.Pruned.run
    _cpu_pruned.Pruned.run = lambda self, *rest: seen.append(self) or run(self, *rest)
    pruned = kernels.assign(x, y, h)
    _cpu_pruned.Pruned.run, _cpu_pruned.LEAST_WORK = run, least
    assert len(seen) == 1 and seen[0].visited < 0.2
    assert torch.equal(pruned.index, plain.index) and torch.equal(pruned.value, plain.value)
print(_cpu_vectors.VECTOR_BYTES)
"""


@pytest.mark.slow
@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="instruction sets of x86-64")
@pytest.mark.parametrize(
    ("processor", "features", "size"), [("haswell", "+avx,+avx2,+fma", "32"), ("x86-64", "+sse2", "16")]
)
def test_other_instruction_sets(processor, features, size, tmp_path):
    answer = run(INSTRUCTIONS, NUMBA_CPU_NAME=processor, NUMBA_CPU_FEATURES=features, NUMBA_CACHE_DIR=str(tmp_path))
    assert answer.strip() == size
