"""The entry point: parse, run one command, turn every ending into an exit code."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any, Union

import tyro

from otgan.cli.bench import Bench
from otgan.cli.common import FAILED, INTERRUPTED, OK, USAGE, Common, UsageError, note, say
from otgan.cli.demo import Demo
from otgan.cli.doctor import Doctor
from otgan.cli.evaluate import Evaluate
from otgan.cli.fit import Fit
from otgan.cli.plot import Plot
from otgan.cli.report import Report
from otgan.cli.sample import Sample

# Read when torch is loaded, by the commands: threads that spin while they wait take whole cores from their neighbours.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

_BROKEN_PIPE = 141  # what a shell reports for a process that SIGPIPE ended

_ABOUT = """Generator and critic from one convex solve: semi-discrete optimal transport.

Start here:
  otgan demo                        learn handwritten digits, draw new ones
  otgan fit points.npy --out run    transport a Gaussian to your points
  otgan fit pictures --latent 32    the same for images, in the codes of an autoencoder
  otgan sample run -n 1000          new points from what was learned
  otgan evaluate run                measure it again on fresh samples
  otgan report run                  all of it on one HTML page

  `otgan COMMAND --help` explains a command, `otgan --version` prints the version.
  Results go to standard output, progress and remarks to standard error.
  Exit codes: 0 done; 2 bad input or usage; 3 saved, but the tolerance was not
  reached; 130 interrupted; 1 anything else."""

_COMMANDS: dict[str, type[Common]] = {
    "demo": Demo,
    "fit": Fit,
    "sample": Sample,
    "evaluate": Evaluate,
    "plot": Plot,
    "report": Report,
    "bench": Bench,
    "doctor": Doctor,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``otgan`` with ``argv`` (the process's own arguments when left out) and return its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        code = _main(arguments)
        if sys.stdout is not None:
            sys.stdout.flush()  # a closed pipe shows itself here, not in the interpreter's last breath
    except OSError as error:  # a closed pipe, or a full disk behind the standard output
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):
            return _BROKEN_PIPE
        note(f"otgan: cannot write to the standard output: {error.strerror or error}.")
        return FAILED
    return code


def _commands(whole: bool) -> Any:
    """The union of all commands, with their whole descriptions or with the first lines only."""
    described = [
        Annotated[command, tyro.conf.subcommand(name, description=command.help(whole))]
        for name, command in _COMMANDS.items()
    ]
    return Union[tuple(described)]  # noqa: UP007  made at run time


def _main(arguments: list[str]) -> int:
    if arguments in (["--version"], ["-V"]):
        from importlib.metadata import version

        say(f"otgan {version('otgan')}")
        return OK
    # A benchmark's arguments are its own.
    arguments, passed_on = Bench.split(arguments) if arguments[:1] == ["bench"] else (arguments, [])
    try:
        command: Common = tyro.cli(
            _commands(whole=bool(arguments) and arguments[0] in _COMMANDS),
            prog="otgan",
            description=_ABOUT,
            args=arguments or ["--help"],
            config=(tyro.conf.FlagCreatePairsOff,),
        )
    except SystemExit as stop:
        return OK if stop.code in (None, 0) else USAGE
    if isinstance(command, Bench):
        command = replace(command, arguments=tuple(passed_on))
    try:
        return command.run()
    except BrokenPipeError:
        raise
    except KeyboardInterrupt:
        note("otgan: interrupted.")
        return INTERRUPTED
    except Exception as error:
        from otgan.datasets import DataError

        if command.debug:
            import traceback

            traceback.print_exc()
        if isinstance(error, (UsageError, DataError)):
            note(f"otgan: {error}")
            return USAGE
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        hint = "" if command.debug else " (repeat with --debug to see where)"
        note(f"otgan: {type(error).__name__}: {first}{hint}")
        return FAILED
