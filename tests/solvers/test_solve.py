"""The one verb: its choices and its refusals."""

import numpy as np
import pytest
import torch

import otgan as og


def test_says_what_it_picked_and_why():
    y = np.random.default_rng(0).random((10, 2))
    assert "network simplex" in og.solve(og.Empirical(y), y + 1).reason
    sampled = og.solve(og.Gaussian(5), np.random.default_rng(0).random((10, 5)), tol=0.1)
    assert "Picked" in sampled.reason and sampled.method in sampled.summary()
    assert "asked for" in og.solve(og.Gaussian(2), y, method="adam", tol=0.1).reason


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda y: og.solve(y, y), TypeError, "og.Empirical"),
        (lambda y: og.solve(og.Gaussian(3), y), ValueError, "dimension 3 but"),
        (lambda y: og.solve(og.Gaussian(2), y, method="sinkhorn"), ValueError, "adam"),
        (lambda y: og.solve(og.Gaussian(2), y, method="adam", learning_rate=1), TypeError, "learning_rate.*knows.*lr"),
        (lambda y: og.solve(og.Gaussian(2), y, tol=0), ValueError, "tol"),
        (lambda y: og.solve(og.Gaussian(2), y, tol=float("nan")), ValueError, "tol"),
        (lambda y: og.solve(og.Gaussian(2), y, max_time=-1), ValueError, "max_time"),
        (lambda y: og.solve(og.Gaussian(2), y, max_iter=0), ValueError, "max_iter"),
        (lambda y: og.solve(og.Gaussian(2), y, seed=-1), ValueError, "seed"),
        (lambda y: og.solve(og.Gaussian(2), y, seed=0.5), TypeError, "seed"),
        (lambda y: og.solve(og.Gaussian(2), y, on_failure="ignore"), ValueError, "on_failure"),
        (lambda y: og.solve(og.Gaussian(2), y * np.nan), ValueError, "NaN"),
        (lambda y: og.solve(og.Gaussian(2), y[:0]), ValueError, "empty"),
    ],
)
def test_refusals_are_sentences(call, error, words):
    with pytest.raises(error, match=words):
        call(np.random.default_rng(0).random((10, 2)))


def test_float32_targets_stay_float32():
    y = np.random.default_rng(0).random((10, 2)).astype(np.float32)
    result = og.solve(og.Gaussian(2), y, method="adam", tol=0.1)
    assert result.potential.points.dtype == torch.float32
    assert result.potential.transport(og.Gaussian(2).sample(3, seed=0)).dtype == torch.float32


def test_duplicates_share_one_cell_and_lead_back():
    y = np.array([[0.0, 0.0], [1.0, 1.0], [0.0, 0.0], [2.0, 0.0]])
    result = og.solve(og.UniformBox(dim=2), y, method="adam", tol=1e-3)
    assert result.potential.n == 3 and result.potential.weights.tolist() == [0.5, 0.25, 0.25]
    assert result.target.expand(result.potential.heights).shape == (4,)


@pytest.mark.parametrize("method", [None, 3, og.Gaussian, "Adam"])
def test_methods_that_are_none(method):
    with pytest.raises((TypeError, ValueError), match="method"):
        og.solve(og.Gaussian(2), np.eye(2), method=method)


def test_ctrl_c_before_the_first_step_still_returns_a_result():
    class Sleepy:
        name = "sleepy"

        def default_tol(self, target):
            return 1.0

        def __call__(self, problem, tol, clock, callback):
            raise KeyboardInterrupt

    result = og.solve(og.Gaussian(2), np.eye(2), method=Sleepy())
    assert result.status == "interrupted" and result.potential.n == 2


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"method": "adam", "lr": "x"}, "lr must be a number"),
        ({"method": "adam", "batch": 1.5}, "batch must be an integer"),
        ({"method": "adam", "speed": 3}, "has no setting speed"),
    ],
)
def test_a_setting_of_a_wrong_kind_is_told_from_an_unknown_one(settings, said):
    with pytest.raises(TypeError, match=said):
        og.solve(og.Gaussian(3), np.eye(3), **settings)
