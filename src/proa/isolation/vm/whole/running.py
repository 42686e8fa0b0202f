"""A running whole machine, as the engine handles it."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from typing import Any

from proa.agent import MAIN
from proa.errors import Unsupported
from proa.host.cgroup import Usage
from proa.isolation.vm.machine import Machine
from proa.isolation.vm.settings import MIB, host_limits
from proa.spec import Limits

WHOLE = "whole"  # in what is saved


@dataclass
class WholeMachine(Machine):
    """QEMU is the main process; what runs inside is the guest's own affair."""

    @property
    def saved(self) -> dict[str, Any]:
        """What `adopt` needs."""
        return {**super().saved, WHOLE: True}

    def signal(self, number: int) -> None:
        """SIGKILL ends the machine; any other asks its system to power off, by ACPI."""
        if number == signal.SIGKILL:
            self.place.agent.signal(MAIN, number)
        else:
            self.qmp.execute("system_powerdown")

    def pause(self) -> None:
        """Stop the virtual processors."""
        self.qmp.execute("stop")

    def resume(self) -> None:
        """Let them run again; the guest's clock is its own."""
        self.qmp.execute("cont")

    hold, let_go = pause, resume

    def update(self, limits: Limits) -> None:
        """Change the share of the host's processors; RAM is the machine's."""
        if limits.memory_bytes and limits.memory_bytes != self.shape.ram_bytes:
            raise Unsupported(
                f"this machine has {self.shape.ram_bytes // MIB} MiB while it runs",
                hint="stop it, update it, start it",
            )
        self.place.cgroup.apply(host_limits(limits))

    def inside(self) -> Usage:
        """What the host sees of it: nobody inside is asked."""
        return self.usage()
