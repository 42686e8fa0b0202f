"""What makes a second of an instance, or puts it aside: forks, snapshots, suspending."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from typing import Any

from proa.engine import duplicate, immigrate, migrate, snapshots, suspend
from proa.engine.core import Core
from proa.engine.duplicate import Fork
from proa.engine.instance import Instance
from proa.engine.migrate import Migrated
from proa.engine.registries import Registries
from proa.engine.snapshots import Snapshot


class Copies:
    """One method per thing a client can ask, by an instance's reference."""

    def __init__(self, core: Core, registries: Registries) -> None:
        self._core, self._registries = core, registries

    def fork(self, reference: str, count: int = 1, prefix: str = "") -> Fork:
        """Copies of a running vm that share its memory and disks until written."""
        return duplicate.fork(self._core, self._core.get(reference), count, prefix)

    def migrate(self, reference: str, to: str) -> Migrated:
        """Move a running vm to another engine of this host."""
        return migrate.migrate(self._core, self._core.get(reference), to)

    def receive(self, connection: socket.socket) -> None:
        """Take a vm that another engine sends."""
        immigrate.receive(self._core, connection)

    def ended(self, instance_id: str) -> None:
        """A vm that went to another engine is over."""
        migrate.forget(self._core, instance_id)

    def suspend(self, reference: str) -> None:
        """Save a running vm and end it."""
        suspend.suspend(self._core, self._core.get(reference))

    def resume(self, reference: str) -> None:
        """Let a suspended vm go on."""
        suspend.resume(self._core, self._core.get(reference))

    def snapshot(self, reference: str, name: str, *, memory: bool = False) -> Snapshot:
        """A named snapshot."""
        return snapshots.create(self._core, self._core.get(reference), name, memory=memory)

    def snapshots(self, reference: str) -> Sequence[Snapshot]:
        """All of an instance, oldest first."""
        return snapshots.snapshots(self._core, self._core.get(reference))

    def inspect(self, reference: str, name: str) -> dict[str, Any]:
        """Everything known of a snapshot."""
        return snapshots.inspect(self._core, self._core.get(reference), name)

    def restore(self, reference: str, name: str, as_name: str = "") -> Instance:
        """Put an instance back, or make a new one of a snapshot."""
        return snapshots.restore(self._core, self._core.get(reference), name, as_name)

    def push(self, reference: str, name: str, to: str, login: str) -> str:
        """Send a snapshot with memory to a registry; the manifest's digest."""
        from proa.engine import portable  # not read at an engine's start

        reached = self._registries.reach(to, login)
        return portable.push(self._core, self._core.get(reference), name, reached)

    def pull(self, source: str, name: str, login: str) -> Instance:
        """A new instance that goes on from a pushed snapshot."""
        from proa.engine import portable

        return portable.pull(self._core, self._registries.reach(source, login), name)

    def remove(self, reference: str, name: str) -> None:
        """Remove a snapshot."""
        snapshots.remove(self._core, self._core.get(reference), name)
