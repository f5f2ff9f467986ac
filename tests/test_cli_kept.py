"""What the command line keeps when something goes wrong late: a solve, a trained autoencoder, a run on a full disk."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import otgan as og
from otgan import io
from otgan.cli import main


@pytest.fixture
def points(tmp_path: Path) -> Path:
    np.save(tmp_path / "points.npy", np.random.default_rng(0).normal(size=(30, 2)))
    return tmp_path / "points.npy"


def raising(error: BaseException) -> Any:
    def fail(*_: object, **__: object) -> None:
        raise error

    return fail


def test_a_generator_that_fails_leaves_the_solution(
    points: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("otgan.generators.model.LocalGenerator", raising(RuntimeError("no memory")))
    out = points.parent / "run"
    assert main(["fit", str(points), "--out", str(out), "--generator", "local"]) == 1
    said = capsys.readouterr()
    assert "solution is saved without one: no memory" in said.err and "newton" in said.out
    assert og.load(out).converged


def test_ctrl_c_while_the_generator_is_made(points: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first ends in the entropic map, of the solution that is there; a second one in the solution alone."""
    monkeypatch.setattr("otgan.generators.model.LocalGenerator", raising(KeyboardInterrupt()))
    out = points.parent / "run"
    assert main(["fit", str(points), "--out", str(out), "--generator", "local"]) == 130
    assert type(og.load(out).generator).__name__ == "EntropicGenerator"
    monkeypatch.setattr("otgan.generators.model.EntropicGenerator", raising(KeyboardInterrupt()))
    assert main(["fit", str(points), "--out", str(out), "--generator", "local", "--overwrite"]) == 130
    assert isinstance(og.load(out), og.Result)


def test_a_full_disk_loses_nothing(
    points: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out, elsewhere, write = points.parent / "run", points.parent / "elsewhere", io._write
    elsewhere.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(elsewhere))

    def full(path: Path, data: bytes) -> None:
        if out in path.parents:
            raise OSError(28, "No space left on device")
        write(path, data)

    monkeypatch.setattr(io, "_write", full)
    assert main(["fit", str(points), "--out", str(out), "--json"]) == 1
    said = capsys.readouterr()
    place = Path(json.loads(said.out)["run"])
    assert place.parent == elsewhere and og.load(place).converged
    assert f"cannot write into {out}: No space left on device. Saved in {place} instead" in said.err

    monkeypatch.setattr(io, "_write", raising(OSError(28, "No space left on device")))
    assert main(["fit", str(points), "--out", str(out)]) == 1
    assert "No space left on device" in capsys.readouterr().err


def test_overwriting_drops_what_was_drawn_of_the_old_model(points: Path) -> None:
    out = points.parent / "run"
    assert main(["fit", str(points), "--out", str(out), "--plots"]) == 0
    assert main(["sample", str(out), "-n", "3"]) == 0
    (out / "notes.txt").write_text("mine")
    assert (out / "power_diagram.png").exists() and (out / "samples.npy").exists()
    assert main(["fit", str(points), "--out", str(out), "--overwrite", "--seed", "1"]) == 0
    assert {path.name for path in out.iterdir()} == {"config.json", "model.safetensors", "run.json", "notes.txt"}


def test_a_fit_touches_no_file_that_is_not_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The input may be called as a product and lie in the folder of the model; other folders are not cleared at all."""
    monkeypatch.chdir(tmp_path)
    np.save("samples.npy", np.random.default_rng(0).normal(size=(30, 2)))
    Path("report.html").write_text("mine")
    assert main(["fit", "samples.npy", "--out", "."]) == 0
    assert Path("samples.npy").exists() and Path("report.html").read_text() == "mine"
    assert main(["fit", "samples.npy", "--out", ".", "--overwrite"]) == 0
    assert Path("samples.npy").exists() and not Path("report.html").exists()


def test_refused_settings_leave_no_folder(points: Path) -> None:
    out = points.parent / "run"
    assert main(["fit", str(points), "--out", str(out), "--tol", "-1"]) == 2
    assert main(["fit", str(points), "--out", str(out), "--generator", "local", "--p", "3"]) == 2
    assert not out.exists()
    out.mkdir()
    assert main(["fit", str(points), "--out", str(out), "--tol", "-1"]) == 2
    assert out.exists()  # it was there before


def test_a_trained_autoencoder_outlives_what_comes_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    np.save(tmp_path / "images.npy", np.random.default_rng(0).integers(0, 256, size=(60, 8, 8)).astype(np.uint8))
    monkeypatch.setattr("otgan.generators.model.solve", raising(MemoryError("too many codes")))
    out = tmp_path / "run"
    flags = ["--latent", "3", "--autoencoder-steps", "3"]
    assert main(["fit", str(tmp_path / "images.npy"), "--out", str(out), *flags]) == 1
    assert f"autoencoder is saved in {out / 'autoencoder'}" in capsys.readouterr().err
    assert og.load(out / "autoencoder").latent == 3


def test_an_interrupt_while_the_program_is_read(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("otgan.cli.app.main", raising(KeyboardInterrupt()))
    assert main(["fit", "points.npy"]) == 130
    assert capsys.readouterr().err == "otgan: interrupted; nothing was saved.\n"


def test_a_file_of_samples_is_whole_or_as_it_was(
    points: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out, file = points.parent / "run", points.parent / "new.csv"
    assert main(["fit", str(points), "--out", str(out)]) == 0
    assert main(["sample", str(out), "-n", "3", "--out", str(file)]) == 0
    before = file.read_text()

    def half(file: Any, *_: object, **__: object) -> None:
        file.write(b"0.5,0.")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("numpy.savetxt", half)
    assert main(["sample", str(out), "-n", "9", "--out", str(file)]) == 2
    assert f"Cannot write {file}: No space left on device" in capsys.readouterr().err
    assert file.read_text() == before and not list(points.parent.glob(".*"))


@pytest.mark.skipif(os.name != "posix", reason="links and pipes")
def test_samples_go_through_links_and_pipes(points: Path) -> None:
    out, real, link, pipe = (points.parent / name for name in ("run", "real.csv", "link.csv", "pipe.csv"))
    assert main(["fit", str(points), "--out", str(out)]) == 0
    real.write_text("old")
    real.chmod(0o640)
    link.symlink_to(real)
    assert main(["sample", str(out), "-n", "3", "--out", str(link)]) == 0
    assert link.is_symlink() and real.read_text().count("\n") == 3 and real.stat().st_mode & 0o777 == 0o640
    os.mkfifo(pipe)
    reader = subprocess.Popen(["cat", str(pipe)], stdout=subprocess.PIPE, text=True)
    assert main(["sample", str(out), "-n", "3", "--out", str(pipe)]) == 0
    assert reader.communicate(timeout=60)[0] == real.read_text()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device that is always full")
def test_standard_output_that_is_full_or_closed(points: Path) -> None:
    program = "import sys; from otgan.cli import main; sys.exit(main())"
    for shell, code, said in (
        ("> /dev/full", 1, "cannot write to the standard output: No space left on device"),
        (">&-", 0, ""),
    ):
        found = subprocess.run(
            f"{sys.executable} -c '{program}' --version {shell}",
            shell=True,
            capture_output=True,
            text=True,
            check=False,
        )
        assert found.returncode == code and said in found.stderr and "Traceback" not in found.stderr
