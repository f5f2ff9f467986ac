"""Data shared by the tests of adversarial training."""

from __future__ import annotations

import numpy as np
import pytest
import torch


@pytest.fixture(scope="module")
def points():
    """400 points of an ellipse in the plane."""
    rng = np.random.default_rng(0)
    return torch.from_numpy(rng.normal(size=(400, 2)) @ np.array([[1.0, 0.3], [0.0, 0.5]]) + 1.0).float()
