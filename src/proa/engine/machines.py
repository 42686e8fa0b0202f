"""What only virtual machines have (a screen, snapshots, hot plugging): the way to one of them."""

from __future__ import annotations

from proa.engine.instance import Instance
from proa.errors import Conflict, Unsupported
from proa.isolation.vm.machine import Machine


def machine(instance: Instance, what: str) -> Machine:
    """The running vm of an instance.  Raises Conflict when it does not run, Unsupported when it is
    no vm; `what` is what was asked for, like "a screen"."""
    running = instance.running
    if running is None:
        raise Conflict(f"Container {instance.name} is not running")
    if not isinstance(running, Machine):
        raise Unsupported(
            f"instance '{instance.name}' is a container and has no use for {what}",
            hint="run it with --vm",
        )
    return running


def disk_full(instance: Instance) -> bool:
    """Whether a vm waits because what it writes finds no room on the host."""
    running = instance.running
    if not isinstance(running, Machine):
        return False
    return bool(running.qmp.execute("query-status")["status"] == "io-error")
