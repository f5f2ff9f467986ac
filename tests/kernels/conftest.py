"""Backends as parameters; a backend that cannot run here is skipped with its reason."""

from __future__ import annotations

import pytest

from otgan import kernels

BACKENDS = ("torch", "keops", "numba")
CPU_BACKENDS = ("torch", "numba")


@pytest.fixture(params=BACKENDS)
def backend(request):
    """Run the test inside ``use(backend)``; KeOps tests stay in dimension 2, where their programs are shared."""
    state = kernels.status()[request.param]
    if not state.available:
        pytest.skip(f"{request.param}: {state.reason}")
    with kernels.use(request.param):
        yield request.param


@pytest.fixture(params=CPU_BACKENDS)
def cpu_backend(request):
    """As ``backend``, for what would take KeOps too long to compile on a CPU."""
    state = kernels.status()[request.param]
    if not state.available:
        pytest.skip(f"{request.param}: {state.reason}")
    with kernels.use(request.param):
        yield request.param
