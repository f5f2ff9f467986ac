"""``otgan bench``: the benchmarks of the source checkout."""

from __future__ import annotations

import ast
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from otgan.cli.common import INTERRUPTED, OK, Common, UsageError, optional, say, say_json

_PREFIX = "bench_"


@dataclass(frozen=True, kw_only=True)
class Bench(Common):
    """Run a benchmark, or list them.

    They come with the source, not with the installed package. What follows NAME goes to the
    benchmark (`otgan bench kernels --help` explains one), and its exit code is passed on.

      otgan bench
      otgan bench kernels --dims 2 64
    """

    name: Annotated[str | None, tyro.conf.Positional, optional("NAME")] = None
    """Which one; all are listed when left out."""
    arguments: tyro.conf.Suppress[tuple[str, ...]] = ()
    """What followed the name."""

    @staticmethod
    def split(arguments: list[str]) -> tuple[list[str], list[str]]:
        """``bench [own switches] NAME``, and what follows: it is the benchmark's, not to be parsed here."""
        for place, argument in enumerate(arguments[1:], 1):
            if not argument.startswith("-"):
                return arguments[: place + 1], arguments[place + 1 :]
        return arguments, []

    def run(self) -> int:
        """List, or run in a process of its own."""
        folder = benchmarks()
        found = {path.stem.removeprefix(_PREFIX): path for path in sorted(folder.glob(f"{_PREFIX}*.py"))}
        if self.name is None:
            if self.json:
                say_json({name: {"path": path, "about": about(path)} for name, path in found.items()})
                return OK
            width = max(len(name) for name in found)
            say("\n".join(f"{name:<{width}}  {about(path)}" for name, path in found.items()))
            return OK
        if self.json:
            raise UsageError("--json belongs to the list of benchmarks: leave NAME out, or --json.")
        if self.name not in found:
            raise UsageError(f"There is no benchmark {self.name!r}; there are: {', '.join(found)}.")
        return run_script(found[self.name], self.arguments)


def benchmarks() -> Path:
    """The folder ``tests/benchmarks`` beside the package, where it is used from its source."""
    folder = Path(__file__).resolve().parents[2] / "tests" / "benchmarks"
    if not any(folder.glob(f"{_PREFIX}*.py")):
        raise UsageError(
            f"The benchmarks are part of the source, not of the installed package: there is no {folder}. Get the "
            "source and install it from there with `pip install -e .`, then `otgan bench` finds them."
        )
    return folder


def about(path: Path) -> str:
    """First line of a script's docstring, read without running the script."""
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return text.partition("\n")[0].replace("``", "`")


def run_script(path: Path, arguments: tuple[str, ...]) -> int:
    """Run a script by this interpreter, on this terminal, and await its end.

    Ctrl-C and a request to terminate reach the script; a second Ctrl-C kills it.

    Returns its exit code, 128 + the number of the signal that ended it, or 130 when it was interrupted.
    """
    sys.stdout.flush()
    with subprocess.Popen([sys.executable, os.fspath(path), *arguments]) as process:
        before = signal.signal(signal.SIGTERM, lambda *_: process.terminate())
        try:
            code = process.wait()
        except KeyboardInterrupt:
            _interrupt(process)
            return INTERRUPTED
        finally:
            signal.signal(signal.SIGTERM, before)
    return code if code >= 0 else 128 - code


def _interrupt(process: subprocess.Popen[bytes]) -> None:
    """See that an interrupt reaches the process: a terminal sends it to both, another process to us alone."""
    try:
        try:
            process.wait(timeout=1.0)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGINT)
            process.wait()
    except KeyboardInterrupt:
        process.kill()
