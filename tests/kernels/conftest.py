"""Backends as parameters; a backend that cannot run here is skipped with its reason."""

from __future__ import annotations

import pytest

from otgan import kernels

BACKENDS = ("torch", "keops")


@pytest.fixture(params=BACKENDS)
def backend(request):
    """Run the test inside ``use(backend)``; KeOps tests stay in dimension 2, where their programs are shared."""
    state = kernels.status()[request.param]
    if not state.available:
        pytest.skip(f"{request.param}: {state.reason}")
    with kernels.use(request.param):
        yield request.param
