"""Text for terminals: weights and colours where they are wanted, and lines that fit."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass

from proa.compare.report.looks import Look
from proa.printable import clean

_LIMIT = 2000
_LEAST_WIDTH = 40


@dataclass(frozen=True)
class Ink:
    """A terminal of `width` columns; without `colour` everything is plain text."""

    width: int
    colour: bool

    def bold(self, text: str) -> str:
        """Strong."""
        return self._code("1", text)

    def faint(self, text: str) -> str:
        """What is read last."""
        return self._code("2", text)

    def alarm(self, text: str) -> str:
        """What stands open."""
        return self._code("31", text)

    def form(self, look: Look, text: str) -> str:
        """In a form's colour."""
        return self._code(f"38;5;{look.paint}", text)

    def _code(self, code: str, text: str) -> str:
        return f"\033[{code}m{text}\033[0m" if self.colour and text else text

    def wrapped(self, text: str, indent: str = "") -> list[str]:
        """Lines of somebody's words, none wider than the terminal."""
        width = max(self.width, _LEAST_WIDTH)
        return textwrap.wrap(clean(text, _LIMIT), width, initial_indent=indent,
                             subsequent_indent=indent) or [""]  # fmt: skip


def fit(text: str, width: int) -> str:
    """Text in exactly so many columns."""
    text = clean(text, _LIMIT)
    return text.ljust(width) if len(text) <= width else text[: max(width - 1, 0)] + "…"
