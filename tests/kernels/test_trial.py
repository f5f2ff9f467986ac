"""A backend whose native code crashes is found out without losing the process."""

from __future__ import annotations

import importlib.metadata
import sys
from types import SimpleNamespace

import pytest
import torch

from otgan import kernels
from otgan.kernels import _trial, dispatch, keops

COUNTED = "import pathlib; p = pathlib.Path({!r}); p.write_text(str(int(p.read_text()) + 1))"


def test_a_crash_is_told_and_not_remembered(tmp_path):
    code = (
        "import os, signal, sys; print('compiling', file=sys.stderr, flush=True); os.kill(os.getpid(), signal.SIGSEGV)"
    )
    for _ in range(2):
        told = _trial.survives(code, "1", tmp_path / "marks")
        assert "ended by SIGSEGV: compiling" in told
    assert not (tmp_path / "marks").exists()


def test_other_ends(tmp_path):
    assert "ended by exit status 3" in _trial.survives("raise SystemExit(3)", "1", tmp_path)
    assert "ModuleNotFoundError" in _trial.survives("import nothing_of_this_name", "1", tmp_path)
    assert "within 0.5 s" in _trial.survives("import time; time.sleep(60)", "1", tmp_path, seconds=0.5)
    assert list(tmp_path.iterdir()) == []


def test_success_is_remembered_for_its_versions(tmp_path):
    count = tmp_path / "count"
    count.write_text("0")
    code, marks = COUNTED.format(str(count)), tmp_path / "deep" / "marks"
    for versions, runs in (("1", 1), ("1", 1), ("2", 2), ("1", 2)):
        assert _trial.survives(code, versions, marks) is None
        assert count.read_text() == str(runs)


def test_marks_that_cannot_be_written(tmp_path):
    file = tmp_path / "file"
    file.write_text("")
    assert _trial.survives("pass", "1", file / "marks") is None


def test_the_child_sees_the_same_modules(tmp_path, monkeypatch):
    (tmp_path / "only_here.py").write_text("")
    assert _trial.survives("import only_here", "1", tmp_path / "marks") is not None
    monkeypatch.syspath_prepend(str(tmp_path))
    assert _trial.survives("import only_here", "1", tmp_path / "marks") is None


def test_without_an_interpreter(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", "")
    assert _trial.survives("raise SystemExit(1)", "1", tmp_path) is None


@pytest.fixture
def a_gpu(monkeypatch, tmp_path):
    pytest.importorskip("pykeops")
    monkeypatch.setenv("KEOPS_CACHE_FOLDER", str(tmp_path))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a GPU")


def test_keops_that_crashes_on_a_gpu_is_replaced(a_gpu, monkeypatch):
    monkeypatch.setattr(keops, "_TRIAL", "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")
    assert "ended by SIGSEGV" in keops.probe("cuda")
    monkeypatch.setattr(dispatch, "_probe", dispatch._probe.__wrapped__)
    assert dispatch.choose("cuda", 3) == "torch"
    x = SimpleNamespace(device=SimpleNamespace(type="cuda"), shape=(1, 3), dtype=torch.float32)
    with kernels.use("keops"), pytest.raises(RuntimeError, match="'keops' was asked for but .* on cuda: .*SIGSEGV"):
        dispatch.call("assign", x)


def test_keops_without_metadata(a_gpu, monkeypatch):
    def version(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    assert "CUDA" in keops._versions() and "a GPU" in keops._versions()
