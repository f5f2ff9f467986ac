"""Stacked images: what is stacked, the exact null, and sets that miss modes."""

from __future__ import annotations

import math
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch

from otgan.metrics import ImageClassifier, count_stacked_modes, stack
from otgan.metrics.images import count_triples
from otgan.metrics.images.stacked import plug_in_kl


def triples(m: int, seed: int = 0, k: int = 10) -> torch.Tensor:
    return torch.randint(k, (m, 3), generator=torch.Generator().manual_seed(seed))


def test_channels_are_the_images_that_their_numbers_name(small: Any) -> None:
    found = stack(small.train, 500, seed=3)
    assert found.pixels.shape == (500, 3, 8, 8) and found.pixels.dtype == torch.uint8
    for channel in range(3):
        assert torch.equal(found.pixels[:, channel], small.train[found.numbers[:, channel], 0])
    assert torch.equal(stack(small.train[:, 0], 500, seed=3).numbers, found.numbers)
    assert not torch.equal(stack(small.train, 500, seed=4).numbers, found.numbers)
    whole = stack(small.train[:7], 7000).numbers
    counts = torch.stack([torch.bincount(whole[:, c], minlength=7) for c in range(3)]).double()
    assert float(((counts - 1000) ** 2 / 1000).sum()) < 45  # chi-squared with 18 degrees of freedom: p < 0.001
    with pytest.raises(ValueError, match="must be grey"):
        stack(small.train.expand(-1, 3, -1, -1), 5)


@pytest.mark.parametrize(("m", "weights"), [(1, [0.5, 0.5]), (4, [0.2, 0.3, 0.5]), (7, [0.6, 0.1, 0.3])])
def test_expected_kl_is_that_of_all_outcomes(m: int, weights: list[float]) -> None:
    b, r = np.array(weights), np.full(len(weights), 1 / len(weights))
    mean = 0.0
    for outcome in product(range(len(b)), repeat=m):
        q = np.bincount(outcome, minlength=len(b)) / m
        mean += np.prod(b[list(outcome)]) * (q[q > 0] * np.log(q[q > 0] / r[q > 0])).sum()
    assert plug_in_kl(b, r, m)[0] == pytest.approx(mean, rel=1e-12)


@pytest.mark.parametrize("m", [300, 5000])
def test_expected_kl_and_its_deviation_are_those_of_draws(m: int) -> None:
    b = np.random.default_rng(0).dirichlet(np.full(200, 5.0))
    r = np.full(200, 1 / 200)
    q = np.random.default_rng(1).multinomial(m, b, size=2000) / m
    kl = np.where(q > 0, q * np.log(np.maximum(q, 1e-300) / r), 0.0).sum(axis=1)
    mean, std = plug_in_kl(b, r, m)
    assert mean == pytest.approx(kl.mean(), abs=4 * kl.std() / 2000**0.5)
    assert std == pytest.approx(kl.std(), rel=0.08)


def test_the_protocol_s_floor() -> None:
    found = count_triples(triples(26_000), 10)
    assert (found.captured, found.n_modes) == (1000, 1000)
    assert found.captured_null == pytest.approx(1000, abs=1e-6)
    assert found.kl_null == pytest.approx(999 / 52_000, rel=0.01)
    assert found.kl == pytest.approx(found.kl_null, abs=4 * found.kl_null_std)
    assert found.kl_data == pytest.approx(found.kl, rel=1e-12) and sum(found.histogram) == pytest.approx(1.0)


def test_fewer_samples_have_another_floor() -> None:
    found = count_triples(triples(2000), 10)
    assert found.captured_null == pytest.approx(1000 * (1 - 0.999**2000))
    assert found.captured == pytest.approx(found.captured_null, abs=4 * 10)
    assert found.kl == pytest.approx(found.kl_null, abs=4 * found.kl_null_std)
    assert found.kl_null > 1.1 * 999 / 4000  # the customary (K - 1) / 2 m no longer holds


def test_unequal_classes_have_another_floor() -> None:
    b = np.array([0.4, 0.3, 0.2, 0.1])
    drawn = torch.from_numpy(np.random.default_rng(0).choice(4, size=(20_000, 3), p=b))
    found = count_triples(drawn, 4, class_weights=b)
    exact = 3 * float((b * np.log(4 * b)).sum())
    assert found.kl == pytest.approx(exact, rel=0.05)
    assert found.kl == pytest.approx(found.kl_null, abs=4 * found.kl_null_std)
    assert found.kl_data == pytest.approx(63 / 40_000, rel=0.8)
    assert found.kl_data_null == pytest.approx(63 / 40_000, rel=0.05)


def test_collapse_is_counted() -> None:
    one = count_triples(torch.tensor([[3, 1, 4]]).repeat(500, 1), 10)
    assert one.captured == 1 and one.kl == pytest.approx(math.log(1000)) and one.histogram[314] == 1.0
    no_sevens = triples(26_000)
    no_sevens[:, 1] = torch.where(no_sevens[:, 1] == 7, 5, no_sevens[:, 1])  # a channel without sevens
    found = count_triples(no_sevens, 10)
    assert found.captured == 900
    assert found.kl - found.kl_null == pytest.approx(0.2 * math.log(2), rel=0.05)  # fives twice as often
    tied = triples(26_000)[:, :1].expand(-1, 3)  # all channels show one digit
    assert count_triples(tied, 10).captured == 10


def test_real_triples_through_the_classifier(small: Any, classifier: ImageClassifier) -> None:
    found = count_stacked_modes(stack(small.test, 3000, seed=1).pixels, classifier)
    assert found.captured == pytest.approx(found.captured_null, abs=40)
    assert found.kl == pytest.approx(found.kl_null, rel=0.15)
    # Without four of the ten digits 216 modes are left; wrong classes add rare ones, which the KL hardly counts.
    some = small.test[torch.from_numpy(small.test_labels < 6)]
    collapsed = count_stacked_modes(stack(some, 3000, seed=1).pixels, classifier)
    assert collapsed.kl > math.log(1000 / 216) - 0.25
    assert "of 1000" in collapsed.table() and max(map(len, collapsed.table().splitlines())) <= 80
    assert len(collapsed.to_dict()["histogram"]) == 1000


def test_errors(small: Any, classifier: ImageClassifier) -> None:
    with pytest.raises(ValueError, match=r"expected \(c, h, w\) = \(3, 8, 8\)"):
        count_stacked_modes(small.test, classifier)
    with pytest.raises(ValueError, match="grey"):
        count_stacked_modes(small.test, ImageClassifier((3, 8, 8), 10))
    with pytest.raises(ValueError, match=r"shape \(m, 3\)"):
        count_triples(torch.zeros(4, 2, dtype=torch.int64), 10)
    with pytest.raises(ValueError, match="0 to 9, got 0 to 10"):
        count_triples(torch.tensor([[0, 10, 3]]), 10)


@pytest.mark.slow
def test_stacked_mnist(mnist: Any, mnist_classifier: ImageClassifier) -> None:
    """The protocol's floor with real held-out digits: all modes, and the KL of as many samples of the law."""
    weights = np.bincount(mnist.test_labels) / len(mnist.test_labels)
    pixels = stack(mnist.test, 26_000, seed=0).pixels
    found = count_stacked_modes(pixels, mnist_classifier, class_weights=weights)
    assert found.captured == 1000
    assert found.kl == pytest.approx(found.kl_null, abs=5 * found.kl_null_std)
