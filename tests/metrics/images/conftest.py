"""Small real digits, and a classifier of them."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch

from otgan.datasets import digits
from otgan.images import mnist as read_mnist
from otgan.metrics import ImageClassifier, train_classifier


class Digits(NamedTuple):
    train: torch.Tensor
    train_labels: np.ndarray
    test: torch.Tensor
    test_labels: np.ndarray


@pytest.fixture(scope="package")
def small() -> Digits:
    """1,000 of scikit-learn's digits to learn from, 797 held out, as bytes (n, 1, 8, 8)."""
    images, labels = digits()
    pixels = torch.from_numpy((images * 255 / 16).round().astype(np.uint8).reshape(-1, 1, 8, 8))
    order = np.random.default_rng(0).permutation(len(images))
    train, test = order[:1000], order[1000:]
    return Digits(pixels[train], labels[train], pixels[test], labels[test])


@pytest.fixture(scope="package")
def classifier(small: Digits) -> ImageClassifier:
    return train_classifier(small.train, small.train_labels, epochs=10, batch=50, shift=0, width=8, n_features=16)


@pytest.fixture(scope="package")
def mnist(data_dir: Path) -> Digits:
    """All of MNIST."""
    folder = data_dir / "mnist"
    if not folder.is_dir():
        pytest.skip(f"no MNIST: there is no {folder}")
    train, test = (read_mnist(part, folder) for part in (True, False))
    assert train.labels is not None and test.labels is not None
    return Digits(train.pixels, train.labels.numpy(), test.pixels, test.labels.numpy())


@pytest.fixture(scope="package")
def mnist_classifier(mnist: Digits) -> ImageClassifier:
    return train_classifier(mnist.train, mnist.train_labels, epochs=2)
