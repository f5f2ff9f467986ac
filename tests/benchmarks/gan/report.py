"""The JSON file of the results, the tables in Markdown and the figures that are made of it."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from results import write as write_indented

from gan.problems import NAMES, modes, planar
from gan.runs import BASELINES, METHODS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Record = dict[str, Any]
_DIGITS = 6


def write(file: Path, results: dict[str, Any]) -> None:
    """Replace the file in one step; no indentation (the samples would take a line a number), few digits."""
    write_indented(file, _short(results), indent=None)


def _short(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _short(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_short(item) for item in value]
    return float(f"{value:.{_DIGITS}g}") if isinstance(value, float) else value


def read(file: Path) -> dict[str, Any]:
    """The results so far."""
    if not file.exists():
        return {"machine": {}, "runs": []}
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return found


# ----------------------------------------------------------------------- rows


def label(run: Record) -> str:
    """How a run is called in tables and figures."""
    return run["method"] if run["kind"] == "published" else f"{run['method']} ({run['kind']})"


def groups(results: dict[str, Any]) -> dict[str, dict[str, list[Record]]]:
    """Runs by problem and label, without trials, in the order of the names."""
    found: dict[str, dict[str, list[Record]]] = {}
    for problem in NAMES:
        runs = [run for run in results["runs"] if run["problem"] == problem and run["kind"] != "trial"]
        runs.sort(key=lambda run: (METHODS.index(run["method"]), run["kind"], run["seed"]))
        for run in runs:
            same = found.setdefault(problem, {}).setdefault(label(run), [])
            if any(other["seed"] == run["seed"] for other in same):
                raise ValueError(f"{problem}, {label(run)}: two runs of seed {run['seed']}, such as {run['key']}.")
            same.append(run)
    return found


def mean(runs: list[Record], name: str, of: str = "final") -> float:
    """Mean over seeds of one number; NaN where a run has none."""
    values = [run[of].get(name) for run in runs]
    return float(np.mean([math.nan if value is None else value for value in values])) if values else math.nan


def _show(runs: list[Record], name: str, form: str, of: str = "final", scale: float = 1.0) -> str:
    value = mean(runs, name, of) * scale
    return format(value, form) if math.isfinite(value) else ""


def _rows(rows: list[list[str]]) -> str:
    head, *rest = rows
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, ["---"] * len(head), *rest])


def table(results: dict[str, Any]) -> str:
    """One row a problem and method, means over seeds."""
    rows = [
        ["problem", "method", "seeds", "modes", "high quality %", "reverse KL", "sliced W2", "energy", "C_T",
         "authenticity", "parameters", "steps", "seconds", "seconds to the level (seeds)"]
    ]  # fmt: skip
    for problem, methods in groups(results).items():
        first = next(iter(methods.values()))
        total, reached = modes(problem), times(methods)
        for name, runs in [("held-out points", first), *methods.items()]:
            of = "held_out" if name == "held-out points" else "final"
            captured = _show(runs, "modes", ".1f", of)
            whole = sum(1 for run in runs if run[of].get("modes") == total)
            sliced = _show(runs, "sliced_w2", ".4f", of)
            row = [problem, name, str(len(runs)), f"{captured} of {total} (all: {whole})" if captured else ""]
            row += [_show(runs, "high_quality", ".1f", of, 100.0), _show(runs, "reverse_kl", ".4f", of), sliced]
            row += [_show(runs, "energy", ".4f", of), _show(runs, "c_t", ".1f", of)]
            row.append(_show(runs, "authenticity", ".3f", of))
            if of == "final":
                row += [f"{runs[0]['parameters']:,}", f"{np.mean([r['steps'] for r in runs]):,.0f}"]
                row += [f"{np.mean([r['seconds'] for r in runs]):.1f}", reached[name].text() if name in reached else ""]
            rows.append(row if of == "final" else [*row, "", "", "", ""])
    return _rows(rows)


# ---------------------------------------------------------------- correlations


STARTS = (20, 4)
"""Correlations are taken from this part of a run on: a critic has to be learned before its value means anything."""


def correlations(run: Record, part: int) -> dict[str, float]:
    """Of the critic's value, and of the generator's loss, with sliced W2 over the last ``1 - 1 / part`` of one run."""
    from scipy import stats

    start = run["seconds"] / part
    told = ((p, p.get("value"), p["sliced_w2"]) for p in run["curve"] if p["seconds"] >= 0.98 * start)
    rows = [p for p, value, distance in told if _known(value) and _known(distance)]
    found: dict[str, float] = {}
    if len(rows) < 5:
        return found
    distance = np.array([p["sliced_w2"] for p in rows])
    for name in ("value", "generator_loss"):
        values = np.array([p[name] for p in rows], dtype=float)
        if np.isfinite(values).all() and values.std() > 0 and distance.std() > 0:
            found[f"{name} Spearman"] = float(stats.spearmanr(values, distance).statistic)
            found[f"{name} Pearson"] = float(stats.pearsonr(values, distance).statistic)
    return found


def _known(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def correlation_table(results: dict[str, Any]) -> str:
    """Mean and range over seeds, one row a problem and baseline."""
    names = [(part, f"value {kind}") for part in STARTS for kind in ("Spearman", "Pearson")]
    names.append((STARTS[0], "generator_loss Spearman"))
    shown = [f"{name.replace('_', ' ')}, from 1/{part} on" for part, name in names]
    rows = [["problem", "method", "seeds", *shown]]
    for problem, methods in groups(results).items():
        for name, runs in methods.items():
            if runs[0]["method"] not in BASELINES:
                continue
            found = {part: [correlations(run, part) for run in runs] for part in STARTS}
            cells = []
            for part, which in names:
                values = [one[which] for one in found[part] if which in one]
                spread = f" ({min(values):.2f} to {max(values):.2f})" if len(values) > 1 else ""
                cells.append(f"{np.mean(values):.2f}{spread}" if values else "")
            rows.append([problem, name, str(len(runs)), *cells])
    return _rows(rows)


# ------------------------------------------------------------------- findings


def time_to(run: Record, level: float, name: str = "sliced_w2") -> float | None:
    """Seconds of the first point of the curve whose ``name`` is at most ``level``."""
    at = [p["seconds"] for p in run["curve"] if p.get(name) is not None and p[name] <= level]
    return min(at) if at else None


def level(methods: dict[str, list[Record]]) -> float:
    """Sliced W2 that the best baseline ends with, or that of real points, where it ends below: there chance decides.

    Runs for the published number of steps are not asked: their time is another.
    """
    ends = [mean(runs, "sliced_w2") for runs in methods.values() if _timed(runs) and runs[0]["method"] in BASELINES]
    ends = [value for value in ends if math.isfinite(value)]
    return max(min(ends), mean(next(iter(methods.values())), "sliced_w2", "held_out")) if ends else math.nan


@dataclass(frozen=True)
class Reached:
    """When a method is at the level, mean over the seeds that get there, and how many of how many do."""

    seconds: float
    seeds: int
    of: int

    def text(self) -> str:
        """For a table."""
        return f"{self.seconds:.3g} ({self.seeds} of {self.of})" if self.seeds else f"never (0 of {self.of})"


def times(methods: dict[str, list[Record]]) -> dict[str, Reached]:
    """Of every method, by one rule: the first measurement at the level counts, seeds that never are there do not."""
    goal = level(methods)
    found = {}
    for name, runs in methods.items():
        if _timed(runs) and math.isfinite(goal):
            at = [t for t in (time_to(run, goal) for run in runs) if t is not None]
            found[name] = Reached(float(np.mean(at)) if at else math.nan, len(at), len(runs))
    return found


def _timed(runs: list[Record]) -> bool:
    return bool(runs[0]["kind"] != "steps")


def findings(results: dict[str, Any]) -> str:
    """Modes that baselines drop on the grid, and how long OTGAN takes to what the best baseline ends with."""
    lines = []
    for name, runs in groups(results).get("grid", {}).items():
        if runs[0]["method"] in BASELINES and _timed(runs):
            dropped = [modes("grid") - int(run["final"].get("modes") or 0) for run in runs]
            lines.append(f"- grid: {name} drops {', '.join(map(str, dropped))} of 25 modes (one number a seed)")
    for problem, methods in groups(results).items():
        reached = times(methods)
        theirs = {n: r for n, r in reached.items() if methods[n][0]["method"] in BASELINES and 2 * r.seeds >= r.of}
        if not theirs:
            continue
        first = min(theirs, key=lambda n: theirs[n].seconds)
        lines.append(f"- {problem}: sliced W2 {level(methods):.4f}, first by {first} after {theirs[first].text()} s")
        for name in ("otgan", "otgan-mlp"):
            if name not in reached:
                continue
            ours = reached[name]
            lines[-1] += f"; by {name} after {ours.text()} s" if ours.seeds else f"; {name} never is there"
            if 2 * ours.seeds >= ours.of:  # of few seeds no ratio is told, as of baselines
                lines[-1] += f", {theirs[first].seconds / ours.seconds:.2g} times less"
    return "\n".join(lines)


def legend(results: dict[str, Any]) -> str:
    """How to read the tables, how each method was run, and on what machine."""
    cpus: dict[str, dict[str, None]] = {}
    for run in results["runs"]:
        versions = ", ".join(f"{name} {version}" for name, version in run.get("versions", {}).items())
        cpus.setdefault(f"{run.get('cpu', 'a machine unknown')} {versions}".rstrip(), {})[run["problem"]] = None
    notes = {}
    for run in results["runs"]:
        if run["kind"] != "trial":
            where = run["problem"] if run["kind"] == "tuned" or run["problem"] == "codes" else ""
            notes[label(run), where] = run["note"]
    return "\n".join(
        [
            "Seconds are processor time of the training alone, one thread. Sliced W2 and energy distance to 2,500",
            "held-out points, in units in which a coordinate of the data has variance 1; rows of held-out points are",
            "what 2,500 further real points have. C_T below -3: copies; above 3: far from the data. Modes of codes are",
            "digits, of high quality is what lies in the support of held-out codes (its precision). Means over seeds.",
            "",
            "The level is the sliced W2 that the best baseline ends with, or that of real points if it ends below; the",
            "seconds are those of the first measurement at it, mean over the seeds that get there. For OTGAN that is",
            "the shortest of the fits with a limit of time (max_time) whose generator is there; without one a fit",
            "takes the seconds of its row.",
            "",
            *(f"- {name}{where and ' on ' + where}: {note}" for (name, where), note in notes.items()),
            "",
            *(f"{cpu}: {', '.join(problems)}" for cpu, problems in cpus.items()),
        ]
    )


# -------------------------------------------------------------------- figures


def figures(results: dict[str, Any], file: Path) -> list[Path]:
    """Draw both figures beside each other's names: ``FILE`` (quality against time) and ``FILE`` with ``_samples``."""
    second = file.with_name(f"{file.stem}_samples{file.suffix}")
    curves(results).savefig(file)
    samples(results).savefig(second)
    return [file, second]


