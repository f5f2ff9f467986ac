"""All metrics of generated images, in the features of a classifier, each beside that of real images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from otgan._checks import as_count
from otgan.metrics.evaluation import NAMES, Evaluation, Metric, evaluate, rows_of
from otgan.metrics.images._pixels import as_pixels
from otgan.metrics.modes import reverse_kl

if TYPE_CHECKING:
    from otgan.metrics.images.classifier import ImageClassifier

IMAGE_NAMES = (
    *("precision", "recall", "density", "coverage", "frechet_distance", "data_copying", "authenticity"),
    *("nearest_distance", "nearest_ratio"),
)
"""What :func:`evaluate_images` measures when it is not told; it knows all of ``otgan.metrics.NAMES``."""
PIXEL_NAMES = ("data_copying", "authenticity", "nearest_distance", "nearest_ratio", "copies")
"""What it measures on the pixels themselves, on request."""

_MEMORY = {"data_copying", "authenticity", "nearest_distance", "nearest_ratio", "train_share", "copies"}


@dataclass(frozen=True)
class ImageEvaluation:
    """What :func:`evaluate_images` found; ``evaluation["frechet_distance"]`` is one :class:`otgan.metrics.Metric`.

    Attributes:
        features: metrics in the classifier's penultimate features.
        pixels: metrics in the space of pixels, levels in [0, 1]; None unless asked for.
        classes: "class_kl", the reverse KL of the samples' classes from the real images' as the classifier sees both,
            in nats; "confidence", the mean probability of the most probable class.
        histogram: share of the samples in each class.
        histogram_real: share of the real images (training images where there are any) in each class.
        shape: (c, h, w).
    """

    features: Evaluation
    pixels: Evaluation | None
    classes: tuple[Metric, ...]
    histogram: tuple[float, ...]
    histogram_real: tuple[float, ...]
    shape: tuple[int, int, int]

    def __getitem__(self, name: str) -> Metric:
        """By name; those of the pixels are called "pixel_" and their name."""
        for metric in self:
            if metric.name == name:
                return metric
        raise KeyError(f"no metric {name!r} here; there is {', '.join(metric.name for metric in self)}")

    def __iter__(self) -> Iterator[Metric]:
        yield from self.features
        yield from self.classes
        for metric in self.pixels or ():
            yield Metric(**(asdict(metric) | {"name": f"pixel_{metric.name}"}))

    def __len__(self) -> int:
        return len(self.features) + len(self.classes) + len(self.pixels or ())

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, for JSON: those of an :class:`otgan.metrics.Evaluation`, and what images have besides."""
        metrics = {m.name: {k: v for k, v in asdict(m).items() if k != "name"} | {"z": m.z} for m in self}
        return self.features.to_dict() | {
            "metrics": metrics,
            "shape": list(self.shape),
            "histogram": list(self.histogram),
            "histogram_real": list(self.histogram_real),
            "notes": list(self.features.notes + (self.pixels.notes if self.pixels else ())),
        }

    def table(self) -> str:
        """The metrics as lines of text, at most 80 columns wide."""
        from textwrap import wrap

        f, (c, h, w) = self.features, self.shape
        known = f"{f.n_samples:,} samples, {f.n_test:,} held-out and {f.n_train:,} training images, {c} x {h} x {w}"
        lines = [known, f"in {f.dim} features of a classifier:", *rows_of(f.metrics)]
        lines += ["classes, as the classifier sees them:", *rows_of(self.classes)[1:]]
        if self.pixels is not None:
            lines += ["in pixels, levels in [0, 1]:", *rows_of(self.pixels.metrics)[1:]]
        for note in dict.fromkeys(f.notes + (self.pixels.notes if self.pixels else ())):
            lines += wrap(note, 80)
        return "\n".join(lines)


