"""``load``: everything that can be read back, whatever it is."""

from otgan.adversarial import model as adversarial
from otgan.cost_potential import KantorovichPotential
from otgan.generators import extension, generator, model
from otgan.io import FormatError, load
from otgan.latent import pipeline
from otgan.metrics.images import classifier
from otgan.potential import BrenierPotential
from otgan.solvers import saving

__all__ = [
    "BrenierPotential",
    "FormatError",
    "KantorovichPotential",
    "adversarial",
    "classifier",
    "extension",
    "generator",
    "load",
    "model",
    "pipeline",
    "saving",
]
