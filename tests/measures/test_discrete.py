"""The target measure: normalised weights, merged duplicates, refusals."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import otgan as og


def test_without_duplicates_nothing_moves():
    y = np.random.default_rng(0).normal(size=(100, 3))
    target = og.DiscreteMeasure(y)
    assert torch.equal(target.points, torch.from_numpy(y))
    assert torch.equal(target.index, torch.arange(100))
    assert target.weights.sum() == pytest.approx(1.0)
    assert (target.n, target.n_given, target.dim) == (100, 100, 3)


@given(
    hnp.arrays(
        np.float64, st.tuples(st.integers(1, 30), st.integers(1, 3)), elements=st.sampled_from([0.0, -0.0, 1.0, 2.5])
    ),
    st.data(),
)
def test_duplicates_are_merged_with_their_weights(y, data):
    b = np.array(data.draw(st.lists(st.floats(0.1, 10), min_size=len(y), max_size=len(y))))
    target = og.DiscreteMeasure(y, b)
    assert len(np.unique(target.points.numpy() + 0.0, axis=0)) == target.n
    assert np.array_equal(target.points[target.index].numpy(), y)
    merged = np.zeros(target.n)
    np.add.at(merged, target.index.numpy(), b / b.sum())
    assert np.allclose(target.weights.numpy(), merged, rtol=1e-12)
    first = [int(np.flatnonzero(target.index.numpy() == i)[0]) for i in range(target.n)]
    assert first == sorted(first), "order of first appearance"
    assert torch.equal(target.expand(target.points), torch.from_numpy(y))


def test_rows_that_one_functional_cannot_tell_apart():
    """Differences far below the rounding of the key: distinct points stay apart, equal ones among them are merged."""
    y = np.zeros((60, 2))
    y[:, 0] = 1e6
    y[:, 1] = np.arange(60) % 7 * 1e-13
    y[50:, 1] *= -1.0  # 0 and -0 among them
    target = og.DiscreteMeasure(y)
    _, inverse, counts = np.unique(y + 0.0, axis=0, return_inverse=True, return_counts=True)
    assert target.n == len(counts) > 7
    same = target.index.numpy()[:, None] == target.index.numpy()[None]
    assert np.array_equal(same, inverse.reshape(-1)[:, None] == inverse.reshape(-1)[None])


def test_chunks_change_nothing(monkeypatch):
    y = np.random.default_rng(0).integers(0, 6, size=(500, 3)).astype(np.float32)
    whole = og.DiscreteMeasure(y)
    monkeypatch.setattr("otgan.measures.discrete.CHUNK", 50)
    target = og.DiscreteMeasure(y)
    assert torch.equal(target.index, whole.index) and torch.equal(target.points, whole.points)
    assert torch.allclose(target.mean, whole.mean) and target.variance == pytest.approx(whole.variance)


@pytest.mark.parametrize("mode", ["r", "c", "r+"])
def test_a_read_only_mapped_file_is_used_where_it_lies(tmp_path, mode):
    y = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
    np.save(tmp_path / "y.npy", y)
    mapped = np.load(tmp_path / "y.npy", mmap_mode=mode)
    target = og.DiscreteMeasure(mapped)
    assert np.shares_memory(target.points.numpy(), mapped) == (mode == "r")
    assert np.array_equal(target.points.numpy(), y)
    flat = og.DiscreteMeasure(mapped[::-1, :2])
    assert np.array_equal(flat.points.numpy(), y[::-1, :2])


PEAK = """
import resource, numpy as np, otgan as og
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
og.DiscreteMeasure(np.random.default_rng(0).normal(size=(100, 64)).astype(np.float32)).variance
before = peak()
target = og.DiscreteMeasure(np.load({path!r}, mmap_mode="r"))
target.variance
print(target.n, (peak() - before) * 1024)
"""


@pytest.mark.parametrize("distinct", [200_000, 100_000])
def test_peak_memory_of_a_mapped_file(tmp_path, distinct):
    """The pages of the file are part of the peak, once; duplicates cost a copy of the distinct points."""
    y = np.random.default_rng(0).normal(size=(distinct, 64)).astype(np.float32)
    np.save(tmp_path / "y.npy", np.tile(y, (200_000 // distinct, 1)))
    code = PEAK.format(path=str(tmp_path / "y.npy"))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    n, extra = map(int, done.stdout.split())
    assert n == distinct
    assert extra < (2 if distinct == 200_000 else 3) * 200_000 * 64 * 4


def test_moments():
    target = og.DiscreteMeasure([[0.0, 0.0], [2.0, 0.0]], weights=[3, 1])
    assert target.mean.tolist() == [0.5, 0.0]
    assert target.variance == pytest.approx(0.75)
    assert target.second_moment == pytest.approx(1.0)


def test_integer_arrays_and_lists_are_numbers():
    target = og.DiscreteMeasure(np.arange(6).reshape(3, 2), weights=[1, 1, 2])
    assert target.points.dtype == torch.float64
    assert target.weights.tolist() == [0.25, 0.25, 0.5]
    assert og.DiscreteMeasure(np.arange(4, dtype=">f4").reshape(2, 2)).points.dtype == torch.float32
    assert og.DiscreteMeasure(np.arange(4.0).reshape(2, 2)[::-1]).points[0, 0] == 2.0


@pytest.mark.parametrize(
    ("points", "weights", "words"),
    [
        (np.zeros((0, 2)), None, "empty"),
        (np.zeros((2, 0)), None, "empty"),
        (np.zeros(3), None, r"\(n, d\)"),
        (np.zeros((2, 3, 4)), None, "flatten"),
        ([[0.0, np.nan]], None, "NaN or infinite"),
        ([[0.0, np.inf]], None, "NaN or infinite"),
        ([[1e200, 0.0]], None, "rescale"),
        ([[1.0, 2.0], [3.0]], None, "ragged"),
        ([["a", "b"]], None, "real numbers"),
        (np.zeros((2, 2), complex), None, "real numbers"),
        (torch.zeros(2, 2, dtype=torch.float16), None, "float32 or float64"),
        (torch.zeros(2, 2).to_sparse(), None, "dense"),
        (np.eye(2), [1.0], "shape"),
        (np.eye(2), [1.0, -1.0], "> 0"),
        (np.eye(2), [1.0, 0.0], "> 0"),
        (np.eye(2), [1.0, np.nan], "NaN"),
    ],
)
def test_refusals_are_sentences(points, weights, words):
    with pytest.raises((ValueError, TypeError), match=words):
        og.DiscreteMeasure(points, weights)


def test_a_million_points_merge_quickly():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 500, size=(1_000_000, 2)).astype(np.float32)
    target = og.DiscreteMeasure(y)
    assert target.n == 250_000 - (250_000 - len(np.unique(y @ np.array([500.0, 1.0]))))


@pytest.mark.parametrize(
    ("points", "words"),
    [
        ([[1e71, 0.0]], "rescale"),
        ([[0.0], [1e-80]], "rescale"),
        (np.ma.masked_array([[1.0], [2.0]], [[1], [0]]), "masked"),
    ],
)
def test_scales_whose_squares_are_lost(points, words):
    with pytest.raises(ValueError, match=words):
        og.DiscreteMeasure(points)


def test_labels_expand_as_they_are():
    labels = og.DiscreteMeasure([[0.0], [1.0], [0.0]]).expand(np.array([3, 4]))
    assert labels.tolist() == [3, 4, 3] and not labels.dtype.is_floating_point


def test_an_empirical_source_does_not_follow_its_array():
    x = np.zeros((2, 2))
    source = og.Empirical(x)
    x[:] = 100
    assert source.points.abs().max() == 0
