"""What is transported: sources that can be sampled, and the discrete target."""

from otgan.measures.ball import UniformBall
from otgan.measures.base import Source
from otgan.measures.box import UniformBox
from otgan.measures.discrete import DiscreteMeasure
from otgan.measures.empirical import Empirical
from otgan.measures.gaussian import Gaussian
from otgan.measures.grid import GridDensity
from otgan.measures.mixture import GaussianMixture
from otgan.measures.polytope import UniformPolytope

__all__ = [
    "DiscreteMeasure",
    "Empirical",
    "Gaussian",
    "GaussianMixture",
    "GridDensity",
    "Source",
    "UniformBall",
    "UniformBox",
    "UniformPolytope",
]
