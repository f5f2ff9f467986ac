"""The last part of a report: settings, versions, seeds, and the command to repeat."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from otgan.report._html import Html, section, table, tag
from otgan.report._words import number

if TYPE_CHECKING:
    from otgan.report.run import Run


def reproduce(run: Run, seed: int, versions: Mapping[str, str], python: str) -> Html:
    """Settings, versions, seed, and the command."""
    result = run.parts[0].result
    given, used = (sum(getattr(part.result.target, name) for part in run.parts) for name in ("n_given", "n"))
    solvers = dict.fromkeys(
        f"{one.method}: {one.reason}" if one.reason else one.method for one in (part.result for part in run.parts)
    )
    classes = f"in {len(run.parts)} classes, each with a solve of its own, " if len(run.parts) > 1 else ""
    command = run.record.get("command")
    shown: list[Html] = []
    if isinstance(command, str):
        shown += [tag("p", "The run was made by"), tag("pre", tag("code", command))]
    else:
        shown.append(tag("p", "The command that made this run was not recorded with it; these are its settings."))
    rows: list[list[Any]] = [
        ["Source", repr(result.source)],
        ["Data", f"{used:,} points, {given:,} given, {classes}dimension {result.potential.dim}"],
        ["Solver", " ".join(solvers)],
        ["Tolerance", number(result.tol)],
        ["Seed of the run", "not recorded" if run.seed is None else run.seed],
        ["Seed of this report", seed],
        ["Generator", " ".join(dict.fromkeys(part.how for part in run.parts))],
    ]
    rows += [
        [f"Setting: {name}", value] for name, value in run.settings.items() if name != "seed" and value is not None
    ]
    for given in _inputs(run.record):
        rows.append([f"Input {given.get('path', '')}", f"SHA-256 {given.get('sha256', 'not taken: a folder')}"])
    if run.sha256:
        rows.append(["Saved tensors", f"SHA-256 {run.sha256}"])
    shown.append(table("Settings of the run.", [], rows))
    then = run.record.get("versions")
    then = then if isinstance(then, dict) else {}
    names = list(dict.fromkeys([*then, *versions]))
    body = [[name, then.get(name, "not recorded"), versions.get(name, "not installed")] for name in names]
    body.append(["Python", run.record.get("python", "not recorded"), python])
    shown.append(table("Versions, when the run was made and when this page was.", ["", "Run", "Page"], body))
    return section("How to reproduce", *shown, id_="reproduce")


def _inputs(record: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    found = record.get("inputs")
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []
