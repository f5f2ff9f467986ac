"""The rule that ``tests/benchmarks/bench_kernels.py`` draws from its measurements, and that it runs."""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path

import pytest

from otgan.kernels import dispatch
from otgan.kernels.dispatch import Rule


@pytest.fixture(scope="module")
def bench():
    path = Path(__file__).parents[1] / "benchmarks" / "bench_kernels.py"
    spec = importlib.util.spec_from_file_location("bench_kernels", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_rows_of_winners(bench):
    rows = bench.rows_of("cpu", {512: "numba", 1: "keops", 2: "keops", 8: "numba", 1024: "torch"})
    assert rows == [Rule("cpu", 2, "keops"), Rule("cpu", 512, "numba"), Rule("cpu", math.inf, "torch")]
    assert bench.in_words(rows) == "keops up to 2, numba up to 512, torch beyond"
    assert bench.rows_of("cuda", {4: "keops"}) == [Rule("cuda", math.inf, "keops")]


@pytest.mark.parametrize("faster", ["torch", "numba", "neither"])
def test_the_rule_follows_the_times(bench, faster, monkeypatch, capsys):
    times = {"torch": {"torch": 1.0, "numba": 2.0}, "numba": {"torch": 2.0, "numba": 1.0}}
    equal = {"torch": 1.0, "numba": 1.02}
    monkeypatch.setattr(bench, "medians", lambda runs, *rest: {name: times.get(faster, equal)[name] for name in runs})
    monkeypatch.setattr(bench, "named", lambda *rest: ["torch", "numba"])
    monkeypatch.setattr(dispatch, "probe", lambda name, device: None)
    bench.main(["--device", "cpu", "--dims", "2", "9", "--sizes", "10x10"])
    printed = capsys.readouterr().out
    winner = "torch" if faster == "torch" else "numba"
    assert f'Rule("cpu", float("inf"), "{winner}")' in printed
    assert ("DIFFERENT" in printed) == (faster == "torch")


@pytest.mark.parametrize("what", ["rule", "table", "pruning"])
def test_it_runs(bench, what, capsys):
    options = ["--device", "cpu", "--dims", "2", "--repeat", "1", "--sizes", "100x100", "--backends", "torch"]
    bench.main([what, *options])
    printed = capsys.readouterr().out
    assert {"rule": "the rule says", "table": "soft_counts", "pruning": "clusters"}[what] in printed
