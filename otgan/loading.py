"""``load``: everything that can be read back, whatever it is."""

from otgan.generators import generator, model
from otgan.io import FormatError, load
from otgan.potential import BrenierPotential
from otgan.solvers import saving

__all__ = ["BrenierPotential", "FormatError", "generator", "load", "model", "saving"]
