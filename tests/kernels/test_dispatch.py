"""Rule, environment, contexts, probe, and what happens when KeOps cannot run."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
import warnings

import pytest
import torch

from otgan import kernels
from otgan.kernels import dispatch, memory, torch_

X, Y, H = torch.zeros(3, 2), torch.eye(2), torch.tensor([0.0, 1.0])


def run(code, **environment):
    env = {k: v for k, v in os.environ.items() if k not in ("OTGAN_KERNELS", "OTGAN_MEMORY_BUDGET")}
    env.update(OMP_NUM_THREADS="1", **environment)
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, timeout=300)


BROKEN = """
import sys, torch
from otgan import kernels
heavy = {"pykeops", "keopscore", "numba", "llvmlite", "torch._dynamo"} & set(sys.modules)
assert not heavy, f"importing otgan.kernels must not import {heavy}"
state = kernels.status()["keops"]
assert not state.available and state.devices == () and state.reason, state
x = torch.eye(3)
assert kernels.assign(x, x, torch.zeros(3)).index.tolist() == [0, 1, 2]
try:
    with kernels.use("keops"):
        kernels.assign(x, x, torch.zeros(3))
except RuntimeError as error:
    assert state.reason.split(": ", 1)[1] in str(error)
else:
    raise AssertionError("a forced backend that cannot run must raise")
