"""Lines of an app file with remarks beside them; whatever is written can be read again.  Pure."""

from __future__ import annotations

import json
import re

from proa.printable import clean

GUESS = "GUESS"
_REMARK_MAXIMUM = 300
_NAME = re.compile(r"[^a-z0-9_-]+")


def scalar(text: str, *, variables: bool = False) -> str:
    """A text as YAML's double quotes take it; with `variables` a dollar is Compose's."""
    plain = "".join(letter if letter.isprintable() else " " for letter in text)
    return json.dumps(plain if variables else plain.replace("$", "$$"), ensure_ascii=False)


def name_of(text: str, taken: set[str]) -> str:
    """A service's, a volume's name that nothing else has yet."""
    base = _NAME.sub("-", text.lower()).strip("-_")[:40] or "service"
    name, number = base, 1
    while name in taken:
        number += 1
        name = f"{base}-{number}"
    taken.add(name)
    return name


def guess(reason: str, source: str = "") -> str:
    """A remark that marks a guess."""
    return f"{GUESS}: {reason}" + (f" ({source})" if source else "")


class Writer:
    """Gathers lines; `depth` counts levels of two columns."""

    def __init__(self) -> None:
        self._lines: list[str] = []

    def text(self) -> str:
        """All of it."""
        return "\n".join(self._lines) + "\n"

    def blank(self) -> None:
        """An empty line."""
        self._lines.append("")

    def note(self, depth: int, remark: str) -> None:
        """A remark on a line of its own."""
        self._lines.append(f"{'  ' * depth}# {clean(remark, _REMARK_MAXIMUM)}".rstrip())

    def line(self, depth: int, text: str, remark: str = "") -> None:
        """A line, whose remark stands behind it, or above when that would be too long."""
        written = f"{'  ' * depth}{text}"
        behind = clean(remark, _REMARK_MAXIMUM)
        if behind and len(written) + len(behind) > 96:
            self.note(depth, behind)
            behind = ""
        self._lines.append(f"{written}  # {behind}" if behind else written)

    def pair(self, depth: int, key: str, value: str, remark: str = "") -> None:
        """`key: "value"`."""
        self.line(depth, f"{key}: {scalar(value)}", remark)
