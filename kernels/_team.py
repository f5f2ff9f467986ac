"""Threads that stay between calls: starting one takes as long as a small reduction."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Lock

_lock = Lock()
_pool: ThreadPoolExecutor | None = None
_size = 0


def _submit(work: Callable[[], None], count: int) -> list[Future[None]]:
    """``work`` on ``count`` threads of the pool, which start when they are first needed; none while Python exits."""
    global _pool, _size
    with _lock:
        if _pool is None or _size < count:
            if _pool is not None:
                _pool.shutdown(wait=False)
            _pool, _size = ThreadPoolExecutor(count, "otgan-kernels"), count
        try:
            return [_pool.submit(work) for _ in range(count)]
        except RuntimeError:
            return []


def _forget() -> None:
    """A forked process has none of its parent's threads, and starts its own."""
    global _lock, _pool, _size
    _lock, _pool, _size = Lock(), None, 0


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


def share(run: Callable[[int], None], items: Iterable[int], threads: int) -> None:
    """Call ``run`` on each item, on the calling thread and up to ``threads - 1`` others.

    An exception, an interrupt too, waits for the items that run; those that have not begun are dropped. Calls from
    several threads, or from within ``run``, share the helpers, and go on by themselves where these are busy.
    """
    left = deque(items)

    def work() -> None:
        try:
            while True:
                try:
                    item = left.popleft()
                except IndexError:
                    return
                run(item)
        except BaseException:
            left.clear()
            raise

    helpers = min(threads, len(left)) - 1
    if helpers < 1:
        work()
        return
    others = _submit(work, helpers)
    try:
        work()
    finally:
        for other in others:
            if not other.cancel():
                other.result()
