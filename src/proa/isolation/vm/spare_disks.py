"""Disks plugged into a running vm and taken away: virtio-blk on the bus kept for such."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

from proa import plan
from proa.errors import HostError, ProaError, Timeout
from proa.isolation import later
from proa.isolation.vm import hotplug, inside, qmp
from proa.resources import Disk

if TYPE_CHECKING:
    from proa.isolation.vm.machine import Machine

FIRST_SET = 1000  # of QEMU's sets of descriptors, beyond those it was born with
SHOW_SECONDS = 15.0
PAUSE_SECONDS = 0.01


def plug(machine: Machine, disk: Disk) -> None:
    """The guest finds it a little later."""
    try:
        flags = os.O_RDONLY if disk.readonly else os.O_RDWR
        descriptor = os.open(disk.path, flags | os.O_CLOEXEC)
    except OSError as error:
        raise HostError(f"cannot open the disk '{disk.path}': {error.strerror}") from error
    number = _set(disk)
    device = {
        "driver": "virtio-blk-pci", "id": f"blk-{disk.name}", "drive": _node(disk),
        "serial": disk.name,
    }  # fmt: skip
    try:
        machine.qmp.execute("add-fd", {"fdset-id": number}, descriptor=descriptor)
        hotplug.plug(machine, device, backends=(("blockdev-add", _graph(disk, number)),))
    except BaseException:
        hotplug.forget(machine, _gone(disk))
        raise
    finally:
        os.close(descriptor)


def show(machine: Machine, disk: Disk) -> None:
    """Let it be /dev/NAME in the place of the instance."""
    major, minor = _number(machine, disk.name)
    node = plan.Node(f"/dev/{disk.name}", "0660", major, minor, "b")
    later.run(machine, (node,))


def unplug(machine: Machine, disk: Disk) -> None:
    """Raises Timeout when the guest keeps it."""
    hotplug.unplug(machine, f"blk-{disk.name}", _gone(disk))


def _graph(disk: Disk, number: int) -> dict[str, Any]:
    """What is in a header of another file is never opened."""
    below = {"backing": None} if disk.format == "qcow2" else {}
    file = {
        "driver": "host_device" if disk.path.is_block_device() else "file",
        "filename": f"/dev/fdset/{number}", "locking": "off", "discard": "unmap",
    }  # fmt: skip
    return {
        "driver": disk.format, "node-name": _node(disk), "read-only": disk.readonly,
        "discard": "unmap", "file": file, **below,
    }  # fmt: skip


def _gone(disk: Disk) -> tuple[qmp.Command, ...]:
    return (
        ("blockdev-del", {"node-name": _node(disk)}),
        ("remove-fd", {"fdset-id": _set(disk)}),
    )


def _node(disk: Disk) -> str:
    return f"added-{disk.name}"


def _set(disk: Disk) -> int:
    return FIRST_SET + ord(disk.name[-1])


def _number(machine: Machine, name: str) -> tuple[int, int]:
    """Major and minor number of a disk the guest is about to find."""
    deadline = time.monotonic() + SHOW_SECONDS
    while True:
        try:
            text = inside.read(machine.agent(), (f"/sys/block/{name}/dev",))[0]
            major, minor = text.strip().split(":")
            return int(major), int(minor)
        except (ProaError, ValueError):
            if time.monotonic() > deadline:
                raise Timeout(f"the guest does not find its new disk '{name}'") from None
        time.sleep(PAUSE_SECONDS)
