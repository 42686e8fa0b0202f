"""Options that say how an instance's health is checked, made into Docker's HealthConfig."""

from __future__ import annotations

from proa.cli.options import Option, Values
from proa.errors import Invalid

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

OPTIONS = (
    Option("--health-cmd", "text", "COMMAND", "shell command that fails while it is not healthy"),
    Option("--health-interval", "duration", "DURATION", "from one check to the next (30s)"),
    Option("--health-timeout", "duration", "DURATION", "how long one check may take (30s)"),
    Option("--health-retries", "integer", "NUMBER", "failures in a row that make it unhealthy (3)"),
    Option("--health-start-period", "duration", "DURATION", "time to start, in which none counts"),
    Option("--health-start-interval", "duration", "DURATION", "from check to check in it (5s)"),
    Option("--no-healthcheck", "flag", "", "do not check, whatever the image says"),
)

_FIELDS = (
    ("Interval", "health_interval"), ("Timeout", "health_timeout"), ("Retries", "health_retries"),
    ("StartPeriod", "health_start_period"), ("StartInterval", "health_start_interval"),
)  # fmt: skip


def check(values: Values) -> dict[str, Any]:
    """What was asked for; empty when nothing was.  Raises Invalid."""
    found = {field: getattr(values, key) for field, key in _FIELDS if key in values.given}
    for field, value in found.items():
        if value < 0:
            raise Invalid(f"the health check's {field} cannot be negative")
    if values.health_cmd:
        found["Test"] = ["CMD-SHELL", values.health_cmd]
    if values.no_healthcheck:
        if found:
            raise Invalid("'--no-healthcheck' contradicts the other '--health-...' options")
        return {"Test": ["NONE"]}
    return found
