"""A report as one page that needs nothing but itself: no network, no script, no font.

Its policy allows exactly the style and the script written into it, by their digests, so that no
text of a report could run even if one came through unescaped.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

from proa.compare.record import Report
from proa.compare.report import palette
from proa.compare.report.looks import looks
from proa.compare.report.markup import Child, Markup, join, tag
from proa.compare.report.sections import closing, groups, isolation, opening

_HERE = Path(__file__).resolve().parent
# Place in the page → its name in the contents.
_CONTENTS = {
    "start": "Start", "cost": "Cost", "size": "Size", "work": "Work", "isolation": "Isolation",
    "portability": "Portability", "method": "Method", "changed": "Changed",
    "answers": "Isolation", "unlike": "Also different",
}  # fmt: skip


def render(report: Report) -> str:
    """The page, as UTF-8's text."""
    cast = looks(report.forms)
    parts = (
        ("start", groups.start(report, cast)),
        ("cost", groups.cost(report, cast)),
        ("size", groups.size(report, cast)),
        ("work", groups.work(report, cast)),
        ("isolation", isolation.draw(report, cast)),
        ("portability", closing.portability(report, cast)),
        ("method", closing.method(report, cast)),
    )
    shown = [(name, part) for name, part in parts if part]
    contents = [name for name, _ in shown]
    main = join(opening.draw(report, cast), [part for _, part in shown])
    return document(f"{report.subject.name}: container or vm?", contents, main)


def document(title: str, contents: Sequence[str], main: Child) -> str:
    """A whole page around its main part; `contents` names the places to go to."""
    style, script = Markup(_style()), Markup(_file("page.js"))
    policy = (
        f"default-src 'none'; style-src '{_digest(style)}'; script-src '{_digest(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        Markup(f'<meta http-equiv="Content-Security-Policy" content="{policy}">'),
        tag("meta", name_="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name_="color-scheme", content="light dark"),
        tag("title", title[:160]),
        tag("style", style),
    )
    links = [tag("li", tag("a", _CONTENTS[name], href=f"#{name}")) for name in contents]
    header = tag(
        "header",
        tag("div", tag("div", "Proa compare", class_="brand"),
            tag("nav", tag("ul", links), aria_label="Contents") if links else None,
            tag("button", "Dark", type="button", class_="theme", hidden=True,
                aria_label="Change between light and dark"), class_="wrap"),
        class_="top",
    )  # fmt: skip
    body = tag(
        "body",
        tag("a", "To the findings", href="#main", class_="skip"),
        _hatch(),
        header,
        tag("main", main, id="main", class_="wrap", tabindex=-1),
        tag("footer", tag("p", _FOOT), class_="wrap"),
        tag("div", class_="tip", hidden=True, aria_hidden="true"),
        tag("script", script),
    )
    return f"<!doctype html>\n{tag('html', head, body, lang='en')}\n"


_FOOT = "Made by proa compare. Everything in this page is in its report, too: proa compare --json."


def _hatch() -> Markup:
    """The pattern over what is shared; all plots of the page use it."""
    line = tag("path", d="M0 0V7", class_="hatch-lines")
    pattern = tag("pattern", line, id="hatch", width=5, height=7, patternUnits="userSpaceOnUse",
                  patternTransform="rotate(45)")  # fmt: skip
    return tag("svg", tag("defs", pattern), class_="defs", aria_hidden="true")


def _style() -> str:
    return re.sub(r"\s+", " ", palette.css() + _file("page.css"))


def _file(name: str) -> str:
    return (_HERE / name).read_text()


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
