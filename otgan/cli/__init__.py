"""The command ``otgan``: one file a subcommand, heavy imports inside the commands only."""

from otgan.cli.app import main

__all__ = ["main"]
