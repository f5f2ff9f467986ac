"""Generated images: a classifier of one's own, metrics in its features, stacked images, and the FID.

    classifier = og.metrics.train_classifier(train, labels)
    print(og.metrics.evaluate_images(samples, test, train, classifier).table())

Images are bytes, or floats in [0, 1], of shape (n, c, h, w).
"""

from otgan.metrics.images.classifier import ClassifierReport, ClassifierState, ImageClassifier, train_classifier
from otgan.metrics.images.evaluation import IMAGE_NAMES, PIXEL_NAMES, ImageEvaluation, ImageReference, evaluate_images
from otgan.metrics.images.inception import fid
from otgan.metrics.images.stacked import Stacked, StackedModes, count_stacked_modes, count_triples, stack

__all__ = [
    "IMAGE_NAMES",
    "PIXEL_NAMES",
    "ClassifierReport",
    "ClassifierState",
    "ImageClassifier",
    "ImageEvaluation",
    "ImageReference",
    "Stacked",
    "StackedModes",
    "count_stacked_modes",
    "count_triples",
    "evaluate_images",
    "fid",
    "stack",
    "train_classifier",
]
