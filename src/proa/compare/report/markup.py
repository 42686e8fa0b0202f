"""HTML and SVG from Python, with everything escaped that is not markup already."""

from __future__ import annotations

import html
from collections.abc import Iterable
from typing import TypeAlias

from proa.printable import visible


class Markup(str):
    """Text that is markup already; every other string is somebody's words and is escaped."""

    __slots__ = ()


Child: TypeAlias = "str | Markup | Iterable[Child] | None"
Attributes: TypeAlias = dict[str, "str | float | bool | None"]
_VOID = frozenset({"meta", "link", "br", "col", "line", "rect", "circle", "path", "polygon", "use"})


def tag(name: str, *children: Child, **attributes: str | float | bool | None) -> Markup:
    """An element.  `class_` and `data_tip` become `class` and `data-tip`; None is left out."""
    opening = f"<{name}{''.join(_attribute(*pair) for pair in attributes.items())}"
    inner = join(*children)
    if not inner and name in _VOID:
        return Markup(opening + (">" if name in {"meta", "link", "br", "col"} else "/>"))
    return Markup(f"{opening}>{inner}</{name}>")


def join(*children: Child) -> Markup:
    """Children one after the other, words among them escaped."""
    return Markup("".join(_piece(child) for child in children))


def _piece(child: Child) -> str:
    if child is None:
        return ""
    if isinstance(child, Markup):
        return child
    if isinstance(child, str):
        return html.escape(visible(child), quote=True)
    return "".join(_piece(each) for each in child)


def _attribute(name: str, value: str | float | bool | None) -> str:
    if value is None or value is False:
        return ""
    name = name.rstrip("_").replace("_", "-")
    if value is True:
        return f" {name}"
    shown = f"{value:.5g}" if isinstance(value, float) else str(value)
    return f' {name}="{html.escape(visible(shown), quote=True)}"'
