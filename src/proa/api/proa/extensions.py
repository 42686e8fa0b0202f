"""What Proa's API has beyond Docker's, under `/proa/`."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import proa
from proa.api.answer import Answer, Reply, json_reply
from proa.api.docker import lookup
from proa.api.request import Request

if TYPE_CHECKING:
    from proa.engine.engine import Engine


def trace(engine: Engine, request: Request) -> Answer:
    """GET /proa/instances/{id}/trace: when each milestone of the last start was reached."""
    found = lookup.instance(engine, request)
    milestones = [{"Milestone": name, "Nanoseconds": ns} for name, ns in engine.trace(found.id)]
    return json_reply({"Id": found.id, "Milestones": milestones})


def usage(engine: Engine, request: Request) -> Answer:
    """GET /proa/instances/{id}/usage: what it costs the host now (`stats` is its own account)."""
    return json_reply(engine.usage(lookup.instance(engine, request).id))


def status(engine: Engine, request: Request) -> Answer:
    """GET /proa/engine."""
    facts = {"Pid": os.getpid(), "Root": str(engine.root), "Version": proa.__version__}
    return json_reply(facts)


def stop(engine: Engine, request: Request) -> Answer:
    """POST /proa/engine/stop: the engine ends as by SIGTERM; instances live on."""
    os.kill(os.getpid(), signal.SIGTERM)
    return Reply(202)


def isolations(engine: Engine, request: Request) -> Answer:
    """GET /proa/isolations: what this host can do, with the reasons for a no."""
    answer = []
    for name, isolation in engine.isolations.items():
        reasons = isolation.check()
        answer.append({"Name": name, "Available": not reasons, "Reasons": reasons})
    return json_reply(answer)
