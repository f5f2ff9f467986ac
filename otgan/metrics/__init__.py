"""Quality, coverage and memorisation of generated points, each number beside that of real points.

    result = og.metrics.evaluate(samples, test, train=train)
    print(result.table())

Every metric is a function of its own as well, on arrays or tensors of shape (m, d). None stores all pairs of points.
Images are measured in the features of a classifier, see :mod:`otgan.metrics.images`.
"""

from otgan.metrics._points import Estimate
from otgan.metrics.classifier import c2st
from otgan.metrics.copying import data_copying
from otgan.metrics.discrepancy import energy, median_distance, mmd2
from otgan.metrics.divergences import histograms, js_divergence, kl_divergence, w1
from otgan.metrics.evaluation import NAMES, Evaluation, Metric, evaluate
from otgan.metrics.frechet import frechet_distance
from otgan.metrics.images import (
    ImageClassifier,
    ImageEvaluation,
    ImageReference,
    StackedModes,
    count_stacked_modes,
    evaluate_images,
    fid,
    stack,
    train_classifier,
)
from otgan.metrics.manifold import PRDC, coverage, density, prdc, precision, recall
from otgan.metrics.memorisation import authenticity, copies, nearest_distance, nearest_ratio, train_share
from otgan.metrics.modes import Modes, count_modes, reverse_kl
from otgan.metrics.wasserstein import sliced_w2, w2

__all__ = [
    "NAMES",
    "PRDC",
    "Estimate",
    "Evaluation",
    "ImageClassifier",
    "ImageEvaluation",
    "ImageReference",
    "Metric",
    "Modes",
    "StackedModes",
    "authenticity",
    "c2st",
    "copies",
    "count_modes",
    "count_stacked_modes",
    "coverage",
    "data_copying",
    "density",
    "energy",
    "evaluate",
    "evaluate_images",
    "fid",
    "frechet_distance",
    "histograms",
    "js_divergence",
    "kl_divergence",
    "median_distance",
    "mmd2",
    "nearest_distance",
    "nearest_ratio",
    "prdc",
    "precision",
    "recall",
    "reverse_kl",
    "sliced_w2",
    "stack",
    "train_classifier",
    "train_share",
    "w1",
    "w2",
]
