"""From heights to cells: measures, moments and Hessian of the power diagram, exact in one to three dimensions."""

from otgan.cells.base import CellMoments, ExactCells
from otgan.cells.factory import exact_cells, has_exact_cells, require_exact_cells

__all__ = ["CellMoments", "ExactCells", "exact_cells", "has_exact_cells", "require_exact_cells"]
