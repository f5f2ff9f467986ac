"""Point files: what is read, and what each unreadable file is told."""

from __future__ import annotations

import io
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from otgan.datasets import DataError, data_folder, digits, read_points, read_weights

POINTS = np.arange(6.0).reshape(3, 2)


def saved(path: Path, **arrays: np.ndarray) -> Path:
    np.savez(path, **arrays)
    return path


def text(path: Path, content: str) -> Path:
    path.write_text(content, encoding="utf-8")
    return path


# --- what is read ---


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_npy_keeps_every_bit(tmp_path: Path, dtype: type) -> None:
    points = np.random.default_rng(0).normal(size=(50, 3)).astype(dtype)
    np.save(tmp_path / "a.npy", points)
    found = read_points(tmp_path / "a.npy")
    assert found.points.dtype == dtype
    assert np.array_equal(found.points, points)
    assert found.notes == []


@pytest.mark.parametrize("dtype", ["int8", "uint16", "int64", "bool", ">f4", ">f8", ">i2", "<f8"])
def test_numbers_of_every_kind_keep_their_values(tmp_path: Path, dtype: str) -> None:
    points = np.array([[0, 1], [1, 1], [1, 0]]).astype(dtype)
    np.save(tmp_path / "a.npy", points)
    found = read_points(tmp_path / "a.npy").points
    assert found.dtype.isnative
    assert found.dtype in (np.float32, np.float64)
    assert np.array_equal(found, points.astype(float))


def test_half_and_long_doubles_are_converted_and_said(tmp_path: Path) -> None:
    np.save(tmp_path / "half.npy", POINTS.astype(np.float16))
    found = read_points(tmp_path / "half.npy")
    assert found.points.dtype == np.float32
    assert "float16" in found.notes[0]
    np.save(tmp_path / "long.npy", POINTS.astype(np.longdouble))
    assert read_points(tmp_path / "long.npy").points.dtype == np.float64


def test_fortran_order_is_read(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.asfortranarray(POINTS))
    assert np.array_equal(read_points(tmp_path / "a.npy").points, POINTS)


def test_npz_takes_its_only_array_or_the_key(tmp_path: Path) -> None:
    found = read_points(saved(tmp_path / "one.npz", codes=POINTS))
    assert (found.key, found.points.tolist()) == ("codes", POINTS.tolist())
    found = read_points(saved(tmp_path / "two.npz", a=POINTS, b=POINTS + 1), "b")
    assert found.points.tolist() == (POINTS + 1).tolist()


@pytest.mark.parametrize(
    "content",
    [
        "0,1\n2,3\n4,5\n",
        "0;1\n2;3\n4;5",
        "0\t1\n2\t3\n4\t5\n",
        "0 1\n  2   3\n4 5\n\n",
        "x,y\n0,1\n2,3\n4,5\n",
        '"x","y"\r\n0,1\r\n2,3\r\n4,5\r\n',
        "# made by hand\n\n0, 1\n# middle\n2, 3 # end\n4, 5\n",
        "\ufeff0,1\n2,3\n4,5\n",
        "0,1\n2e0,+3\n.4e1,5.",
        '"0","1"\n"2","3"\n"4","5"\n',
    ],
)
def test_text_tables(tmp_path: Path, content: str) -> None:
    assert read_points(text(tmp_path / "a.csv", content)).points.tolist() == POINTS.tolist()


def test_what_pandas_adds_is_left_out_and_said(tmp_path: Path) -> None:
    rows = [[0.5, 1.5, 2.5, 3.5], [4.5, 5.5, 6.5, 7.0]]
    body = [",".join(map(str, row)) for row in rows]
    for name, head, index, noted in (
        ("names", "a,b,c,d", False, ""),
        ("numbers", "0,1,2,3", False, "0, 1, 2, 3 are taken for the columns' names"),
        ("index", ",a,b,c,d", True, "counts the rows; it is left out"),
        ("both", ",0,1,2,3", True, "counts the rows; it is left out"),
    ):
        lines = [f"{k},{line}" if index else line for k, line in enumerate(body)]
        found = read_points(text(tmp_path / f"{name}.csv", "\n".join([head, *lines])))
        assert found.points.tolist() == rows
        assert noted in " ".join(found.notes) and bool(found.notes) == bool(noted)
    for name, content in (("tab", "\ta\tb\n0\t0.5\t1.5\n1\t2.5\t3.5\n"), ("r", '"" a b\n1 0.5 1.5\n2 2.5 3.5\n')):
        found = read_points(text(tmp_path / f"{name}.txt", content))
        assert found.points.tolist() == [[0.5, 1.5], [2.5, 3.5]] and "counts the rows" in found.notes[0]
    with pytest.raises(DataError, match="line 1, column 1: the cell is empty"):  # a missing value is no name
        read_points(text(tmp_path / "hole.csv", ",1.5,2.5\n0.5,1.5,2.5\n"))
    found = read_points(text(tmp_path / "pair.csv", "0,1\n0.5,0.25\n"))  # a point as good as any
    assert found.points.tolist() == [[0, 1], [0.5, 0.25]] and "is taken for a point" in found.notes[0]
    assert read_points(text(tmp_path / "whole.csv", "0,1,2,3\n4,5,6,7\n")).points.shape == (2, 4)
    found = read_points(text(tmp_path / "named.csv", ",a\n3,0.5\n9,1.5\n"))  # no count of the rows: kept
    assert found.points.tolist() == [[3, 0.5], [9, 1.5]] and "read as a coordinate" in found.notes[0]


