"""Advice as text: the recommendation, what speaks for and against it, what would flip it."""

from __future__ import annotations

from textwrap import wrap

from proa.advice.criteria import CRITERIA
from proa.printable import clean

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

WIDTH = 96
_STRENGTHS = {
    "must": "the other form cannot do it", "strong": "strongly", "clear": "clearly",
    "slight": "by a little", "even": "nothing speaks against it, and it costs less",
}  # fmt: skip
_OTHERS = {"container": "vm", "vm": "container"}


def render(advice: dict[str, Any], *, with_facts: bool = False) -> str:
    """The whole of one piece of advice."""
    return "\n".join(_lines(advice, with_facts))


def _lines(advice: dict[str, Any], with_facts: bool) -> Iterator[str]:
    form, name = advice["Form"], clean(advice["Name"])
    how = _STRENGTHS[advice["Strength"]]
    if form == "neither":
        yield f"{name}: neither form can run it"
    else:
        yield f"{name}: {form} ({how})"
    for words in (advice["Contradiction"], *(f"policy: {v}" for v in advice["Violations"])):
        if words:
            yield f"  ! {clean(words, 400)}"
    for title, wanted in _titles(form):
        reasons = [one for one in advice["Reasons"] if one["Form"] == wanted]
        if reasons:
            yield f"  {title}"
        for one in reasons:
            yield from _reason(one)
    if advice["Flips"]:
        yield "  what would make it the other form"
        for flip in advice["Flips"]:
            yield from _wrapped(f"{flip['Form']} if {flip['Words']}", "    - ")
    if advice.get("Machine"):
        yield from _machine(advice["Machine"])
    if with_facts:
        yield "  facts"
        for fact in advice["Facts"]:
            yield from _wrapped(f"{fact['Key']} = {_value(fact['Value'])}  [{fact['Source']}]",
                                "    ")  # fmt: skip


def _titles(form: str) -> Iterator[tuple[str, str]]:
    if form in _OTHERS:
        yield f"for a {form}", form
        yield f"for a {_OTHERS[form]}", _OTHERS[form]
    else:
        yield from ((f"only a {one}", one) for one in _OTHERS)


def _machine(told: dict[str, Any]) -> Iterator[str]:
    """The services found on a disk: units, ports, data, configuration, what each uses."""
    from proa.advice.disk import facts
    from proa.advice.disk.machine import load

    for line in facts.described(load(told)):
        text = line.lstrip()
        yield from _wrapped(text, " " * (2 + len(line) - len(text)))


def _reason(one: dict[str, Any]) -> Iterator[str]:
    weight = "must" if one["Decides"] else f"{one['Weight']:+.1f}"
    criterion = f" ({one['Criterion']})" if one["Criterion"] in CRITERIA else ""
    yield from _wrapped(f"{one['Words']}{criterion}", f"    {weight:>4}  ")
    sources = dict.fromkeys(clean(fact["Source"]) for fact in one["Facts"])
    yield from _wrapped(f"found in {'; '.join(sources)}", " " * 12)


def _value(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _wrapped(text: str, indent: str) -> list[str]:
    return wrap(
        clean(text, 1000), WIDTH, initial_indent=indent, subsequent_indent=" " * len(indent),
        break_on_hyphens=False, break_long_words=False,
    )  # fmt: skip
