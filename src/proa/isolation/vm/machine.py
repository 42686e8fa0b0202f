"""A running virtual machine, as the engine handles it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from proa import plan
from proa.agent import MAIN, Agent
from proa.agent import Launch as Flag
from proa.errors import Conflict
from proa.host.cgroup import Usage
from proa.isolation.places import Place, Places
from proa.isolation.vm import growth, inside, plans, plugging, qemu, qmp, spare_disks, throttles
from proa.isolation.vm.settings import MIB, host_limits, wanted_vcpus
from proa.resources import Disk, Link, Share, Sources
from proa.spec import Limits

if TYPE_CHECKING:
    from proa.costs import Memory


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
    shares_made: int = 0  # since it was made: the next one's number
    shares: dict[str, int] = field(default_factory=dict)  # those, by target
    placed_ns: int = 0
    server: Agent | None = None  # of the place of its file server, once it was asked for

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
            "options": self.shape.options,
            "tsc_khz": self.shape.tsc_khz,
            "ram_maximum": self.shape.ram_maximum,
            "vcpus_maximum": self.shape.vcpus_maximum,
            "kernel": self.shape.kernel,
            "cpu": self.shape.cpu,
            "facts": self.facts,
            "places": list(self.places_beside),
            "shares_made": self.shares_made,
            "shares": self.shares,
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

    def launched(self, limits: Limits) -> None:
        """The guest was up before."""

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
        """Change limits: the guest's own, with memory and processors plugged for them."""
        growth.check(self, limits)
        if not self.qmp.execute("query-status").get("running"):
            raise Conflict("the vm is paused", hint="unpause it before it is updated")
        present = growth.added(self)
        wanted = growth.beyond(self.shape.ram_bytes, limits.memory_bytes)
        ram_bytes = self.shape.ram_bytes + max(present, wanted)
        self.place.cgroup.apply(host_limits(limits, ram_bytes))
        self.throttle(limits)
        if wanted > present:
            growth.memory(self, wanted)
        self.place.agent.setup(plans.limit_steps(limits, lift=True))
        if wanted < present:
            growth.memory(self, wanted)
        if vcpus := wanted_vcpus(limits):
            growth.processors(self, vcpus)
            self.facts["vcpus"] = str(vcpus)
        self.facts["ram_mib"] = str((self.shape.ram_bytes + wanted) // MIB)

    def within(self, steps: tuple[plan.Step, ...]) -> None:
        """Run steps in the guest's init, outside of the place."""
        self.place.agent.setup(steps)

    def plug(self, item: Link | Share | Disk) -> None:
        """A card on the bus for such, or one more directory of the shared folder."""
        if isinstance(item, Link):
            plugging.plug_link(self, item)
        elif isinstance(item, Disk):
            spare_disks.plug(self, item)
            spare_disks.show(self, item)
        else:
            plugging.plug_share(self, item)

    def unplug(self, item: Link | Share | Disk) -> None:
        """Take it away again."""
        if isinstance(item, Link):
            plugging.unplug_link(self, item)
        elif isinstance(item, Disk):
            spare_disks.unplug(self, item)
        else:
            plugging.unplug_share(self, item)

    def throttle(self, limits: Limits) -> None:
        """Let throttles of the host's disk bind the machine's."""
        if limits.throttles:
            throttles.apply(self.qmp, limits.throttles, self.place.directory)

    def usage(self) -> Usage:
        """The cost of QEMU to the host, by its cgroup."""
        return self.place.cgroup.usage()

    def memory(self) -> Memory:
        """Part by part."""
        from proa.isolation.vm import memory  # asked for seldom, and not at an engine's start

        return memory.account(self)

    def inside(self) -> Usage:
        """The account of the guest's kernel."""
        return inside.usage(self.place.agent)

    def kill(self) -> None:
        """End QEMU and remove the place."""
        self.places.end(self.place)
        for name in self.places_beside:
            self.places.release(name)
        self.qmp.close()
