"""The harness of the adversarial benchmark: what it measures, keeps and shows, not how good anything is."""

from __future__ import annotations

import importlib
import math
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

BENCHMARKS = Path(__file__).resolve().parent / "benchmarks"
PARTS = ("gan", "semidiscrete", "bench_gan", "bench_collapse", "bench_memorisation")


@pytest.fixture
def harness(monkeypatch: pytest.MonkeyPatch):
    """Imports a module of the benchmark, as the script does that stands beside it."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))

    def load(name: str) -> ModuleType:
        return importlib.import_module(name)

    yield load
    for name in [name for name in sys.modules if name.partition(".")[0] in PARTS]:
        del sys.modules[name]


def record(method: str, problem: str = "grid", seed: int = 0, kind: str = "published", **more) -> dict:
    """A run that took 100 s, whose sliced W2 is 10 / seconds and whose value follows it."""
    curve = [
        {"seconds": t, "step": 10 * t, "sliced_w2": 10 / t, "value": 30 / t, "generator_loss": (-1) ** k, "modes": 20.0,
         "high_quality": 0.5}
        for k, t in enumerate((1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 40.0, 60.0, 80.0, 100.0))
    ]  # fmt: skip
    final = {"sliced_w2": 0.1, "modes": 20.0, "high_quality": 0.8, "reverse_kl": 0.1, "energy": 0.01, "c_t": 2.0}
    held = {**final, "modes": 25.0, "sliced_w2": 0.05}
    about = {
        "problem": problem,
        "method": method,
        "seed": seed,
        "kind": kind,
        "budget": 100.0,
        "width": 8,
        "setting": {},
        "n_train": 10_000,
    }
    run = {
        **about,
        "curve": curve,
        "final": final,
        "held_out": held,
        "seconds": 100.0,
        "steps": 1000,
        "status": "stopped",
    }
    run |= {"parameters": 99, "note": "as it is", "samples": [[0.0, 1.0], [1.0, 0.0]], "unit": 1.0}
    return {**run, "key": f"{problem}/{method}/{seed}/{kind}", **more}


def test_arms_are_judged_as_modes(harness) -> None:
    law, rng = harness("gan.problems").spiral_arms(), np.random.default_rng(0)
    points = law.draw(8000, rng)
    captured, good, kl = law.judge(points)
    assert captured == law.modes == 16 and good > 0.98 and kl < 0.01
    upper = points[np.arctan2(points[:, 1], points[:, 0]) > 0]  # whole turns apart: every arm loses some, none all
    assert law.judge(upper)[2] > 0.1
    assert law.judge(np.full((50, 2), 9.0))[:2] == (0, 0.0)


def test_digits_of_codes(harness) -> None:
    problems, rng = harness("gan.problems"), np.random.default_rng(0)
    labels = np.repeat(np.arange(10), 100)
    points = 10.0 * np.eye(10)[labels] + 0.1 * rng.normal(size=(1000, 10))
    data = problems.Data("codes", points, points + 0.01 * rng.normal(size=points.shape), points, 1.0, labels)
    shown, good, kl = problems.digits(data, points)
    assert shown == problems.modes("codes") == 10 and good > 0.95 and kl < 1e-12
    assert good == pytest.approx(problems.metrics.precision(points, data.test), abs=1e-3)
    few = np.concatenate([points[labels < 2], points[labels == 2][:1], 10.0 + points[labels == 3]])
    shown, good, kl = problems.digits(data, few)
    assert shown == 2  # one code is not enough, and what is off the support shows nothing
    assert 0.6 < good < 0.68 and kl > 1.0
    assert problems.look(data, points) | {"sliced_w2": 0} == {
        "sliced_w2": 0, "modes": 10.0, "high_quality": problems.digits(data, points)[1], "reverse_kl": 0.0
    }  # fmt: skip


@pytest.mark.parametrize("name", ["ring", "grid", "roll", "arms"])
def test_data_have_unit_variance_and_are_judged_in_their_own_units(harness, name: str) -> None:
    problems = harness("gan.problems")
    data = problems.draw(name, seed=1, n_train=2000)
    assert float(data.train.var(axis=0).mean()) == pytest.approx(1.0)
    found = problems.look(data, data.fresh)
    assert found["modes"] == problems.planar()[name].modes and found["high_quality"] > 0.97
    assert not set(map(tuple, data.train)) & set(map(tuple, data.test))
    assert not np.array_equal(data.train, problems.draw(name, seed=2, n_train=2000).train)


def test_a_run_is_measured_on_both_grids(harness) -> None:
    moments = harness("gan.runs").moments(200.0)
    assert moments == sorted(moments) and (moments[0], moments[-1]) == (1.0, 200.0)
    ratios = [1.0 * 200.0 ** (k / 11) for k in range(12)]
    assert all(min(abs(t - m) for m in moments) < 1e-3 for t in (*ratios, *(10.0 * k for k in range(1, 21))))


def test_the_stopwatch_stands_still_while_quality_is_measured(harness, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = harness("gan.runs")
    now = [0.0]
    monkeypatch.setattr(runs.time, "process_time", lambda: now[0])

    def look(data, new):
        now[0] += 100.0
        return {"sliced_w2": 1.0}

    monkeypatch.setattr(runs, "look", look)

    class State:
        step, steps, critic_loss, generator_loss, value = 0, 10, 0.0, 0.0, 0.0

        class model:
            @staticmethod
            def sample(n, seed):
                return harness("torch").zeros(n, 2)

    data = harness("gan.problems").draw("ring", 0, 50)
    recorder = runs.Recorder(data, budget=8.0, seed=0)
    over, ticks = False, 0
    while not over:
        now[0] += 0.5
        ticks += 1
        over = recorder(State())
    assert ticks == 16 and recorder.curve[-1]["seconds"] == pytest.approx(8.0)
    assert [p["seconds"] for p in recorder.curve] == [0.5 * k for k in range(1, 17)]


def test_samples_that_are_not_finite_end_no_benchmark(harness) -> None:
    class State:
        step, steps, critic_loss, generator_loss, value = 1, 1, 0.0, 0.0, 0.0

        class model:
            @staticmethod
            def sample(n, seed):
                return harness("torch").full((n, 2), math.nan)

    recorder = harness("gan.runs").Recorder(harness("gan.problems").draw("ring", 0, 50), budget=0.0, seed=0)
    recorder(State())
    assert [point["sliced_w2"] for point in recorder.curve] == [math.inf]


def test_published_settings_but_for_what_the_codes_need(harness) -> None:
    runs = harness("gan.runs")
    assert runs.settings_of(runs.Task("ring", "wgan-gp", 0, "published", 1.0, 128), 2) == {"width": 128, "depth": 3}
    assert runs.settings_of(runs.Task("ring", "gan", 0, "steps", 0.0, 0), 2)["width"] == 128
    codes = runs.settings_of(runs.Task("codes", "wgan-gp", 0, "published", 1.0, 128), 32)
    assert codes["latent"] == 32 and codes["penalty_weight"] == 10.0
    tuned = runs.Task("ring", "gan", 0, "tuned", 1.0, 128, {"lr": 5e-4, "critic_steps": 5})
    assert runs.settings_of(tuned, 2)["critic_lr"] == 5e-4
    keys = {runs.Task("ring", "gan", 0, "trial", 1.0, 128, setting).key for setting in runs.GRID}
    assert len(keys) == len(runs.GRID) == 6


def test_what_counts_as_failed(harness) -> None:
    failed = harness("gan.runs").failed
    good = record("gan")
    good["final"] = {**good["held_out"]}
    assert not failed(good) and failed(record("gan")) and failed({**good, "status": "diverged"})
    assert failed({**good, "final": {**good["final"], "high_quality": 0.4}})
    codes = {"final": {"sliced_w2": 0.3, "energy": 1.0}, "held_out": {"sliced_w2": 0.05}, "status": "stopped"}
    assert failed(codes) and not failed({**codes, "final": {"sliced_w2": 0.1, "energy": 1.0}})


def test_correlations_of_a_curve(harness) -> None:
    report = harness("gan.report")
    found = report.correlations(record("wgan"), 4)
    assert found["value Spearman"] == pytest.approx(1) and found["value Pearson"] == pytest.approx(1)
    assert abs(found["generator_loss Spearman"]) < 0.7
    late = record("wgan")
    for point in late["curve"][:5]:  # the critic has still to be learned
        point["value"] = 0.0
    assert report.correlations(late, 4) == found and report.correlations(late, 20)["value Spearman"] < 0.9
    short = record("wgan")
    short["curve"] = short["curve"][:4]
    assert report.correlations(short, 4) == {}


def test_tables_findings_and_figures_of_a_file(harness, tmp_path: Path) -> None:
    report, file = harness("gan.report"), tmp_path / "a" / "r.json"
    runs = [record("gan", seed=s) for s in (1, 0)] + [record("otgan", seconds=4.0), record("gan", kind="trial")]
    runs.append(record("wgan", final={"sliced_w2": math.inf}))
    report.write(file, {"machine": {"cpu": "some"}, "runs": runs})
    results = report.read(file)
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in report.table(results).splitlines()]
    assert len({len(row) for row in rows}) == 1
    named = [row[1] for row in rows[2:]]
    assert named == ["held-out points", "gan", "wgan", "otgan"]
    assert rows[3][2:7] == ["2", "20.0 of 25 (all: 0)", "80.0", "0.1000", "0.1000"]
    assert rows[4][3] == "" and rows[4][6] == ""  # what is not finite is not shown
    said = report.findings(results)
    assert "gan drops 5, 5 of 25" in said and "sliced W2 0.1000, first by gan after 100 (2 of 2) s" in said
    assert "by otgan after 100 (1 of 1) s, 1 times less" in said and "as it is" in report.legend(results)
    with pytest.raises(ValueError, match="two runs of seed 0"):
        report.table(results | {"runs": [*results["runs"], record("gan", seed=0, key="again")]})
    assert "| grid | gan | 2 | 1.00 (1.00 to 1.00) |" in report.correlation_table(results)
    drawn = report.figures(results, tmp_path / "q.png")
    assert [path.name for path in drawn] == ["q.png", "q_samples.png"] and all(path.stat().st_size for path in drawn)
    assert report.read(tmp_path / "none.json")["runs"] == []


def test_one_rule_for_all_who_reach_a_level(harness) -> None:
    """The level is the best baseline's; the fastest to it may be another one; who never is there is not averaged."""
    report = harness("gan.report")

    def quicker(by: float, **more) -> dict:
        run = record(**more)
        for point in run["curve"]:
            point["sliced_w2"] /= by
        return run

    def of(runs: list[dict]) -> dict:
        return report.groups({"runs": runs})["grid"]

    slow = [record("wgan-gp", seed=s) for s in (0, 1)]
    fast = [quicker(5.0, method="wgan", seed=s, kind="tuned", final={"sliced_w2": 0.3}) for s in (0, 1)]
    fast.append(quicker(0.1, method="wgan", seed=2, kind="tuned", final={"sliced_w2": 0.3}))  # never there
    ours = [quicker(20.0, method="otgan", seed=0), quicker(0.1, method="otgan", seed=1)]
    late = record("gan", kind="steps", final={"sliced_w2": 0.01})  # had another time
    methods = of([*slow, *fast, *ours, late])
    reached = report.times(methods)
    assert report.level(methods) == 0.1 and "gan (steps)" not in reached
    assert (reached["wgan-gp"].seconds, reached["wgan-gp"].seeds) == (100.0, 2)
    assert reached["wgan (tuned)"].text() == "20 (2 of 3)" and reached["otgan"].text() == "5 (1 of 2)"
    said = report.findings({"runs": [*slow, *fast, *ours]})
    assert "first by wgan (tuned) after 20 (2 of 3) s; by otgan after 5 (1 of 2) s, 4 times less" in said
    seldom = [quicker(0.1, method="otgan", seed=2)]  # one seed of three is no time to speak of, for us as for others
    assert report.findings({"runs": [*slow, *fast, *ours, *seldom]}).endswith("; by otgan after 5 (1 of 3) s")
    low = of([record("wgan", final={"sliced_w2": 0.01})])  # below real points: their level, 0.05, is what counts
    assert report.level(low) == 0.05 and report.times(low)["wgan"].text() == "never (0 of 1)"


