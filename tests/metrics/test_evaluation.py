"""All metrics at once: nulls, directions, what is left out, and the text."""

from __future__ import annotations

import dataclasses
import json
import math
import subprocess
import sys

import numpy as np
import pytest
import torch

import otgan as og
from otgan.metrics.evaluation import NAMES

M = og.metrics
FAST = [name for name in NAMES if name not in ("c2st", "w2")]
MEMORY = ("data_copying", "authenticity", "nearest_distance", "nearest_ratio", "train_share", "copies")


def normal(m: int, d: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(m, d))


TRAIN, TEST = normal(500, 2, 1), normal(300, 2, 2)


def test_fresh_samples_are_near_every_null() -> None:
    found = M.evaluate(normal(300, 2), TEST, train=TRAIN)
    assert [metric.name for metric in found] == [name for name in NAMES if name not in ("w2", "frechet_distance")]
    assert found.sizes == (300, 300)
    for metric in found:
        assert abs(metric.z) < 8, metric  # a spread from five draws is coarse
    assert found["c2st"].null == pytest.approx(0.5, abs=0.06)
    assert found["density"].null == pytest.approx(1.0, abs=0.15)
    assert found["train_share"].null == pytest.approx(0.5, abs=0.1)
    assert found["data_copying"].null == pytest.approx(0.0, abs=0.2)
    assert found["data_copying"].null_spread == pytest.approx(2**-0.5, rel=0.5)
    assert found["authenticity"].null == M.authenticity(TEST, TRAIN)
    assert found["nearest_distance"].null == M.nearest_distance(TEST, TRAIN)
    assert (found["copies"].value, found["copies"].null, found["copies"].z) == (0, 0, 0)


def test_values_are_those_of_the_functions() -> None:
    x = normal(300, 2) * 1.1
    found = M.evaluate(x, TEST, train=TRAIN, seed=4, names=FAST, n_null=2)
    for name in ("precision", "recall", "density", "coverage"):
        assert found[name].value == getattr(M, name)(x, TEST)
    for name in ("authenticity", "nearest_distance", "nearest_ratio", "copies"):
        assert found[name].value == getattr(M, name)(x, TRAIN)
    assert found["sliced_w2"].value == M.sliced_w2(x, TEST, seed=4).value
    assert found["sliced_w2"].stderr == M.sliced_w2(x, TEST, seed=4).stderr
    assert found["energy"].value == M.energy(x, TEST)
    width = M.median_distance(np.concatenate([TEST, TRAIN]), seed=4)
    assert found["mmd2"].value == pytest.approx(M.mmd2(x, TEST, bandwidth=width))
    assert found["data_copying"].value == M.data_copying(x, TEST, TRAIN, seed=4).value
    assert found["train_share"].value == M.train_share(x, TRAIN, TEST, seed=4)


def test_copies_are_told_by_memorisation_and_by_nothing_else() -> None:
    found = M.evaluate(TRAIN[:300], TEST, train=TRAIN, names=FAST)
    for name in ("sliced_w2", "energy", "mmd2", "precision", "coverage"):
        assert abs(found[name].z) < 8
    assert found["data_copying"].z < -5
    assert (found["authenticity"].value, found["copies"].value) == (0, 1)
    assert found["train_share"].value > 0.7  # three in five originals are among the 300 training points compared
    assert found["copies"].z == math.inf
    assert found["nearest_distance"].z < -5


def test_a_collapsed_generator_fails_everywhere_but_in_precision() -> None:
    found = M.evaluate(0.01 * normal(300, 2), TEST, train=TRAIN, names=FAST)
    for name in ("sliced_w2", "energy", "mmd2"):
        assert found[name].z > 5
    for name in ("recall", "coverage"):
        assert found[name].z < -5
    assert found["precision"].value == 1
    assert M.evaluate(np.zeros((300, 2)), TEST, train=TRAIN, names=["c2st"], n_null=2)["c2st"].value > 0.9


def test_null_of_two_clouds_is_calibrated() -> None:
    z = [
        M.evaluate(normal(80, 2, s), normal(80, 2, 300 + s), train=normal(160, 2, 600 + s), names=["energy"], n_null=20)
        ["energy"].z
        for s in range(60)
    ]  # fmt: skip
    assert abs(np.mean(z)) < 0.7
    assert 0.6 < np.std(z) < 1.8


