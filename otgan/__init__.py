"""otgan: generator and critic from one convex optimisation.

Semi-discrete optimal transport finds the Brenier potential ``u_h(x) = max_i <x, y_i> + h_i`` from a source to a
discrete target. Its gradient is the optimal transport map (the generator), its Legendre partner the Kantorovich
potential (the critic).

    import otgan as og

    result = og.solve(og.UniformBox(dim=2), Y)
    result.certificate, result.potential.transport(x)
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from otgan import kernels
from otgan.certificate import Certificate, certify
from otgan.io import load
from otgan.measures import DiscreteMeasure, Empirical, Gaussian, Source, UniformBall, UniformBox
from otgan.potential import BrenierPotential
from otgan.solvers import ConvergenceError, Result, solve

if TYPE_CHECKING:
    from otgan import plot

__version__ = "0.1.0"

__all__ = [
    "BrenierPotential",
    "Certificate",
    "ConvergenceError",
    "DiscreteMeasure",
    "Empirical",
    "Gaussian",
    "Result",
    "Source",
    "UniformBall",
    "UniformBox",
    "certify",
    "kernels",
    "load",
    "plot",
    "solve",
]

_LAZY = {"plot"}  # drawing pulls in matplotlib: only when asked for


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return import_module(f"otgan.{name}")
    raise AttributeError(f"module 'otgan' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
