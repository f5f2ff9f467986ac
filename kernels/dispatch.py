"""Which backend answers: the rule, ``OTGAN_KERNELS``, the ``use`` context, the memoised probe."""

from __future__ import annotations

import contextlib
import contextvars
import functools
import os
import threading
import warnings
from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from . import cpu, keops, torch_, triton_
from .memory import current_budget

ENV = "OTGAN_KERNELS"
AUTO = "auto"


class Backend(Protocol):
    """What a backend module provides. All arguments are checked, re-centred and finite, and m >= 1.

    A module with ``POWER_COSTS = True`` takes a last argument ``p`` in each function and has ``soft_gradient`` too: the
    scores are ``h_j - |x_i - y_j|^p / p`` for p != 2. Other modules are not asked for that.
    """

    NAME: str

    def probe(self, device: str) -> str | None: ...  # noqa: D102
    def assign(self, x: Tensor, y: Tensor, h: Tensor) -> tuple[Tensor, Tensor]: ...  # noqa: D102
    def top_k(self, x: Tensor, y: Tensor, h: Tensor, k: int) -> tuple[Tensor, Tensor]: ...  # noqa: D102
    def soft_moments(self, x: Tensor, y: Tensor, h: Tensor, eps: float) -> tuple[Tensor, Tensor]: ...  # noqa: D102
    def soft_counts(self, x: Tensor, y: Tensor, h: Tensor, eps: float) -> Tensor: ...  # noqa: D102
    def slack(self, x: Tensor, y: Tensor, h: Tensor) -> Tensor: ...  # noqa: D102


class Rule(NamedTuple):
    """One row of the rule: on ``device`` (``"any"`` matches all), up to dimension ``max_dim``, prefer ``backend``."""

    device: str
    max_dim: float
    backend: str


class BackendStatus(NamedTuple):
    """What :func:`status` says about one backend.

    Attributes:
        name: name to give to ``use`` or ``OTGAN_KERNELS``.
        available: whether it computed a tiny reduction on at least one device.
        reason: why it is not available, or what failed later; empty when all is well.
        devices: device types on which it works, among ``"cpu"`` and ``"cuda"``.
    """

    name: str
    available: bool
    reason: str
    devices: tuple[str, ...]


# To add a backend: one module with the functions of Backend, one entry here, one row in RULES.
BACKENDS: dict[str, Backend] = {backend.NAME: backend for backend in (torch_, keops, cpu, triton_)}

# The first row that matches, and whose backend passes its probe, answers.
# None names triton, which has not been measured on a GPU: it answers where it is asked for by name.
RULES = (
    #    device   max_dim       backend
    Rule("cuda", 64, "keops"),  # no score is written to memory; past that the matrix product wins
    Rule("cpu", float("inf"), "numba"),  # than torch: 5 to 20 times faster for d <= 10, 1.2 to 2 times from 512 on
    Rule("any", float("inf"), "torch"),  # works everywhere
)

_forced: contextvars.ContextVar[str | None] = contextvars.ContextVar("otgan_kernels", default=None)
_lock = threading.RLock()
_failures: dict[tuple[str, str, str, int, torch.dtype], str] = {}


def _check_name(name: str, origin: str) -> str:
    if name != AUTO and name not in BACKENDS:
        known = ", ".join([AUTO, *BACKENDS])
        raise ValueError(f"{origin}: unknown kernel backend {name!r}; known: {known}.")
    return name


def requested() -> str:
    """The backend asked for: innermost ``use`` context, else ``OTGAN_KERNELS``, else ``"auto"``."""
    name = _forced.get()
    if name is not None:
        return name
    return _check_name(os.environ.get(ENV, "").strip().lower() or AUTO, f"environment variable {ENV}")


