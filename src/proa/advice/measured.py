"""What a report of `proa compare` says of a subject, as `measured.*` facts.  Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from statistics import median
from typing import Any

from proa.advice.facts import Fact
from proa.errors import Invalid

SCHEMA = "proa.compare/"
FORMS = ("container", "vm")
STARTS = ("time.first-output.warm", "time.first-output", "time.exec", "time.ready")  # by preference


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
        parts = report.get("memory", {}).get(form, ())
        if parts:
            total = sum(int(part["bytes"]) for part in parts)
            yield Fact(f"measured.memory_bytes.{form}", total, f"{name} memory.{form}")
        score = report.get("isolation", {}).get("scores", {}).get(form, {}).get("total")
        if score is not None:
            yield Fact(
                f"measured.isolation.{form}", float(score), f"{name} isolation.scores.{form}"
            )
    yield from _work(measures, name)


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
