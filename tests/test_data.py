"""The data that the project ships, and the script that fetches the rest."""

from __future__ import annotations

import gzip
import importlib.util
import struct
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from otgan.images import mnist, read

DATA = Path(__file__).resolve().parents[1] / "data"


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, DATA / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_glyphs_are_what_their_script_draws(capsys: pytest.CaptureFixture[str]) -> None:
    assert script("make_glyphs").main(["--check"]) == 0
    images = read(DATA / "glyphs.npz")
    assert (len(images), images.shape) == (600, (1, 28, 28))
    assert images.names == ("bar", "ring", "cross", "triangle", "wave", "disc")
    assert images.labels is not None
    assert images.labels.bincount().tolist() == [100] * 6
    assert (DATA / "glyphs.npz").stat().st_size < 200_000


def test_glyphs_are_inside_and_all_different() -> None:
    pixels = read(DATA / "glyphs.npz").pixels[:, 0]
    assert len(pixels.flatten(1).unique(dim=0)) == 600
    edge = np.concatenate([pixels[:, 0], pixels[:, -1], pixels[:, :, 0], pixels[:, :, -1]], axis=1)
    assert (edge > 0).mean() < 0.01


def test_what_is_fetched_is_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fetch = script("fetch")
    small = {
        "train-images-idx3-ubyte.gz": (5, 4, 4),
        "train-labels-idx1-ubyte.gz": (5,),
    }
    served, sent = tmp_path / "served", tmp_path / "data"
    served.mkdir()
    for file, shape in small.items():
        content = bytes([0, 0, 8, len(shape)]) + struct.pack(f">{len(shape)}I", *shape) + bytes(int(np.prod(shape)))
        (served / file).write_bytes(gzip.compress(content))
    monkeypatch.setattr(fetch, "FILES", small)
    monkeypatch.setattr(fetch, "HOSTS", {"fashion-mnist": (f"{(tmp_path / 'no').as_uri()}/", f"{served.as_uri()}/")})
    assert fetch.main(["fashion-mnist", "--into", str(sent)]) == 0
    assert len(mnist(True, sent / "fashion-mnist")) == 5
    assert fetch.main(["fashion-mnist", "--into", str(sent)]) == 0  # all there
    (sent / "fashion-mnist" / "train-labels-idx1-ubyte.gz").unlink()
    (served / "train-labels-idx1-ubyte.gz").write_bytes(b"not what was asked for")
    assert fetch.main(["fashion-mnist", "--into", str(sent)]) == 1
    assert sorted(path.name for path in (sent / "fashion-mnist").iterdir()) == ["train-images-idx3-ubyte.gz"]
    monkeypatch.setattr(fetch, "SHA256", {"fashion-mnist/train-images-idx3-ubyte.gz": "0" * 64})
    assert "expected 0000" in fetch.check(
        sent / "fashion-mnist" / "train-images-idx3-ubyte.gz", "fashion-mnist", "train-images-idx3-ubyte.gz", (5, 4, 4)
    )


def test_the_digests_are_those_of_the_originals(data_dir: Path) -> None:
    fetch = script("fetch")
    assert set(fetch.SHA256) == {f"mnist/{file}" for file in fetch.FILES}
    for file, shape in fetch.FILES.items():
        assert fetch.check(data_dir / "mnist" / file, "mnist", file, shape) is None
