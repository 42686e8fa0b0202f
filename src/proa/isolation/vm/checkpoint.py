"""A running vm at one moment: its own pages of RAM and the state of its devices.

The guest's init stands still meanwhile (docs/protocol.md), and the virtual processors are stopped
only while pages are copied.  The devices are saved alone, without the RAM: QEMU has a command for
that, made for Xen and there without it.
"""

from __future__ import annotations

import itertools
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from proa.errors import Conflict, IsolationError, LaunchError, ProaError, Unsupported
from proa.isolation.vm import chain, layers, pages, qemu
from proa.isolation.vm.machine import Machine

QUIESCE_SECONDS = 5.0
SYNC_SECONDS = 60.0
QUIESCE_TRIES = 50
RETRY_SECONDS = 0.02
SAVE_SECONDS = 60.0
BOARD = ("-M", "-cpu", "-smp", "-m", "-device")
ID = re.compile(r",id=([^,]*)")
DRIVE = re.compile(r",drive=[^,]*")


@dataclass(frozen=True)
class Checkpoint:
    """Descriptors of a machine's RAM and device state.

    `pages` is a sparse file of the RAM's size with the pages that differ from `base`; without a
    base (-1) it holds all of it.
    """

    shape: qemu.Machine
    base: int
    pages: int
    state: int
    paused_ns: int = 0
    copied_bytes: int = 0

    def whole(self) -> Checkpoint:
        """The same without a base: `pages` is filled up with what the base has."""
        if self.base < 0:
            return self
        pages.underlay(self.base, self.pages)
        os.close(self.base)
        return replace(self, base=-1)

    def open_state(self) -> int:
        """The device state with a position of its own, to be read by one QEMU."""
        return os.open(f"/proc/self/fd/{self.state}", os.O_RDONLY | os.O_CLOEXEC)

    def close(self) -> None:
        """Let go of everything."""
        for descriptor in (self.base, self.pages, self.state):
            if descriptor >= 0:
                os.close(descriptor)


def take(machine: Machine, meanwhile: Callable[[], object], *, go_on: bool = True) -> Checkpoint:
    """A checkpoint of a running vm.  `meanwhile` is called when nothing runs: to freeze disks.

    Without `go_on` the vm stays stopped when this succeeds; whatever fails lets it go on.
    Raises what `check` does not find out before.
    """
    shape = shape_of(machine)
    with ExitStack() as undo:
        memory = pages.find(machine.place.pid, machine.qmp, shape)
        undo.callback(memory.close)
        copy, state = _file("pages"), _file("state")
        undo.callback(os.close, copy)
        undo.callback(os.close, state)
        os.ftruncate(copy, shape.ram_bytes)
        number = _give(machine, state)
        undo.callback(_forget, machine, number)
        with _still(machine, go_on=go_on) as began:
            copied = pages.copy(memory, pages.own(memory), copy)
            meanwhile()
            machine.qmp.execute(
                "xen-save-devices-state",
                {"filename": f"/dev/fdset/{number}"},
                timeout_seconds=SAVE_SECONDS,
            )
            paused = time.monotonic_ns() - began
        _forget(machine, number)
        undo.pop_all()
        return Checkpoint(shape, memory.base, copy, state, paused, copied)


def check(machine: Machine) -> None:
    """Raises Unsupported for a vm whose state QEMU cannot save, or whose shape has changed."""
    known = machine.qmp.execute("query-migrate")
    reasons = known.get("blocked-reasons") or []
    if reasons:
        raise Unsupported(
            f"this vm cannot be duplicated: {str(reasons[0]).strip().lower()}",
            hint="shared folders and devices of the host cannot be saved",
        )
    if machine.facts.get("started_by") == "boot":
        raise Unsupported(
            "this vm booted by itself and gives memory back to the host: "
            "it cannot be duplicated", hint="start it from a template",
        )  # fmt: skip
    alike = words(shape_of(machine))
    if board(_command(machine.place.pid)) != alike:
        raise Unsupported(
            "this vm was started by another version of the engine, or of its settings",
            hint="start it anew",
        )
    listed = machine.qmp.execute("qom-list", {"path": "/machine/peripheral"})
    own = {found[1] for word in alike if (found := ID.search(word))}
    added = {str(item["name"]) for item in listed if str(item["type"]).startswith("child<")} - own
    processors = len(machine.qmp.execute("query-cpus-fast"))
    if added or processors != machine.shape.vcpus:
        what = ", ".join(sorted(added)) or f"{processors} processors"
        raise Unsupported(
            f"this vm cannot be duplicated: it was given '{what}' while it ran",
            hint="take it away again, or start the vm anew with it",
        )


def board(argv: tuple[str, ...]) -> tuple[str, ...]:
    """What of QEMU's arguments must be the same to load a state: the machine and its devices."""
    pairs = itertools.pairwise(argv)
    return tuple(DRIVE.sub("", value) for name, value in pairs if name in BOARD)


def _command(pid: int) -> tuple[str, ...]:
    return tuple(Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0"))


def words(shape: qemu.Machine) -> tuple[str, ...]:
    """The board of a machine of this shape, as it would be started now."""
    seen = qemu.Files(0, 0, 0, layers.Opened.single(0), 0, 0)
    return board(qemu.arguments(shape, seen, qemu.Clone()))


def shape_of(machine: Machine) -> qemu.Machine:
    """The shape of a running vm, also of one an earlier engine started."""
    return replace(machine.shape, accelerator=machine.facts.get("accelerator", "tcg"))


@contextmanager
def _still(machine: Machine, *, go_on: bool) -> Iterator[int]:
    """Everything stands inside; yields the moment it did."""
    began = time.monotonic_ns()
    quiesce(machine)
    with ExitStack() as back:
        back.callback(let_go, machine)
        machine.qmp.execute("stop")
        yield began
        if not go_on:
            back.pop_all()


def quiesce(machine: Machine, *, sync: bool = False) -> None:
    """Let a guest stand still, also when something was just starting in it."""
    for attempt in range(QUIESCE_TRIES):
        try:
            machine.place.agent.quiesce(SYNC_SECONDS if sync else QUIESCE_SECONDS, sync=sync)
            return
        except LaunchError as error:
            if attempt == QUIESCE_TRIES - 1:
                raise Conflict(
                    f"the vm does not stand still: {error.message}", hint="try again later"
                ) from error
        except ProaError:
            with suppress(ProaError):
                machine.place.agent.resume()
            raise
        time.sleep(RETRY_SECONDS)


def let_go(machine: Machine) -> None:
    """Undo what `take` without `go_on` leaves."""
    machine.qmp.execute("cont")
    machine.place.agent.resume()


def _file(name: str) -> int:
    return os.memfd_create(f"proa-{name}", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)


def _give(machine: Machine, state: int) -> int:
    """Let QEMU have the file, for writing alone, as it opens it."""
    writable = os.open(f"/proc/self/fd/{state}", os.O_WRONLY | os.O_CLOEXEC)
    try:
        return chain.add_descriptor(machine.qmp, writable)
    finally:
        os.close(writable)


def _forget(machine: Machine, number: int) -> None:
    with suppress(IsolationError):
        machine.qmp.execute("remove-fd", {"fdset-id": number})
