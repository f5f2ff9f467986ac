"""Networks that a generator is made of: convex potentials with explicit gradients, and a residual map."""

from otgan.generators.networks.conjugate import Conjugate, conjugate
from otgan.generators.networks.convex import ConvexNetwork
from otgan.generators.networks.coordinates import Coordinates
from otgan.generators.networks.icnn import ICNN
from otgan.generators.networks.mlp import ResidualMLP

__all__ = ["ICNN", "Conjugate", "ConvexNetwork", "Coordinates", "ResidualMLP", "conjugate"]
