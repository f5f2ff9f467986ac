"""The command ``otgan``: one file a subcommand, heavy imports inside the commands only."""

from __future__ import annotations

import sys
from collections.abc import Sequence

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``otgan`` with ``argv`` (the process's own arguments when left out) and return its exit code."""
    try:
        from otgan.cli.app import main as run

        return run(argv)
    except KeyboardInterrupt:  # while Python was still reading the program
        print("otgan: interrupted; nothing was saved.", file=sys.stderr)
        return 130
