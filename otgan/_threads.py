"""How many threads small work gets: threads that wait for each other cost more than they save."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch

_SMALL = 1 << 21  # entries of a loop below which a second thread costs more than it saves


@contextlib.contextmanager
def one_thread(when: bool = True) -> Iterator[None]:
    """Run torch on one thread inside the block, if ``when``.

    OpenMP's threads spin while they wait for each other: on a core that another process uses, small operations take
    many times as long on two threads as on one.
    """
    with torch_threads(1 if when else torch.get_num_threads()):
        yield


@contextlib.contextmanager
def torch_threads(wanted: int) -> Iterator[None]:
    """Run torch, and the kernels on the CPU, on ``wanted`` threads inside the block."""
    before = torch.get_num_threads()
    if wanted == before:
        yield
        return
    torch.set_num_threads(wanted)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def loop_threads(entries: int) -> Iterator[None]:
    """Threads of Numba's parallel loops inside the block: one for few ``entries``, else those of torch.

    Torch keeps its own number: Numba changes OpenMP's, which they share, when it starts its threads.
    """
    import numba

    settings: Any = numba.config
    torch_before = torch.get_num_threads()
    before = numba.get_num_threads()  # the first call starts its threads
    if torch.get_num_threads() != torch_before:
        torch.set_num_threads(torch_before)
    wanted = 1 if entries < _SMALL else min(torch_before, settings.NUMBA_NUM_THREADS)
    try:
        if wanted != before:
            numba.set_num_threads(wanted)
        yield
    finally:
        if wanted != before:
            numba.set_num_threads(before)
