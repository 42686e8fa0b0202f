"""Advice, facts and what is sent of them, as JSON documents.  Pure."""

from __future__ import annotations

from typing import Any

from proa.advice.facts import KEYS, Fact
from proa.advice.verdict import Advice
from proa.errors import Invalid
from proa.printable import clean

FACTS_MAXIMUM = 1000
_TEXT = 2000


def write(advice: Advice) -> dict[str, Any]:
    """The whole of it."""
    return {
        "Kind": advice.kind, "Name": advice.name, "Form": advice.form,
        "Strength": advice.strength, "Score": round(advice.score, 2), "Summary": advice.summary,
        "Reasons": [
            {"Rule": one.rule, "Form": one.form, "Weight": one.weight, "Decides": one.decides,
             "Words": one.words, "Criterion": one.criterion, "Facts": [*map(fact, one.facts)]}
            for one in advice.reasons
        ],
        "Flips": [
            {"Form": flip.form, "Words": flip.words, "Facts": [*map(fact, flip.facts)]}
            for flip in advice.flips
        ],
        "Asked": advice.asked, "Contradiction": advice.contradiction,
        "Violations": list(advice.violations), "Facts": [*map(fact, advice.facts)],
    }  # fmt: skip


def fact(one: Fact) -> dict[str, Any]:
    """A fact."""
    value = list(one.value) if isinstance(one.value, tuple) else one.value
    return {"Key": one.key, "Value": value, "Source": one.source}


def read_facts(given: Any) -> tuple[Fact, ...]:
    """Facts a client sends.  Raises Invalid."""
    if given is None:
        return ()
    if not isinstance(given, list) or len(given) > FACTS_MAXIMUM:
        raise Invalid(f"'Facts' must be a list of at most '{FACTS_MAXIMUM}'")
    return tuple(map(_read_fact, given))


def _read_fact(item: Any) -> Fact:
    if not isinstance(item, dict) or item.get("Key") not in KEYS:
        raise Invalid(f"no fact is called '{clean(str(item))}'", hint="see docs/reference.md")
    value = item.get("Value")
    if isinstance(value, list) and all(isinstance(one, str) for one in value):
        value = tuple(clean(one, _TEXT) for one in value[:FACTS_MAXIMUM])
    elif isinstance(value, str):
        value = clean(value, _TEXT)
    elif not isinstance(value, bool | int | float):
        raise Invalid(f"the fact '{item['Key']}' has no value that one can have")
    return Fact(item["Key"], value, clean(str(item.get("Source") or "the client"), _TEXT))
