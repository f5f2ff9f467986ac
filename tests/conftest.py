"""Fixtures and settings shared by all tests."""

from __future__ import annotations

import os
from pathlib import Path

os.environ.setdefault("MPLBACKEND", "agg")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # threads that spin while they wait starve their neighbours

import hypothesis
import pytest
import torch

REPOSITORY = Path(__file__).resolve().parents[1]

# Timings on shared machines vary too much for a deadline; in CI the examples are the same on every run.
hypothesis.settings.register_profile("otgan", deadline=None)
hypothesis.settings.register_profile("otgan-ci", deadline=None, derandomize=True, database=None, print_blob=True)


def pytest_configure() -> None:
    """Choose the hypothesis profile, and keep torch from using more threads than a small machine has."""
    hypothesis.settings.load_profile("otgan-ci" if os.environ.get("CI") else "otgan")
    torch.set_num_threads(int(os.environ.get("OTGAN_TEST_THREADS", min(2, os.cpu_count() or 1))))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what is marked ``gpu`` where there is no CUDA device."""
    if torch.cuda.is_available():
        return
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of real data: ``OTGAN_DATA``, or ``../shared/data`` beside the repository when it exists."""
    named = os.environ.get("OTGAN_DATA")
    if named:
        folder = Path(named)
        if not folder.is_dir():
            pytest.fail(
                f"OTGAN_DATA names {named!r}, which is not a folder: set it to the folder of real data, or unset it"
            )
        return folder
    folder = REPOSITORY.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no real data: OTGAN_DATA is not set and {folder} does not exist")
    return folder
