"""Metrics of images: real ones are near every null, copies, noise and collapse are told by what should tell them."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch

import otgan as og
from otgan.metrics import ImageClassifier, ImageReference, evaluate_images
from otgan.metrics.images import IMAGE_NAMES, PIXEL_NAMES

QUALITY = ("precision", "recall", "density", "coverage", "frechet_distance")


@pytest.fixture(scope="module")
def reference(small: Any, classifier: ImageClassifier) -> ImageReference:
    """Half of the held-out digits are held out; the other half plays the perfect generator."""
    return ImageReference(small.test[:400], small.train, classifier)


def test_real_images_are_near_every_null(small: Any, reference: ImageReference) -> None:
    found = reference.evaluate(small.test[400:], pixels=True)
    names = [*IMAGE_NAMES, "class_kl", "confidence", *(f"pixel_{name}" for name in PIXEL_NAMES)]
    assert [metric.name for metric in found] == names and len(found) == len(names)
    for metric in found:
        assert abs(metric.z) < 8, metric  # a spread from five draws is coarse
    assert found.features.dim == 16 and found.shape == (1, 8, 8)
    assert sum(found.histogram) == pytest.approx(1.0) and len(found.histogram) == 10
    assert sum(found.histogram_real) == pytest.approx(1.0)


def test_values_are_those_of_the_functions(small: Any, classifier: ImageClassifier) -> None:
    x, test, train = small.test[500:], small.test[:200], small.train
    found = evaluate_images(x, test, train, classifier, seed=2, n_null=2)
    f = [classifier.features(images) for images in (x, test, train)]
    assert found["frechet_distance"].value == og.metrics.frechet_distance(f[0], f[1])
    assert found["precision"].value == og.metrics.precision(f[0], f[1])
    assert found["authenticity"].value == og.metrics.authenticity(f[0], f[2])
    assert found["data_copying"].value == og.metrics.data_copying(*f, seed=2).value
    sure = classifier.probabilities(x).amax(dim=1).double()
    assert found["confidence"].value == pytest.approx(float(sure.mean()))
    counts = np.bincount(classifier.classify(x).numpy(), minlength=10)
    np.testing.assert_allclose(found.histogram, counts / len(x))
    real = np.bincount(classifier.classify(train).numpy(), minlength=10)
    assert found["class_kl"].value == pytest.approx(og.metrics.reverse_kl(counts, real))
    floats = evaluate_images(x.double() / 255, test / 255, train, classifier, seed=2, n_null=2)
    assert floats == found


def test_copies_are_told_by_memorisation_only(small: Any, reference: ImageReference) -> None:
    found = reference.evaluate(small.train[:397], pixels=True)
    assert found["authenticity"].value < 0.05 and found["pixel_copies"].value == 1.0
    assert found["data_copying"].z < -5 and found["pixel_data_copying"].z < -5
    assert abs(found["frechet_distance"].z) < 10
    assert found["class_kl"].z < 5


def test_noise_and_collapse_are_told(small: Any, reference: ImageReference) -> None:
    noise = torch.randint(0, 256, (300, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    found = reference.evaluate(noise)
    assert found["frechet_distance"].z > 20
    assert found["recall"].value < 0.5 and found["coverage"].value < 0.5
    assert found["confidence"].z < -10
    zeros = small.test[400:][small.test_labels[400:] == 0]
    found = reference.evaluate(zeros)
    assert found["class_kl"].value > 1.5 and found["class_kl"].z > 20
    assert found["coverage"].value < 0.3 and found["recall"].value < 0.4
    assert found["precision"].value > 0.8
    assert found.histogram[0] > 0.9


def test_the_null_of_the_classes_is_calibrated(small: Any, classifier: ImageClassifier) -> None:
    rng = np.random.default_rng(0)
    reference = ImageReference(small.test[:50], None, classifier)
    real = torch.from_numpy(rng.multinomial(3000, np.full(10, 0.1))).double()
    z = []
    for _ in range(300):
        reference._counts = torch.from_numpy(rng.multinomial(3000, np.full(10, 0.1))).double()
        z.append(reference._class_kl(torch.from_numpy(rng.multinomial(800, np.full(10, 0.1))), 800).z)
    assert abs(np.mean(z)) < 0.2 and 0.8 < np.std(z) < 1.2
    reference._counts = real.clone()
    reference._counts[3] = 0.0  # a class without a real image
    assert np.isfinite(reference._class_kl(torch.full((10,), 80.0), 800).value)


def test_without_training_images(small: Any, classifier: ImageClassifier) -> None:
    found = evaluate_images(small.test[:300], small.test[300:], None, classifier, n_null=2)
    assert [metric.name for metric in found] == [*QUALITY, "class_kl", "confidence"]
    assert found.features.n_train == 0
    with pytest.raises(ValueError, match="pass train"):
        evaluate_images(small.test[:300], small.test[300:], None, classifier, pixels=True)


def test_text_and_json(small: Any, reference: ImageReference) -> None:
    found = reference.evaluate(small.test[400:], names=["energy", "copies"], pixels=True, n_null=2)
    lines = found.table().splitlines()
    assert max(map(len, lines)) <= 80
    assert "397 samples, 400 held-out and 1,000 training images, 1 x 8 x 8" in lines[0]
    assert any(line.startswith("class_kl") for line in lines)
    plain = json.loads(json.dumps(found.to_dict()))
    assert plain["metrics"]["pixel_authenticity"]["value"] == found["pixel_authenticity"].value
    assert plain["metrics"]["energy"]["direction"] == "lower is better"
    assert len(plain["histogram"]) == 10
    with pytest.raises(KeyError, match="no metric 'fid'"):
        found["fid"]


def test_errors(small: Any, classifier: ImageClassifier) -> None:
    with pytest.raises(ValueError, match="unknown metric 'fid'"):
        evaluate_images(small.test, small.test, None, classifier, names=["fid"])
    with pytest.raises(ValueError, match=r"samples has images of shape \(3, 8, 8\)"):
        evaluate_images(small.test.expand(-1, 3, -1, -1), small.test, None, classifier)
