"""Somebody else's text, made safe to print: nothing in it moves a cursor or begins a line."""

from __future__ import annotations


def visible(text: str, instead: str = "\ufffd") -> str:
    """The same text with `instead` for what does not print; tabs stay.  Columns stay, too."""
    return "".join(char if char.isprintable() or char == "\t" else instead for char in text)


def clean(text: str, limit: int = 200) -> str:
    """One line of words, of at most `limit` characters."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())[:limit]
