"""A running whole machine, as the engine handles it."""

from __future__ import annotations

import os
import re
import secrets
import signal
import socket
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from proa import plan
from proa.agent import MAIN, Agent
from proa.errors import Conflict, IsolationError, ProaError, Timeout, Unsupported
from proa.host import netlink
from proa.host.cgroup import Usage
from proa.isolation import later
from proa.isolation.vm import architectures, growth, hotplug, plugging, spare_disks
from proa.isolation.vm.machine import Machine
from proa.isolation.vm.settings import MIB, host_limits, wanted_vcpus
from proa.isolation.vm.whole import account
from proa.isolation.vm.whole.arguments import AGENT, GUEST_AGENT
from proa.isolation.vm.whole.bring import bring
from proa.isolation.vm.whole.qga import Qga
from proa.plan import Step
from proa.resources import Disk, Link, Share
from proa.spec import Limits

WHOLE = "whole"  # in what is saved
ONLINE = "/sys/devices/system/memory/auto_online_blocks"
GUEST_AGENT_KEPT = 1  # which of the descriptors the monitor keeps; QMP is the first
HELLO_SECONDS = 20.0
UP_SECONDS = 60.0
WORDS_BYTES = 4096
_WORDS = re.compile(rb"qemu-system-\w+: ([ -~]+)")