def _columns(found: dict[str, dict[str, Any]]) -> list[str]:
    """Labels that occur, those of a method together."""
    names = dict.fromkeys(name for methods in found.values() for name in methods)
    return sorted(names, key=lambda name: METHODS.index(name.split(" ")[0]))


_DASHES = {"published": ("-", "published"), "tuned": (":", "tuned"), "steps": ("--", "published steps")}


def curves(results: dict[str, Any]) -> Figure:
    """Sliced W2 against processor seconds, one panel a problem, one line a seed; colours are methods, dashes kinds."""
    import matplotlib.pyplot as plt
    from matplotlib.lines import Line2D
    from matplotlib.ticker import NullFormatter

    from otgan.plot._style import DPI, FRAME, INK, LINES, SMALL, TEXT, frame

    found = groups(results)
    if not found:
        raise ValueError("There are no results to draw: run the benchmark first.")
    made, axes = plt.subplots(
        1, len(found), figsize=(3.3 * len(found), 3.6), dpi=DPI, layout="constrained", squeeze=False
    )
    methods_seen: dict[str, str] = {}
    kinds: set[str] = set()
    for ax, (problem, methods) in zip(axes.flat, found.items(), strict=True):
        frame(ax, grid=True)
        ax.set(xscale="log", yscale="log")
        ax.xaxis.set_minor_formatter(NullFormatter())  # over one decade the labels would overlap
        ax.set_title(problem, fontsize=TEXT, color=INK)
        for runs in methods.values():
            style = _DASHES[runs[0]["kind"]][0]
            colour = LINES[METHODS.index(runs[0]["method"]) % len(LINES)]
            methods_seen[runs[0]["method"]] = colour
            kinds.add(runs[0]["kind"])
            for run in runs:
                points = [(p["seconds"], p["sliced_w2"]) for p in run["curve"] if _known(p["sliced_w2"])]
                ax.plot(
                    *zip(*points, strict=True), color=colour, linestyle=style, linewidth=1.3, alpha=0.85,
                    marker="o" if len(points) < 3 else None, markersize=3,
                )  # fmt: skip
        real = mean(next(iter(methods.values())), "sliced_w2", "held_out")
        ax.axhline(real, color=FRAME, linewidth=0.8, linestyle=(0, (2, 3)))
    made.supxlabel("seconds of one processor", fontsize=TEXT, color=INK)
    made.supylabel("sliced $W_2$ to held-out points", fontsize=TEXT, color=INK)
    told = [Line2D([], [], color=methods_seen[name], label=name) for name in METHODS if name in methods_seen]
    if kinds != {"published"}:
        told += [
            Line2D([], [], color=INK, linestyle=dash, label=word)
            for kind, (dash, word) in _DASHES.items()
            if kind in kinds
        ]
    columns = min(len(told), 2 * len(found))  # as many as a row of panels has room for
    made.legend(handles=told, loc="outside upper center", ncols=columns, frameon=False, fontsize=SMALL)
    return made


