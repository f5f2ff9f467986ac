"""The parts of a report that are about what is generated: new samples beside training data, and their metrics."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from otgan.report._figures import WIDE, attempt
from otgan.report._html import Html, join, paragraphs, section, table, tag
from otgan.report._words import READING, describe_metric, number
from otgan.report.run import PARTS, left_out

if TYPE_CHECKING:
    from torch import Tensor

    from otgan.report.run import Part, Run


_SHOWN, _COLUMNS, _DOTS = 18, 6, 600  # images, images a row, and points drawn
_ROWS, _COORDINATES = 8, 6  # of the table of new points
_FAR = 3.0  # spreads beyond which a metric is told from its null


def samples(run: Run, seed: int, train_images: Tensor | None = None) -> Html:
    """New points beside the training data that is nearest to them."""
    from otgan import plot

    shown: list[Html] = []
    for part in run.parts[:PARTS]:
        if part.name:
            shown.append(tag("h3", f"Class {part.name}"))
        train = part.result.target.points
        new = part.sample(_DOTS, seed).detach()
        if run.decode is not None:
            shown.append(_images(run, part, new[:_SHOWN], seed, train_images))
        else:
            alt = (
                f"{len(new):,} new points over the training points, the first hundred joined to the training point "
                "that is nearest."
            )
            caption = f"New points ({part.how}, seed {seed}) over training points. A line without length is a copy."
            shown.append(attempt(partial(plot.nearest_points, new, train), alt, caption))
            shown.append(_point_table(new, train))
    return section("New samples beside the nearest training data", *shown, *left_out(run), id_="samples")


def _images(run: Run, part: Part, codes: Tensor, seed: int, train_images: Tensor | None) -> Html:
    from otgan import plot
    from otgan.metrics._neighbours import nearest
    from otgan.plot.nearest import channels_last

    assert run.decode is not None
    new = run.decode(codes).clamp(0.0, 1.0)
    if train_images is not None:
        what = "in the Euclidean distance of pixels"
        draw = partial(plot.nearest_images, new, train_images, n_cols=_COLUMNS)
        return attempt(draw, *_image_words(part, len(new), seed, what), picture=True)
    train = part.result.target.points
    at = nearest(codes.double(), train.double().to(codes.device), 1)[0][:, 0]
    near = run.decode(train[at.to(train.device)]).clamp(0.0, 1.0)
    what = "in the distance of codes, as the decoder shows its code"

    labels = ("new", "nearest in\ntraining set")
    draw = partial(plot.beside, channels_last(new), channels_last(near), n_cols=_COLUMNS, labels=labels)
    return attempt(draw, *_image_words(part, len(new), seed, what), picture=True)


def _image_words(part: Part, count: int, seed: int, nearest: str) -> tuple[str, str]:
    alt = f"{count} new images, and under each the training image that is nearest to it."
    return alt, f"New images ({part.how}, seed {seed}), and under each the nearest training image {nearest}."


def _point_table(new: Tensor, train: Tensor) -> Html:
    """The first new points in numbers."""
    from otgan.metrics._neighbours import nearest

    some = new[:_ROWS].double().cpu()
    index, distance = nearest(some, train.double().cpu(), 1)
    spacing = None
    if len(train) > 1:
        spacing = nearest(train[index[:, 0].to(train.device)].double().cpu(), train.double().cpu(), 2)[1][:, 1]
    rows = []
    for k, point in enumerate(some):
        row = [k + 1, _coordinates(point), int(index[k, 0]), number(float(distance[k, 0]))]
        rows.append([*row, number(float(spacing[k])) if spacing is not None else "none"])
    columns = ["", "New point", "Nearest training point", "Distance to it", "Its own distance to the next"]
    made = table("The first new points in numbers.", columns, rows, numeric=(2, 3, 4))
    return tag("details", tag("summary", "The first new points in numbers"), made)


def _coordinates(point: Tensor) -> str:
    shown = ", ".join(number(value) for value in point[:_COORDINATES].tolist())
    return f"({shown}{', ...' if len(point) > _COORDINATES else ''})"


def metrics(evaluation: Mapping[str, Any] | None, extra: Iterable[Html] = ()) -> Html:
    """Metrics beside their values for real data; ``evaluation`` is what ``to_dict`` of an evaluation gives."""
    if evaluation is None:
        said = (
            "No held-out data was given, so that nothing is said of the quality and the novelty of new samples. Repeat "
            "the report with "
        )
        hint = join([said, tag("code", "--test FILE"), ", data that the run did not see."])
        return section("Metrics", tag("p", hint), *extra, id_="metrics")
    rows = []
    for name, found in evaluation["metrics"].items():
        value, null = _finite(found.get("value")), _finite(found.get("null"))
        spread, z = _finite(found.get("null_spread")), _finite(found.get("z"))
        direction = str(found.get("direction", ""))
        words = f"{describe_metric(str(name))}; {READING.get(direction, direction)}".removeprefix("; ")
        head = join([name, tag("small", words)])
        rows.append([head, _far(z, direction), number(value), f"{number(null)} ± {number(spread, 2)}"])
    counts = ", ".join(
        f"{int(evaluation[key]):,} {what}"
        for key, what in (("n_samples", "samples"), ("n_test", "held-out"), ("n_train", "training"))
        if isinstance(evaluation.get(key), int)
    )
    meaning = (
        f"{counts}; seed {evaluation.get('seed', 'unknown')}. Real data: what held-out data has in the samples' place, "
        "and what chance adds to the difference, the spread in which the verdict counts."
    )
    columns = ["Metric", "Verdict", "Samples", "Real data"]
    made = join([tag("p", meaning), table("New samples beside real data", columns, rows, numeric=(2, 3))])
    notes = [str(note) for note in evaluation.get("notes", ())]
    return section("Metrics", made, paragraphs(*notes), *extra, id_="metrics")


def _finite(value: Any) -> float:
    return float(value) if isinstance(value, (int, float)) else math.nan


def _far(z: float, direction: str) -> Html:
    """How far from real data, in words: colour alone tells nothing to some readers."""
    if not math.isfinite(z):  # JSON holds no infinity: there it is missing
        return tag("span", "beyond chance", class_="flag")
    bad = abs(z) if direction.startswith("near") else z if direction.startswith("lower") else -z
    said = tag("span", f"{z:.1f} spreads" if abs(z) < 1000 else f"{number(z)} spreads", class_="apart")
    if bad > _FAR:
        return join([said, tag("small", tag("span", "worse than real", class_="flag"))])
    if bad < -_FAR:
        return join([said, tag("small", "better than real: suspicious")])
    return join([said, tag("small", tag("span", "within chance", class_="fine"))])


def class_counts(result: Any) -> Html:
    """Histogram of the samples' classes, of an :class:`otgan.metrics.ImageEvaluation`."""
    from otgan import plot

    n = result.features.n_samples
    ours = (torch.tensor(result.histogram) * n).round()
    theirs = (torch.tensor(result.histogram_real) * (result.features.n_train or result.features.n_test)).round()
    alt = "Bars of the share of new images in each class, beside the line of the real images' shares."
    caption = f"Classes of {n:,} new images as the classifier sees them, the real images' shares, and what chance does."
    return attempt(partial(plot.class_histogram, ours, theirs), alt, caption, size=WIDE)
