"""From facts to a recommendation, its reasons, and what would change it.  Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

from proa.advice.facts import Fact, Facts
from proa.advice.policy import NO_POLICY, Demand, Policy
from proa.advice.rules import CONTAINER, RULES, VM, Rule
from proa.advice.what_if import CHANGES

NEITHER = "neither"
MUST, STRONG, CLEAR, SLIGHT, EVEN = "must", "strong", "clear", "slight", "even"
_STRENGTHS = ((4.0, STRONG), (2.0, CLEAR), (0.01, SLIGHT))
FLIPS_MAXIMUM = 8
NOTHING_SAYS = "nothing that is known speaks for a kernel of its own, and a container costs less"
_LISTED = 6


@dataclass(frozen=True)
class Reason:
    """A rule (or a policy's demand, `rule` begins with `policy`) that holds, and its facts."""

    rule: str
    form: str
    weight: float
    decides: bool
    words: str
    criterion: str
    facts: tuple[Fact, ...]


@dataclass(frozen=True)
class Flip:
    """Facts that would have to be different (or found) for the other `form` to be recommended."""

    form: str
    words: str
    facts: tuple[Fact, ...]


@dataclass(frozen=True)
class Advice:
    """A recommendation: `form` is `container`, `vm`, or `neither` when each is ruled out.

    `score` is what speaks for a vm less what speaks for a container; `asked` the form asked for,
    or empty; `violations` say which rules of the policy are broken, `contradiction` why the form
    asked for cannot be.
    """

    kind: str
    name: str
    form: str
    strength: str
    score: float
    reasons: tuple[Reason, ...]
    flips: tuple[Flip, ...] = ()
    asked: str = ""
    contradiction: str = ""
    violations: tuple[str, ...] = ()
    facts: tuple[Fact, ...] = ()

    @property
    def summary(self) -> str:
        """The recommendation and its heaviest reasons, in a line."""
        ruled_out = self.form == NEITHER
        own = [
            reason.words
            for reason in self.reasons
            if reason.form == self.form or (ruled_out and reason.decides)
        ]
        return f"{self.form}: {'; '.join(own[:2]) or NOTHING_SAYS}"


def advise(facts: Facts, policy: Policy = NO_POLICY, asked: str = "") -> Advice:
    """The recommendation for one subject; `asked` is a form asked for by name."""
    facts = policy.complete(facts)
    known = facts.get("run.isolation")
    wanted = asked or (str(known.value) if known and known.value in (CONTAINER, VM) else "")
    reasons = _reasons(facts, policy)
    form, strength, score = _weigh(reasons)
    return Advice(
        facts.kind,
        facts.name,
        form,
        strength,
        score,
        reasons,
        _flips(facts, policy, form),
        wanted,
        _contradiction(wanted, form, reasons),
        policy.violations(facts, form, wanted),
        facts.all,
    )


def _reasons(facts: Facts, policy: Policy) -> tuple[Reason, ...]:
    """All that hold, deciding ones first, then by weight."""
    found = [
        _reason(rule, policy.weight(rule.key, rule.weight), rested)
        for rule in RULES
        if (rested := rule.when(facts)) and policy.weight(rule.key, rule.weight) > 0
    ]
    found += [_demanded(demand, rested) for demand, rested in policy.demanded(facts)]
    return tuple(sorted(found, key=lambda one: (not one.decides, -one.weight)))


def _reason(rule: Rule, weight: float, rested: tuple[Fact, ...]) -> Reason:
    words = rule.words.format(*map(shown, rested))
    return Reason(rule.key, rule.form, weight, rule.decides, words, rule.criterion, rested)


def _demanded(demand: Demand, rested: tuple[Fact, ...]) -> Reason:
    return Reason("policy", demand.form, 10, True, f"the policy: {demand.why}", "", rested)


def shown(fact: Fact) -> str:
    """A fact's value in words; of a long list its beginning."""
    value = fact.value
    if isinstance(value, int) and "bytes" in fact.key:
        return f"{value / 1e6:.3g} MB" if value < 1e9 else f"{value / 1e9:.1f} GB"
    if isinstance(value, tuple):
        rest = len(value) - _LISTED
        return ", ".join(value[:_LISTED]) + (f" and {rest} more" if rest > 0 else "")
    return f"{value:g}" if isinstance(value, float) else str(value)


def _weigh(reasons: Sequence[Reason]) -> tuple[str, str, float]:
    """Form, strength and score.  Where nothing speaks, a container: it costs less."""
    score = sum(one.weight if one.form == VM else -one.weight for one in reasons)
    decided = {one.form for one in reasons if one.decides}
    if len(decided) == 2:
        return NEITHER, MUST, score
    if decided:
        return decided.pop(), MUST, score
    strength = next((name for least, name in _STRENGTHS if abs(score) >= least), EVEN)
    return VM if score > 0 else CONTAINER, strength, score


def _form(facts: Facts, policy: Policy) -> str:
    return _weigh(_reasons(facts, policy))[0]


def _contradiction(wanted: str, form: str, reasons: Sequence[Reason]) -> str:
    """Why a form that was asked for cannot be; empty when it can."""
    if not wanted or (wanted == form != NEITHER):
        return ""
    against = [one.words for one in reasons if one.decides and one.form != wanted]
    return f"a {wanted} was asked for, but {against[0]}" if against else ""


# -- what would flip it ---------------------------------------------------------------------------


def _flips(facts: Facts, policy: Policy, form: str) -> tuple[Flip, ...]:
    """The changes after which the rules, asked again, say another form: single ones, else pairs."""
    candidates = [
        (words, fact)
        for words, fact in _candidates(facts)
        if (known := facts.get(fact.key)) is None or known.value != fact.value
    ]
    for size in (1, 2):
        found = []
        for chosen in combinations(candidates, size):
            changed = tuple(fact for _, fact in chosen)
            if len({fact.key for fact in changed}) < size:
                continue
            other = _form(with_facts(facts, changed), policy)
            if other not in (form, NEITHER):
                found.append(Flip(other, " and ".join(words for words, _ in chosen), changed))
                if len(found) == FLIPS_MAXIMUM:
                    break
        if found:
            return tuple(found)
    return ()


def _candidates(facts: Facts) -> list[tuple[str, Fact]]:
    """What could be different: `CHANGES`, each where its key is known or may be stated."""
    return [
        (change.words, Fact(change.key, change.value, "supposed"))
        for change in CHANGES
        if change.always or facts.get(change.key) is not None
    ]


def with_facts(facts: Facts, changed: Iterable[Fact]) -> Facts:
    """The same with some facts in place of those with their keys."""
    new = tuple(changed)
    keys = {fact.key for fact in new}
    return replace(facts, all=(*new, *(fact for fact in facts.all if fact.key not in keys)))
