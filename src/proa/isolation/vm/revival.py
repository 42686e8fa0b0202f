"""A machine that was loaded from a checkpoint goes on, under a monitor that has never seen it."""

from __future__ import annotations

import secrets
import time

from proa.agent import HULL, Kind, Launch
from proa.errors import IsolationError, Timeout
from proa.host import netlink
from proa.isolation.vm import hull, plans
from proa.isolation.vm.machine import Machine
from proa.plan import encode
from proa.resources import Link

NAMING_ID = 0x2000_0000  # of the one EXEC of a copy; out of the way of the engine's own numbers


def _settle_in(machine: Machine, names: plans.Names, link: Link | None) -> None:
    agent, entropy = machine.place.agent, secrets.token_bytes(plans.ENTROPY_BYTES)
    asked = [agent.begin(Kind.ADOPT, HULL, b"", Launch.LOG)]
    setup = plans.copy_setup(entropy, time.time_ns(), names)
    asked.append(agent.begin(Kind.SETUP, HULL, encode(setup)))
    flags = Launch.JOIN | Launch.BESIDE
    asked.append(agent.begin(Kind.EXEC, NAMING_ID, encode(plans.copy_names(names)), flags))
    for waiter in asked:
        agent.finish(waiter)
    if link is not None:
        netlink.link_up(link.host_name, bridge=link.bridge)


def take_over(machine: Machine, names: plans.Names, link: Link | None) -> None:
    """Let the processes of a loaded machine run, under these names and on this link.

    They run only when all that must not be the other's is replaced.  Raises IsolationError.
    """
    stand(machine, names, link)
    machine.place.agent.resume()


def stand(machine: Machine, names: plans.Names, link: Link | None) -> None:
    """All of `take_over` but the last step.

    Raises IsolationError with QEMU's words when it could not be loaded.
    """
    try:
        _settle_in(machine, names, link)
    except (IsolationError, Timeout) as error:
        said = hull.last_words(machine.place)
        raise IsolationError(f"the machine did not go on: {said or error.message}") from error
