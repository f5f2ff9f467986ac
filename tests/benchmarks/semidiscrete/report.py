"""Results: the JSON file, the table in Markdown and the figure that are made of it."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from results import write as write

from semidiscrete.runs import Point, Reached, level_times, rank

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LEVELS = (0.1, 0.05, 0.02, 0.01)
FIRST = "otgan stochastic-newton"  # what the others are compared with

Record = dict[str, Any]


def read(file: Path) -> dict[str, Any]:
    """The results so far: machine, runs, efficiency; empty where there is no file."""
    if not file.exists():
        return {"machine": {}, "runs": [], "efficiency": {}}
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return found


def curve_of(run: Record) -> list[Point]:
    """The checkpoints of a run."""
    return [Point(*(math.inf if value is None else value for value in point)) for point in run["curve"]]


def best_times(runs: list[Record]) -> list[Reached | None]:
    """The fastest run to each level, trials included."""
    times = [level_times(curve_of(run), LEVELS) for run in runs]
    columns = [[found for found in column if found is not None] for column in zip(*times, strict=True)]
    return [min(column) if column else None for column in columns]


def final_run(runs: list[Record]) -> Record:
    """The run at full length; of several the best."""
    return min((run for run in runs if not run["trial"]), key=lambda run: rank(curve_of(run)))


def groups(results: dict[str, Any]) -> dict[str, dict[str, list[Record]]]:
    """Runs by problem and method, in the order in which they were made; methods without a full run are left out."""
    found: dict[str, dict[str, list[Record]]] = {}
    for run in results["runs"]:
        found.setdefault(run["problem"], {}).setdefault(run["method"], []).append(run)
    for methods in found.values():
        for method in [name for name, runs in methods.items() if all(run["trial"] for run in runs)]:
            del methods[method]
    return {problem: methods for problem, methods in found.items() if methods}


def table(results: dict[str, Any]) -> str:
    """One row a problem and method: seconds, samples a target and times the first method's seconds, to each level."""
    head = ["problem", "method", "setting", *(f"chi2 = {level:g}" for level in LEVELS), "end", "empty", "at N = 50 n"]
    rows = [head, ["---"] * len(head)]
    for problem, methods in groups(results).items():
        ours = best_times(methods[FIRST]) if FIRST in methods else [None] * len(LEVELS)
        for method, runs in methods.items():
            last = final_run(runs)
            end = curve_of(last)[-1]
            cells = [_cell(reached, last, reference) for reached, reference in zip(best_times(runs), ours, strict=True)]
            where = f"{problem}: {last['source']}, n = {last['n']:,}, d = {last['dim']}"
            setting = ", ".join(f"{name} {value:g}" for name, value in last["setting"].items()) or "defaults"
            efficiency = results["efficiency"].get(f"{problem}/{method}")
            limit = f"{efficiency[0]:.2f}" if efficiency else ""
            finally_ = f"{end.chi2:.2g} ({end.seconds:.3g} s, {end.samples / last['n']:.0f} n)"
            rows.append([where, method, setting, *cells, finally_, str(end.empty), limit])
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def _cell(reached: Reached | None, run: Record, ours: Reached | None) -> str:
    if reached is None:
        ratio = f" (> x{run['cap'] / ours.seconds:.2g})" if ours and run["method"] != FIRST else ""
        return f"> {run['cap']:.3g} s{ratio}"
    ratio = f" (x{reached.seconds / ours.seconds:.2g})" if ours and run["method"] != FIRST else ""
    return f"{reached.seconds:.3g} s, {reached.samples / run['n']:.0f} n{ratio}"


def legend(results: dict[str, Any]) -> str:
    """How the table is to be read, how each method was run, and on what machine."""
    machine = results["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in machine.get("versions", {}).items())
    notes = {run["method"]: run["note"] for run in results["runs"]}
    return "\n".join(
        [
            "Seconds and source samples (in multiples of n) until chi2 of the cell masses, measured on fresh samples,",
            "has fallen to a level; in brackets the multiple of the first method's seconds. Neither measuring nor",
            'compiling is counted. "end": chi2 when the run ended; "empty": cells that none of 12 n samples or more',
            'reached then; "at N = 50 n": chi2 N / (n - 1) of a run that may draw N samples, 1 at least if nothing',
            "but those is known. Settings were chosen by short trials on the problem; each level shows the best run.",
            "",
            *(f"- {method}: {note}" for method, note in notes.items()),
            "",
            f"{machine.get('cpu', '')}, {machine.get('threads', '?')} threads; {versions}".strip(),
        ]
    )


def figure(results: dict[str, Any]) -> Figure:
    """Chi2 against seconds, one panel a problem, both axes logarithmic; each method's full run."""
    import matplotlib.pyplot as plt
    from matplotlib.ticker import NullFormatter

    from otgan.plot._style import DPI, FRAME, INK, LINES, SMALL, TEXT, frame

    found = groups(results)
    if not found:
        raise ValueError("There are no results to draw: run the benchmark first.")
    names = list(dict.fromkeys(method for methods in found.values() for method in methods))
    columns = min(len(found), 4)
    rows = -(-len(found) // columns)
    made, axes = plt.subplots(
        rows, columns, figsize=(3.3 * columns, 3.0 * rows + 0.5), dpi=DPI, layout="constrained", squeeze=False
    )
    marks, lines = "osD^vP", {}
    for ax, (problem, methods) in zip(axes.flat, found.items(), strict=False):
        frame(ax, grid=True)
        ax.set(xscale="log", yscale="log")
        ax.xaxis.set_minor_formatter(NullFormatter())  # over one decade the labels would overlap
        for method, runs in methods.items():
            curve = [point for point in curve_of(final_run(runs)) if 0.0 < point.chi2 < math.inf]
            place = names.index(method)
            lines[method] = ax.plot(
                [point.seconds for point in curve], [point.chi2 for point in curve], color=LINES[place % len(LINES)],
                marker=marks[place % len(marks)], markersize=3.5, linewidth=2.2 if method == FIRST else 1.3,
                zorder=3 if method == FIRST else 2,
            )[0]  # fmt: skip
        for level in LEVELS:
            ax.axhline(level, color=FRAME, linewidth=0.8, linestyle=(0, (2, 3)), zorder=1)
        first = next(iter(methods.values()))[0]
        ax.set_title(f"{problem}\nn = {first['n']:,}, d = {first['dim']}", fontsize=SMALL, color=INK)
    for ax in axes.flat[len(found) :]:
        ax.set_visible(False)
    made.supxlabel("seconds", fontsize=TEXT, color=INK)
    made.supylabel(r"$\chi^2$ of the cell masses", fontsize=TEXT, color=INK)
    made.legend(
        [lines[name] for name in names],
        names,
        loc="outside upper center",
        ncols=min(len(names), 2 * columns),
        frameon=False,
        fontsize=SMALL,
    )
    return made