def test_without_training_points_memorisation_is_left_out_and_sizes_are_halved() -> None:
    found = M.evaluate(normal(300, 2), TEST, names=FAST)
    assert not {metric.name for metric in found} & set(MEMORY)
    assert found.sizes == (150, 150)
    assert found.n_train == 0
    text = found.table()
    assert "for want of training points" in text
    assert "150 and 150" in text
    assert abs(found["sliced_w2"].z) < 8
    assert M.evaluate(normal(50, 2), TEST, names=["energy"]).sizes == (50, 250)


def test_few_points_are_noted_or_refused() -> None:
    found = M.evaluate(normal(10, 2), TEST, train=TRAIN, n_null=2)
    assert "data_copying" not in [metric.name for metric in found]
    assert any("no cell holds" in note for note in found.notes)
    with pytest.raises(ValueError, match="no cell holds"):
        M.evaluate(normal(10, 2), TEST, train=TRAIN, names=["data_copying"])
    few = M.evaluate(normal(3, 2), normal(3, 2, 1), train=normal(1, 2, 2), n_null=2)
    assert [metric.name for metric in few]
    assert any("precision" in note for note in few.notes)
    one = M.evaluate(normal(1, 2), normal(1, 2, 1))
    assert len(one) == 0
    assert one.notes


def test_unknown_names_and_bad_input() -> None:
    with pytest.raises(ValueError, match="unknown metric 'fid'; there is sliced_w2, energy"):
        M.evaluate(TEST, TEST, names=["energy", "fid"])
    with pytest.raises(TypeError, match="list of names"):
        M.evaluate(TEST, TEST, names="energy")
    with pytest.raises(ValueError, match="empty"):
        M.evaluate(TEST, TEST, names=[])
    with pytest.raises(ValueError, match="test has dimension 3"):
        M.evaluate(TEST, normal(9, 3))
    with pytest.raises(ValueError, match="train has 1 value"):
        M.evaluate(TEST, TEST, train=np.where(np.arange(6).reshape(3, 2) == 4, np.nan, 0.0))
    with pytest.raises(ValueError, match="coincide"):
        M.evaluate(TEST, np.ones((50, 2)), names=["mmd2"])
    with pytest.raises(KeyError, match="no metric 'w2'"):
        M.evaluate(TEST, TEST, names=["energy"])["w2"]


def test_text_and_json() -> None:
    found = M.evaluate(normal(100, 2), TEST, train=TRAIN, names=["copies", "energy", "w2"])
    lines = found.table().splitlines()
    assert max(map(len, lines)) <= 80
    assert "100 samples, 300 held-out points, 500 training points, dimension 2" in lines[0]
    assert [line.split()[0] for line in lines[2:5]] == ["energy", "w2", "copies"]
    plain = json.loads(json.dumps(found.to_dict()))
    assert plain["metrics"]["energy"]["value"] == found["energy"].value
    assert plain["metrics"]["energy"]["direction"] == "lower is better"
    assert plain["sizes"] == [100, 300]
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.seed = 1  # type: ignore[misc]


def test_the_seed_decides_and_tensors_do() -> None:
    x = normal(100, 2)
    names = ["sliced_w2", "energy", "data_copying"]
    first = M.evaluate(x, TEST, train=TRAIN, names=names, seed=3)
    again = M.evaluate(
        torch.from_numpy(x),
        torch.from_numpy(TEST),
        train=torch.from_numpy(TRAIN),
        names=tuple(names),
        seed=3,
    )
    assert first == again
    assert first != M.evaluate(x, TEST, train=TRAIN, names=names, seed=5)


@pytest.mark.slow
def test_large_clouds_fit_in_memory() -> None:
    """Ten thousand against ten thousand points: one matrix of their distances in float32 would be 400 MB."""
    program = (
        "import resource, torch, otgan as og\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024\n"
        "x = torch.randn(3, 10_000, 3, generator=torch.Generator().manual_seed(0))\n"
        "names = [name for name in og.metrics.NAMES if name not in ('w2', 'c2st')]\n"
        "og.metrics.evaluate(x[0, :300], x[1, :300], train=x[2, :300], names=names, n_null=2)\n"
        "before = peak()\n"
        "found = og.metrics.evaluate(x[0], x[1], train=x[2], names=names, n_null=2)\n"
        "print(peak() - before, len(found))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    grown, count = done.stdout.split()
    assert int(count) == len(NAMES) - 2
    assert float(grown) < 200