def test_one_column_is_points_on_a_line(tmp_path: Path) -> None:
    assert read_points(text(tmp_path / "a.csv", "x\n1\n2\n")).points.tolist() == [[1.0], [2.0]]


@given(
    hnp.arrays(
        np.float64,
        st.tuples(st.integers(1, 6), st.integers(1, 4)),
        elements=st.floats(allow_nan=False, allow_infinity=False),
    )
)
def test_csv_round_trip(tmp_path_factory: pytest.TempPathFactory, points: np.ndarray) -> None:
    path = tmp_path_factory.getbasetemp() / "round_trip.csv"
    np.savetxt(path, points, delimiter=",", fmt="%.17g")
    assert np.array_equal(read_points(path).points, points)


def test_weights_are_a_list_however_they_lie(tmp_path: Path) -> None:
    for shape in ((3,), (3, 1), (1, 3)):
        np.save(tmp_path / "w.npy", np.array([1, 2, 3]).reshape(shape))
        assert read_weights(tmp_path / "w.npy", 3).tolist() == [1.0, 2.0, 3.0]


def test_digits_are_the_known_ones() -> None:
    images, labels = digits()
    assert (images.shape, labels.shape) == ((1797, 64), (1797,))
    assert (images.min(), images.max()) == (0.0, 16.0)
    assert np.bincount(labels).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]


def test_data_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OTGAN_DATA", raising=False)
    assert data_folder() is None
    monkeypatch.setenv("OTGAN_DATA", "/somewhere")
    assert data_folder() == Path("/somewhere")


# --- what is not ---


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.npy", b"", "empty"),
        ("a.npz", b"", "empty"),
        ("a.csv", b"", "empty"),
        ("a.npy", b"\x89PNG\r\n\x1a\n....", "PNG"),
        ("a.csv", b"\x89PNG\r\n\x1a\n....", "PNG"),
        ("a.npy", b"1,2\n3,4\n", "not a NumPy .npy"),
        ("a.npz", b"1,2\n3,4\n", "not a NumPy .npz"),
        ("a.npz", b"\x93NUMPY\x01\x00", "name it .npy"),
        ("a.npy", b"PK\x03\x04....", "name it .npz"),
        ("a.npy", b"\x80\x04\x95\x00\x00", "pickle"),
        ("a.npz", b"\x80\x04\x95\x00\x00", "pickle"),
        ("a.npz", b"PK\x03\x04" + bytes(40), "damaged"),
        ("a.npy", b"\x93NUMPY\x01\x00", "damaged"),
        ("a.npy", b"\x93NUMPY\x01\x00\x10\x00{'descr': '<f8' ", "damaged"),
        ("a.csv", b"\xff\xfe1\x00,\x002\x00", "not a text"),
        ("a.csv", b"1,2\n3,\xe9\n", "line 2"),
        ("a.csv", b"\n\n# nothing\n", "no numbers"),
        ("a.csv", b"x,y\n", "no numbers"),
        ("a.csv", b"1,2\n3,abc\n", "line 2, column 2: 'abc'"),
        ("a.csv", b"x,y\n\n1,2\n3,\n", "line 4, column 2: the cell is empty"),
        ("a.csv", b"1;2\n3,5;4\n", "write decimals with a point"),
        ("a.csv", b"1,2\n3,4,5\n", "line 2: 3 column(s), the lines above have 2"),
        ("a.csv", b"1,2\n3\n", "line 2: 1 column(s)"),
        ("a.csv", b"1,2\n1_0,4\n", "line 2, column 1"),
        ("a.csv", b"1,2\n1+2j,4\n", "line 2, column 1"),
        ("a.csv", b"1,2\nnan,4\n3,inf\n", "2 value(s) that are NaN or infinite, the first in row 1, column 0"),
        ("a.png", b"1,2\n", "'.png'"),
        ("a", b"1,2\n", "'nothing'"),
    ],
)
def test_a_file_that_is_not_what_it_says(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError) as error:
        read_points(tmp_path / name)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (np.zeros(3), r"shape \(3,\), expected \(n, d\)"),
        (np.zeros((2, 2, 2)), r"shape \(2, 2, 2\)"),
        (np.array(1.0), "shape"),
        (np.zeros((0, 2)), "empty"),
        (np.zeros((2, 0)), "empty"),
        (np.zeros((2, 2), dtype=complex), "complex"),
        (np.array([["a", "b"]]), "real numbers"),
        (np.zeros((2, 2), dtype="datetime64[s]"), "real numbers"),
        (np.zeros(2, dtype=[("x", float), ("y", float)]), "real numbers"),
        (np.array([[1.0, np.nan], [np.inf, 0.0]]), r"2 value\(s\).* row 0, column 1 \(from 0\)"),
    ],
)
def test_an_array_that_is_no_points(tmp_path: Path, array: np.ndarray, said: str) -> None:
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(DataError, match=said):
        read_points(tmp_path / "a.npy")
    with pytest.raises(DataError, match=said):
        read_points(saved(tmp_path / "a.npz", x=array))


