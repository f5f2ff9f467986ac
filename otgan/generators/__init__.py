"""From a potential to new points."""

from otgan.generators._facets import Facets, SingularFacets
from otgan.generators.entropic import entropic_reg
from otgan.generators.extension import ExtensionGenerator
from otgan.generators.fit import fit_generator
from otgan.generators.generator import EntropicGenerator, FitReport, Generator, NearestGenerator, NetworkGenerator
from otgan.generators.model import OTGAN, Distance

__all__ = [
    "OTGAN",
    "Distance",
    "EntropicGenerator",
    "ExtensionGenerator",
    "Facets",
    "FitReport",
    "Generator",
    "NearestGenerator",
    "NetworkGenerator",
    "SingularFacets",
    "entropic_reg",
    "fit_generator",
]
