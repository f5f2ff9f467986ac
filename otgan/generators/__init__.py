"""From a potential to new points."""

from otgan.generators._facets import Facets, SingularFacets
from otgan.generators.between import SampleCritic, critic_between
from otgan.generators.entropic import entropic_reg
from otgan.generators.extension import ExtensionGenerator
from otgan.generators.fit import fit_generator
from otgan.generators.generator import EntropicGenerator, FitReport, Generator, NearestGenerator, NetworkGenerator
from otgan.generators.local import LocalGenerator
from otgan.generators.model import OTGAN, Distance
from otgan.generators.selection import Judge, Score, held_out_score

__all__ = [
    "OTGAN",
    "Distance",
    "EntropicGenerator",
    "ExtensionGenerator",
    "Facets",
    "FitReport",
    "Generator",
    "Judge",
    "LocalGenerator",
    "NearestGenerator",
    "NetworkGenerator",
    "SingularFacets",
    "SampleCritic",
    "Score",
    "critic_between",
    "entropic_reg",
    "fit_generator",
    "held_out_score",
]
