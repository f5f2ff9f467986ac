"""From a source and a target to the heights of the Brenier potential; ``solve`` picks the method."""

from otgan.solvers.adam import Adam
from otgan.solvers.discrete import Discrete
from otgan.solvers.dispatch import SOLVERS, solve
from otgan.solvers.exact import Newton
from otgan.solvers.quantization import Quantization, quantize
from otgan.solvers.result import ConvergenceError, Plan, Result
from otgan.solvers.stochastic import StochasticNewton

__all__ = [
    "SOLVERS",
    "Adam",
    "ConvergenceError",
    "Discrete",
    "Newton",
    "Plan",
    "Quantization",
    "Result",
    "StochasticNewton",
    "quantize",
    "solve",
]