@contextlib.contextmanager
def use(name: str) -> Iterator[None]:
    """Make one backend answer every kernel call inside the ``with`` block.

    A forced backend that cannot run raises instead of being replaced; ``use("auto")`` restores the rule. Contexts nest
    and are private to the thread or asyncio task that opened them.

    Args:
        name: ``"auto"``, ``"torch"``, ``"keops"``, ``"numba"`` or ``"triton"``.

    Raises:
        ValueError: if the name is unknown.

    Example:
        >>> import torch
        >>> from otgan import kernels
        >>> with kernels.use("torch"):
        ...     kernels.assign(torch.zeros(1, 2), torch.eye(2), torch.zeros(2)).index.tolist()
        [0]
    """
    token = _forced.set(_check_name(name, "use"))
    try:
        yield
    finally:
        _forced.reset(token)


@functools.cache
def _probe(name: str, device: str) -> str | None:
    return BACKENDS[name].probe(device)


def probe(name: str, device: str) -> str | None:
    """Why backend ``name`` cannot run on device type ``device``, or None; computed once per process."""
    with _lock:
        return _probe(name, device)


def status() -> dict[str, BackendStatus]:
    """State of every backend, by name.

    The first call probes each backend with a tiny reduction, which for KeOps and Numba compiles it (some seconds once
    per machine, cached on disk by them); later calls return the memoised answers.
    """
    report = {}
    devices = ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",)
    for name in BACKENDS:
        reasons = {device: probe(name, device) for device in devices}
        working = tuple(device for device, reason in reasons.items() if reason is None)
        notes = [f"{device}: {reason}" for device, reason in reasons.items() if reason is not None]
        notes += [reason for key, reason in list(_failures.items()) if key[0] == name]
        report[name] = BackendStatus(name, bool(working), "; ".join(notes), working)
    return report


def choose(device: str, dim: int, p: float = 2.0) -> str:
    """Name of the backend that the rule prefers for a device type, a dimension and an exponent of the cost."""
    for rule in RULES:
        if rule.device not in (device, "any") or dim > rule.max_dim or not _knows(rule.backend, p):
            continue
        if probe(rule.backend, device) is None:
            return rule.backend
    raise RuntimeError(f"no kernel backend works on {device}: {status()}")  # pragma: no cover


def _knows(name: str, p: float) -> bool:
    return p == 2.0 or getattr(BACKENDS[name], "POWER_COSTS", False)


def call(operation: str, x: Tensor, *arguments: Any, p: float = 2.0) -> Any:
    """Run ``operation(x, *arguments)`` on the backend that is asked for, or that the rule prefers.

    For p != 2 the backend gets p as its last argument.

    Raises:
        RuntimeError: if a backend was forced and cannot run.
        ValueError: if ``OTGAN_MEMORY_BUDGET`` is set to something that is not a size, whichever backend answers.
    """
    current_budget()
    if p != 2.0:
        arguments = (*arguments, p)
    name, device = requested(), x.device.type
    if name != AUTO:
        reason = probe(name, device)
        if reason is not None:
            raise RuntimeError(f"kernel backend {name!r} was asked for but does not work on {device}: {reason}")
        if not _knows(name, p):
            known = ", ".join(other for other in BACKENDS if _knows(other, p))
            raise RuntimeError(f"kernel backend {name!r} was asked for but knows p = 2 only, got {p:g}; use {known}.")
        return getattr(BACKENDS[name], operation)(x, *arguments)
    name = choose(device, x.shape[1], p)
    key = (name, operation if p == 2.0 else f"{operation} for p != 2", device, x.shape[1], x.dtype)
    if name != torch_.NAME and key not in _failures:
        try:
            return getattr(BACKENDS[name], operation)(x, *arguments)
        except torch.cuda.OutOfMemoryError:
            raise
        except Exception as error:  # a compiler may fail for one formula after it succeeded for another
            reason = f"{operation} in dimension {x.shape[1]} on {device}: {type(error).__name__}: {error}"
            with _lock:
                first = key not in _failures
                _failures[key] = reason
            if first:
                warnings.warn(f"kernel backend {name!r} failed ({reason}); torch answers instead.", RuntimeWarning, 3)
    return getattr(torch_, operation)(x, *arguments)
