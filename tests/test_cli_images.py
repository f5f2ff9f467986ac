"""``otgan fit --latent`` and ``otgan sample`` on images."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import otgan as og
from otgan.cli import main
from otgan.images import read

GLYPHS = Path(__file__).resolve().parents[1] / "data" / "glyphs.npz"
QUICK = ["--latent", "4", "--autoencoder-steps", "30"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of small pictures."""
    where = tmp_path_factory.mktemp("pictures")
    images = read(GLYPHS, size=16)
    for name in ("ring", "cross"):
        (where / name).mkdir()
        for i, pixels in enumerate(images.of_class(name).pixels[:60, 0].numpy()):
            Image.fromarray(pixels).save(where / name / f"{i}.png")
    return where


@pytest.fixture(scope="module")
def run(folder: Path) -> Path:
    out = folder.parent / "run"
    assert main(["fit", str(folder), *QUICK, "--out", str(out), "--by-class", "--no-progress"]) == 0
    return out


def document(capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(capsys.readouterr().out, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))


def refused(argv: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    assert main(argv) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "Traceback" not in err
    return err.strip().splitlines()[-1]


# --- fit ---


def test_fit_writes_a_model_and_pictures(run: Path) -> None:
    model = og.load(run)
    assert isinstance(model, og.LatentOTGAN)
    assert model.names == ("cross", "ring")
    assert all(one.result.converged for one in model.models)
    for name in ("samples.png", "reconstruction.png"):
        with Image.open(run / name) as picture:
            assert min(picture.size) > 100


def test_fit_reports_the_whole(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pixels = read(GLYPHS, size=16).pixels[:150]
    np.save(tmp_path / "a.npy", pixels.numpy())
    argv = ["fit", str(tmp_path / "a.npy"), *QUICK, "--out", str(tmp_path / "r"), "--source", "cube", "--json"]
    assert main(argv) == 0
    report = document(capsys)
    assert report["autoencoder"]["shape"] == [1, 16, 16]
    assert (report["autoencoder"]["latent"], report["autoencoder"]["steps"]) == (4, 30)
    (transport,) = report["transport"]
    assert (transport["n"], transport["dim"], transport["converged"]) == (150, 4, True)
    assert transport["source"] == "UniformBox(dim=4)"
    assert transport["certificate"]["empty_cells"] >= 0
    assert all(Path(path).is_file() for path in report["pictures"])
    again = og.load(tmp_path / "r")
    model = og.LatentOTGAN(og.latent.Autoencoder(4), og.OTGAN(og.UniformBox(dim=4)))
    model.fit(pixels, training={"steps": 30})
    assert torch.equal(model.sample(5, seed=1), again.sample(5, seed=1))


def test_fit_speaks_to_people(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save(tmp_path / "few.npy", read(GLYPHS, size=12).pixels[:80, 0].numpy())
    assert main(["fit", str(tmp_path / "few.npy"), *QUICK, "--out", str(tmp_path / "r")]) == 0
    out, err = capsys.readouterr()
    for words in ("autoencoder: 1 x 12 x 12 to codes of length 4", "chi2 of the cell masses", "generator: ", "Next: "):
        assert words in out
    assert "Images(80 of 12 x 12, grey)" in err


def test_fit_goes_on_from_a_checkpoint(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", read(GLYPHS, size=16).pixels[:150].numpy())
    argv = ["fit", str(tmp_path / "a.npy"), *QUICK, "--method", "stochastic-newton", "--tol", "0.2"]
    assert main([*argv, "--out", str(tmp_path / "a"), "--checkpoint", str(tmp_path / "c")]) == 0
    assert (tmp_path / "c" / "autoencoder" / "config.json").is_file()
    assert main([*argv, "--out", str(tmp_path / "b"), "--checkpoint", str(tmp_path / "c")]) == 0
    assert torch.equal(og.load(tmp_path / "a").sample(5, seed=1), og.load(tmp_path / "b").sample(5, seed=1))


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ([], "is a folder: for its images pass --latent 32"),
        (["--latent", "0"], "--latent must be at least 1"),
        (["--latent", "4", "--p", "3"], "--p is for points"),
        (["--latent", "4", "--dtype", "float32"], "--dtype is for points"),
        (["--latent", "4", "--max-iter", "3"], "--max-iter is for points"),
        (["--latent", "300"], "no shorter than the images"),
        (["--latent", "200"], "needs more than 200 images"),
        (["--latent", "4", "--size", "17"], "sides divisible by 4"),
        (["--latent", "4", "--channels", "2"], "channels must be 1"),
        (["--latent", "4", "--tol", "-1"], "tol"),
        (["--latent", "4", "--method", "magic"], "magic"),
        (["--latent", "4", "--method", "discrete"], "Empirical"),
        (["--latent", "4", "--method", "newton"], "no exact cells"),
        (["--latent", "4", "--plots"], "--plots is for points"),
    ],
)
def test_fit_refuses(
    folder: Path, tmp_path: Path, flags: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["fit", str(folder), *flags, "--out", str(tmp_path / "r"), "--autoencoder-steps", "3"]
    if not flags:
        argv = argv[:-2]
    assert said in refused(argv, capsys)


@pytest.mark.parametrize("method", ["discrete", "newton"])
def test_what_cannot_be_solved_is_refused_before_the_autoencoder_is_trained(
    folder: Path, tmp_path: Path, method: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(og.latent.Autoencoder, "fit", lambda *_, **__: pytest.fail("the autoencoder is trained"))
    refused(["fit", str(folder), *QUICK, "--method", method, "--out", str(tmp_path / "r")], capsys)
    assert not (tmp_path / "r").exists()


def test_training_steps_are_checked(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["fit", str(folder), "--latent", "4", "--autoencoder-steps", "0"]
    assert "--autoencoder-steps must be at least 1" in refused(argv, capsys)


def test_commands_for_points_name_those_for_images(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("evaluate", "plot"):
        assert "holds a generator of images, which `otgan report`" in refused([command, str(run)], capsys)


def test_a_damaged_model_is_bad_input(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(run, tmp_path / "r")
    (tmp_path / "r" / "model.safetensors").write_bytes(b"broken")
    assert "does not match" in refused(["sample", str(tmp_path / "r")], capsys)


def test_fit_refuses_flags_of_images_for_points(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save(tmp_path / "a.npy", np.zeros((3, 2)))
    for flags in (["--size", "8"], ["--by-class"], ["--channels", "1"], ["--autoencoder-steps", "9"]):
        assert f"{flags[0]} is for images" in refused(["fit", str(tmp_path / "a.npy"), *flags], capsys)


def test_fit_names_the_damaged_picture(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "p").mkdir()
    for i in range(3):
        Image.fromarray(np.zeros((8, 8), dtype=np.uint8)).save(tmp_path / "p" / f"{i}.png")
    (tmp_path / "p" / "1.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    assert "1.png is" in refused(["fit", str(tmp_path / "p"), *QUICK, "--out", str(tmp_path / "r")], capsys)
    assert not (tmp_path / "r").exists()


# --- sample ---


def test_sample_writes_an_array_and_a_picture(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sample", str(run), "-n", "30", "--seed", "2"]) == 0
    assert "30 images of 1 x 16 x 16" in capsys.readouterr().out
    images = np.load(run / "samples.npy")
    assert (images.dtype, images.shape) == (np.uint8, (30, 1, 16, 16))
    expected = (og.load(run).sample(30, seed=2) * 255).round().byte().numpy()
    assert np.array_equal(images, expected)
    argv = ["sample", str(run), "-n", "120", "--label", "ring", "--out", str(tmp_path / "rings.png"), "--json"]
    assert main(argv) == 0
    report = document(capsys)
    assert (report["shape"], report["label"]) == ([120, 1, 16, 16], "ring")
    assert len(read(report["out"])) == 120
    assert Path(report["picture"]).read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--label", "disc"], "no class 'disc'; the classes are cross, ring"),
        (["--out", "-"], "images need a file"),
        (["--out", "a.csv"], ".npy or .png for images"),
        (["--reg", "0.1"], "leave out --generator"),
        (["-n", "0"], "at least 1"),
    ],
)
def test_sample_refuses(run: Path, flags: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert said in refused(["sample", str(run), *flags], capsys)


def test_label_is_for_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save(tmp_path / "a.npy", np.random.default_rng(0).normal(size=(12, 2)))
    assert main(["fit", str(tmp_path / "a.npy"), "--out", str(tmp_path / "r"), "--tol", "0.05"]) == 0
    assert "holds none" in refused(["sample", str(tmp_path / "r"), "--label", "1"], capsys)
