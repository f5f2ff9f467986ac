"""Threads that stay between calls: every item once, errors pass through, callers do not wait in a ring."""

from __future__ import annotations

import threading
import time

import pytest

from otgan.kernels import _team


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_every_item_once(threads):
    done = []
    _team.share(done.append, range(100), threads)
    assert sorted(done) == list(range(100))


def test_helpers_stay_and_share(monkeypatch):
    monkeypatch.setattr(_team, "_pool", None)
    names = set()

    def run(item):
        names.add(threading.current_thread().name)
        time.sleep(0.002)

    for _ in range(5):
        _team.share(run, range(20), 3)
    assert len(names) == 3  # the caller and the same two helpers each time


def test_errors_of_helpers_reach_the_caller():
    seen = []

    def run(item):
        seen.append(item)
        time.sleep(0.005)
        if threading.current_thread() is not threading.main_thread():
            raise OSError(f"item {item}")

    with pytest.raises(OSError, match="item"):
        _team.share(run, range(1000), 2)
    assert len(seen) < 1000


def test_nested_calls_and_many_callers():
    counts = []

    def outer(_):
        _team.share(counts.append, range(10), 4)

    def call():
        _team.share(outer, range(6), 4)

    callers = [threading.Thread(target=call) for _ in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(timeout=30)
    assert not any(caller.is_alive() for caller in callers)
    assert len(counts) == 4 * 6 * 10
