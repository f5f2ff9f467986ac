"""The command line: exit codes, streams, files, and every way to hold it wrong."""

from __future__ import annotations

import ast
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch

import otgan as og
from otgan.cli import main
from otgan.cli.common import Common, plain
from otgan.cli.runs import Kind
from otgan.generators.model import GENERATORS

CLI = Path(__file__).resolve().parents[1] / "otgan" / "cli"
COMMANDS = ("demo", "fit", "sample", "evaluate", "plot", "report", "bench", "doctor")
CERTIFICATE = {"chi2", "chi2_stderr", "l1", "max_ratio", "empty_cells", "w2_lower", "w2_upper", "n_samples", "exact"}


@pytest.fixture(scope="module")
def points(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("points") / "points.npy"
    np.save(path, np.random.default_rng(0).normal(size=(12, 2)))
    return path


@pytest.fixture(scope="module")
def run(points: Path) -> Path:
    out = points.parent / "run"
    assert main(["fit", str(points), "--out", str(out), "--tol", "0.05", "--source", "cube"]) == 0
    return out


def one_sentence(capsys: pytest.CaptureFixture[str]) -> str:
    """The one line on standard error, with nothing on standard output."""
    out, err = capsys.readouterr()
    assert out == ""
    lines = err.strip().splitlines()
    assert len(lines) == 1, err
    assert lines[0].startswith("otgan: ")
    return lines[0]


def document(capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(capsys.readouterr().out, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))


# --- help and usage ---


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    whole = capsys.readouterr().out
    assert all(command in whole for command in COMMANDS)
    assert main([]) == 0
    assert capsys.readouterr().out == whole


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_a_command(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "--help"]) == 0
    text = capsys.readouterr().out
    assert "--json" in text
    assert max(len(line) for line in text.splitlines()) <= 120


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"otgan {og.__version__}\n"


