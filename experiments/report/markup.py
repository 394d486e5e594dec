"""HTML without a template language: elements are strings that have been escaped once."""

import re
from html import escape
from itertools import chain

from experiments.report.drawing.figures import BAR, GRID, INK, MUTED

_THEMED = {INK: "var(--ink)", MUTED: "var(--muted)", GRID: "var(--line)", BAR: "var(--bar)"}

TABLE = "table-"
"""Begins the id of a table."""


class Html(str):
    """Text that is HTML already; any other string is escaped where an element takes it."""


def element(tag: str, *children: object, **attributes: str) -> Html:
    """Make an element; `class_` stands for the attribute `class`, and None is no child.

    Args:
        tag: its name.
        children: elements, plain text (which is escaped), numbers, or lists of these.
        attributes: their values are escaped.
    """
    given = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{escape(value)}"'
        for name, value in attributes.items()
    )
    return Html(f"<{tag}{given}>{join(*children)}</{tag}>")


def join(*children: object) -> Html:
    """Put elements and text one after another."""
    flat = chain.from_iterable(child if isinstance(child, list) else [child] for child in children)
    return Html(
        "".join(
            child if isinstance(child, Html) else escape(str(child))
            for child in flat
            if child is not None
        )
    )


def prose(text: str) -> Html:
    """Turn `**strong**` and `*term*` of a plain sentence into elements; all else is escaped."""
    strong = re.sub(r"\*\*(.+?)\*\*", r"<strong>\1</strong>", escape(text))
    return Html(re.sub(r"\*(.+?)\*", r"<dfn>\1</dfn>", strong))


def inline_svg(svg: str, key: str, description: str) -> Html:
    """Make a standalone SVG part of a page that holds others, in the page's colours.

    Args:
        svg: as matplotlib writes it.
        key: unique in the page; goes before every id, so that figures do not share theirs.
        description: what a reader who can't see it is told.
    """
    body = svg[svg.index("<svg") :]
    body = re.sub(r'\bid="', f'id="{key}-', body)
    body = re.sub(r'href="#', f'href="#{key}-', body)
    body = body.replace("url(#", f"url(#{key}-")
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    for color, variable in _THEMED.items():
        body = body.replace(color, variable)
    width = re.search(r'width="([\d.]+)pt"', body)
    body = re.sub(r'\b(width|height)="[\d.]+pt"', "", body, count=2)
    size = f"max-width:{float(width[1]) * 4 / 3:.0f}px" if width else ""
    attributes = f'<svg role="img" aria-label="{escape(description)}" style="{size}"'
    return Html(body.replace("<svg", attributes, 1))


def table(
    head: list[list[Html]], bodies: list[list[list[Html]]], name: str, **attributes: str
) -> Html:
    """Make a table of rows of cells, inside of a box that scrolls where the screen is narrow.

    Args:
        head: rows of `th`.
        bodies: groups of rows; a line is drawn between groups.
        name: of its files; no other table of the page has it.
        attributes: of the table.
    """
    rows = [[element("tr", row) for row in body] for body in bodies]
    inner = element(
        "table", element("thead", [element("tr", row) for row in head]),
        [element("tbody", body) for body in rows], id=f"{TABLE}{name}", **attributes,
    )  # fmt: skip
    return element("div", inner, class_="scroll", role="region", tabindex="0")
