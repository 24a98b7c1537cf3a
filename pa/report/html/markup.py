"""Build HTML with small functions that escape text.

Names of folders, encoders and files come from the user's disk. `tag` escapes everything that is not
`Markup`, and only `tag` creates `Markup`.
"""

from __future__ import annotations

import html
from collections.abc import Iterable
from typing import TypeAlias

from pa.report.text import printable

VOID = frozenset({"meta", "img", "br", "line", "circle", "rect", "path"})


class Markup(str):
    """HTML text, created by `tag`."""

    __slots__ = ()


Child: TypeAlias = "str | int | Iterable[Child] | None"


def tag(name: str, /, *children: Child, **attributes: str | int | float | bool | None) -> Markup:
    """Return an element.

    Text children are escaped, None is skipped, and iterables are flattened. In attributes `class_`
    is class and `data_x` is data-x; False and None are skipped.

    >>> tag("a", "R & D", href="?a=1&b=2", class_="x")
    '<a href="?a=1&amp;b=2" class="x">R &amp; D</a>'
    """
    opening = name + "".join(
        f" {key.rstrip('_').replace('_', '-')}"
        + ("" if value is True else f'="{html.escape(printable(value), quote=True)}"')
        for key, value in attributes.items()
        if value is not None and value is not False
    )
    if name in VOID:
        return Markup(f"<{opening}>" if name in ("meta", "img", "br") else f"<{opening}/>")
    return Markup(f"<{opening}>{text(children)}</{name}>")


def table(heads: Iterable[Child], rows: Child, kind: str = "full") -> Markup:
    """Return a table with one row of heads; `kind` is its class of the style sheet."""
    return tag(
        "table",
        tag("thead", tag("tr", (tag("th", head, scope="col") for head in heads))),
        tag("tbody", rows),
        class_=kind,
    )


def scrolled(name: str, wide: Markup) -> Markup:
    """Return a wide element in a labelled region that scrolls sideways."""
    return tag("div", wide, class_="scroll", role="region", tabindex=0, aria_label=name)


def text(child: Child) -> Markup:
    """Return children as HTML."""
    if child is None:
        return Markup("")
    if isinstance(child, Markup):
        return child
    if isinstance(child, str | int):
        return Markup(html.escape(printable(child), quote=False))
    return Markup("".join(text(item) for item in child))


def prose(words: str) -> list[Child]:
    """Return text of this package, in which `backticks` mark code."""
    pieces = words.split("`")
    return [tag("code", piece) if index % 2 else piece for index, piece in enumerate(pieces)]