print("reason", state.reason)
"""


def test_machine_without_compiler(tmp_path):
    environment = {"PATH": str(tmp_path), "KEOPS_CACHE_FOLDER": str(tmp_path), "CXX": ""}
    done = run(BROKEN, **environment)
    assert done.returncode == 0, done.stderr
    assert "g++" in done.stdout and done.stdout.startswith("reason") and done.stdout.count("\n") == 1


def test_unwritable_cache(tmp_path):
    file = tmp_path / "file"
    file.write_text("")
    done = run(BROKEN, KEOPS_CACHE_FOLDER=str(file / "cache"))
    assert done.returncode == 0, done.stderr
    assert "KEOPS_CACHE_FOLDER" in done.stdout and done.stdout.count("\n") == 1


def test_unknown_names(monkeypatch):
    with pytest.raises(ValueError, match="known: auto, torch, keops, numba"), kernels.use("cupy"):
        pass
    monkeypatch.setenv("OTGAN_KERNELS", "gpu")
    with pytest.raises(ValueError, match="OTGAN_KERNELS.*'gpu'; known: auto, torch, keops, numba"):
        kernels.assign(X, Y, H)


def test_environment_forces_a_backend(monkeypatch):
    monkeypatch.setenv("OTGAN_KERNELS", "KeOps")
    assert dispatch.requested() == "keops"
    monkeypatch.setattr(dispatch, "probe", lambda name, device: "broken here")
    with pytest.raises(RuntimeError, match="'keops' was asked for .* broken here"):
        kernels.assign(X, Y, H)


def test_status_of_torch():
    state = kernels.status()["torch"]
    assert state.name == "torch" and state.available and state.reason == "" and "cpu" in state.devices


def test_rule(monkeypatch):
    monkeypatch.setattr(
        dispatch, "probe", lambda name, device: "CPU only" if (name, device) == ("numba", "cuda") else None
    )
    assert dispatch.choose("cpu", 2) == dispatch.choose("cpu", 10_000) == "numba"
    assert (
        dispatch.choose("cuda", 2) == dispatch.choose("cuda", 64) == "keops" and dispatch.choose("cuda", 65) == "torch"
    )
    monkeypatch.setattr(dispatch, "probe", lambda name, device: None if name == "torch" else "broken")
    assert dispatch.choose("cpu", 2) == dispatch.choose("cuda", 2) == "torch"


def test_contexts_nest_and_are_private_to_a_thread(monkeypatch):
    monkeypatch.delenv("OTGAN_KERNELS", raising=False)
    monkeypatch.delenv("OTGAN_MEMORY_BUDGET", raising=False)
    seen = []
    with kernels.use("keops"), kernels.memory_budget(10):
        with kernels.use("torch"), kernels.memory_budget("1kB"):
            assert (dispatch.requested(), memory.current_budget()) == ("torch", 1000)
        assert (dispatch.requested(), memory.current_budget()) == ("keops", 10)
        thread = threading.Thread(target=lambda: seen.append((dispatch.requested(), memory.current_budget())))
        thread.start()
        thread.join()
        with contextlib.suppress(KeyError), kernels.use("torch"):
            raise KeyError
        assert dispatch.requested() == "keops"
    assert seen == [("auto", memory.DEFAULT_BUDGET)] and dispatch.requested() == "auto"


@pytest.mark.parametrize(
    ("text", "size"), [("256MB", 256 * 10**6), ("1.5 GiB", 3 * 2**29), ("4096", 4096), ("2k", 2000), ("8B", 8)]
)
def test_sizes(text, size, monkeypatch):
    monkeypatch.setenv("OTGAN_MEMORY_BUDGET", text)
    assert memory.current_budget() == memory.parse_bytes(text) == size


@pytest.mark.parametrize("text", ["", "MB", "-1", "0", "1 TB", "1e6"])
def test_sizes_refused(text):
    with pytest.raises(ValueError, match="256MB"):
        memory.parse_bytes(text)


def test_budget_refused(monkeypatch):
    for bad, error in ((0, ValueError), (1.5, TypeError), (True, TypeError)):
        with pytest.raises(error), kernels.memory_budget(bad):
            pass
    monkeypatch.setenv("OTGAN_MEMORY_BUDGET", "lots")
    with pytest.raises(ValueError, match="OTGAN_MEMORY_BUDGET"):
        kernels.assign(X, Y, H)


class Broken:
    NAME = "broken"
    calls = 0

    def probe(self, device):
        return None

    def assign(self, x, y, h):
        self.calls += 1
        raise OSError("no space left")


def test_late_failure_falls_back_once_with_a_warning(monkeypatch):
    broken = Broken()
    monkeypatch.setitem(dispatch.BACKENDS, "broken", broken)
    monkeypatch.setattr(dispatch, "RULES", (dispatch.Rule("cpu", 9, "broken"), *dispatch.RULES))
    monkeypatch.setattr(dispatch, "_failures", {})
    with kernels.use("auto"):
        with pytest.warns(RuntimeWarning, match="no space left"):
            assert kernels.assign(X, Y, H).index.tolist() == [1, 1, 1]
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert kernels.assign(X, Y, H).index.tolist() == [1, 1, 1]
    assert broken.calls == 1 and "no space left" in kernels.status()["broken"].reason
    with kernels.use("broken"), pytest.raises(OSError, match="no space left"):
        kernels.assign(X, Y, H)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("compiler", ["eager", "aot_eager"])
def test_inside_compiled_code(compiler):
    @torch.compile(backend=compiler, fullgraph=False)
    def energy(x, y, h):
        found = kernels.assign(2 * x, y, h)
        return found.value.mean() + kernels.soft_moments(x, y, h, 0.1).mean.sum() + y[found.index].sum()

    def plain(x, y, h):
        found = kernels.assign(2 * x, y, h)
        return found.value.mean() + kernels.soft_moments(x, y, h, 0.1).mean.sum() + y[found.index].sum()

    torch.testing.assert_close(energy(X, Y, H), plain(X, Y, H))


def test_every_backend_has_every_function():
    names = [
        name for name in vars(dispatch.Backend) if not name.startswith("_") and callable(getattr(torch_, name, None))
    ]
    assert set(names) == {"probe", "assign", "top_k", "soft_moments", "soft_counts", "slack"}
    for backend in dispatch.BACKENDS.values():
        assert all(callable(getattr(backend, name)) for name in names)


PEAK = """
import resource, torch
from otgan import kernels
g = torch.Generator().manual_seed(0)
x, y = torch.rand({n}, 2, generator=g), torch.rand({n}, 2, generator=g)
h = -(y ** 2).sum(1) / 2
kernels.assign(x[:5000], y[:5000], h[:5000])
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
before = peak()
with kernels.memory_budget("16MB"):
    value = kernels.assign(x, y, h).value
print(peak() - before, float(value.mean()))
"""


@pytest.mark.parametrize("n", [10_000, pytest.param(100_000, marks=pytest.mark.slow)])
def test_peak_memory(n):
    """All scores would take 4 n^2 bytes: 0.4 GB and 40 GB."""
    done = run(PEAK.format(n=n))
    assert done.returncode == 0, done.stderr
    extra_kilobytes = int(done.stdout.split()[0])
    assert extra_kilobytes < 64_000
