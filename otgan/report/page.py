"""The page: one HTML file that asks nothing of any server."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from otgan._checks import as_count
from otgan.report import generated, provenance, transport
from otgan.report._html import Html, tag
from otgan.report._style import STYLE
from otgan.report.reproduction import reproduce
from otgan.report.run import Run, open_run, run_of

if TYPE_CHECKING:
    from torch import Tensor

_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
"""What a browser may load: nothing but what is in the file."""

_CONTENTS = {
    "certificate": "What is certified",
    "convergence": "Convergence",
    "map": "The map",
    "samples": "New samples",
    "metrics": "Metrics",
    "reproduce": "How to reproduce",
}
FILE = "report.html"


def write_report(
    run: Any,
    out: str | Path | None = None,
    *,
    evaluation: Any = None,
    train_images: Tensor | None = None,
    title: str | None = None,
    seed: int = 0,
) -> Path:
    """Write a run's report as one HTML file, and return its path.

    The page holds the certificate in numbers and in words, the convergence of the solve, the power diagram and its
    singular set in the plane, new samples beside the nearest training data, metrics beside those of real data, and how
    to reproduce the run. Style and figures are inside; it loads nothing, in light and dark, on paper and on a phone.

    Args:
        run: folder of a run, or a result, an :class:`otgan.OTGAN`, a LatentOTGAN.
        out: the file; ``report.html`` in the folder when left out.
        evaluation: what :func:`otgan.metrics.evaluate` or :func:`otgan.metrics.evaluate_images` found, or its
            ``to_dict()``.
        train_images: training images (n, c, h, w) of a generator of images, bytes or floats in [0, 1]: new ones then
            stand above the nearest of them in pixels; otherwise above the decoded nearest codes.
        title: of the page; the name of the folder when left out.
        seed: of the new samples.

    Raises:
        TypeError: for something that has no certificate.
        ValueError: if ``run`` is no folder and ``out`` is left out.
    """
    from_folder = isinstance(run, (str, Path))
    if out is None and not from_folder:
        raise ValueError("out says where the page goes; it can be left out only where run is a folder.")
    path = Path(out) if out is not None else Path(run) / FILE
    text = report_html(run, evaluation=evaluation, train_images=train_images, title=title, seed=seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    half = path.with_name(path.name + ".part")
    half.write_text(text, encoding="utf-8")
    os.replace(half, path)
    return path


def report_html(
    run: Any,
    *,
    evaluation: Any = None,
    train_images: Tensor | None = None,
    title: str | None = None,
    seed: int = 0,
) -> str:
    """The page of :func:`write_report` as text."""
    seed = as_count(seed, "seed")
    if isinstance(run, Run):
        subject = run
    else:
        subject = open_run(run) if isinstance(run, (str, Path)) else run_of(run)
    measured = evaluation if isinstance(evaluation, Mapping) or evaluation is None else evaluation.to_dict()
    extra = [generated.class_counts(evaluation)] if hasattr(evaluation, "histogram_real") else []
    parts = [
        transport.certificate(subject),
        transport.convergence(subject),
        transport.cells(subject),
        generated.samples(subject, seed, train_images),
        generated.metrics(measured, extra),
        reproduce(subject, seed, provenance.versions(), platform.python_version()),
    ]
    name = title if title is not None else subject.name
    return _page(name, transport.overview(subject, name), parts)


def _page(title: str, header: Html, parts: list[Html]) -> str:
    links = [tag("li", tag("a", name, href=f"#{id_}")) for id_, name in _CONTENTS.items()]
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        tag("meta", name_="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name_="color-scheme", content="light dark"),
        tag("title", f"{title}: otgan report"),
        tag("style", Html(STYLE)),
    )
    by = tag("footer", tag("p", f"Made by otgan {provenance.versions().get('otgan', '')}. This page loads nothing."))
    contents = tag("nav", tag("ul", *links), aria_label="Contents")
    body = tag("body", tag("main", header, contents, *parts), by)
    return f"<!doctype html>\n{tag('html', head, body, lang='en')}\n"
