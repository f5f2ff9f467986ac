"""``otgan bench``: lists, runs, passes on what it is given and what it gets back."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from otgan.cli import main

BENCHMARKS = Path(__file__).resolve().parent / "benchmarks"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of benchmarks that ``otgan bench`` finds instead of the real one."""
    (tmp_path / "bench_quick.py").write_text(
        '"""Nothing at all.\n\nMore of it.\n"""\nimport sys, pathlib\n'
        "pathlib.Path(__file__).with_name('argv').write_text(repr(sys.argv[1:]))\nsys.exit(int(sys.argv[-1]))\n"
    )
    (tmp_path / "bench_long.py").write_text(
        '"""Sleeps."""\nimport time\nprint("began", flush=True)\ntime.sleep(60)\n', encoding="utf-8"
    )
    (tmp_path / "helper.py").write_text("raise RuntimeError\n")
    monkeypatch.setattr("otgan.cli.bench.benchmarks", lambda: tmp_path)
    return tmp_path


def test_list_names_every_benchmark_with_its_first_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == sorted(p.stem[6:] for p in BENCHMARKS.glob("bench_*.py"))
    assert all(len(line.split()) > 3 for line in lines)
    assert main(["bench", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["kernels"]["about"].startswith("Which kernel backend wins")


@pytest.mark.parametrize("code", [0, 7])
def test_arguments_and_exit_code_are_passed_on(folder: Path, code: int) -> None:
    assert main(["bench", "--debug", "quick", "--json", "-n", "a b", "--", str(code)]) == code
    assert (folder / "argv").read_text() == repr(["--json", "-n", "a b", "--", str(code)])


@pytest.mark.parametrize(
    ("argv", "said"),
    [(["bench", "quik"], "long, quick"), (["bench", "--json", "quick"], "--json"), (["bench", "-x"], "")],
)
def test_wrong_usage_is_2(folder: Path, argv: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(argv) == 2
    out, err = capsys.readouterr()
    assert out == "" and said in err and "Traceback" not in err
    assert not (folder / "argv").exists()


def test_without_the_source_it_says_where_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("otgan.cli.bench.__file__", str(tmp_path / "otgan" / "cli" / "bench.py"))
    assert main(["bench"]) == 2
    assert "pip install -e ." in capsys.readouterr().err


@pytest.mark.skipif(os.name != "posix", reason="signals")
@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 128 + signal.SIGTERM)])
def test_signals_reach_the_benchmark(folder: Path, sent: signal.Signals, code: int) -> None:
    program = (
        "import sys, pathlib, otgan.cli.bench as bench; folder = pathlib.Path(sys.argv.pop(1))\n"
        "bench.benchmarks = lambda: folder\nfrom otgan.cli import main; sys.exit(main())"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(folder), "bench", "long"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"began\n"
    process.send_signal(sent)  # to the command alone, as a terminal would not
    _, err = process.communicate(timeout=30)  # its end of the pipes is closed: the benchmark is gone too
    assert process.returncode == code
    assert (b"KeyboardInterrupt" in err) == (sent == signal.SIGINT)  # the benchmark's own
