"""A running virtual machine, as the engine handles it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from proa import plan
from proa.agent import MAIN, Agent
from proa.agent import Launch as Flag
from proa.errors import Unsupported
from proa.host.cgroup import Usage
from proa.isolation.places import Place, Places
from proa.isolation.vm import inside, plans, qemu, qmp
from proa.isolation.vm.settings import KERNEL_SHARE_MIB, MIB, host_limits
from proa.resources import Sources
from proa.spec import Limits


@dataclass
class Machine:
    """A running vm: see `isolation.base.Running`."""

    place: Place
    places: Places
    qmp: qmp.Qmp
    shape: qemu.Machine
    facts: dict[str, str]
    plugged: Callable[[], Sources] = field(default=lambda: Sources(root=""))
    places_beside: tuple[str, ...] = ()  # of servers of this machine alone

    @property
    def saved(self) -> dict[str, Any]:
        """What `adopt` needs."""
        return {
            "place": self.place.name,
            "base": self.place.base,
            "pid": self.place.pid,
            "ram_bytes": self.shape.ram_bytes,
            "vcpus": self.shape.vcpus,
            "network": self.shape.network,
            "architecture": self.shape.architecture,
            "ram_maximum": self.shape.ram_maximum,
            "vcpus_maximum": self.shape.vcpus_maximum,
            "facts": self.facts,
            "places": list(self.places_beside),
        }

    @property
    def sources(self) -> Sources:
        """Mounts and link, and the clock of this very moment."""
        return self.plugged()

    def agent(self) -> Agent:
        """The connection to the monitor, which passes requests on to init."""
        return self.place.agent

    def enter(self) -> tuple[Agent, int]:
        """Into the place init made."""
        return self.place.agent, int(Flag.JOIN)

    def signal(self, number: int) -> None:
        """Signal the main process in the guest."""
        self.place.agent.signal(MAIN, number)

    def pause(self) -> None:
        """Stop the virtual processors."""
        self.qmp.execute("stop")

    def resume(self) -> None:
        """Let them run again, with the clock set right."""
        self.qmp.execute("cont")
        self.place.agent.setup((plan.Clock(time.time_ns()),))

    def hold(self) -> None:
        """Freeze the place by the guest's own cgroup."""
        inside.freeze(self.place.agent, frozen=True)

    def let_go(self) -> None:
        """Thaw it."""
        inside.freeze(self.place.agent, frozen=False)

    def update(self, limits: Limits) -> None:
        """Change limits: the guest's own up to its RAM, processor time by the host's cgroup."""
        room = self.shape.ram_bytes - KERNEL_SHARE_MIB * MIB
        if limits.memory_bytes > room:
            raise Unsupported(
                f"this vm has {self.shape.ram_bytes // MIB} MiB and cannot grow to "
                f"'{limits.memory_bytes // MIB}' MiB while it runs",
                hint="stop it, update it, start it",
            )
        self.place.agent.setup(plans.limit_steps(limits, lift=True))
        self.place.cgroup.apply(host_limits(limits))

    def usage(self) -> Usage:
        """The cost of QEMU to the host, by its cgroup."""
        return self.place.cgroup.usage()

    def inside(self) -> Usage:
        """The account of the guest's kernel."""
        return inside.usage(self.place.agent)

    def kill(self) -> None:
        """End QEMU and remove the place."""
        self.places.end(self.place)
        for name in self.places_beside:
            self.places.release(name)
        self.qmp.close()
