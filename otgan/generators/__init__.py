"""From a potential to new points."""

from otgan.generators.entropic import entropic_reg

__all__ = ["entropic_reg"]
