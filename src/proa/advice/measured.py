"""What a report of `proa compare` says of a subject, as `measured.*` facts.  Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from statistics import median
from typing import Any

from proa.advice.facts import Fact
from proa.errors import Invalid

SCHEMA = "proa.compare/"
FORMS = ("container", "vm")
STARTS = (  # by preference
    "time.first-output.warm", "time.ready.warm", "time.first-reply.warm", "time.port-open.warm",
    "time.first-output",
)  # fmt: skip
REFUSED = "system calls refused"  # the row of portability
_CALL = re.compile(r"[a-z_][a-z0-9_]*")


def facts(report: Any, name: str) -> tuple[Fact, ...]:
    """The facts in a report's JSON document; `name` is its file's.  Raises Invalid."""
    if not isinstance(report, dict) or not str(report.get("schema", "")).startswith(SCHEMA):
        raise Invalid(f"'{name}' is no report of a comparison", hint="see `proa compare --json`")
    try:
        return tuple(_all(report, name))
    except (KeyError, TypeError, ValueError, AttributeError):
        raise Invalid(f"the report '{name}' is damaged") from None


def _all(report: Mapping[str, Any], name: str) -> Iterator[Fact]:
    measures = {str(one["key"]): one for one in report.get("measures", ())}
    for form in FORMS:
        yield from _start(measures, form, name)
        yield from _memory(report, measures.get("cost.memory", {}), form, name)
        score = report.get("isolation", {}).get("scores", {}).get(form, {}).get("total")
        if score is not None:
            yield Fact(
                f"measured.isolation.{form}",
                round(float(score), 1),
                f"{name} isolation.scores.{form}",
            )
    yield from _work(measures, name)
    yield from _seen(report.get("portability", {}), name)


def _memory(
    report: Mapping[str, Any], measure: Mapping[str, Any], form: str, name: str
) -> Iterator[Fact]:
    parts = report.get("memory", {}).get(form, ())
    value, where = typical(measure, form), "cost.memory"
    if value is None and parts:
        value, where = sum(float(part["bytes"]) for part in parts), f"memory.{form}"
    if value is not None:
        yield Fact(f"measured.memory_bytes.{form}", int(value), f"{name} {where}")


def _seen(portability: Mapping[str, Any], name: str) -> Iterator[Fact]:
    """Forms in which it never worked while the other did; calls that only a container refused."""
    tries: dict[str, list[bool]] = {form: [] for form in FORMS}
    for trial in portability.get("trials", ()):
        form = str(trial["form"]).partition("-")[0]
        if form in tries:
            tries[form].append(trial["works"] is True)
    worked = [form for form in FORMS if any(tries[form])]
    failed = tuple(form for form in FORMS if tries[form] and form not in worked)
    if worked and failed:
        yield Fact("seen.failed", failed, f"{name} portability.trials")
    for need in portability.get("needs", ()):
        calls = {form: _calls(need["answers"].get(form, "")) for form in FORMS}
        if need["what"] == REFUSED and calls["container"] - calls["vm"]:
            only = tuple(sorted(calls["container"] - calls["vm"]))
            yield Fact("seen.syscalls", only, f"{name} portability.needs ({REFUSED})")


def _calls(text: str) -> set[str]:
    """The names in a row's answer."""
    words = {word.strip() for word in str(text).split(",")} - {"none"}
    return words if all(map(_CALL.fullmatch, words)) else set()


def _start(measures: Mapping[str, Any], form: str, name: str) -> Iterator[Fact]:
    for wanted in STARTS:
        for key, measure in measures.items():
            value = typical(measure, form) if key.startswith(wanted) else None
            if value is not None:
                yield Fact(f"measured.start_ms.{form}", round(value, 1), f"{name} {key}")
                return


def _work(measures: Mapping[str, Any], name: str) -> Iterator[Fact]:
    """The worst of the vm's speeds, as a share of the container's."""
    worst, where = math.inf, ""
    for key, measure in measures.items():
        container, vm = (typical(measure, form) for form in FORMS)
        if measure.get("group") != "work" or not container or not vm or not measure.get("better"):
            continue
        ratio = vm / container if measure["better"] == "higher" else container / vm
        if ratio < worst:
            worst, where = ratio, key
    if where:
        yield Fact("measured.work_ratio", round(worst, 3), f"{name} {where}")


def typical(measure: Mapping[str, Any], form: str) -> float | None:
    """A measure's median for a form; None without one."""
    known = measure.get("intervals", {}).get(form)
    if known:
        return float(known["median"])
    samples: Sequence[float] = measure.get("samples", {}).get(form, ())
    return float(median(samples)) if samples else None
