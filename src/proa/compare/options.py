"""What a comparison is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from proa.compare import forms, portability, rounds, statistics
from proa.errors import Invalid

GROUPS = ("size", "time", "cost", "work", "isolation", "portability")
QUICK_GROUPS = ("size", "time", "cost", "work", "isolation")
BUDGET_SECONDS = 105.0
QUICK_SECONDS = 40.0
BURST = 4
DENSITY = 8
CONFIDENCES = (0.5, 0.9999)
COUNT_MAXIMUM = 10_000


@dataclass(frozen=True)
class Options:
    """One comparison.

    `name` is an image's name or id, or a disk's absolute path (`kind` says which); `create` are
    further options of `Client.create`.  A number of `rounds` of 0 is found out, `kernels` of None
    are not tried, `port` 0 is the image's only one.  `seconds` is what all of it should take.
    """

    name: str
    kind: str = "image"
    command: tuple[str, ...] = ()
    forms: tuple[str, ...] = ()
    groups: tuple[str, ...] = GROUPS
    rounds: int = 0
    confidence: float = statistics.CONFIDENCE
    quick: bool = False
    port: int = 0
    ready: str = ""
    load: str = ""
    burst: int = BURST
    density: int = DENSITY
    kernels: tuple[str, ...] | None = None
    seed: int = 0
    seconds: float = BUDGET_SECONDS
    create: Mapping[str, Any] = field(default_factory=dict)

    def check(self) -> None:
        """Raises Invalid for what cannot be, before anything is done."""
        for group in self.groups:
            if group not in GROUPS:
                raise Invalid(f"'{group}' cannot be measured", hint=f"one of: {', '.join(GROUPS)}")
        if len(self.forms) == 1 or len(self.forms) > forms.MAXIMUM:
            raise Invalid(
                f"'{','.join(self.forms)}' is not 2 to {forms.MAXIMUM} forms",
                hint="like container,vm",
            )
        low, high = CONFIDENCES
        if not low <= self.confidence <= high:
            raise Invalid(f"a confidence of '{self.confidence}' is not {low} to {high}")
        portability.kernels_for(self.kind, self.kernels)
        bounds = {
            "--rounds": (self.rounds, 0, 1000),
            "--port": (self.port, 0, 65535),
            "--burst": (self.burst, 0, 1000),
            "--density-limit": (self.density, 0, COUNT_MAXIMUM),
        }
        for name, (value, least, most) in bounds.items():
            if not least <= value <= most:
                raise Invalid(f"'{value}' is not a value for '{name}': {least} to {most}")

    @property
    def cold(self) -> bool:
        """Whether starts with a cold cache are measured."""
        return self.kind == "image" and not self.quick

    @property
    def least_rounds(self) -> int:
        """Rounds made however long they take."""
        return self.rounds or rounds.MINIMUM
