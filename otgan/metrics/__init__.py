"""Quality, coverage and memorisation of generated points, each number beside that of real points.

    result = og.metrics.evaluate(samples, test, train=train)
    print(result.table())

Every metric is a function of its own as well, on arrays or tensors of shape (m, d). None stores all pairs of points.
"""

from otgan.metrics._points import Estimate
from otgan.metrics.classifier import c2st
from otgan.metrics.copying import data_copying
from otgan.metrics.discrepancy import energy, median_distance, mmd2
from otgan.metrics.divergences import histograms, js_divergence, kl_divergence, w1
from otgan.metrics.evaluation import NAMES, Evaluation, Metric, evaluate
from otgan.metrics.manifold import PRDC, coverage, density, prdc, precision, recall
from otgan.metrics.memorisation import authenticity, copies, nearest_distance, nearest_ratio, train_share
from otgan.metrics.modes import Modes, count_modes, reverse_kl
from otgan.metrics.wasserstein import sliced_w2, w2

__all__ = [
    "NAMES",
    "PRDC",
    "Estimate",
    "Evaluation",
    "Metric",
    "Modes",
    "authenticity",
    "c2st",
    "copies",
    "count_modes",
    "coverage",
    "data_copying",
    "density",
    "energy",
    "evaluate",
    "histograms",
    "js_divergence",
    "kl_divergence",
    "mmd2",
    "median_distance",
    "nearest_distance",
    "nearest_ratio",
    "prdc",
    "precision",
    "recall",
    "reverse_kl",
    "sliced_w2",
    "train_share",
    "w1",
    "w2",
]
