"""The harness of the semi-discrete benchmark: what it counts and shows, not how fast anything is."""

from __future__ import annotations

import importlib
import math
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

import otgan as og

BENCHMARKS = Path(__file__).resolve().parent / "benchmarks"


@pytest.fixture
def harness(monkeypatch: pytest.MonkeyPatch):
    """Imports a module of the benchmark, as the script does that stands beside it."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))

    def load(name: str) -> ModuleType:
        return importlib.import_module(f"semidiscrete.{name}")

    yield load
    for name in [name for name in sys.modules if name.partition(".")[0] == "semidiscrete"]:
        del sys.modules[name]


def small(problems: ModuleType):
    """Thirty targets in three dimensions."""
    target = og.DiscreteMeasure(problems.clusters(30, 3))
    return problems.Problem("small", og.Gaussian(3), target, cap=1.0, trial=0.1)


def test_level_times_lie_on_the_line_between_checkpoints(harness) -> None:
    runs = harness("runs")
    curve = [runs.Point(t, int(1e6 * t), 0.2 / t, 0.0, 0) for t in (1.0, 3.0, 10.0, 30.0)]  # chi2 = 0.2 / t
    for level, found in zip((0.1, 0.05, 0.02, 0.01), runs.level_times(curve), strict=True):
        assert found.seconds == pytest.approx(0.2 / level)
        assert found.samples == pytest.approx(1e6 * 0.2 / level)


def test_level_times_at_the_ends_of_a_curve(harness) -> None:
    runs = harness("runs")
    point = runs.Point
    first, last = runs.level_times([point(2.0, 50, 0.04, 0.0, 0), point(4.0, 90, 0.03, 0.0, 0)], (0.05, 0.02))
    assert first == (2.0, 50.0)  # there from the first checkpoint on: an upper bound
    assert last is None
    found = runs.level_times([point(1.0, 10, math.inf, 0.0, 9), point(2.0, 20, -1e-3, 0.0, 0)], (0.1,))
    assert found == [(2.0, 20.0)]
    (found,) = runs.level_times([point(1.0, 10, 0.2, 0.0, 9), point(2.0, 20, -1e-3, 0.0, 0)], (0.1,))
    assert 1.0 < found.seconds < 2.0
    assert runs.level_times([], (0.1,)) == [None]


def test_measured_chi2_is_unbiased(harness, monkeypatch: pytest.MonkeyPatch) -> None:
    problems = harness("problems")
    problem = problems.Problem("slabs", og.UniformBox(dim=3), og.DiscreteMeasure(problems.slabs(40, 3)), 1.0, 1.0)
    cuts = np.sort(np.random.default_rng(0).random(39))
    masses = np.diff(cuts, prepend=0.0, append=1.0)
    y = problem.target.points[:, 0].numpy()  # cell i ends where <x, y_i> + h_i = <x, y_i+1> + h_i+1
    h = np.concatenate([[0.0], -np.cumsum(cuts * np.diff(y))])
    scaled = problem.change.scaled_heights(torch.from_numpy(h), problem.target.points)
    errors = []
    for seed in range(60):
        monkeypatch.setattr(problems, "_SEED", seed)
        found = problem.measure(scaled)
        errors.append((found.chi2 - float(((masses - 1 / 40) ** 2 * 40).sum())) / found.stderr)
    assert abs(np.mean(errors)) < 4.0 / 60**0.5
    assert 0.6 < np.std(errors) < 1.6


def test_the_stopwatch_stands_still_while_chi2_is_measured(harness, monkeypatch: pytest.MonkeyPatch) -> None:
    runs, problems = harness("runs"), harness("problems")
    now = [0.0]
    monkeypatch.setattr(runs.time, "perf_counter", lambda: now[0])

    def measure(self, heights, least=0):
        now[0] += 100.0
        return problems.Measured(1.0, 0.0, 0, 10**9)

    monkeypatch.setattr(problems.Problem, "measure", measure)
    recorder = runs.Recorder(problems.make("clusters-cube-2000", quick=True), cap=8.0, checkpoints=4, span=8.0)
    recorder.start()
    while not recorder.over:
        now[0] += 0.5
        if recorder.due:
            recorder.checkpoint(torch.zeros(200), 7)
    assert [point.seconds for point in recorder.curve] == pytest.approx([1.0, 2.0, 4.0, 8.0])


def test_pot_is_read_while_it_runs(harness) -> None:
    """The average at the k-th call of the sampler is what POT returns for k - 1 iterations."""
    pot, problem = harness("pot"), small(harness("problems"))
    seen = []

    class Recorder:
        due = True

        def start(self) -> None:
            pass

        def checkpoint(self, heights, samples) -> bool:
            seen.append((heights, samples))
            return samples >= 5 * 64

    setting = {"lr0": 1.0, "batch": 64, "eps0": 1.0}
    for method in (pot.SGD, pot.DRAG):
        seen.clear()
        method.run(problem, setting, Recorder())
        assert [samples for _, samples in seen] == [64, 128, 192, 256, 320]
        y = pot.as_backend(problem, pot.fastest(problem, 64, method.drag))
        dual = pot.call(y, pot.sampler(problem, y), setting, problem.n, method.drag, 5)
        heights = (torch.as_tensor(dual).double() - (problem.points**2).sum(1)) / 2
        torch.testing.assert_close(seen[-1][0], heights)


def test_ott_in_pieces_is_one_run(harness) -> None:
    pytest.importorskip("ott", reason="the bench extra is not installed")
    begin, advance = harness("ott_jax").pieces(small(harness("problems")), 64)
    number = {"lr": 0.3, "eps0": 1.0}
    whole, parts = advance(begin(), 9, number), advance(advance(begin(), 4, number), 5, number)
    np.testing.assert_allclose(whole.g_ema, parts.g_ema, rtol=1e-5)
    assert int(parts.it) == 9 and float(np.abs(parts.g_ema).max()) > 0.0


def test_samples_are_counted_and_chi2_falls(harness) -> None:
    ours, problems, runs = harness("ours"), harness("problems"), harness("runs")
    problem = problems.make("clusters-gauss-2000", quick=True)
    recorder = runs.Recorder(problem, cap=20.0, span=2000.0)
    ours.NEWTON.run(problem, {}, recorder)
    samples = [point.samples for point in recorder.curve]
    assert samples == sorted(samples) and samples[-1] > problem.n
    assert recorder.curve[-1].chi2 < 0.05


def test_table_and_figure_of_a_file(harness, tmp_path: Path) -> None:
    report, file = harness("report"), tmp_path / "a" / "r.json"

    def run(method: str, chi2: list[float], trial: bool = False) -> dict:
        curve = [[float(4**i), 2000 * 4**i, value, 1e-3, 5 - i] for i, value in enumerate(chi2)]
        setting = {} if method == report.FIRST else {"lr0": 0.3}
        about = {"problem": "p", "n": 2000, "dim": 10, "source": "cube", "note": "as it is", "cap": 16.0}
        return {**about, "method": method, "setting": setting, "trial": trial, "curve": curve}

    peer = [run("POT", [0.1], trial=True), run("POT", [math.inf, 0.2, 0.05])]
    unfinished = run("OTT", [1.0], trial=True)
    runs = [run(report.FIRST, [0.1, 0.02, 0.005]), *peer, unfinished]
    report.write(file, {"machine": {"threads": 2}, "runs": runs, "efficiency": {f"p/{report.FIRST}": [1.07, 0.02]}})
    results = report.read(file)
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in report.table(results).splitlines()]
    assert len(rows) == 4 and {len(row) for row in rows} == {10}
    ours, theirs = rows[2:]
    assert ours[:4] == ["p: cube, n = 2,000, d = 10", report.FIRST, "defaults", "1 s, 1 n"]
    assert ours[6:] == ["8 s, 8 n", "0.005 (16 s, 16 n)", "3", "1.07"]
    assert theirs[1:5] == ["POT", "lr0 0.3", "1 s, 1 n (x1)", "16 s, 16 n (x8.8)"]
    assert theirs[5:] == ["> 16 s (> x4)", "> 16 s (> x2)", "0.05 (16 s, 16 n)", "3", ""]
    assert "- POT: as it is" in report.legend(results)
    drawn = report.figure(results)
    lines = drawn.axes[0].get_lines()
    assert [len(line.get_xdata()) for line in lines if line.get_marker() != "None"] == [3, 2]
    drawn.savefig(tmp_path / "r.png")
    assert report.read(tmp_path / "none.json")["runs"] == []
