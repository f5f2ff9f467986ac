"""The classifier two-sample test: can anything tell generated from real?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from otgan._checks import as_count
from otgan.metrics._points import Estimate, TooFewError, pair, random_rows

if TYPE_CHECKING:
    from otgan._checks import ArrayLike

_TREES, _LEAF = 100, 3


def c2st(
    a: ArrayLike,
    b: ArrayLike,
    *,
    classifier: Any = "trees",
    folds: int = 2,
    seed: int = 0,
) -> Estimate:
    """Classifier two-sample test: held-out accuracy of a classifier trained to tell a from b.

    The larger cloud is cut at random to the size of the smaller one. Points are shuffled into folds of equal class
    shares; each fold is classified by a copy of the classifier that was trained on the others, and the accuracy is
    that over all points. Coordinates are scaled to zero mean and unit variance with the training folds' figures.

    For clouds of one law it is 1/2 in the mean, whatever the classifier. Its standard deviation, N the points of both
    clouds, is ``(4 N)^(-1/2)`` for the parts of one split and up to 1.4 times that here, where folds serve both to
    train and to test. The power depends on the classifier: trees (the default) see differences of shape in any
    dimension, "logistic" shifts of the mean only, and those better.

    Args:
        a: (m, d), at least ``folds`` points.
        b: (n, d), likewise.
        classifier: "trees" (scikit-learn's ExtraTreesClassifier), "logistic", "knn", or an object of scikit-learn's
            interface (fit, predict, get_params), which is cloned.
        folds: at least 2.
        seed: of the cut, the folds and the built-in classifiers.

    Returns:
        Accuracy between 0 and 1, and its binomial standard error, which is that lower figure.

    Raises:
        ValueError: for bad shapes, NaN, too few points or an unknown classifier.

    Source:
        Lopez-Paz, Oquab, "Revisiting classifier two-sample tests" (ICLR 2017).
    """
    folds = as_count(folds, "folds", 2)
    rng = np.random.default_rng(as_count(seed, "seed"))
    x, y = pair(a, b)
    size = min(len(x), len(y))
    if size < folds:
        raise TooFewError(f"a and b hold {len(x)} and {len(y)} point(s), {folds} folds need at least {folds} of each.")
    from sklearn.base import clone
    from sklearn.model_selection import StratifiedKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    chosen = _classifier(classifier, size - size // folds, seed)
    points = np.concatenate([random_rows(cloud, size, rng).cpu().numpy() for cloud in (x, y)])
    labels = np.repeat([0, 1], size)
    split = StratifiedKFold(folds, shuffle=True, random_state=int(rng.integers(2**31)))
    right = 0
    for train, test in split.split(points, labels):
        fitted = make_pipeline(StandardScaler(), clone(chosen)).fit(points[train], labels[train])
        right += int((fitted.predict(points[test]) == labels[test]).sum())
    accuracy = right / (2 * size)
    return Estimate(accuracy, (accuracy * (1 - accuracy) / (2 * size)) ** 0.5)


def _classifier(given: Any, size: int, seed: int) -> Any:
    """A built-in classifier for ``size`` training points a class, or the caller's own."""
    if not isinstance(given, str):
        if not all(hasattr(given, name) for name in ("fit", "predict", "get_params")):
            raise TypeError(
                f"classifier must be 'trees', 'logistic', 'knn' or have fit, predict and get_params, got {given!r}."
            )
        return given
    if given == "trees":
        from sklearn.ensemble import ExtraTreesClassifier

        return ExtraTreesClassifier(_TREES, min_samples_leaf=_LEAF, n_jobs=-1, random_state=seed)
    if given == "logistic":
        from sklearn.linear_model import LogisticRegression

        return LogisticRegression(max_iter=1000)
    if given == "knn":
        from sklearn.neighbors import KNeighborsClassifier

        return KNeighborsClassifier(max(1, round(size**0.5)) | 1)
    raise ValueError(f"classifier must be 'trees', 'logistic', 'knn' or an estimator, got {given!r}.")
