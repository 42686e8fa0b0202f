"""A policy: what an organisation allows, demands and states, in a TOML file.  Pure.

    allowed = ["container", "vm"]        # forms that may be at all

    [stated]                             # facts that hold when nobody says otherwise
    trust = "known"

    [weights]                            # of rules by key; 0 switches one off
    desktop = 0

    [[demand]]                           # a form, where these facts hold
    when = { "stated.trust" = "untrusted" }
    form = "vm"
    why = "what we do not trust has a kernel of its own"

    [[deny]]                             # neither form (or not this `form`)
    when = { "run.engine_socket" = true }
    why = "nobody gets the engine's socket"

A condition's value is one value, a list (one of them; in a fact that is a list, one of its
items), or a table of `least`, `most`, `known`.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from proa.advice import conditions, stated
from proa.advice.conditions import Condition
from proa.advice.facts import KEYS, Fact, Facts
from proa.advice.rules import CONTAINER, RULES, VM
from proa.errors import Invalid

FORMS = (CONTAINER, VM)
MAXIMUM_BYTES = 1 << 20
_TABLES = ("allowed", "stated", "weights", "demand", "deny")


@dataclass(frozen=True)
class Demand:
    """A form that is demanded (or denied: any, when empty) where a condition holds."""

    when: Condition
    form: str
    why: str


@dataclass(frozen=True)
class Policy:
    """What is allowed, demanded, denied; `stated` completes facts, `weights` are of rules."""

    allowed: tuple[str, ...] = FORMS
    stated: tuple[Fact, ...] = ()
    weights: Mapping[str, float] = field(default_factory=dict)
    demands: tuple[Demand, ...] = ()
    denials: tuple[Demand, ...] = ()

    def complete(self, facts: Facts) -> Facts:
        """The facts, and what is stated here of which they say nothing."""
        known = {fact.key for fact in facts.all}
        return replace(
            facts, all=(*facts.all, *(fact for fact in self.stated if fact.key not in known))
        )

    def weight(self, rule: str, usual: float) -> float:
        """What a rule weighs."""
        return self.weights.get(rule, usual)

    def demanded(self, facts: Facts) -> Iterator[tuple[Demand, tuple[Fact, ...]]]:
        """The demands that hold, and the facts they rest on."""
        return ((demand, rested) for demand in self.demands if (rested := demand.when(facts)))

    def violations(self, facts: Facts, form: str, wanted: str) -> tuple[str, ...]:
        """What of the policy is broken by a form that is recommended, or by the one wanted."""
        chosen = wanted or form
        found = []
        if chosen not in self.allowed and chosen in FORMS:
            found.append(f"a {chosen} is not allowed, only {' or '.join(self.allowed)}")
        for demand, _ in self.demanded(facts):
            if chosen != demand.form:
                found.append(f"a {demand.form} is demanded: {demand.why}")
        for denial in self.denials:
            if denial.form in ("", chosen) and denial.when(facts):
                found.append(f"denied: {denial.why}")
        return tuple(found)


NO_POLICY = Policy()


def read(text: str, name: str = "policy") -> Policy:
    """The policy in a TOML text.  Raises Invalid, naming what is wrong."""
    if len(text) > MAXIMUM_BYTES:
        raise Invalid(f"the policy '{name}' is larger than '{MAXIMUM_BYTES}' bytes")
    try:
        found = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise Invalid(f"the policy '{name}' is no TOML: {str(error).lower()}") from None
    for key in found:
        if key not in _TABLES:
            raise Invalid(f"unknown '{key}' in the policy '{name}'", hint=", ".join(_TABLES))
    return Policy(
        _allowed(found.get("allowed", list(FORMS))),
        _stated(_table(found, "stated"), name),
        _weights(_table(found, "weights")),
        tuple(_demand(item, form=True) for item in _tables(found, "demand")),
        tuple(_demand(item, form=False) for item in _tables(found, "deny")),
    )


def _table(found: dict[str, Any], key: str) -> dict[str, Any]:
    value = found.get(key, {})
    if not isinstance(value, dict):
        raise Invalid(f"'{key}' in a policy must be a table")
    return value


def _tables(found: dict[str, Any], key: str) -> list[dict[str, Any]]:
    value = found.get(key, [])
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise Invalid(f"'{key}' in a policy must be tables, written [[{key}]]")
    return value


def _allowed(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not value or any(item not in FORMS for item in value):
        raise Invalid(f"'allowed' in a policy is {value!r}", hint='like ["container", "vm"]')
    return tuple(value)


def _stated(table: dict[str, Any], name: str) -> tuple[Fact, ...]:
    return tuple(
        stated.fact(key, value, f"policy '{name}', stated.{key}") for key, value in table.items()
    )


def _weights(table: dict[str, Any]) -> dict[str, float]:
    rules = {rule.key: rule for rule in RULES}
    for key, value in table.items():
        if key not in rules:
            raise Invalid(f"no rule of advice is called '{key}'", hint="see docs/reference.md")
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 100:
            raise Invalid(f"the weight of '{key}' must be a number from 0 to 100")
    return {key: float(value) for key, value in table.items()}


def _demand(item: dict[str, Any], *, form: bool) -> Demand:
    unknown = item.keys() - {"when", "form", "why"}
    if unknown:
        raise Invalid(f"unknown '{min(unknown)}' in a policy's demand", hint="when, form, why")
    wanted, why, when = item.get("form", ""), item.get("why", ""), item.get("when")
    if (wanted or form) and wanted not in FORMS:
        raise Invalid(f"the form '{wanted}' in a policy is unknown", hint="container or vm")
    if not isinstance(why, str) or not isinstance(when, dict) or not when:
        raise Invalid("a policy's demand must have 'when' (a table of facts) and 'why' (words)")
    parts = [_condition(key, value) for key, value in when.items()]
    return Demand(conditions.every(*parts), wanted, why or ", ".join(when))


def _condition(key: str, value: Any) -> Condition:
    if key not in KEYS:
        raise Invalid(f"no fact is called '{key}'", hint="see docs/reference.md")
    if isinstance(value, dict):
        return _bounds(key, value)
    wanted = value if isinstance(value, list) else [value]
    if not all(isinstance(one, bool | int | float | str) for one in wanted):
        raise Invalid(f"a policy's condition on '{key}' must be words or numbers")
    names = frozenset(one for one in wanted if isinstance(one, str))
    return conditions.some(conditions.one_of(key, *wanted), conditions.among(key, names))


def _bounds(key: str, value: dict[str, Any]) -> Condition:
    made = {
        "least": lambda bound: conditions.at_least(key, bound),
        "most": lambda bound: conditions.at_most(key, bound),
        "known": lambda bound: conditions.has(key) if bound else conditions.lacks(key),
    }
    if not value or value.keys() - made.keys():
        raise Invalid(f"a policy's condition on '{key}' is unclear", hint=", ".join(made))
    if not all(isinstance(bound, bool | int | float) for bound in value.values()):
        raise Invalid(f"a policy's bounds of '{key}' must be numbers")
    return conditions.every(*(made[name](bound) for name, bound in value.items()))
