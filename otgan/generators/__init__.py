"""From a potential to new points."""

from otgan.generators.entropic import entropic_reg
from otgan.generators.fit import fit_generator
from otgan.generators.generator import EntropicGenerator, FitReport, Generator, NearestGenerator, NetworkGenerator

__all__ = [
    "EntropicGenerator",
    "FitReport",
    "Generator",
    "NearestGenerator",
    "NetworkGenerator",
    "entropic_reg",
    "fit_generator",
]
