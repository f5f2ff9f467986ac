"""How many threads small work gets: threads that wait for each other cost more than they save."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch

_SMALL = 1 << 21  # entries of a loop below which a second thread costs more than it saves


@contextlib.contextmanager
def one_thread(when: bool = True) -> Iterator[None]:
    """Run torch on one thread inside the block, if ``when``.

    OpenMP's threads spin while they wait for each other: on a core that another process uses, small operations take
    many times as long on two threads as on one.
    """
    before = torch.get_num_threads()
    if not when or before == 1:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def loop_threads(entries: int) -> Iterator[None]:
    """Threads of Numba's parallel loops inside the block: one for few ``entries``, else those of torch."""
    import numba

    before = numba.get_num_threads()
    wanted = 1 if entries < _SMALL else min(torch.get_num_threads(), numba.config.NUMBA_NUM_THREADS)
    if wanted == before:
        yield
        return
    numba.set_num_threads(wanted)
    try:
        yield
    finally:
        numba.set_num_threads(before)