def test_python_objects_are_never_unpickled(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple:
            return os.mkdir, (str(tmp_path / "exploded"),)

    np.save(tmp_path / "a.npy", np.array([Bomb()], dtype=object), allow_pickle=True)
    np.savez(tmp_path / "b.npz", x=np.array([Bomb()], dtype=object))
    for name in ("a.npy", "b.npz"):
        with pytest.raises(DataError, match="Python objects"):
            read_points(tmp_path / name)
    assert not (tmp_path / "exploded").exists()


def test_a_header_that_promises_too_much(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": "<f8", "fortran_order": False, "shape": (1 << 40, 1 << 10)})
    (tmp_path / "a.npy").write_bytes(buffer.getvalue() + bytes(64))
    with pytest.raises(DataError, match="memory|damaged"):
        read_points(tmp_path / "a.npy")


def test_a_cut_off_file(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", POINTS)
    whole = (tmp_path / "a.npy").read_bytes()
    (tmp_path / "a.npy").write_bytes(whole[:-5])
    with pytest.raises(DataError, match="damaged or cut off"):
        read_points(tmp_path / "a.npy")


def test_keys(tmp_path: Path) -> None:
    two = saved(tmp_path / "two.npz", b=POINTS, a=POINTS)
    with pytest.raises(DataError, match="several arrays, choose one by its key: a, b"):
        read_points(two)
    with pytest.raises(DataError, match="no array 'c'; its keys are: a, b"):
        read_points(two, "c")
    np.save(tmp_path / "a.npy", POINTS)
    with pytest.raises(DataError, match=r"\.npz"):
        read_points(tmp_path / "a.npy", "a")
    with pytest.raises(DataError, match="no array"):
        read_points(saved(tmp_path / "none.npz"))
    with zipfile.ZipFile(tmp_path / "foreign.npz", "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(DataError, match="not a NumPy array"):
        read_points(tmp_path / "foreign.npz")


def test_places_that_are_no_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is a folder"):
        read_points(tmp_path)
    with pytest.raises(DataError, match="There is no file"):
        read_points(tmp_path / "missing.npy")
    with pytest.raises(DataError, match="not a file name"):
        read_points("a\0b.npy")
    os.mkfifo(tmp_path / "pipe.csv")
    with pytest.raises(DataError, match="not a regular file"):
        read_points(tmp_path / "pipe.csv")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="the superuser may read everything")
def test_no_permission(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", POINTS)
    (tmp_path / "a.npy").chmod(0)
    with pytest.raises(DataError, match="cannot be read"):
        read_points(tmp_path / "a.npy")


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        ([1.0, 2.0], "expected \\(3,\\)"),
        ([1.0, 0.0, 2.0], "number 1"),
        ([1.0, np.nan, 1.0], "NaN"),
        ([1, -2, 3], "-2.0"),
    ],
)
def test_weights_that_are_none(tmp_path: Path, weights: list[float], said: str) -> None:
    np.save(tmp_path / "w.npy", np.array(weights))
    with pytest.raises(DataError, match=said):
        read_weights(tmp_path / "w.npy", 3)


@given(st.binary(max_size=60), st.sampled_from([".npy", ".npz", ".csv"]))
def test_any_bytes_are_points_or_a_sentence(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, suffix: str
) -> None:
    path = tmp_path_factory.getbasetemp() / f"any{suffix}"
    opening = {".npy": b"\x93NUMPY\x01\x00", ".npz": b"PK\x03\x04", ".csv": b""}[suffix]
    for data in (content, opening + content):
        path.write_bytes(data)
        try:
            points = read_points(path).points
        except DataError as error:
            assert str(error)
        else:
            assert points.ndim == 2
            assert np.isfinite(points).all()
