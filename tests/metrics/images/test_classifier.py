"""The classifier: it learns, the seed decides, it is saved whole, and it says what it cannot take."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import otgan as og
from otgan.images import Images
from otgan.metrics import ImageClassifier, train_classifier
from otgan.metrics.images import ClassifierState
from otgan.metrics.images._pixels import as_pixels
from otgan.metrics.images.classifier import rate, shifted


def test_it_learns_digits(small: Any, classifier: ImageClassifier) -> None:
    assert classifier.accuracy(small.test, small.test_labels) > 0.94
    wrong = (small.test_labels + 1) % 10
    assert classifier.accuracy(small.test, wrong) < 0.03
    report = classifier.report
    assert report is not None and report.status == "finished"
    assert [row["epoch"] for row in report.history] == [float(k) for k in range(1, 11)]
    assert report.history[-1]["loss"] < 0.3 * report.history[0]["loss"]
    assert report.history[-1]["accuracy"] > 0.95
    assert not classifier.training


def test_features_are_what_the_last_layer_sees(small: Any, classifier: ImageClassifier) -> None:
    some = small.test[:50]
    found = classifier.features(some)
    assert found.shape == (50, 16) and found.dtype == torch.float32 and float(found.min()) >= 0.0
    logits = found @ classifier.head.weight.T + classifier.head.bias
    assert torch.equal(logits.argmax(dim=1), classifier.classify(some))
    torch.testing.assert_close(classifier.probabilities(some), logits.softmax(dim=1))
    with torch.no_grad():
        torch.testing.assert_close(classifier(some.float() / 255), logits, rtol=1e-4, atol=1e-4)
    # Blocks and the module's mode do not matter, and the mode is left as it was.
    many = some.repeat(30, 1, 1, 1)
    classifier.train()
    try:
        torch.testing.assert_close(classifier.features(many)[-50:], found, rtol=1e-4, atol=1e-5)
        assert classifier.training
    finally:
        classifier.eval()


def test_floats_arrays_and_grey_stacks_are_the_same_images(small: Any, classifier: ImageClassifier) -> None:
    some = small.test[:20]
    for same in (some.float() / 255, some.double() / 255, (some / 255).numpy(), some.numpy(), some[:, 0]):
        assert torch.equal(classifier.features(same), classifier.features(some))
    assert torch.equal(classifier.features(Images(some)), classifier.features(some))


def test_the_seed_decides_and_global_randomness_is_left_alone(small: Any) -> None:
    x, y = small.train[:200], small.train_labels[:200]
    torch.manual_seed(1)
    before = torch.random.get_rng_state()

    def weights(seed: int) -> torch.Tensor:
        made = train_classifier(x, y, n_classes=10, epochs=1, batch=50, width=4, n_features=8, seed=seed)
        return torch.cat([p.detach().flatten() for p in made.parameters()])

    first = weights(3)
    torch.rand(5)
    assert torch.equal(first, weights(3))
    assert not torch.allclose(first, weights(4))
    torch.manual_seed(1)
    assert torch.equal(before, torch.random.get_rng_state())
    ImageClassifier((1, 8, 8), 3)
    assert torch.equal(before, torch.random.get_rng_state())


def test_saved_and_loaded(small: Any, classifier: ImageClassifier, tmp_path: Any) -> None:
    classifier.save(tmp_path)
    again = og.load(tmp_path)
    assert isinstance(again, ImageClassifier) and not again.training
    assert torch.equal(again.features(small.test), classifier.features(small.test))
    assert again.report == classifier.report
    untrained = ImageClassifier((3, 16, 9), 4, width=2, n_features=3, seed=5)
    untrained.save(tmp_path / "other")
    images = torch.randint(0, 256, (7, 3, 16, 9), dtype=torch.uint8)
    assert torch.equal(og.load(tmp_path / "other").features(images), untrained.features(images))


def test_callbacks_see_it_and_stop_it(small: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[ClassifierState] = []

    def stop(state: ClassifierState) -> bool:
        seen.append(state)
        return len(seen) == 2

    made = train_classifier(small.train, small.train_labels, epochs=5, width=2, callback=stop)
    assert [state.epoch for state in seen] == [1.0, 2.0]
    assert made.report is not None and made.report.status == "stopped" and not made.training

    def interrupt(state: ClassifierState) -> None:
        raise KeyboardInterrupt

    made = train_classifier(small.train, small.train_labels, epochs=5, width=2, callback=interrupt)
    assert made.report is not None and made.report.status == "interrupted"


def test_shifts_move_each_image_by_itself() -> None:
    images = torch.randint(0, 256, (40, 2, 9, 7), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    moved = shifted(images, 2, torch.Generator().manual_seed(1))
    assert moved.shape == images.shape
    padded = torch.nn.functional.pad(images.float(), (2, 2, 2, 2), mode="replicate")
    places = set()
    for image, wide in zip(moved, padded, strict=True):
        windows = {(i, j): wide[:, i : i + 9, j : j + 7] for i in range(5) for j in range(5)}
        (place,) = [key for key, window in windows.items() if torch.equal(window, image.float())]
        places.add(place)
    assert len(places) > 12
    assert shifted(images, 0, torch.Generator()) is images


def test_the_rate_rises_and_falls_once() -> None:
    values = np.array([rate(t) for t in np.linspace(0, 1, 101)])
    assert values.max() == pytest.approx(1.0, abs=1e-9) and values.argmax() == 20
    assert (np.diff(values)[:20] > 0).all() and (np.diff(values)[20:] < 0).all()
    assert values[-1] == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize(
    ("images", "error", "words"),
    [
        (np.zeros((2, 3)), ValueError, r"must have shape \(n, c, h, w\)"),
        (np.zeros((0, 1, 8, 8)), ValueError, "no image"),
        (np.full((2, 1, 8, 8), 1.5), ValueError, r"levels from 1.5 to 1.5; floats must lie in \[0, 1\]"),
        (np.full((2, 1, 8, 8), np.nan), ValueError, "levels from nan"),
        (np.zeros((2, 1, 8, 8), dtype=np.int64), TypeError, "int64"),
        (torch.zeros(2, 1, 8, 8, dtype=torch.int32), TypeError, "int32"),
        ([["a"]], TypeError, "must be bytes"),
        (np.zeros((2, 1, 8, 9)), ValueError, r"expected \(c, h, w\) = \(1, 8, 8\)"),
    ],
)
def test_what_is_no_image_is_refused(images: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        as_pixels(images, "images", (1, 8, 8))


def test_bad_settings_are_refused(small: Any) -> None:
    x, y = small.train[:20], small.train_labels[:20]
    with pytest.raises(ValueError, match="labels must be 20 whole numbers"):
        train_classifier(x, y[:5])
    with pytest.raises(ValueError, match="allows 0 to 1"):
        train_classifier(x, y, n_classes=2)
    with pytest.raises(ValueError, match="classes 0, 1"):
        train_classifier(x, y - 5)
    with pytest.raises(ValueError, match="at least 2"):
        train_classifier(x[:1], y[:1])
    with pytest.raises(ValueError, match="shape must be at least 8"):
        ImageClassifier((1, 7, 8), 10)
    with pytest.raises(ValueError, match="n_classes must be at least 2"):
        ImageClassifier((1, 8, 8), 1)


@pytest.mark.slow
def test_mnist_in_two_passes(mnist: Any, mnist_classifier: ImageClassifier) -> None:
    """Measured 0.994; chance alone moves it by 0.001."""
    assert mnist_classifier.accuracy(mnist.test, mnist.test_labels) > 0.99
