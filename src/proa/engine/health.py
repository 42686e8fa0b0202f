"""Health checks as data: what is asked for, and what one result makes of what was known.  Pure.

Docker's rules: what a create request leaves out is the image's, an empty test inherits, `NONE`
runs none.  While an instance starts, failures within its start period do not count.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from proa.engine.fields import Fields
from proa.errors import Invalid
from proa.spec import Health

STARTING, HEALTHY, UNHEALTHY, NONE = "starting", "healthy", "unhealthy", "none"
STATUSES = (STARTING, HEALTHY, UNHEALTHY, NONE)
RETRIES = 3
LOG_ENTRIES = 5
_MILLISECOND, _SECOND = 1_000_000, 1_000_000_000
_TIMES = ("Interval", "Timeout", "StartPeriod", "StartInterval")
_SHELL = ("/bin/sh", "-c")


@dataclass(frozen=True)
class Result:
    """One probe's end; times in ns.  `code` is 0 for healthy, -1 for a probe that never ended."""

    start_ns: int
    end_ns: int
    code: int
    output: str


def merge(config: Fields, image: Fields) -> Health:
    """The check of a create request and its image.  Raises Invalid, naming the field."""
    asked, given = config.fields("Healthcheck"), image.fields("Healthcheck")
    test = asked.strings("Test") or given.strings("Test")
    _check(test, asked.path("Test"))
    times = {name: _time(asked, name) or _time(given, name) for name in _TIMES}
    retries = asked.integer("Retries") or given.integer("Retries")
    if retries < 0:
        raise Invalid(f"'{asked.path('Retries')}' cannot be negative: '{retries}'")
    if not test or test[0] == "NONE":
        return Health(test)
    shell = config.strings("Shell") or image.strings("Shell") or _SHELL
    return Health(
        test, shell if test[0] == "CMD-SHELL" else (), times["Interval"], times["Timeout"],
        times["StartPeriod"], times["StartInterval"], retries,
    )  # fmt: skip


def _check(test: tuple[str, ...], path: str) -> None:
    if not test or test == ("NONE",):
        return
    if test[0] not in ("NONE", "CMD", "CMD-SHELL"):
        raise Invalid(
            f"unknown health check '{test[0]}' in '{path}'", hint="CMD, CMD-SHELL or NONE"
        )
    if (len(test) > 1) == (test[0] == "NONE"):
        wrong = "takes no command" if test[0] == "NONE" else "has no command"
        raise Invalid(f"health check '{test[0]}' in '{path}' {wrong}")


def _time(fields: Fields, name: str) -> int:
    found = fields.integer(name)
    if found and found < _MILLISECOND:
        raise Invalid(f"'{fields.path(name)}' cannot be less than 1ms: '{found}' ns")
    return found


def enabled(health: Health) -> bool:
    """Whether there is something to run."""
    return bool(health.test) and health.test[0] != "NONE"


def arguments(health: Health) -> tuple[str, ...]:
    """The probe's command line."""
    return (*health.shell, *health.test[1:])


def told(health: Health) -> dict[str, Any]:
    """Docker's HealthConfig; fields that have their defaults are left out."""
    fields = {
        "Test": list(health.test), "Interval": health.interval_ns, "Timeout": health.timeout_ns,
        "StartPeriod": health.start_period_ns, "StartInterval": health.start_interval_ns,
        "Retries": health.retries,
    }  # fmt: skip
    return {key: value for key, value in fields.items() if value}


def timeout_seconds(health: Health) -> float:
    """How long one probe may take."""
    return (health.timeout_ns or 30 * _SECOND) / 1e9


def duration(seconds: float) -> str:
    """As Go prints one: `250ms`, `1.5s`, `1m30s`."""
    if seconds < 1:
        return f"{seconds * 1000:g}ms"
    minutes, rest = divmod(seconds, 60)
    hours, minutes = divmod(int(minutes), 60)
    return f"{hours}h{minutes}m{rest:g}s" if hours else f"{minutes}m" * (minutes > 0) + f"{rest:g}s"


def interval_seconds(health: Health, status: str, age_ns: int) -> float:
    """From the end of one probe to the next, of an instance that has run so long."""
    if status == STARTING and age_ns < health.start_period_ns:
        return (health.start_interval_ns or 5 * _SECOND) / 1e9
    return (health.interval_ns or 30 * _SECOND) / 1e9


def begun() -> dict[str, Any]:
    """What is known before the first probe: Docker's Health, times in ns."""
    return {"Status": STARTING, "FailingStreak": 0, "Log": []}


def after(known: dict[str, Any], health: Health, result: Result, age_ns: int) -> dict[str, Any]:
    """What is known after a result of a probe begun when the instance was so old."""
    entry = {
        "Start": result.start_ns, "End": result.end_ns,
        "ExitCode": result.code, "Output": result.output,
    }  # fmt: skip
    status, streak = known["Status"], known["FailingStreak"]
    if result.code == 0:
        status, streak = HEALTHY, 0
    elif status != STARTING or age_ns >= health.start_period_ns:
        streak += 1
        if streak >= (health.retries or RETRIES):
            status = UNHEALTHY
    log = [*known["Log"], entry][-LOG_ENTRIES:]
    return {"Status": status, "FailingStreak": streak, "Log": log}