def samples(results: dict[str, Any]) -> Figure:
    """Samples of the first seed within the budget: one row a problem in the plane, one column a method."""
    import matplotlib.pyplot as plt

    from otgan.plot._style import DPI, INK, SMALL, SOURCE, TARGET, TEXT, frame

    found = {
        p: {n: runs[0] for n, runs in m.items() if runs[0]["samples"] and _timed(runs)}
        for p, m in groups(results).items()
    }
    found = {problem: methods for problem, methods in found.items() if methods}
    if not found:
        raise ValueError("There are no samples to draw: run a problem in the plane with seed 0 first.")
    names = _columns(found)
    shape = (len(found), len(names) + 1)
    made, axes = plt.subplots(
        *shape, figsize=(1.9 * shape[1], 2.0 * shape[0] + 0.3), dpi=DPI, layout="constrained", squeeze=False
    )
    for row, (problem, methods) in zip(axes, found.items(), strict=True):
        real = planar()[problem].draw(800, np.random.default_rng(1))
        low, high = real.min(), real.max()
        shown: list[tuple[str, Any]] = [("data", real), *((n, methods.get(n, {}).get("samples")) for n in names)]
        for ax, (name, points) in zip(row, shown, strict=True):
            frame(ax, box=True)
            margin = 0.15 * (high - low)
            ax.set(xlim=(low - margin, high + margin), ylim=(low - margin, high + margin), xticks=[], yticks=[])
            ax.set_aspect("equal")
            if points is None:
                ax.spines[:].set_visible(False)
            else:
                ax.plot(
                    *np.asarray(points).T, ".", markersize=1.2, color=TARGET if name == "data" else SOURCE, alpha=0.6
                )
            if ax in axes[0]:
                ax.set_title(name, fontsize=SMALL, color=INK)
        row[0].set_ylabel(problem, fontsize=TEXT, color=INK)
    return made