class ImageReference:
    """Real images with their features, against which several sets of samples are measured.

    Args:
        test: real images that no generator saw, bytes or floats in [0, 1], shape (n, c, h, w).
        train: real images that generators learn from, (l, c, h, w); without them memorisation is not measured.
        classifier: what :func:`train_classifier` returned, trained on the training images.
    """

    def __init__(self, test: Any, train: Any | None, classifier: ImageClassifier) -> None:
        self.classifier = classifier
        self.test = as_pixels(test, "test", classifier.shape)
        self.train = None if train is None else as_pixels(train, "train", classifier.shape)
        self._test, real, confidence = _seen(classifier, self.test)
        self._confidence = confidence.double()
        self._train: Tensor | None = None
        if self.train is not None:
            self._train, real, _ = _seen(classifier, self.train)
        self._counts = real

    def evaluate(
        self,
        samples: Any,
        *,
        names: Sequence[str] | None = None,
        pixels: bool = False,
        seed: int = 0,
        n_null: int = 5,
    ) -> ImageEvaluation:
        """Measure one set of samples, see :func:`evaluate_images`."""
        new = as_pixels(samples, "samples", self.classifier.shape)
        features, counts, confidence = _seen(self.classifier, new)
        asked = list(IMAGE_NAMES) if names is None else names
        if names is None and self._train is None:
            asked = [name for name in asked if name not in _MEMORY]
        found = evaluate(
            features, self._test, train=self._train, names=asked, seed=as_count(seed, "seed"), n_null=n_null
        )
        beside = None
        if pixels:
            if self.train is None:
                raise ValueError("pixels are compared with the training images: pass train, or leave pixels out.")
            flat = [images.flatten(1).float() / 255.0 for images in (new, self.test, self.train)]
            beside = evaluate(flat[0], flat[1], train=flat[2], names=PIXEL_NAMES, seed=seed, n_null=n_null)
        return ImageEvaluation(
            features=found,
            pixels=beside,
            classes=(self._class_kl(counts, len(new)), self._sure(confidence.double())),
            histogram=tuple((counts / len(new)).tolist()),
            histogram_real=tuple((self._counts / self._counts.sum()).tolist()),
            shape=self.classifier.shape,
        )

    def _class_kl(self, counts: Tensor, m: int) -> Metric:
        # A class that no real image is in counts as half an image: the divergence stays finite.
        k, real = len(counts), int(self._counts.sum())
        value = reverse_kl(counts, self._counts.clamp(min=0.5))
        # Both histograms are samples: 2 KL / (1/m + 1/n) is nearly chi-squared with K - 1 degrees of freedom.
        noise = 1 / m + 1 / real
        return Metric("class_kl", value, (k - 1) * noise / 2, (2 * (k - 1)) ** 0.5 * noise / 2, "lower is better")

    def _sure(self, ours: Tensor) -> Metric:
        theirs = self._confidence
        spread = float(theirs.std()) if len(theirs) > 1 else 0.0
        spread *= (1 / len(ours) + 1 / len(theirs)) ** 0.5
        return Metric("confidence", float(ours.mean()), float(theirs.mean()), spread, "near null is best")


def evaluate_images(
    samples: Any,
    test: Any,
    train: Any | None,
    classifier: ImageClassifier,
    *,
    names: Sequence[str] | None = None,
    pixels: bool = False,
    seed: int = 0,
    n_null: int = 5,
) -> ImageEvaluation:
    """Quality, coverage and memorisation of images in a classifier's features, each beside that of real images.

    Features are compared as :func:`otgan.metrics.evaluate` compares points: every value stands beside the same metric
    of real images in the samples' place, at equal sizes. The Frechet distance here is **not an FID**: the formula is
    the same, the features are those of a classifier that was trained on this data, and its scale is its own. All
    images are rounded to 256 levels first, since a classifier (and Inception) can tell floats from bytes (Parmar,
    Zhang, Zhu, "On aliased resizing and surprising subtleties in GAN evaluation", CVPR 2022).

    Precision is lenient in such features, since a classifier puts what it never saw somewhere among its classes: of
    MNIST's digits turned into negatives 0.73 pass (of real ones 0.86). Read it with the Frechet distance (51 against
    0.35 there, for 3,000 images), density and coverage, which are not deceived.

    Args:
        samples: generated, bytes or floats in [0, 1], shape (m, c, h, w).
        test: held out, (n, c, h, w).
        train: that the generator was trained on, (l, c, h, w), or None: then memorisation is not measured.
        classifier: trained on the training images, see :func:`train_classifier`.
        names: metrics in the features, of ``otgan.metrics.NAMES``; :data:`IMAGE_NAMES` when left out.
        pixels: also look for memorisation in the space of pixels (:data:`PIXEL_NAMES`), which takes d = c h w numbers
            an image in double precision.
        seed: of all random numbers.
        n_null: real-against-real comparisons, at least 2.

    Raises:
        ValueError: for images of another shape than the classifier's, or as :func:`otgan.metrics.evaluate`.
    """
    if names is not None and (unknown := [name for name in names if name not in NAMES]):
        raise ValueError(f"unknown metric {unknown[0]!r}; there is {', '.join(NAMES)}.")
    reference = ImageReference(test, train, classifier)
    return reference.evaluate(samples, names=names, pixels=pixels, seed=seed, n_null=n_null)


@torch.no_grad()
def _seen(classifier: ImageClassifier, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Features (n, F), how many images are in each class (K,), and the probability of each image's own (n,)."""
    features, logits = classifier.features_and_logits(pixels)
    best, index = logits.softmax(dim=1).max(dim=1)
    return features, torch.bincount(index, minlength=classifier.n_classes).double().cpu(), best.cpu()