def test_a_setting_is_chosen_by_what_is_shown(harness) -> None:
    score = harness("gan.runs").score
    good = record("gan")
    assert score(good, 100.0)[0] == pytest.approx(20 / 25 * 0.5) and score(good, 100.0)[1] == pytest.approx(-0.1125)
    for point in good["curve"][-2:]:
        point["high_quality"] = 0.9
    assert score(good, 100.0) > score(record("gan"), 100.0) and score(good, 40.0) == score(record("gan"), 40.0)
    assert score(record("gan", status="diverged"), 100.0)[0] == -1.0
    best_of, nearer = harness("gan.runs").best_of, record("gan")
    for point in nearer["curve"]:
        point["sliced_w2"], point["modes"] = point["sliced_w2"] / 2, 19.0
    assert best_of([record("gan"), good, nearer], 100.0) is good
    assert best_of([good, record("gan"), nearer], 100.0) is nearer  # the published one failed: any other that helps
    assert best_of([published := record("gan"), record("gan")], 100.0) is published


def test_time_to_a_level(harness) -> None:
    time_to = harness("gan.report").time_to
    assert time_to(record("otgan"), 0.5) == 20.0 and time_to(record("otgan"), 0.01) is None


def test_what_is_there_is_not_run_again(harness, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    bench, runs = harness("bench_gan"), harness("gan.runs")
    monkeypatch.setattr(bench, "ProcessPoolExecutor", lambda jobs, context, start, told: ThreadPoolExecutor(jobs))
    monkeypatch.setattr(bench, "limit_threads", lambda threads: None)  # of the tests that follow in this process
    done, better = [], {"lr": 5e-4, "critic_steps": 5}

    def run(task):
        done.append(task.key)
        more = {"key": task.key, "setting": task.setting, "budget": task.budget}
        made = record(task.method, task.problem, task.seed, task.kind, **more)
        for point in made["curve"] if task.setting == better else ():
            point["high_quality"] = 0.9
        return made

    monkeypatch.setattr(runs, "run", run)

    def call(*more: str) -> str:
        argv = ["bench_gan", "--problems", "grid", "--methods", "gan", "otgan", "--width", "8", "--budget", "100"]
        monkeypatch.setattr(sys, "argv", [*argv, "--out", str(tmp_path / "r.json"), *more])
        bench.main()
        return capsys.readouterr().out

    call("--seeds", "1")
    assert len(done) == 2
    call("--seeds", "2")
    assert len(done) == 4
    said = call("--seeds", "2", "--grid", "--steps", "published")
    assert sum("/trial/" in key for key in done) == 6 and sum("/tuned/" in key for key in done) == 2
    assert sum("/steps/" in key for key in done) == 1 and "gan (tuned)" in said
    assert all("critic_steps=5/lr=0.0005" in key for key in done if "/tuned/" in key)
    before = len(done)
    assert "| grid |" in call("--seeds", "2", "--grid", "--steps", "published") and len(done) == before
    better = {}  # the published setting
    before = len(done)
    assert "gan (tuned)" not in call("--problems", "ring", "--seeds", "2", "--grid")
    assert sum("ring/gan" in key for key in done) == 2 + 6 and len(done) == before + 10
    assert "| grid | gan | 2 |" in call("--table") and "| grid | gan | 2 |" not in call("--table", "--budget", "7")
    with pytest.raises(SystemExit, match="there is no cube"):
        call("--problems", "cube")


@pytest.mark.parametrize("method", ["wgan-gp", pytest.param("otgan-mlp", marks=pytest.mark.slow)])
def test_one_run(harness, method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = harness("gan.runs")
    monkeypatch.setattr(runs, "_SHORTER", 1)
    budget = 0.3 if method == "wgan-gp" else 0.0
    found = runs.run(runs.Task("ring", method, 0, "published", budget, 8, n_train=200))
    assert found["curve"] and found["final"]["sliced_w2"] > 0 and len(found["samples"]) == 800
    seconds = [point["seconds"] for point in found["curve"]]
    assert seconds == sorted(seconds) and found["seconds"] >= 0.99 * seconds[-1]
    if method == "wgan-gp":
        assert found["steps"] > 2 and 0.3 <= found["seconds"] < 3.0 and found["parameters"] == 3 * 8 + 2 * 72 + 18


def test_processor_is_told_with_its_model(harness, tmp_path: Path) -> None:
    info = tmp_path / "cpuinfo"
    info.write_text("model name\t: Some\ncpu family\t: 25\nmodel\t\t: 1\n\nmodel name\t: Other\nmodel\t\t: 2\n")
    processor = harness("results").processor
    assert processor(info) == "Some (family 25, model 1)"
    assert processor(tmp_path / "none")
