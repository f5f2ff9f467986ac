"""HTML from Python calls: what is not HTML already is escaped, whoever wrote it."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from typing import Any

_VOID = {"img", "meta", "source", "br", "hr"}


class Html(str):
    """Text that is HTML already. Everything else that goes into a tag or an attribute is escaped."""

    __slots__ = ()


def text(value: Any) -> Html:
    """``value`` as HTML: itself if it is HTML, else its text with ``& < > " '`` escaped."""
    return value if isinstance(value, Html) else Html(html.escape(str(value), quote=True))


def join(parts: Iterable[Any], between: str = "") -> Html:
    """Parts one after the other, each escaped unless it is HTML."""
    return Html(text(between).join(text(part) for part in parts))


def tag(name: str, /, *content: Any, **attributes: Any) -> Html:
    """``<name ...>content</name>``.

    Attributes end in ``_`` where Python reserves the word; other underscores are hyphens (``aria_label``). None leaves
    one out.
    """
    given = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{html.escape(str(value), quote=True)}"'
        for key, value in attributes.items()
        if value is not None
    )
    if name in _VOID:
        return Html(f"<{name}{given}>")
    return Html(f"<{name}{given}>{join(content)}</{name}>")


def section(title: str, *content: Any, id_: str) -> Html:
    """A part of the page under its heading."""
    heading = tag("h2", title, id=id_)
    return tag("section", heading, *content, aria_labelledby=id_)


def table(caption: str, columns: Sequence[Any], rows: Sequence[Sequence[Any]], *, numeric: Sequence[int] = ()) -> Html:
    """A table that scrolls by itself where the screen is narrow; the first cell of a row is its header.

    Args:
        caption: what it shows.
        columns: headers; none where the rows are pairs of name and value.
        rows: of as many cells.
        numeric: columns whose cells are numbers, set flush right and never broken.
    """

    def cell(kind: str, value: Any, place: int, **more: Any) -> Html:
        return tag(kind, value, class_="number" if place in numeric else None, **more)

    head: list[Html] = []
    if columns:
        head = [tag("thead", tag("tr", *(cell("th", name, k, scope="col") for k, name in enumerate(columns))))]
    body = [
        tag("tr", cell("th", row[0], 0, scope="row"), *(cell("td", value, k) for k, value in enumerate(row[1:], 1)))
        for row in rows
    ]
    made = tag("table", tag("caption", caption), *head, tag("tbody", *body), class_=None if columns else "pairs")
    return tag("div", made, class_="scroll", role="region", aria_label=caption, tabindex="0")


def paragraphs(*sentences: Any) -> Html:
    """One paragraph each; empty ones are left out."""
    return join(tag("p", sentence) for sentence in sentences if sentence)
