"""Results to draw, small enough to be made in no time."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

import otgan as og
from otgan.certificate import certify
from otgan.solvers.result import Result


def make_result(source: og.Source, points: np.ndarray, weights: np.ndarray | None = None, **changes: object) -> Result:
    """A result with Voronoi heights of the targets carried to the source's mean: no solve, all cells near full."""
    target = og.DiscreteMeasure(points, weights)
    y = target.points.double()
    heights = -0.5 * (y**2).sum(1) + y @ (target.mean - source.mean)
    potential = og.BrenierPotential(target.points, heights, target.weights, center=source.mean)
    history = [
        {"n_iter": 50 * k, "chi2": 2.0 / k**2, "chi2_stderr": 0.02 / k, "n_samples": 1000 * k, "seconds": 0.1 * k}
        for k in range(1, 9)
    ]
    fields = {"method": "adam", "reason": "", "status": "converged", "message": "", "tol": 0.05, "history": history}
    fields |= {"n_iter": 400, "n_scores": 0, "n_samples": 8000, "seconds": 0.8}
    fields |= {"potential": potential, "source": source, "target": target}
    fields |= {"certificate": certify(potential, source, 1000, seed=0)}
    return Result(**{**fields, **changes})


@pytest.fixture
def result_of() -> Callable[..., Result]:
    return make_result


@pytest.fixture
def plane() -> Result:
    """Thirty random targets under the unit square."""
    return make_result(og.UniformBox(dim=2), np.random.default_rng(0).random((30, 2)))


@pytest.fixture(autouse=True)
def figures() -> Iterator[None]:
    """No figure outlives its test, and no test changes matplotlib's settings or torch's random state."""
    settings, state = dict(plt.rcParams), torch.random.get_rng_state()
    yield
    plt.close("all")
    assert dict(plt.rcParams) == settings
    assert torch.equal(torch.random.get_rng_state(), state)
