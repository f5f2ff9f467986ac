"""From a source and a target to the heights of the Brenier potential; ``solve`` picks the method."""

from otgan.solvers.adam import Adam
from otgan.solvers.discrete import Discrete
from otgan.solvers.dispatch import SOLVERS, solve
from otgan.solvers.exact import Newton
from otgan.solvers.quantization import Quantization, quantize
from otgan.solvers.result import ConvergenceError, Plan, Result

__all__ = [
    "SOLVERS",
    "Adam",
    "ConvergenceError",
    "Discrete",
    "Newton",
    "Plan",
    "Quantization",
    "Result",
    "quantize",
    "solve",
]
