"""otgan: generator and critic from one convex optimisation.

Semi-discrete optimal transport finds the Brenier potential ``u_h(x) = max_i <x, y_i> + h_i`` from a source to a
discrete target. Its gradient is the optimal transport map (the generator), its Legendre partner the Kantorovich
potential (the critic).

    import otgan as og

    result = og.solve(og.UniformBox(dim=2), Y)
    result.certificate, result.potential.transport(x)

Names are imported when they are first used, so that ``import otgan`` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from otgan import adversarial, datasets, generators, images, kernels, latent, metrics, plot
    from otgan.certificate import Certificate, certify
    from otgan.cost_potential import KantorovichPotential
    from otgan.generators import fit_generator
    from otgan.loading import load
    from otgan.measures import (
        DiscreteMeasure,
        Empirical,
        Gaussian,
        GaussianMixture,
        GridDensity,
        Source,
        UniformBall,
        UniformBox,
        UniformPolytope,
    )
    from otgan.potential import BrenierPotential
    from otgan.solvers import ConvergenceError, Quantization, Result, quantize, solve

__version__ = "0.1.0"

_HOME = {
    "OTGAN": "generators",
    "BrenierPotential": "potential",
    "Certificate": "certificate",
    "ConvergenceError": "solvers",
    "DiscreteMeasure": "measures",
    "Empirical": "measures",
    "Gaussian": "measures",
    "GaussianMixture": "measures",
    "GridDensity": "measures",
    "KantorovichPotential": "cost_potential",
    "LatentOTGAN": "latent",
    "Quantization": "solvers",
    "Result": "solvers",
    "Source": "measures",
    "UniformBall": "measures",
    "UniformBox": "measures",
    "UniformPolytope": "measures",
    "adversarial": "",
    "certify": "certificate",
    "datasets": "",
    "fit_generator": "generators",
    "generators": "",
    "images": "",
    "kernels": "",
    "latent": "",
    "load": "loading",
    "metrics": "",
    "plot": "",
    "quantize": "solvers",
    "solve": "solvers",
}

__all__ = [
    "OTGAN",
    "BrenierPotential",
    "Certificate",
    "ConvergenceError",
    "DiscreteMeasure",
    "Empirical",
    "Gaussian",
    "GaussianMixture",
    "GridDensity",
    "KantorovichPotential",
    "LatentOTGAN",
    "Quantization",
    "Result",
    "Source",
    "UniformBall",
    "UniformBox",
    "UniformPolytope",
    "adversarial",
    "certify",
    "datasets",
    "fit_generator",
    "generators",
    "images",
    "kernels",
    "latent",
    "load",
    "metrics",
    "plot",
    "quantize",
    "solve",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'otgan' has no attribute {name!r}; it has {', '.join(__all__)}")
    home = _HOME[name]
    value = getattr(import_module(f"otgan.{home}"), name) if home else import_module(f"otgan.{name}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
