"""A whole page, which needs no other file and no network."""

from pathlib import Path

from experiments.report.markup import Html, element

_CSS, _JS = (Path(__file__).with_name(f"page.{kind}") for kind in ("css", "js"))


def document(title: str, body: Html, beside: str) -> str:
    """Return a whole page. It is complete without its script, which sorts and filters tables.

    Args:
        title: of the window.
        body: its sections.
        beside: what other files there are; stands at its foot.
    """
    head = element(
        "head",
        Html('<meta charset="utf-8">'),
        Html('<meta name="viewport" content="width=device-width, initial-scale=1">'),
        element("title", title),
        element("style", Html(_CSS.read_text(encoding="utf-8"))),
    )
    script = element("script", Html(_JS.read_text(encoding="utf-8")))
    inner = element("body", body, element("footer", beside), script)
    return "<!doctype html>\n" + element("html", head, inner, lang="en") + "\n"
