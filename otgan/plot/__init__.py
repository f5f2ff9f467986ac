"""Figures: power diagrams, singular facets, cells in space, transport maps, convergence, masses, stippling, images.

Every function draws into ``ax`` (a new figure when left out), returns the :class:`matplotlib.axes.Axes` and never shows
anything; save with ``ax.figure.savefig(...)``.
"""

from otgan.plot.cells_3d import cells_3d
from otgan.plot.class_histogram import class_histogram
from otgan.plot.convergence import convergence
from otgan.plot.images import beside, image_grid
from otgan.plot.mass_histogram import mass_histogram
from otgan.plot.nearest import nearest_images, nearest_points
from otgan.plot.power_diagram import power_diagram
from otgan.plot.singular_set import singular_set
from otgan.plot.stippling import stippling
from otgan.plot.surface_map import surface_map
from otgan.plot.transport_map import transport_map

__all__ = [
    "beside",
    "cells_3d",
    "class_histogram",
    "convergence",
    "image_grid",
    "mass_histogram",
    "nearest_images",
    "nearest_points",
    "power_diagram",
    "singular_set",
    "stippling",
    "surface_map",
    "transport_map",
]
