"""Changing the inside of a place that runs: steps executed in it, beside its processes."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING

from proa import capabilities, plan
from proa.agent import Agent, Kind
from proa.plan import Step, encode

if TYPE_CHECKING:
    from proa.isolation.base import Running

END: tuple[Step, ...] = (
    plan.Capabilities(f"{capabilities.mask(drop=('ALL',)):x}"),
    plan.NoNewPrivileges(),
    plan.Builtin(("stat", "/")),
)
_ids = itertools.count(0x5000_0000)  # out of the way of the engine's own numbers


def run(running: Running, steps: tuple[Step, ...], descriptors: Sequence[int] = ()) -> None:
    """Run steps in the place of an instance.  Raises LaunchError naming the one that failed."""
    agent, flags = running.enter()
    run_by(agent, steps, flags, descriptors)


def run_by(
    agent: Agent, steps: tuple[Step, ...], flags: int, descriptors: Sequence[int] = ()
) -> None:
    """The same by an agent at hand; returns when all steps are done."""
    payload = encode((*steps, *END))
    agent.finish(agent.begin(Kind.EXEC, next(_ids), payload, flags, descriptors))
