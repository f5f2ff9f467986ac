"""Backend ``triton`` without a GPU: its programs interpreted, compiled for GPUs that are not there, and its reasons."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from otgan import kernels
from otgan.kernels import dispatch, triton_

HERE = Path(__file__).resolve().parent
needs_triton = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed")


def run(code, *arguments, folder, **environment):
    """A process that imports triton afresh: it interprets or compiles as the environment says at that moment."""
    env = {k: v for k, v in os.environ.items() if not k.startswith(("OTGAN_", "TRITON_"))}
    env.update(OMP_NUM_THREADS="1", TRITON_CACHE_DIR=str(folder / "cache"), **environment)
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=folder, capture_output=True, text=True, env=env, timeout=900
    )


CASES = "import sys, pytest; sys.exit(pytest.main(sys.argv[1:]))"
OPTIONS = (
    "-q",
    "-x",
    "-p",
    "no:cacheprovider",
    "-c",
    str(HERE.parents[1] / "pyproject.toml"),
    str(HERE / "triton_cases.py"),
)


@needs_triton
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="triton is made for Linux")
def test_interpreted(tmp_path):
    done = run(CASES, *OPTIONS, folder=tmp_path, TRITON_INTERPRET="1")
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout and "skipped" not in done.stdout


@needs_triton
@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_a_gpu(tmp_path):
    done = run(CASES, *OPTIONS, folder=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


COMPILE = """
import sys
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, compile
from otgan.kernels import _triton_programs as programs

assert not programs.INTERPRETED
capability, everything = int(sys.argv[1]), sys.argv[2] == "all"


def build(program, number, constants, warps=4):
    pointers = dict.fromkeys(("kept_group", "groups"), "*i32") | {"index": "*i64"}
    pointers |= dict.fromkeys(("rows_low", "cols_low"), "*fp32")
    integers = ("m", "row_step", "col_step", "dim", "span")
    types = {name: "i32" if name in integers else pointers.get(name, "*" + number) for name in program.arg_names}
    types.update(dict.fromkeys(constants, "constexpr"))
    aligned = {(i,): [["tt.divisibility", 16]] for i, name in enumerate(types) if types[name][0] == "*"}
    places = {(program.arg_names.index(name),): value for name, value in constants.items()}
    source = ASTSource(program, types, constexprs=places, attrs=aligned)
    options = {"num_warps": warps, "num_stages": 3}
    return compile(source, target=GPUTarget("cuda", capability, 32), options=options).asm["ptx"]


for best, rows, group in ((True, 32, 32), (False, 8, 16)):
    build(programs.score_groups, "fp32", {"SWAP": best, "GROUP": group, "BEST": best, "BR": rows})
    build(programs.score_groups, "fp64", {"SWAP": not best, "GROUP": group, "BEST": best, "BR": rows, "dim": 1})
cases = [("fp32", True, 64, 8), ("fp32", False, 16, 2)]
if everything:
    cases += [("fp32", True, dim, keep) for dim in (16, 128, 192) for keep in (8, 32, 64, 128)]
    cases += [(number, False, 16, keep) for number in ("fp32", "fp64") for keep in (2, 32, 64)]
for number, low, dim, keep in cases:
    group = 32 if keep <= 16 else 16
    constants = {"LOW": low, "SWAP": not low, "GROUP": group, "KEEP": keep, "DIM": dim}
    constants["BK"] = dim if dim <= 128 else 64
    configs = programs.suited(programs.CONFIGS, {}, **constants)
    for config in configs if everything else configs[-1:]:
        assert config.kwargs["BN"] >= 2 * group
        text = build(programs.find_groups, number, constants | config.kwargs, config.num_warps)
        assert ("tf32" in text) == low
"""


@needs_triton
@pytest.mark.parametrize("capability", ["80", "90"])
@pytest.mark.parametrize("which", ["few", pytest.param("all", marks=pytest.mark.slow)])
def test_compiles_for_a_gpu(capability, which, tmp_path):
    """To machine code by the assembler that triton brings along; no device takes part."""
    done = run(COMPILE, capability, which, folder=tmp_path)
    assert done.returncode == 0, done.stderr


REASON = "from otgan.kernels import dispatch; print(dispatch.probe('triton', 'cpu'))"


def test_reason_without_triton(tmp_path):
    hidden = "import importlib.util as u; u.find_spec = lambda name: None; " + REASON
    assert "triton is not installed" in run(hidden, folder=tmp_path).stdout


@needs_triton
@pytest.mark.skipif(torch.cuda.is_available(), reason="a CUDA device")
def test_reason_without_a_device(monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setattr(dispatch, "_probe", dispatch._probe.__wrapped__)
    assert "no CUDA device" in triton_.probe("cuda")
    with kernels.use("triton"), pytest.raises(RuntimeError, match="'triton' was asked for .* finds no CUDA device"):
        kernels.assign(torch.zeros(1, 2), torch.eye(2), torch.zeros(2))


@needs_triton
def test_interpreting_is_decided_before_the_import(tmp_path):
    late = "import otgan.kernels._triton_programs, os; os.environ['TRITON_INTERPRET'] = '1'; "
    assert "set it before Python starts" in run(late + REASON, folder=tmp_path).stdout


def test_triton_is_imported_by_the_first_use_only(tmp_path):
    code = "import sys; from otgan import kernels; print('triton' in sys.modules)"
    assert run(code, folder=tmp_path).stdout.strip() == "False"
