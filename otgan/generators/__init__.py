"""From a potential to new points."""

from otgan.generators.entropic import entropic_reg
from otgan.generators.fit import fit_generator
from otgan.generators.generator import EntropicGenerator, FitReport, Generator, NearestGenerator, NetworkGenerator
from otgan.generators.model import OTGAN, Distance

__all__ = [
    "OTGAN",
    "Distance",
    "EntropicGenerator",
    "FitReport",
    "Generator",
    "NearestGenerator",
    "NetworkGenerator",
    "entropic_reg",
    "fit_generator",
]