@pytest.mark.parametrize(
    "argv",
    [
        ["nonsense"],
        ["fit"],
        ["fit", "a.npy", "--unknown"],
        ["fit", "a.npy", "b.npy"],
        ["fit", "a.npy", "--tol", "small"],
        ["fit", "a.npy", "--source", "torus"],
        ["fit", "a.npy", "--generator", "gan"],
        ["fit", "a.npy", "--dtype", "float16"],
        ["sample", "run", "-n", "many"],
        ["plot", "run", "--what", "everything"],
        ["doctor", "extra"],
        ["--nonsense"],
    ],
)
def test_wrong_usage_is_2(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(argv) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err
    assert "Traceback" not in err


def test_commands_import_nothing_heavy_at_module_level() -> None:
    allowed = set(sys.stdlib_module_names) | {"tyro", "__future__"}
    for path in CLI.glob("*.py"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            for name in names:
                assert name.split(".")[0] in allowed or name.startswith("otgan.cli"), f"{path.name} imports {name}"


# --- fit ---


def test_fit_saves_and_reports(run: Path, points: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = og.load(run)
    assert result.converged
    assert repr(result.source) == "UniformBox(dim=2)"
    assert torch.equal(result.target.points, torch.from_numpy(np.load(points)))
    again = ["fit", str(points), "--out", str(run), "--tol", "0.05", "--source", "cube"]
    assert main(again) == 2
    assert "--overwrite" in one_sentence(capsys)
    assert main([*again, "--overwrite"]) == 0
    assert "chi2 of the cell masses" in capsys.readouterr().out
    assert torch.equal(og.load(run).potential.heights, result.potential.heights)


def test_fit_json(points: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["fit", str(points), "--out", str(tmp_path / "r"), "--tol", "0.05", "--json", "--plots"]
    assert main([*argv, "--source", "ball"]) == 0
    report = document(capsys)
    assert (report["status"], report["converged"]) == ("converged", True)
    assert (report["n"], report["dim"], report["tol"]) == (12, 2, 0.05)
    assert report["source"] == "UniformBall(dim=2, radius=1)"
    assert set(report["certificate"]) >= CERTIFICATE
    assert {Path(p).name for p in report["pictures"]} == {
        "power_diagram.png",
        "transport_map.png",
        "convergence.png",
        "mass_histogram.png",
    }
    assert all(Path(p).read_bytes().startswith(b"\x89PNG") for p in report["pictures"])


def test_fit_goes_on_from_a_checkpoint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save(tmp_path / "codes.npy", np.random.default_rng(0).normal(size=(200, 5)))
    base = ["fit", str(tmp_path / "codes.npy"), "--tol", "0.05", "--checkpoint", str(tmp_path / "progress"), "--json"]
    assert main([*base, "--max-iter", "5", "--out", str(tmp_path / "first")]) == 3
    assert main([*base, "--out", str(tmp_path / "second")]) == 0
    second = og.load(tmp_path / "second")
    whole = og.solve(og.Gaussian(5), np.load(tmp_path / "codes.npy"), tol=0.05)
    assert second.n_samples == whole.n_samples
    assert np.array_equal(second.potential.heights.numpy(), whole.potential.heights.numpy())
    capsys.readouterr()


def test_fit_default_folder(points: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["fit", str(points), "--tol", "0.1", "--no-progress", "--dtype", "float32"]) == 0
    assert og.load("runs/points").potential.points.dtype == torch.float32


def test_fit_not_converged_is_3_and_saved(points: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["fit", str(points), "--out", str(tmp_path / "r"), "--tol", "1e-9", "--method", "adam", "--json"]
    assert main([*argv, "--max-iter", "60"]) == 3
    assert document(capsys)["status"] == "max_iter"
    assert not og.load(tmp_path / "r").converged


def test_fit_weights(tmp_path: Path) -> None:
    y, w = np.array([[0.0], [1.0], [3.0]]), np.array([1.0, 2.0, 5.0])
    np.savez(tmp_path / "a.npz", y=y, w=w)
    np.savetxt(tmp_path / "w.csv", w)
    common = ["fit", str(tmp_path / "a.npz"), "--key", "y", "--tol", "0.05"]
    assert main([*common, "--out", str(tmp_path / "1"), "--weights-key", "w"]) == 0
    assert main([*common, "--out", str(tmp_path / "2"), "--weights", str(tmp_path / "w.csv")]) == 0
    for name in "12":
        assert og.load(tmp_path / name).target.weights.tolist() == pytest.approx([0.125, 0.25, 0.625])


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.npy", b"\x89PNG\r\n\x1a\n", "PNG"),
        ("a.npz", b"plain text", "not a NumPy .npz"),
        ("a.csv", b"1,2\n3,x\n", "line 2, column 2"),
        ("a.csv", b"", "empty"),
        ("a.csv", b"1,2\nnan,1\n", "NaN"),
        ("a.csv", b"1e300,2\n1,1\n", "overflow"),
    ],
)
def test_fit_bad_file_is_2(
    tmp_path: Path, name: str, content: bytes, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / name).write_bytes(content)
    assert main(["fit", str(tmp_path / name), "--out", str(tmp_path / "r")]) == 2
    assert said in one_sentence(capsys)
    assert not (tmp_path / "r").exists()


def test_fit_missing_file_is_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", str(tmp_path / "no.npy"), "--out", str(tmp_path / "r"), "--json"]) == 2
    assert "There is no file" in one_sentence(capsys)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--tol", "-1"], "tol"),
        (["--tol", "nan"], "tol"),
        (["--max-time", "0"], "max_time"),
        (["--max-iter", "0"], "max_iter"),
        (["--seed", "-1"], "seed"),
        (["--method", "magic"], "magic"),
        (["--method", "discrete"], "Empirical"),
        (["--weights", "missing.npy"], "missing.npy"),
        (["--key", "x"], ".npz"),
        (["--weights-key", "x"], ".npz"),
    ],
)
def test_fit_bad_setting_is_2(
    points: Path, tmp_path: Path, flags: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fit", str(points), "--out", str(tmp_path / "r"), *flags]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert said in err.splitlines()[-1]
    assert "Traceback" not in err


def test_fit_refuses_a_folder_that_it_cannot_write_before_it_works(
    points: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("x")
    assert main(["fit", str(points), "--out", str(tmp_path / "file")]) == 2
    assert "in the way" in one_sentence(capsys)
    assert main(["fit", str(points), "--out", str(tmp_path / "file" / "below")]) == 2
    assert "in the way" in one_sentence(capsys)


# --- sample ---


def test_sample_is_reproducible_and_says_how(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [tmp_path / f"{i}.npy" for i in range(3)]
    for path, seed in zip(files, ("5", "5", "6"), strict=True):
        assert main(["sample", str(run), "-n", "40", "--seed", seed, "--out", str(path)]) == 0
    a, b, c = (np.load(path) for path in files)
    assert a.shape == (40, 2)
    assert np.array_equal(a, b)
    assert not np.array_equal(a, c)
    assert "entropic map, reg = " in capsys.readouterr().out


def test_sample_nearest_returns_targets_and_small_reg_tends_to_it(run: Path, tmp_path: Path) -> None:
    common = ["sample", str(run), "-n", "30", "--out"]
    assert main([*common, str(tmp_path / "near.npy"), "--generator", "nearest"]) == 0
    assert main([*common, str(tmp_path / "small.csv"), "--reg", "1e-9"]) == 0
    assert main([*common, str(tmp_path / "rule.npy")]) == 0
    near, targets = np.load(tmp_path / "near.npy"), og.load(run).target.points.numpy()
    assert all((targets == row).all(axis=1).any() for row in near)
    assert np.allclose(np.loadtxt(tmp_path / "small.csv", delimiter=","), near, atol=1e-6)
    assert not np.allclose(np.load(tmp_path / "rule.npy"), near, atol=1e-3)


def test_sample_to_standard_output_and_json(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sample", str(run), "-n", "3", "--out", "-"]) == 0
    assert np.loadtxt(capsys.readouterr().out.splitlines(), delimiter=",").shape == (3, 2)
    assert main(["sample", str(run), "-n", "3", "--json"]) == 0
    report = document(capsys)
    assert (report["n_samples"], report["dim"], report["generator"]) == (3, 2, "entropic")
    assert report["reg"] > 0
    assert np.load(run / "samples.npy").shape == (3, 2)


def test_standard_output_and_a_file_have_the_same_digits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    far = tmp_path / "far.npy"
    np.save(far, 1e9 + np.random.default_rng(0).normal(size=(50, 2)))
    assert main(["fit", str(far), "--out", str(tmp_path / "run")]) == 0
    common = ["sample", str(tmp_path / "run"), "-n", "4", "--seed", "1", "--generator", "nearest"]
    assert main([*common, "--out", str(tmp_path / "p.csv")]) == 0
    capsys.readouterr()
    assert main([*common, "--out", "-"]) == 0
    printed = capsys.readouterr().out
    assert printed == (tmp_path / "p.csv").read_text()
    assert len(np.unique(np.loadtxt(printed.splitlines(), delimiter=","), axis=0)) > 1


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["-n", "0"], "-n must be at least 1"),
        (["--seed", "-3"], "--seed"),
        (["--reg", "-1"], "--reg"),
        (["--reg", "inf"], "--reg"),
        (["--reg", "1", "--generator", "nearest"], "nearest"),
        (["--out", "a.png"], "--out must end in"),
        (["--out", "-", "--json"], "choose one"),
    ],
)
def test_sample_bad_setting_is_2(run: Path, flags: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sample", str(run), *flags]) == 2
    assert said in one_sentence(capsys)


# --- runs with a generator ---


@pytest.fixture(scope="module")
def model_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    np.save(folder / "many.npy", np.random.default_rng(1).normal(size=(300, 2)))
    assert main(["fit", str(folder / "many.npy"), "--generator", "local", "--out", str(folder / "run")]) == 0
    return folder / "run"


def test_names_of_generators_are_those_of_the_model() -> None:
    assert ("auto", *get_args(Kind)) == GENERATORS


def test_fit_with_a_generator_saves_a_model(
    model_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = og.load(model_run)
    assert isinstance(model, og.OTGAN) and isinstance(model.generator, og.generators.LocalGenerator)
    assert main(["sample", str(model_run), "-n", "50", "--seed", "4", "--out", str(tmp_path / "new.npy")]) == 0
    assert "local maps, 16 neighbours" in capsys.readouterr().out
    assert np.array_equal(np.load(tmp_path / "new.npy"), model.sample(50, seed=4).numpy())
    data = model_run.parent / "many.npy"
    assert main(["fit", str(data), "--generator", "auto", "--out", str(tmp_path / "auto"), "--json"]) == 0
    found = document(capsys)["generator"]
    assert found["name"] == min(found["scores"], key=lambda name: found["scores"][name]["total"])
    assert {"local", "entropic"} <= set(found["scores"])
    assert main(["fit", str(data), "--generator", "nearest", "--out", str(tmp_path / "auto")]) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert main(["fit", str(data), "--generator", "nearest", "--out", str(tmp_path / "auto"), "--overwrite"]) == 0
    assert "Generator: nearest." in capsys.readouterr().out


@pytest.mark.parametrize("kind", ["local", "entropic", "extension", "nearest"])
def test_every_run_has_the_generators_of_its_potential(
    kind: str, run: Path, model_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for folder in (run, model_run):
        out = tmp_path / "new.npy"
        assert main(["sample", str(folder), "-n", "60", "--generator", kind, "--out", str(out), "--json"]) == 0
        assert document(capsys)["generator"] == kind
        points, targets = np.load(out), np.load(folder.parent / ("points.npy" if folder is run else "many.npy"))
        assert points.shape == (60, 2) and np.isfinite(points).all()
        copies = (np.abs(points[:, None] - targets[None]).max(axis=2) < 1e-6).any(axis=1)
        assert copies.all() if kind == "nearest" else not copies.all()


def test_a_run_with_a_generator_is_measured_and_drawn(
    model_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    held = tmp_path / "held.npy"
    np.save(held, np.random.default_rng(5).normal(size=(200, 2)))
    argv = [
        "evaluate",
        str(model_run),
        "--test",
        str(held),
        "--seed",
        "1",
        "--metrics",
        "copies",
        "authenticity",
        "--json",
    ]
    assert main(argv) == 0
    own = document(capsys)["evaluation"]["metrics"]
    assert own["copies"]["value"] == 0.0 and own["authenticity"]["value"] > 0.25
    assert main([*argv, "--generator", "nearest"]) == 0
    assert document(capsys)["evaluation"]["metrics"]["copies"]["value"] == 1.0
    assert main(["plot", str(model_run), "--out", str(tmp_path / "pictures"), "--json"]) == 0
    assert len(document(capsys)["pictures"]) == 4


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["sample", "{model}", "--reg", "1"], "--generator entropic"),
        (["sample", "{model}", "--generator", "icnn"], "otgan fit FILE --generator icnn"),
        (["evaluate", "{plain}", "--test", "{held}", "--generator", "mlp"], "must be fitted"),
        (["fit", "{held}", "--generator", "auto", "--p", "3", "--out", "{new}"], "for p = 2"),
        (["fit", "{held}", "--generator", "local", "--max-iter", "0", "--out", "{new}"], "max_iter"),
    ],
)
def test_bad_use_of_generators_is_2(
    argv: list[str], said: str, run: Path, model_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = {"model": model_run, "plain": run, "held": tmp_path / "held.npy", "new": tmp_path / "new"}
    np.save(paths["held"], np.random.default_rng(6).normal(size=(30, 2)))
    assert main([part.format(**paths) for part in argv]) == 2
    out, err = capsys.readouterr()
    assert out == "" and said in err.splitlines()[-1]


@pytest.mark.parametrize("command", ["sample", "evaluate", "plot"])
def test_a_folder_that_is_no_run_is_2(command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, str(tmp_path / "missing")]) == 2
    assert "There is no" in one_sentence(capsys)
    assert main([command, str(tmp_path)]) == 2
    assert "not written by otgan" in one_sentence(capsys)
    og.BrenierPotential([[0.0], [1.0]], [0.0, 0.0]).save(tmp_path / "u")
    assert main([command, str(tmp_path / "u")]) == 2
    assert "BrenierPotential" in one_sentence(capsys)


def test_a_damaged_run_is_2(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((run / name).read_bytes())
    blob = bytearray((tmp_path / "model.safetensors").read_bytes())
    blob[-1] ^= 1
    (tmp_path / "model.safetensors").write_bytes(bytes(blob))
    assert main(["evaluate", str(tmp_path)]) == 2
    assert "SHA-256" in one_sentence(capsys)


# --- evaluate, plot, doctor ---


def test_evaluate_measures_again(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["evaluate", str(run), "--n-samples", "30000", "--json"]
    assert main([*argv, "--seed", "3"]) == 0
    report = document(capsys)
    assert report["seed"] == 3
    assert set(report["certificate"]) >= CERTIFICATE
    assert report["certificate"]["n_samples"] == 30000
    assert report["certificate"]["chi2"] < 0.1
    assert main([*argv, "--seed", str(report["seed"])]) == 0
    assert document(capsys) == report
    assert main(argv) == 0
    assert document(capsys)["certificate"] != report["certificate"]
    assert main(["evaluate", str(run)]) == 0
    assert "W2(source, target)" in capsys.readouterr().out
    assert main(["evaluate", str(run), "--n-samples", "1"]) == 2


def test_evaluate_against_held_out_points(
    run: Path, points: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    held = tmp_path / "held.npy"
    np.save(held, np.random.default_rng(5).normal(size=(40, 2)))
    argv = ["evaluate", str(run), "--n-samples", "3000", "--seed", "1", "--test", str(held)]
    wanted = ["--metrics", "energy", "copies", "nearest_distance"]
    assert main([*argv, *wanted, "--json"]) == 0
    report = document(capsys)
    found = report["evaluation"]
    assert set(found["metrics"]) == {"energy", "copies", "nearest_distance"}
    assert (found["n_samples"], found["n_test"], found["n_train"]) == (40, 40, 12)
    assert report["certificate"]["n_samples"] == 3000
    # The transport map returns the targets, which are the training points; so does a file of them.
    assert main([*argv, *wanted, "--generator", "nearest", "--n-new", "7", "--json"]) == 0
    copied = document(capsys)["evaluation"]
    assert (copied["metrics"]["copies"]["value"], copied["n_samples"]) == (1, 7)
    assert copied["metrics"]["copies"]["z"] is None  # infinite: no held-out point is a copy
    assert main([*argv, "--samples", str(points), "--train", str(held), *wanted, "--json"]) == 0
    given = document(capsys)["evaluation"]
    assert (given["n_samples"], given["n_train"], given["metrics"]["copies"]["value"]) == (12, 40, 0)
    assert main([*argv, *wanted]) == 0
    out = capsys.readouterr().out
    assert "W2(source, target)" in out
    assert "real points" in out


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--metrics", "energy"], "pass --test"),
        (["--n-new", "0"], "--n-new"),
        (["--n-samples", "99"], "--n-samples must be at least 100, got 99"),
        (["--test", "{held}", "--metrics", "fid"], "unknown metric 'fid'; there is sliced_w2"),
        (["--test", "{held}", "--samples", "{held}", "--n-new", "4"], "choose one"),
        (["--test", "{held}", "--samples", "{held}", "--generator", "nearest"], "choose one"),
        (["--generator", "nearest"], "need held-out points: pass --test FILE"),
        (["--key", "a"], "need held-out points: pass --test FILE"),
        (["--test", "nowhere.npy"], "nowhere.npy"),
        (["--test", "{wide}"], "dimension 3"),
        (["--test", "{held}", "--train", "{wide}"], "dimension 3"),
        (["--test", "{held}", "--metrics", "data_copying"], "no cell holds"),
    ],
)
def test_evaluate_bad_setting_is_2(
    run: Path, tmp_path: Path, flags: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = {"held": tmp_path / "held.npy", "wide": tmp_path / "wide.npy"}
    np.save(paths["held"], np.ones((6, 2)))
    np.save(paths["wide"], np.ones((6, 3)))
    assert main(["evaluate", str(run), *(flag.format(**paths) for flag in flags)]) == 2
    assert said in one_sentence(capsys)


def test_plot_formats(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for suffix, magic in ((".png", b"\x89PNG"), (".svg", b"<?xml"), (".pdf", b"%PDF")):
        out = tmp_path / f"deep/er{suffix}"
        assert main(["plot", str(run), "--what", "transport_map", "--out", str(out)]) == 0
        assert out.read_bytes().startswith(magic)
    capsys.readouterr()
    assert main(["plot", str(run), "--out", str(tmp_path / "all"), "--json"]) == 0
    assert len(document(capsys)["pictures"]) == len(list((tmp_path / "all").glob("*.png"))) == 4


def test_plot_says_what_does_not_apply(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    y = np.random.default_rng(0).normal(size=(5, 3))
    og.solve(og.Gaussian(3), y, tol=0.1).save(tmp_path)
    assert main(["plot", str(tmp_path), "--what", "power_diagram"]) == 2
    assert "dimension 3" in one_sentence(capsys)
    assert main(["plot", str(tmp_path)]) == 0
    out, err = capsys.readouterr()
    assert "dimension 3" in err
    assert len(out.split()) == 3
    assert main(["plot", str(tmp_path), "--out", "all.png"]) == 2
    assert main(["plot", str(tmp_path), "--what", "convergence", "--out", "a.bmp"]) == 2


def test_report_is_one_page(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    held = tmp_path / "held.npy"
    np.save(held, np.random.default_rng(1).normal(size=(30, 2)))
    out = tmp_path / "deep" / "page.html"
    argv = ["report", str(run), "--out", str(out), "--json"]
    assert main([*argv, "--test", str(held), "--metrics", "energy", "copies", "--title", "a < b"]) == 0
    found = document(capsys)
    assert found == {"run": str(run), "report": str(out), "bytes": out.stat().st_size, "measured": True}
    text = out.read_text(encoding="utf-8")
    assert "<title>a &lt; b: otgan report</title>" in text and "energy" in text
    assert "--source cube" in text and "--tol 0.05" in text  # how the run was made
    assert main(["report", str(run)]) == 0
    assert "one file" in capsys.readouterr().out
    assert "No held-out data was given" in (run / "report.html").read_text(encoding="utf-8")
    (run / "report.html").unlink()


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--seed", "-1"], "--seed"),
        (["--out", "page.pdf"], "--out must end in .html"),
        (["--metrics", "energy"], "pass --test"),
        (["--test", "nowhere.npy"], "nowhere.npy"),
        (["--test", "{wide}"], "dimension 3"),
        (["--test", "{held}", "--metrics", "fid"], "unknown metric 'fid'"),
        (["--test", "{held}", "--classifier", "x"], "generators of images"),
        (["--train", "{held}"], "generators of images"),
    ],
)
def test_report_bad_setting_is_2(
    run: Path, tmp_path: Path, flags: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = {"held": tmp_path / "held.npy", "wide": tmp_path / "wide.npy"}
    np.save(paths["held"], np.ones((6, 2)))
    np.save(paths["wide"], np.ones((6, 3)))
    assert main(["report", str(run), *(flag.format(**paths) for flag in flags)]) == 2
    assert said in one_sentence(capsys)
    assert main(["report", str(tmp_path / "nothing")]) == 2
    assert "There is no" in one_sentence(capsys)


def test_report_of_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from otgan.datasets import digits
    from otgan.latent import Autoencoder, LatentOTGAN
    from otgan.metrics import train_classifier

    images, labels = digits()
    pixels = (images[:300] * 255 / 16).astype(np.uint8).reshape(-1, 8, 8)
    np.savez(tmp_path / "train.npz", images=pixels[:200])
    np.savez(tmp_path / "test.npz", images=pixels[200:])
    model = LatentOTGAN(Autoencoder(3, width=4, hidden=16), og.OTGAN(generator="entropic", tol=0.3))
    model.fit(pixels[:200, None], training={"steps": 20}).save(tmp_path / "run")
    train_classifier(pixels[:200], labels[:200], epochs=1, width=2, n_features=4).save(tmp_path / "classifier")
    argv = ["report", str(tmp_path / "run"), "--test", str(tmp_path / "test.npz")]
    assert main([*argv, "--metrics", "energy"]) == 0  # in codes
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "100 samples, 100 held-out, 200 training" in page and "as the decoder shows its code" in page
    more = ["--train", str(tmp_path / "train.npz"), "--classifier", str(tmp_path / "classifier")]
    assert main([*argv, *more]) == 0
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "frechet_distance" in page and "class_kl" in page and "distance of pixels" in page
    assert "Bars of the share of new images in each class" in page
    capsys.readouterr()
    assert main([*argv, "--classifier", str(tmp_path / "run")]) == 2
    assert "holds a LatentOTGAN" in one_sentence(capsys)


def test_a_fit_can_be_made_again_from_its_record(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import shlex

    record = json.loads((run / "run.json").read_text())
    words = shlex.split(record["command"])
    assert words[:2] == ["otgan", "fit"] and record["versions"]["otgan"] == og.__version__
    words[words.index("--out") + 1] = str(tmp_path / "again")
    assert main(words[1:]) == 0
    assert torch.equal(og.load(tmp_path / "again").potential.heights, og.load(run).potential.heights)


def test_doctor(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    # Probing KeOps compiles it: the real status is tested with the kernels, its rendering here.
    states = {
        "torch": og.kernels.BackendStatus("torch", True, "", ("cpu",)),
        "keops": og.kernels.BackendStatus("keops", False, "cpu: no compiler " * 9, ()),
    }
    monkeypatch.setattr(og.kernels, "status", lambda: states)
    monkeypatch.setenv("OTGAN_DATA", "/nowhere")
    assert main(["doctor", "--json"]) == 0
    report = document(capsys)
    assert report["versions"]["otgan"] == og.__version__
    assert report["versions"]["torch"] == torch.__version__.split("+")[0] or report["versions"]["torch"]
    assert report["kernels"]["keops"]["available"] is False
    assert "not a folder" in report["data"]
    assert report["kernels_default"]["cpu"].startswith("numba")
    assert main(["doctor"]) == 0
    out, err = capsys.readouterr()
    assert "Probing" in err
    assert "does not work" in out
    assert max(len(line) for line in out.splitlines()) <= 80


# --- demo ---


def test_demo_bad_setting_is_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--seed", "-1", "--out", str(tmp_path / "d")]) == 2
    assert "--seed" in one_sentence(capsys)
    np.save(tmp_path / "a.npy", np.eye(2))
    assert main(["fit", str(tmp_path / "a.npy"), "--out", str(tmp_path / "mine"), "--tol", "0.5"]) == 0
    capsys.readouterr()
    assert main(["demo", "--out", str(tmp_path / "mine")]) == 2
    assert "not the demonstration's" in one_sentence(capsys)
    (tmp_path / "file").write_text("x")
    assert main(["demo", "--out", str(tmp_path / "file")]) == 2
    assert "in the way" in one_sentence(capsys)


# --- endings ---


def test_an_unexpected_error_is_1_and_debug_shows_where(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("first line\nsecond line")

    monkeypatch.setattr("otgan.certificate.certify", broken)
    assert main(["evaluate", str(run)]) == 1
    said = one_sentence(capsys)
    assert "RuntimeError: first line" in said
    assert "--debug" in said
    assert main(["evaluate", str(run), "--debug"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_an_interrupt_outside_a_solve_is_130(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("otgan.certificate.certify", interrupted)
    assert main(["evaluate", str(run)]) == 130
    assert "interrupted" in one_sentence(capsys)


def test_plain_is_json() -> None:
    value = {"a": [np.float32(1.5), float("nan"), float("inf")], "b": Path("x"), "c": (True, None, 3)}
    assert plain(value) == {"a": [1.5, None, None], "b": "x", "c": [True, None, 3]}
    assert Common.help(whole=False) == "Flags of every command."


def otgan(*argv: str, **options: Any) -> subprocess.Popen[str]:
    program = "import sys; from otgan.cli import main; sys.exit(main())"
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, "-c", program, *argv], **(pipes | options))


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_ctrl_c_saves_the_best_so_far(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.random.default_rng(0).normal(size=(500, 10)))
    long = ["--method", "adam", "--tol", "1e-7", "--max-iter", "10000000"]
    process = otgan("fit", str(tmp_path / "a.npy"), "--out", str(tmp_path / "r"), *long, "--json")
    assert process.stderr is not None
    said = process.stderr.readline()
    assert "500 points" in said, said + process.stderr.read()  # said just before the solver starts
    time.sleep(2.0)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=90)
    assert process.returncode == 130, err
    assert json.loads(out)["status"] == "interrupted"
    assert "Traceback" not in err
    saved = og.load(tmp_path / "r")
    assert saved.status == "interrupted"
    assert bool(torch.isfinite(saved.potential.heights).all())


@pytest.mark.skipif(os.name != "posix", reason="pipes")
def test_a_closed_pipe_is_silent(run: Path) -> None:
    process = otgan("sample", str(run), "-n", "200000", "--out", "-")
    assert process.stdout is not None
    assert process.stdout.readline().count(",") == 1
    process.stdout.close()
    assert process.stderr is not None
    err = process.stderr.read()
    assert process.wait(timeout=90) == 141
    assert err == ""


def test_fit_with_another_cost(points: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "cubic"
    argv = ["fit", str(points), "--out", str(out), "--tol", "0.1", "--json", "--plots"]
    assert main([*argv, "--p", "3"]) == 0
    report = document(capsys)
    assert report["p"] == 3.0 and report["certificate"]["p"] == 3.0
    assert report["certificate"]["cost_lower"] <= report["certificate"]["cost_upper"]
    assert report["certificate"]["w2_lower"] is None
    assert "power_diagram.png" not in {Path(path).name for path in report["pictures"]}
    assert isinstance(og.load(out).potential, og.KantorovichPotential)
    assert main(["sample", str(out), "-n", "5", "--out", "-"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 5
    assert main(["evaluate", str(out), "--n-samples", "1000", "--seed", "0"]) == 0
    assert "|x-y|^p / p" in capsys.readouterr().out
    for wrong in ("1", "nan"):
        assert main([*argv[:2], "--out", str(tmp_path / "other"), "--p", wrong]) == 2
        assert "p must be" in capsys.readouterr().err
