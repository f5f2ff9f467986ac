"""Figures inside the page: drawn without a screen, in one file with the text, in light and in dark."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from otgan.report._html import Html, tag

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_HEAVY = 400  # shapes of one artist beyond which it becomes pixels inside the drawing
_PIXELS = 170  # an inch
# Colours of the house style, and what they are on a dark page.
_DARK = {
    "#26262e": "#e9e9ee",
    "#000000": "#e9e9ee",
    "#9a9aa4": "#84848f",
    "#e8e8ec": "#33333d",
    "#ffffff": "#15151a",
    "#0072b2": "#56a8e0",
}


WIDE, SQUARE = (4.9, 3.3), (4.9, 4.7)
"""Inches: on a phone letters are then still large enough to read."""

Draw = Callable[..., "Axes"]
"""A function of otgan.plot, all but whose ``ax`` is settled."""


def figure(
    draw: Draw,
    alt: str,
    caption: Any,
    *,
    size: tuple[float, float] = SQUARE,
    fixed: bool = False,
    picture: bool = False,
) -> Html:
    """A drawing as SVG with a twin for dark pages, its text alternative, and its caption.

    What lies in ``fixed`` drawings, pale cells with dark marks on them, looks the same on both. A ``picture`` has no
    twin: it lies on white paper in the dark too.
    """
    light = _svg(draw, size, fixed)
    dark = re.sub("|".join(_DARK), lambda found: _DARK[found[0]], light)
    image = tag("img", src=_uri(light), alt=alt, **_size(light))
    if picture:
        return tag("figure", image, tag("figcaption", caption), class_="picture")
    twin = tag("source", srcset=_uri(dark), media="(prefers-color-scheme: dark)")
    return tag("figure", tag("picture", twin, image), tag("figcaption", caption))


def attempt(draw: Draw, alt: str, caption: Any, **settings: Any) -> Html:
    """A figure, or why there is none: a page without it is still a report."""
    try:
        return figure(draw, alt, caption, **settings)
    except (ValueError, RuntimeError) as error:
        return tag("p", f"A figure is missing here ({alt}): {error}")


def _svg(draw: Draw, size: tuple[float, float], fixed: bool) -> str:
    import matplotlib
    import matplotlib.pyplot as plt

    # Without a date and with fixed names the same run gives the same bytes; glyphs are paths: no font is asked for.
    with matplotlib.rc_context({"svg.hashsalt": "otgan", "svg.fonttype": "path"}):
        made, ax = plt.subplots(figsize=size, layout="constrained")
        try:
            draw(ax=ax)
            for artist in _raster(made, fixed):
                artist.set_rasterized(True)
            for axes in made.axes:
                axes.patch.set_alpha(0.0)
            out = io.StringIO()
            made.savefig(
                out, format="svg", bbox_inches="tight", pad_inches=0.03, transparent=True, dpi=_PIXELS,
                metadata={"Date": None, "Creator": None},
            )  # fmt: skip
        finally:
            plt.close(made)
    text = out.getvalue()
    return text[text.index("<svg") :]  # a doctype would name an address


def _raster(made: Figure, fixed: bool) -> Iterator[Artist]:
    """Artists that become pixels: those that would be thousands of paths, and those whose colours are to stay."""
    for axes in made.axes:
        for collection in axes.collections:
            if fixed or max(len(collection.get_paths()), np.shape(collection.get_offsets())[0]) > _HEAVY:
                yield collection
        for line in axes.lines:
            if fixed or np.shape(line.get_xydata())[0] > 5 * _HEAVY:
                yield line
        if len(axes.patches) > _HEAVY:
            yield from axes.patches


def _size(svg: str) -> dict[str, str]:
    """Width and height in pixels, so that the page does not jump while it loads."""
    sizes = {}
    for name in ("width", "height"):
        found = re.search(rf'<svg[^>]*?\b{name}="([\d.]+)pt"', svg)
        if found is not None:
            sizes[name] = f"{float(found[1]) * 4 / 3:.0f}"
    return sizes


def _uri(svg: str) -> str:
    return "data:image/svg+xml;base64," + base64.b64encode(svg.encode()).decode()
