"""Small work on few threads, and torch's number of them left as it was."""

from __future__ import annotations

import subprocess
import sys

import torch

from otgan._threads import one_thread, torch_threads

STARTED = """
import torch
from otgan._threads import loop_threads
torch.set_num_threads(1)
with loop_threads(1 << 30):
    assert torch.get_num_threads() == 1, torch.get_num_threads()
assert torch.get_num_threads() == 1, torch.get_num_threads()
"""


def test_numbas_threads_leave_those_of_torch_alone():
    subprocess.run([sys.executable, "-c", STARTED], check=True, timeout=120)


def test_the_number_of_threads_is_restored():
    before = torch.get_num_threads()
    with one_thread():
        assert torch.get_num_threads() == 1
        with torch_threads(2):
            assert torch.get_num_threads() == 2
        assert torch.get_num_threads() == 1
    with one_thread(False):
        assert torch.get_num_threads() == before
    assert torch.get_num_threads() == before
