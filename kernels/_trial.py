"""A first try of native code in a process of its own: where it crashes, no other process is lost."""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import subprocess
import sys
from pathlib import Path

SECONDS = 600
_TOLD = 300  # last characters of what a failed trial printed


def survives(code: str, versions: str, folder: Path, *, seconds: float = SECONDS) -> str | None:
    """Why ``code`` does not run to its end in a Python process of its own; None if it does.

    A success is remembered in ``folder`` for these ``versions``, so that one process pays for all later ones; a failure
    is not, as the next process may find what was missing.

    Args:
        code: what the process runs.
        versions: of all that takes part: another one is tried anew.
        folder: of the marks; made when it is missing, done without where it cannot be written to.
        seconds: after which the process is stopped.
    """
    if not sys.executable:  # embedded: there is no Python to start
        return None
    mark = folder / hashlib.sha256(f"{versions}\n{code}".encode()).hexdigest()[:32]
    if mark.exists():
        return None
    path = os.pathsep.join(place for place in sys.path if place)
    try:
        done = subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONPATH": path},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=seconds,
        )
    except subprocess.TimeoutExpired:
        return f"a trial in a process of its own did not end within {seconds:g} s"
    except OSError as error:
        return f"no process could be started to try it in: {error}"
    if done.returncode == 0:
        with contextlib.suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
            mark.write_text(versions + "\n", encoding="utf-8")
        return None
    how = f"exit status {done.returncode}"
    if done.returncode < 0:
        how = f"signal {-done.returncode}"
        with contextlib.suppress(ValueError):
            how = signal.Signals(-done.returncode).name
    told = " ".join((done.stderr + done.stdout).split())[-_TOLD:]
    return f"a trial in a process of its own ended by {how}" + (f": {told}" if told else "")
