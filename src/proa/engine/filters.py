"""Filters of the instance list (`ps --filter`), one row per key."""

from __future__ import annotations

from collections.abc import Callable

from proa.engine import health, inspect
from proa.engine import instance as states
from proa.engine.core import Core
from proa.engine.instance import Instance
from proa.errors import Invalid, NotFound

Test = Callable[[Core, Instance, str], bool]


def _label(core: Core, instance: Instance, value: str) -> bool:
    key, equals, wanted = value.partition("=")
    labels = instance.spec.labels
    return key in labels and (not equals or labels[key] == wanted)


def _status(core: Core, instance: Instance, value: str) -> bool:
    return bool(
        instance.state == value or (value == "created" and instance.state == states.STARTING)
    )


def _ancestor(core: Core, instance: Instance, value: str) -> bool:
    try:
        return bool(core.images.get(value).id == instance.image_id)
    except NotFound:
        return False


def _exited(core: Core, instance: Instance, value: str) -> bool:
    return instance.state == states.EXITED and str(instance.exit_code) == value


def _health(core: Core, instance: Instance, value: str) -> bool:
    if value not in health.STATUSES:
        raise Invalid(f"invalid filter 'health={value}'", hint=", ".join(health.STATUSES))
    known = inspect.health_status(instance) if instance.live else ""
    return (known or health.NONE) == value


TESTS: dict[str, Test] = {
    "id": lambda core, instance, value: bool(instance.id.startswith(value)),
    "name": lambda core, instance, value: value.strip("^$/") in instance.name,
    "label": _label,
    "status": _status,
    "ancestor": _ancestor,
    "exited": _exited,
    "health": _health,
    "isolation": lambda core, instance, value: bool(instance.isolation == value),
    "network": lambda core, instance, value: bool(instance.spec.network == value),
}


def matches(core: Core, instance: Instance, filters: dict[str, list[str]]) -> bool:
    """Every key must match, by any of its values (labels: by all).  Raises Invalid."""
    for key, values in filters.items():
        test = TESTS.get(key)
        if test is None:
            raise Invalid(f"invalid filter '{key}'")
        combine = all if key == "label" else any
        if not combine(test(core, instance, value) for value in values):
            return False
    return True
