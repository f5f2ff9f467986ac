"""The parts of a report that are about the transport map: what it is, what is certified, how it was found."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from otgan.report._figures import WIDE, attempt
from otgan.report._html import Html, join, paragraphs, section, table, tag
from otgan.report._words import NOT_CERTIFIED, certified, chi2, interval, number, percent, seconds
from otgan.report.run import PARTS, left_out

if TYPE_CHECKING:
    from otgan.report.run import Part, Run


_SCORES = 20_000_000_000  # (sample, target) pairs that the histogram of masses may cost
_MANY = 20_000  # targets up to which singular facets are looked for
_CURVE = 12  # rows of the table of a convergence curve


def overview(run: Run, title: str) -> Html:
    """Title, what it is, the numbers that matter, and a verdict."""
    first = run.parts[0].result
    potential = first.potential
    many = f", one problem for each of {len(run.parts)} classes" if len(run.parts) > 1 else ""
    n = sum(part.result.potential.n for part in run.parts)
    lead = f"{run.kind[1]}: {first.source!r} to {n:,} points in dimension {potential.dim}{many}."
    lead = lead[0].upper() + lead[1:]
    worst = max((part.result for part in run.parts), key=lambda result: result.certificate.chi2)
    empty = sum(part.result.certificate.empty_cells for part in run.parts)
    name, ends = interval(first.certificate)
    which = "largest of the classes" if len(run.parts) > 1 else "error of the cells' measures"
    facts = [
        ("chi2", chi2(worst.certificate), which),
        ("Empty cells", f"{empty:,} of {n:,}", "data points that the map drops"),
        (
            f"{name}(source, data)",
            ends,
            "certified" if len(run.parts) == 1 else f"certified, class {run.parts[0].name}",
        ),
        ("Solved in", seconds(sum(part.result.seconds for part in run.parts)), first.method),
    ]
    tiles = [tag("div", tag("dt", what), tag("dd", value, tag("small", more))) for what, value, more in facts]
    ended = [part for part in run.parts if not part.result.converged]
    if ended:
        said = join([tag("strong", "Not converged. "), ended[0].result.message])
    else:
        said = join([tag("strong", "Converged. "), first.message])
    verdict = tag("div", tag("p", said), class_="verdict warn" if ended or empty else "verdict")
    return tag("header", tag("h1", title), tag("p", lead, class_="lead"), tag("dl", *tiles, class_="facts"), verdict)


def certificate(run: Run) -> Html:
    """What is certified, in words and numbers."""
    words: list[Any] = []
    if len(run.parts) == 1:
        words += certified(run.parts[0].result)
    else:
        words.append(f"Each of the {len(run.parts)} classes has a problem of its own, with a certificate of its own.")
    rows = [_certificate_row(part) for part in run.parts]
    name = interval(run.parts[0].result.certificate)[0]
    columns = ["chi2", "Mass misplaced", "Worst |w/b - 1|", "Empty cells", f"{name} between", "Fresh samples"]
    caption = "Exact integrals, or counts of samples that the solver did not see."
    if len(rows) == 1:
        made = table(caption, [], [list(pair) for pair in zip(columns, rows[0][1:], strict=True)])
    else:
        made = table(caption, ["Class", *columns], rows, numeric=range(1, 7))
    return section("What is certified", paragraphs(*words), made, paragraphs(NOT_CERTIFIED), id_="certificate")


def _certificate_row(part: Part) -> list[str]:
    c = part.result.certificate
    counted = "exact" if c.exact else f"{c.n_samples:,}"
    empty = f"{c.empty_cells:,} of {c.n_targets:,}"
    return [part.name, chi2(c), percent(c.l1 / 2), number(c.max_ratio), empty, interval(c)[1], counted]


def convergence(run: Run) -> Html:
    """The error of the solve against its work."""
    from otgan import plot

    shown = []
    for part in run.parts[:PARTS]:
        result = part.result
        known = [row for row in result.history if _error(row) is not None]
        title = [tag("h3", f"Class {part.name}")] if part.name else []
        if not known:
            work = f"{result.n_iter:,} iterations, {seconds(result.seconds)}"
            shown.append(join([*title, tag("p", f"{result.method} recorded no errors on its way ({work}).")]))
            continue
        first, last = _error(known[0]), _error(known[-1])
        alt = (
            f"Curve of the error of {result.method} against iterations, on a logarithmic scale: from "
            f"{number(first or 0.0)} at the first measurement to {number(last or 0.0)} at the last; the bar is at "
            f"{number(result.tol)}."
        )
        caption = (
            f"{result.method}: {result.n_iter:,} iterations, "
            + (f"{result.n_samples:,} samples of the source, " if result.n_samples else "")
            + f"{seconds(result.seconds)}. {result.reason}"
        )
        made = attempt(partial(plot.convergence, result), alt, caption, size=WIDE)
        shown.append(join([*title, made, _curve(known)]))
    return section("Convergence", *shown, *left_out(run), id_="convergence")


def _curve(history: Sequence[Mapping[str, Any]]) -> Html:
    """The curve in numbers, for who cannot see it."""
    step = max(1, math.ceil(len(history) / _CURVE))
    rows = [*history[::step]] + ([history[-1]] if (len(history) - 1) % step else [])
    columns = [name for name in ("n_iter", "step", "n_samples", "seconds") if name in rows[0]]
    heads = {"n_iter": "Iterations", "step": "Step", "n_samples": "Samples", "seconds": "Seconds"}
    body = [[*(number(float(row.get(name, math.nan))) for name in columns), number(_error(row) or 0.0)] for row in rows]
    names = [*(heads[name] for name in columns), "Error"]
    made = table("Error against work, measured by the solver.", names, body, numeric=range(len(names)))
    return tag("details", tag("summary", "The curve in numbers"), made)


def _error(row: Mapping[str, Any]) -> float | None:
    value = row.get("chi2", row.get("error"))
    return float(value) if isinstance(value, (int, float)) and math.isfinite(value) else None


def cells(run: Run) -> Html:
    """The map: power diagram and singular set in the plane, samples and their targets elsewhere, and the masses."""
    from otgan import plot

    shown: list[Html] = []
    for part in run.parts[:PARTS]:
        result = part.result
        u = result.potential
        if part.name:
            shown.append(tag("h3", f"Class {part.name}"))
        if u.dim == 2 and u.p == 2.0:
            alt = f"Power diagram: the plane of the source is cut into {u.n:,} convex cells, one a data point."
            caption = "Power diagram of the source. The map sends each cell to one data point."
            shown.append(attempt(partial(plot.power_diagram, result), alt, caption, fixed=True))
            if u.n <= _MANY:
                shown.append(_singular(part))
        alt = "Samples of the source, each joined by a segment to the data point that the optimal map sends it to."
        if u.dim == 1:
            alt = "Graph of the optimal map on the line, a monotone staircase."
        caption = "Transport map on 400 samples" + (", on the two principal axes of the data." if u.dim > 2 else ".")
        shown.append(attempt(partial(plot.transport_map, result), alt, caption))
        m = _mass_samples(u.n)
        alt = (
            f"Histogram of the cells' measured masses over their weights on {m:,} samples, with a band of what "
            "the noise of counting alone would give."
        )
        caption = f"Masses of the cells over their weights, on {m:,} fresh samples. Bars outside the band are errors."
        shown.append(attempt(partial(plot.mass_histogram, result, m, seed=0), alt, caption, size=WIDE))
    return section("The map", *shown, *left_out(run), id_="map")


def _singular(part: Part) -> Html:
    """Where the map jumps, in the plane."""
    from otgan import plot
    from otgan.generators import ExtensionGenerator
    from otgan.potential import BrenierPotential

    u, source = part.result.potential, part.result.source
    alt = "The power diagram once more; sides at which the map jumps between modes of the data are marked."
    try:
        own = None if part.model is None else part.model.generator
        assert isinstance(u, BrenierPotential)
        generator = own if isinstance(own, ExtensionGenerator) else ExtensionGenerator(u, source)
    except (ValueError, RuntimeError) as error:
        return tag("p", f"The singular set is not drawn: {error}")
    if math.isfinite(generator.threshold):
        caption = (
            "Singular set: sides at which the dihedral angle of the supporting planes is above "
            f"{generator.threshold:.2g}. The map is discontinuous there, and a mean of the two targets belongs to no "
            "mode."
        )
        return attempt(partial(plot.singular_set, generator), alt, caption, fixed=True)
    return tag(
        "p",
        "The dihedral angles of the facets form one hump without a valley: no facet stands out as singular, at which "
        "the map would jump between modes.",
    )


def _mass_samples(n: int) -> int:
    """Fresh samples: 50 a target, fewer where the scores of so many would take minutes."""
    return int(min(max(50 * n, 20_000), 2_000_000, max(_SCORES // n, 20_000)))
