"""The tables of docs/concepts/advice.md, from the code; `python -m` prints them."""

from __future__ import annotations

import string

from proa.advice.criteria import CRITERIA
from proa.advice.rules import RULES


def criteria() -> str:
    """The article's criteria."""
    rows = [f"| {name} | {words} |" for name, words in CRITERIA.items()]
    return "\n".join(["| criterion | what it says |", "|---|---|", *rows]) + "\n"


def rules() -> str:
    """Every rule."""
    rows = [
        f"| `{rule.key}` | {rule.form} | {'decides' if rule.decides else f'{rule.weight:g}'} | "
        f"{_plain(rule.words)} | {rule.criterion} |"
        for rule in RULES
    ]
    head = ["| rule | for a | weight | because | criterion |", "|---|---|---|---|---|"]
    return "\n".join([*head, *rows]) + "\n"


def _plain(words: str) -> str:
    """Its words without the places of its facts."""
    parts = string.Formatter().parse(words)
    return "".join(text + ("..." if field is not None else "") for text, field, _, _ in parts)
