"""The demonstration at small size: what it writes, and that its numbers are what they are called."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import otgan as og
from otgan.cli import main
from otgan.datasets import digits
from otgan.demo import Codes, DemoReport, run_demo
from otgan.generators.entropic import entropic_reg


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> DemoReport:
    return run_demo(tmp_path_factory.mktemp("demo") / "run", quick=True)


def test_pictures_model_and_codes_are_written(report: DemoReport) -> None:
    for name in ("new_digits", "power_diagram", "convergence", "mass_histogram"):
        assert report.files[name].read_bytes().startswith(b"\x89PNG")
    again = og.load(report.files["model"])
    assert torch.equal(again.potential.heights, report.result.potential.heights)
    with np.load(report.files["codes"], allow_pickle=False) as saved:
        images = np.clip(saved["codes"] @ saved["components"] + saved["mean"], 0, 16)
    assert images.shape == (400, 64)


def test_report_fits_a_terminal(report: DemoReport) -> None:
    text = report.text()
    lines, n_files = text.splitlines(), len(report.files)
    assert max(len(line) for line in lines[:-n_files]) <= 80
    assert [line[16:] for line in lines[-n_files:]] == [str(path) for path in report.files.values()]
    assert "chi2 of the cell masses" in text
    assert report.result.message.split(":")[0][:20] in text


def test_numbers_are_what_they_are_called(report: DemoReport) -> None:
    bare, new, real, gauss = (report.quality[k] for k in ("bare map", "new", "held out", "Gaussian"))
    assert bare.nearest < 1e-4
    assert (bare.copies, bare.closer) == (1.0, 1.0)
    assert real.closer == pytest.approx(0.5, abs=0.01)
    assert real.nearest > 1.0
    assert 0.25 * real.nearest < new.nearest < 1.5 * real.nearest
    assert new.copies < 0.2
    assert (bare.authentic, real.copying) == (0.0, 0.0)
    assert bare.copying < -3 < new.copying
    assert 0.2 < real.authentic < 0.8
    assert new.coverage > gauss.coverage
    assert real.coverage > 0.7
    assert new.w2 < gauss.w2
    assert new.clear > gauss.clear
    assert 0.85 < new.variance < 1.15


def test_the_solve_is_near_its_bar(report: DemoReport) -> None:
    assert report.result.certificate.chi2 < 0.2
    assert report.result.certificate.empty_cells == 0
    assert report.planar.potential.dim == 2


def test_the_command_gives_the_same_numbers(
    report: DemoReport, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["demo", "--quick", "--out", str(tmp_path), "--json", "--no-progress"]) == 0
    again = json.loads(capsys.readouterr().out)
    assert set(again["quality"]) == {"new", "bare map", "Gaussian", "held out"}
    assert all(Path(path).exists() for path in again["files"].values())
    assert main(["evaluate", str(tmp_path)]) == 0
    if "max_time" in (again["solve"]["status"], report.result.status):
        pytest.skip("the machine was too slow: the clock decided where the solve stopped, not the seed")
    assert again["quality"] == report.to_dict()["quality"]


def test_codes_keep_distances_and_decode_what_they_encode() -> None:
    images, _ = digits()
    everything = Codes.of(images, 64)
    assert everything.explained == pytest.approx(1.0)
    assert np.allclose(everything.decode(everything.encode(images[:9])), images[:9].reshape(-1, 8, 8) / 16)
    few = Codes.of(images, 10)
    a, b = few.encode(images[:2])
    assert np.linalg.norm(a - b) == pytest.approx(np.linalg.norm((a - b) @ few.components))
    assert 0.5 < few.explained < 0.9


# --- the rule for the smoothing ---


def potential(scale: float = 1.0, shift: float = 0.0, n: int = 100, dim: int = 4) -> og.BrenierPotential:
    y = torch.randn(n, dim, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return og.BrenierPotential(scale * y + shift, torch.zeros(n))


def test_reg_on_two_points() -> None:
    u = og.BrenierPotential([[-1.0], [1.0]], [0.0, 0.0])  # V_x = V_y = 1, d = 1, n = 2
    assert entropic_reg(u, og.Gaussian(1), factor=3.0) == pytest.approx(3.0 / 2**0.5)


def test_reg_follows_the_unit_and_not_the_origin() -> None:
    eps = entropic_reg(potential(), og.Gaussian(4))
    assert entropic_reg(potential(scale=5.0), og.Gaussian(4)) == pytest.approx(5 * eps)
    assert entropic_reg(potential(shift=7.0), og.Gaussian(4)) == pytest.approx(eps)
    assert entropic_reg(potential(), og.Gaussian([3.0] * 4, 9.0)) == pytest.approx(3 * eps)
    assert entropic_reg(potential(), og.Gaussian(4), factor=1.0) == pytest.approx(eps / 4)


def test_reg_falls_as_one_over_the_root_of_n() -> None:
    y = potential().points
    twice = og.BrenierPotential(y.repeat(4, 1), torch.zeros(400))
    once = entropic_reg(potential(), og.Gaussian(4))
    assert entropic_reg(twice, og.Gaussian(4)) == pytest.approx(once / 2)
    # A copy with almost no weight counts for almost nothing.
    weights = torch.cat([torch.ones(100), torch.full((100,), 1e-9)])
    light = og.BrenierPotential(y.repeat(2, 1), torch.zeros(200), weights)
    assert entropic_reg(light, og.Gaussian(4)) == pytest.approx(once, rel=1e-6)


def test_reg_of_a_single_point_is_positive() -> None:
    assert entropic_reg(og.BrenierPotential([[1.0, 2.0]], [0.0]), og.Gaussian(2)) == 4.0


def test_reg_checks_its_arguments() -> None:
    with pytest.raises(ValueError, match="dimension"):
        entropic_reg(potential(), og.Gaussian(3))
    with pytest.raises(ValueError, match="factor"):
        entropic_reg(potential(), og.Gaussian(4), factor=0.0)
