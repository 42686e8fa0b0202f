"""What a rule asks of facts: a condition gives the facts it rests on, none when it does not hold.

Absent is not `False`: a condition about something unknown never holds.  Pure.
"""

from __future__ import annotations

from collections.abc import Callable

from proa.advice.facts import Fact, Facts, Value

Condition = Callable[[Facts], tuple[Fact, ...]]


def number(value: Value) -> float:
    """A value as a number: that of a list is its length, of a text 0."""
    if isinstance(value, tuple):
        return len(value)
    return float(value) if isinstance(value, bool | int | float) else 0.0


def _when(key: str, test: Callable[[Value], bool]) -> Condition:
    def condition(facts: Facts) -> tuple[Fact, ...]:
        fact = facts.get(key)
        return (fact,) if fact is not None and test(fact.value) else ()

    return condition


def has(key: str) -> Condition:
    """It is known and not empty, zero or false."""
    return _when(key, bool)


def lacks(key: str) -> Condition:
    """It was looked for and is not there."""
    return _when(key, lambda value: not value)


def one_of(key: str, *wanted: Value) -> Condition:
    """Its value is one of these."""
    return _when(key, lambda value: value in wanted)


def none_of(key: str, *unwanted: Value) -> Condition:
    """It is known and its value is none of these."""
    return _when(key, lambda value: value not in unwanted)


def at_least(key: str, least: float) -> Condition:
    """Its number (of a list: how many) is so large."""
    return _when(key, lambda value: number(value) >= least)


def at_most(key: str, most: float) -> Condition:
    """Its number (of a list: how many) is no larger."""
    return _when(key, lambda value: number(value) <= most)


def among(key: str, names: frozenset[str], least: int = 1) -> Condition:
    """At least so many of these names are in its list (or it is one of them)."""

    def test(value: Value) -> bool:
        listed = value if isinstance(value, tuple) else (str(value),)
        return len(names & set(listed)) >= least

    return _when(key, test)


def every(*conditions: Condition) -> Condition:
    """All of them hold."""

    def condition(facts: Facts) -> tuple[Fact, ...]:
        found = [one(facts) for one in conditions]
        return tuple(fact for some in found for fact in some) if all(found) else ()

    return condition


def some(*conditions: Condition) -> Condition:
    """One of them holds: the first that does."""

    def condition(facts: Facts) -> tuple[Fact, ...]:
        return next((found for one in conditions if (found := one(facts))), ())

    return condition


def unless(condition: Condition, *obstacles: Condition) -> Condition:
    """It holds, and none of the obstacles does."""

    def judged(facts: Facts) -> tuple[Fact, ...]:
        return () if any(one(facts) for one in obstacles) else condition(facts)

    return judged


def above(key: str, other: str, factor: float = 1.0) -> Condition:
    """A number is known to be more than `factor` times another."""

    def condition(facts: Facts) -> tuple[Fact, ...]:
        one, two = facts.get(key), facts.get(other)
        if one is None or two is None or number(one.value) <= number(two.value) * factor:
            return ()
        return one, two

    return condition


def newer(key: str, other: str) -> Condition:
    """A version is known to be newer than another."""

    def condition(facts: Facts) -> tuple[Fact, ...]:
        one, two = facts.get(key), facts.get(other)
        if one is None or two is None or version(one.value) <= version(two.value):
            return ()
        return one, two

    return condition


def version(value: Value) -> tuple[int, ...]:
    """The first numbers of a version: `6.1.0-13-amd64` gives (6, 1, 0)."""
    numbers: list[int] = []
    for part in str(value).partition("-")[0].split(".")[:3]:
        if not (part.isascii() and part.isdigit()):
            break
        numbers.append(int(part[:9]))
    return tuple(numbers)
