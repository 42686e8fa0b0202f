"""What an owner states of a subject: by option, label (`x-proa-trust`) or policy.  Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from proa.advice.facts import Fact, Value
from proa.errors import Invalid
from proa.printable import clean

LABEL = "x-proa-"
_TRUE, _FALSE = ("yes", "true", "1"), ("no", "false", "0")
_MS = {"ms": 1.0, "s": 1000.0, "m": 60_000.0, "h": 3_600_000.0}
_SIZES = {"k": 10, "m": 20, "g": 30, "t": 40}


def _flag(text: str) -> Value:
    if text.lower() not in _TRUE + _FALSE:
        raise ValueError
    return text.lower() in _TRUE


def _milliseconds(text: str) -> Value:
    """`100ms`, `1.5s`, `2m`; a bare number is milliseconds."""
    unit = next((unit for unit in _MS if text.endswith(unit)), "")
    return _positive(float(text.removesuffix(unit)) * _MS.get(unit, 1.0))


def _bytes(text: str) -> Value:
    """`64m`, `1.5GiB`, a number of bytes."""
    plain = text.lower().removesuffix("ib").removesuffix("b")
    shift = _SIZES.get(plain[-1:], 0)
    return int(_positive(float(plain[:-1] if shift else plain) * (1 << shift)))


def _positive(number: float) -> float:
    if not 0 < number < 1e18:
        raise ValueError
    return number


def _word(*allowed: str) -> Callable[[str], Value]:
    def read(text: str) -> Value:
        if allowed and text not in allowed:
            raise ValueError
        return clean(text)

    return read


@dataclass(frozen=True)
class Statement:
    """One thing that can be stated: its fact, how a text is read, what is allowed."""

    key: str
    read: Callable[[str], Value]
    allowed: str


_TRUST = ("own", "known", "untrusted")
_LIFETIMES = ("seconds", "minutes", "hours", "days", "weeks", "months", "years", "permanent")
_CHANGES = ("hourly", "daily", "weekly", "monthly", "yearly", "never")

STATEMENTS: Mapping[str, Statement] = {
    "trust": Statement("stated.trust", _word(*_TRUST), ", ".join(_TRUST)),
    "tenants": Statement("stated.tenants", _flag, "yes or no"),
    "start-budget": Statement("stated.start_budget_ms", _milliseconds, "like 100ms or 2s"),
    "memory-budget": Statement("stated.memory_budget_bytes", _bytes, "like 64m"),
    "lifetime": Statement("stated.lifetime", _word(*_LIFETIMES), ", ".join(_LIFETIMES)),
    "state": Statement("stated.state", _word(), "stateless, or where it is kept"),
    "change": Statement("stated.change", _word(*_CHANGES), ", ".join(_CHANGES)),
    "compliance": Statement("stated.compliance", _word(), "the rule that demands it"),
}


def fact(name: str, value: object, source: str) -> Fact:
    """One statement, by name (`trust`, `start-budget`).  Raises Invalid."""
    statement = STATEMENTS.get(name.replace("_", "-"))
    if statement is None:
        raise Invalid(f"'{clean(name)}' cannot be stated", hint=f"one of {', '.join(STATEMENTS)}")
    text = ("yes" if value else "no") if isinstance(value, bool) else str(value)
    try:
        return Fact(statement.key, statement.read(text.strip()), source)
    except ValueError:
        raise Invalid(
            f"'{clean(text)}' cannot be stated of '{name}'", hint=statement.allowed
        ) from None


def of_labels(labels: Mapping[str, object], source: str) -> tuple[Fact, ...]:
    """What labels `x-proa-NAME` state.  Raises Invalid."""
    return tuple(
        fact(key.removeprefix(LABEL), value, f"{source} {key}")
        for key, value in labels.items()
        if key.startswith(LABEL)
    )