@dataclass
class WholeMachine(Machine):
    """QEMU is the main process; what runs inside is the guest's own affair."""

    _entering: threading.Lock = field(default_factory=threading.Lock)
    _qga: Qga | None = None

    @property
    def saved(self) -> dict[str, Any]:
        """What `adopt` needs."""
        return {**super().saved, WHOLE: True}

    def launched(self, limits: Limits) -> None:
        """QEMU answers once its machine is complete; else what it said is why not."""
        try:
            self.qmp.drain(UP_SECONDS)
        except (IsolationError, Timeout) as error:
            raise IsolationError(f"qemu ended: {self._last_words() or error.message}") from error
        self.throttle(limits)

    def _last_words(self) -> str:
        """What QEMU wrote on standard error, which goes where the console goes."""
        with suppress(OSError), (self.place.directory / "log").open("rb") as log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - WORDS_BYTES))
            found = _WORDS.findall(log.read())
            return "; ".join(line.decode("utf-8", "replace") for line in found[-3:])
        return ""

    def signal(self, number: int) -> None:
        """SIGKILL ends the machine; any other asks its system to power off, by ACPI, and by QEMU's
        guest agent where there is one: not every system listens to its power button."""
        if number == signal.SIGKILL:
            self.place.agent.signal(MAIN, number)
            return
        self.qmp.execute("system_powerdown")
        with suppress(ProaError):
            if guest := self.guest_agent():
                guest.shutdown()

    def pause(self) -> None:
        """Stop the virtual processors."""
        self.qmp.execute("stop")

    def resume(self) -> None:
        """Let them run again; the guest's clock is its own."""
        self.qmp.execute("cont")

    hold, let_go = pause, resume

    def update(self, limits: Limits) -> None:
        """Change what it has: more RAM is plugged, less taken by the balloon, and its system is
        told by the agent in it."""
        wanted = max(limits.memory_bytes, self.shape.ram_bytes) - self.shape.ram_bytes
        wanted = -(-wanted // growth.BLOCK_BYTES) * growth.BLOCK_BYTES
        least = min(limits.memory_bytes or self.shape.ram_bytes, self.shape.ram_bytes)
        vcpus = wanted_vcpus(limits)
        present = growth.added(self)
        changed = wanted != present or least < self.shape.ram_bytes
        if changed and self.shape.ram_bytes + wanted > max(self.shape.ram_maximum, 1):
            raise Unsupported(
                f"this machine has {self.shape.ram_bytes // MIB} MiB while it runs",
                hint="stop it, update it, start it",
            )
        bound = self.shape.ram_bytes + max(wanted, present)
        self.place.cgroup.apply(host_limits(limits, bound))
        self.throttle(limits)
        if wanted > present:
            self.within((plan.Write(ONLINE, "0644", "online"),))
        growth.memory(self, wanted)
        if self.shape.ram_maximum:
            self.qmp.execute("balloon", {"value": least + wanted})
            self.facts["ram_mib"] = str((least + wanted) // MIB)
        if vcpus and self.shape.vcpus_maximum and str(vcpus) != self.facts.get("vcpus"):
            growth.processors(self, min(vcpus, self.shape.vcpus_maximum))
            self.facts["vcpus"] = str(min(vcpus, self.shape.vcpus_maximum))

    def within(self, steps: tuple[Step, ...]) -> None:
        """Run steps in its system, by the agent there."""
        later.run(self, steps)

    def plug(self, item: Link | Share | Disk) -> None:
        """A card or a disk, which its system finds by itself; its address it gets by DHCP."""
        if isinstance(item, Share):
            raise Unsupported(
                "folders are not added to a running machine with a system of its own",
                hint="stop it, add them, start it",
            )
        if isinstance(item, Link):
            plugging.plug_card(self, item)
        else:
            spare_disks.plug(self, item)

    def unplug(self, item: Link | Share | Disk) -> None:
        """Take it away; a card that was there from the start only loses its line."""
        if not isinstance(item, Link):
            super().unplug(item)
            return
        try:
            hotplug.unplug(self, f"nic-{item.name}", (("netdev_del", {"id": f"net-{item.name}"}),))
        except IsolationError:
            self.qmp.execute("set_link", {"name": f"nic-{item.name}", "up": False})
            netlink.link_retire(item.host_name, f"px{secrets.token_hex(6)}")

    def inside(self) -> Usage:
        """Its kernel's account; without an agent in there, what the host sees of it."""
        if not self._listens(AGENT):
            return self.usage()
        return account.usage(self.place.agent)

    def enter(self) -> tuple[Agent, int]:
        """The agent in its system: the one that listens, else one brought there by another.

        Raises Conflict while there is none, Unsupported where ours cannot run.
        """
        agent = self.place.agent
        with self._entering:
            if not self._listens(AGENT):
                self._bring_agent(agent)
        try:
            agent.wait_hello(HELLO_SECONDS)
        except Timeout:
            raise self._nobody() from None
        return agent, 0

    def guest_agent(self) -> Qga | None:
        """QEMU's own guest agent in there, when one listens and answers."""
        if not self._listens(GUEST_AGENT):
            return None
        if self._qga is None:
            kept = self.place.agent.get_descriptor(GUEST_AGENT_KEPT)
            self._qga = Qga(socket.socket(fileno=kept))
        return self._qga if self._qga.ping() else None

    def kill(self) -> None:
        """End QEMU and remove the place."""
        super().kill()
        if self._qga is not None:
            self._qga.close()

    def _bring_agent(self, agent: Agent) -> None:
        found = self.guest_agent()
        if found is None:
            raise self._nobody()
        agent.expect_hello()
        ours = architectures.ALL[self.shape.architecture].ours(self.places.native)
        if not ours.exists():
            raise Unsupported(f"Proa's agent was not built for '{self.shape.architecture}'")
        bring(found, ours.read_bytes())

    def _listens(self, port: str) -> bool:
        """Whether somebody in there has this port open."""
        rows = self.qmp.execute("query-chardev")
        if not isinstance(rows, list):
            return False
        known = (row for row in rows if isinstance(row, dict) and row.get("label") == port)
        return any(row.get("frontend-open") is True for row in known)

    def _nobody(self) -> Conflict:
        return Conflict(
            "no agent listens in this machine's system",
            hint="it may still be starting, or have neither cloud-init nor qemu-guest-agent: "
            "see its console ('proa logs', 'proa attach')",
        )
