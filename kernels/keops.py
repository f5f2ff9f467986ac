"""Backend ``keops``: KeOps reductions, which never write a score to memory.

Method: Charlier, Feydy, Glaunes, Collin, Durif, "Kernel operations on the GPU, with autodiff, without memory
overflows", JMLR 22, 2021. KeOps compiles one program per formula, dimension and dtype, with g++ on a CPU (5 to 80 s)
and with NVRTC on a GPU, and caches it on disk; ``pykeops`` is imported by the first call, not with this module.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import importlib.util
import math
import os
import platform
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from . import _trial

NAME = "keops"
POWER_COSTS = True
_PAGE = "https://www.kernel-operations.io/keops/python/installation.html"

_SCORE = "((X|Y)+H)"
_COST_SCORE = "(H-Elem(P,1)*Powf(SqDist(X,Y),Elem(P,0)))"
"""``h_j - |x_i - y_j|^p / p``; the parameters P are those of :func:`_exponents`."""
_PULL = "Powf(SqDist(X,Y)+Elem(P,3),Elem(P,2))*(Y-X)"
"""Minus the gradient of the cost."""
_TRIAL = """
import torch
from pykeops.torch import Genred
x = torch.eye(2, device="cuda")
found = Genred("(X|Y)", ["X=Vi(2)", "Y=Vj(2)"], reduction_op="ArgMax", axis=1)(x, x, backend="GPU_1D")
raise SystemExit(found.flatten().tolist() != [0, 1])
"""
"""On some machines KeOps ends the process (SIGSEGV) when it compiles for the GPU: seen with KeOps 2.3 and CUDA 13.0."""
_lock = threading.RLock()


@contextlib.contextmanager
def _quiet_import() -> Iterator[None]:
    """Environment in which importing pykeops prints nothing; both packages read their own variable."""
    names = ("KEOPS_VERBOSE", "PYKEOPS_VERBOSE")
    before = {name: os.environ.get(name) for name in names}
    for name in names:
        os.environ.setdefault(name, "0")
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@functools.lru_cache(maxsize=256)
def _reduction(operation: str, axis: int, dim: int, weight: str, extra: str, power: bool, **options: Any) -> Any:
    score = _COST_SCORE if power else _SCORE
    with _quiet_import():
        from pykeops.torch import Genred
    formula = {"Min": f"U-{score}", "Sum": f"Exp({score}-U)", "KMin_ArgKMin": f"Minus({score})"}.get(operation, score)
    aliases = [f"X=Vi({dim})", f"Y=Vj({dim})", "H=Vj(1)"] + ([extra] if extra else [])
    if power:
        aliases.append("P=Pm(4)")
    if weight:
        options["formula2"] = weight
    return Genred(formula, aliases, reduction_op=operation, axis=axis, **options)


def _run(
    operation: str,
    x: Tensor,
    *arguments: Tensor,
    axis: int = 1,
    weight: str = "",
    extra: str = "",
    exponents: Tensor | None = None,
    **options: Any,
) -> Any:
    """Apply the reduction to contiguous arguments on the device where they live."""
    if exponents is not None:
        arguments = (*arguments, exponents)
    with _lock:
        reduce = _reduction(operation, axis, x.shape[1], weight, extra, exponents is not None, **options)
        backend = "CPU" if x.device.type == "cpu" else "GPU_1D"
        return reduce(*(argument.contiguous() for argument in (x, *arguments)), backend=backend)


def _exponents(x: Tensor, p: float, eps: float = 1.0) -> Tensor | None:
    """The numbers ``p/2, 1/(p eps), p/2 - 1, tiny`` of the formulas for p != 2; None for p = 2."""
    if p == 2.0:
        return None
    tiny = torch.finfo(x.dtype).tiny  # where x = y, a negative power of it is finite
    return torch.tensor([p / 2, 1.0 / (p * eps), p / 2 - 1.0, tiny], dtype=x.dtype, device=x.device)


def _check_indexable(y: Tensor) -> None:
    # KeOps returns indices as numbers of the dtype of the scores.
    limit = 2**24 if y.dtype == torch.float32 else 2**53
    if len(y) > limit:
        raise NotImplementedError(f"KeOps indexes at most {limit} targets in {y.dtype}; got {len(y)}.")


@contextlib.contextmanager
def _current_device(x: Tensor) -> Iterator[None]:
    with torch.cuda.device(x.device) if x.device.type == "cuda" else contextlib.nullcontext():
        yield


def probe(device: str) -> str | None:
    """Why KeOps cannot run on ``"cpu"`` or ``"cuda"``; None if a tiny reduction gave the right answer.

    Importing pykeops proves nothing: a missing compiler shows at the first reduction, an unwritable cache as OSError,
    and a crash of the compiler for GPUs ends the process, so that it is tried in another one first.
    """
    if device == "cuda" and not torch.cuda.is_available():
        return "this build of torch finds no CUDA device"
    if device == "cuda" and importlib.util.find_spec("pykeops") is not None:
        crash = _trial.survives(_TRIAL, _versions(), Path(_cache()) / "otgan")
        if crash is not None:
            return f"KeOps does not work on this GPU: {crash}. Other kernels answer; see {_PAGE}."
    try:
        x = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.5]], device=device)
        index, _ = assign(x, x, torch.zeros(3, device=device))
        if index.tolist() != [0, 1, 2]:
            return (
                f"a tiny reduction gave {index.tolist()} instead of [0, 1, 2]; empty the cache: pykeops.clean_pykeops()"
            )
    except (Exception, SystemExit) as error:
        return f"{type(error).__name__}: {str(error).strip() or 'no message'}. {_advice(error, device)}"
    return None


def _cache() -> str:
    return os.environ.get("KEOPS_CACHE_FOLDER") or os.path.join(os.path.expanduser("~"), ".cache")


def _versions() -> str:
    """What a compiled program for the GPU depends on."""
    parts = []
    for name in ("pykeops", "keopscore", "torch"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):  # a source tree on the path has none
            parts.append(f"{name} {importlib.metadata.version(name)}")
    parts += [f"CUDA {torch.version.cuda}", torch.cuda.get_device_name(), platform.python_version(), platform.node()]
    return ", ".join(parts)


def _advice(error: BaseException, device: str) -> str:
    if isinstance(error, ModuleNotFoundError) and error.name in ("pykeops", "keopscore"):
        return "Install it: pip install pykeops."
    cache = _cache()
    if isinstance(error, OSError) and str(error.filename or "").startswith(cache):
        return f"KeOps writes compiled code under {cache}; set KEOPS_CACHE_FOLDER to a folder that can be written to."
    if shutil.which(os.environ.get("CXX") or "g++") is None:
        return "KeOps compiles with g++, which is not on the PATH; install it, or set CXX to a C++ compiler."
    return (
        f"KeOps compiles on first use: check the C++ compiler{' and the CUDA toolkit' if device == 'cuda' else ''}, "
        f"and that {cache} can be written to (KEOPS_CACHE_FOLDER chooses another folder)."
    )


def assign(x: Tensor, y: Tensor, h: Tensor, p: float = 2.0) -> tuple[Tensor, Tensor]:
    """Index and value of the best target of each sample: two tensors (m,)."""
    _check_indexable(y)
    with _current_device(x):
        value, index = _run("Max_ArgMax", x, y, h[:, None], exponents=_exponents(x, p))
    return index.reshape(-1), value.reshape(-1)


def top_k(x: Tensor, y: Tensor, h: Tensor, k: int, p: float = 2.0) -> tuple[Tensor, Tensor]:
    """Indices and values of the k best targets of each sample, values descending: two tensors (m, k)."""
    _check_indexable(y)
    with _current_device(x):
        value, index = _run("KMin_ArgKMin", x, y, h[:, None], opt_arg=k, exponents=_exponents(x, p))
    return index.reshape(-1, k), value.reshape(-1, k).neg()


class _Soft(NamedTuple):
    """Samples, heights and exponents such that scores come out over eps, the log-sum-exp, the mean and eps."""

    x: Tensor
    h: Tensor
    exponents: Tensor | None
    log_sum: Tensor
    mean: Tensor
    eps: float


def _soft(x: Tensor, y: Tensor, h: Tensor, eps: float, p: float, weighted: str = "Y") -> _Soft:
    lengths = float(x.norm(dim=1).max()), float(y.norm(dim=1).max())
    bound = (lengths[0] * lengths[1] if p == 2.0 else sum(lengths) ** p) + float(h.abs().max())
    eps = max(eps, bound * 1e-30, float(torch.finfo(x.dtype).tiny) * 4)  # no gap between scores is as small
    x, h, exponents = x / eps if p == 2.0 else x, (h / eps)[:, None], _exponents(x, p, eps)
    with _current_device(x):
        out = _run("Max_SumShiftExpWeight", x, y, h, weight=f"Concat(IntCst(1),{weighted})", exponents=exponents)
    return _Soft(x, h, exponents, out[:, :1] + out[:, 1:2].log(), out[:, 2:] / out[:, 1:2], eps)


def soft_moments(x: Tensor, y: Tensor, h: Tensor, eps: float, p: float = 2.0) -> tuple[Tensor, Tensor]:
    """``eps log sum_j exp(s_ij/eps)``, (m,), and the softmax-weighted mean of the targets, (m, d)."""
    soft = _soft(x, y, h, eps, p)
    return soft.log_sum[:, 0] * soft.eps, soft.mean


def soft_gradient(x: Tensor, y: Tensor, h: Tensor, eps: float, p: float) -> tuple[Tensor, Tensor]:
    """``eps log sum_j exp(s_ij/eps)``, (m,), and its gradient ``-sum_j p_ij |x_i - y_j|^(p-2) (x_i - y_j)``, (m, d)."""
    soft = _soft(x, y, h, eps, p, _PULL)
    return soft.log_sum[:, 0] * soft.eps, soft.mean


def soft_counts(x: Tensor, y: Tensor, h: Tensor, eps: float, p: float = 2.0) -> Tensor:
    """Sum over the samples of the softmax probabilities, (n,) float64, accumulated in float64."""
    soft = _soft(x, y, h, eps, p)
    with _current_device(x):
        counts = _run(
            "Sum",
            soft.x,
            y,
            soft.h,
            soft.log_sum,
            axis=0,
            extra="U=Vi(1)",
            exponents=soft.exponents,
            use_double_acc=True,
        )
    return counts[:, 0].double()


def slack(x: Tensor, y: Tensor, h: Tensor, p: float = 2.0) -> Tensor:
    """``min_i u_h(x_i) - s_ij`` for each target, (n,)."""
    _, value = assign(x, y, h, p)
    with _current_device(x):
        gaps = _run("Min", x, y, h[:, None], value[:, None], axis=0, extra="U=Vi(1)", exponents=_exponents(x, p))
    least = gaps[:, 0]
    return torch.where(torch.isfinite(least), least, torch.full_like(least, math.inf))
