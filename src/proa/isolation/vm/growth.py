"""A running machine's memory and processors, more and less of them (decision 020).

Memory beyond what it was made with is a virtio-mem device of its own anonymous memory, plugged the
first time it is wanted, so it never touches a template's pages; what the guest gives back of it
returns to the host.  Processors are plugged, and later only switched off and on in the guest: QEMU
7.2 dies when an emulated one is unplugged.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from proa import plan
from proa.errors import IsolationError, LaunchError, Timeout, Unsupported
from proa.isolation.vm import hotplug
from proa.isolation.vm.qemu import VIRTIOFS
from proa.isolation.vm.settings import KERNEL_SHARE_MIB, MIB, wanted_vcpus
from proa.spec import Limits

if TYPE_CHECKING:
    from proa.isolation.vm.machine import Machine

MEMORY, BACKEND = "memory0", "memory0-ram"
BLOCK_BYTES = 2 * MIB
PAGE_TABLE_SHARE = 64  # a 64th of memory goes into the kernel's map of its pages
GROW_SECONDS = 30.0
SHRINK_SECONDS = 3.0  # what the guest has not given back by then comes later, by itself
ONLINE_SECONDS = 15.0
PAUSE_SECONDS = 0.01


def beyond(ram_bytes: int, memory_bytes: int) -> int:
    """How much a machine of `ram_bytes` needs beside them for this limit of its instance."""
    missing = memory_bytes - (ram_bytes - KERNEL_SHARE_MIB * MIB)
    if missing <= 0:
        return 0
    wanted = missing + missing // PAGE_TABLE_SHARE + 4 * BLOCK_BYTES
    return -(-wanted // BLOCK_BYTES) * BLOCK_BYTES


def check(machine: Machine, limits: Limits) -> None:
    """Raises Unsupported when the machine was not made to grow as far."""
    room = max(0, machine.shape.ram_maximum - machine.shape.ram_bytes)
    if beyond(machine.shape.ram_bytes, limits.memory_bytes) > room:
        most = machine.shape.ram_bytes + room
        raise Unsupported(
            f"this vm cannot grow to '{limits.memory_bytes // MIB}' MiB while it runs, "
            f"only to {most // MIB - KERNEL_SHARE_MIB}",
            hint="stop it, update it, start it",
        )
    if wanted_vcpus(limits) > max(machine.shape.vcpus, machine.shape.vcpus_maximum):
        raise Unsupported(
            f"this vm cannot have '{wanted_vcpus(limits)}' processors while it runs, "
            f"only {max(machine.shape.vcpus, machine.shape.vcpus_maximum)}",
            hint="stop it, update it, start it",
        )


def added(machine: Machine) -> int:
    """Bytes beside its RAM that are asked of the guest to use now."""
    return _get(machine, "requested-size") if _there(machine) else 0


def memory(machine: Machine, wanted: int) -> None:
    """Make `wanted` bytes the memory beside its RAM.

    Raises Timeout when the guest does not take it; it may give some back later than this returns.
    """
    if not _there(machine):
        if not wanted:
            return
        _plug_memory(machine)
    before = added(machine)
    if wanted == before:
        return
    path = f"/machine/peripheral/{MEMORY}"
    setting = {"path": path, "property": "requested-size", "value": wanted}
    machine.qmp.execute("qom-set", setting)
    deadline = time.monotonic() + (GROW_SECONDS if wanted > before else SHRINK_SECONDS)
    while (size := _get(machine, "size")) != wanted:
        if time.monotonic() > deadline and wanted < before:
            return
        if time.monotonic() > deadline:
            machine.qmp.execute("qom-set", setting | {"value": before})
            raise Timeout(f"the guest took only {size // MIB} of {wanted // MIB} MiB more")
        time.sleep(PAUSE_SECONDS)


def _there(machine: Machine) -> bool:
    items = machine.qmp.execute("qom-list", {"path": "/machine/peripheral"})
    return any(item.get("name") == MEMORY for item in items)


def _get(machine: Machine, name: str) -> int:
    path = f"/machine/peripheral/{MEMORY}"
    return int(machine.qmp.execute("qom-get", {"path": path, "property": name}))


def _plug_memory(machine: Machine) -> None:
    size = machine.shape.ram_maximum - machine.shape.ram_bytes
    backend = {"qom-type": "memory-backend-ram", "id": BACKEND, "size": size, "reserve": False}
    if machine.facts.get("shares") == VIRTIOFS:  # whose server has to see all of it
        backend |= {"qom-type": "memory-backend-memfd", "share": True}
    device = {
        "driver": "virtio-mem-pci", "id": MEMORY, "memdev": BACKEND, "requested-size": 0,
        "block-size": BLOCK_BYTES,
    }  # fmt: skip
    try:
        hotplug.plug(machine, device, backends=(("object-add", backend),))
    except IsolationError:
        hotplug.forget(machine, (("object-del", {"id": BACKEND}),))
        raise


# -- processors -----------------------------------------------------------------------------------


def processors(machine: Machine, wanted: int) -> None:
    """Let the guest have this many processors: plugged where missing, the rest switched off."""
    there = len(machine.qmp.execute("query-cpus-fast"))
    if wanted > there:
        _plug_processors(machine, wanted - there)
    steps = tuple(
        plan.Write(f"/sys/devices/system/cpu/cpu{number}/online", "0644", str(int(number < wanted)))
        for number in range(1, max(there, wanted))
    )
    until_there(machine, steps)


def _plug_processors(machine: Machine, count: int) -> None:
    slots = machine.qmp.execute("query-hotpluggable-cpus")
    free = [slot for slot in slots if "qom-path" not in slot]
    free.sort(key=lambda slot: sorted(slot["props"].items()))
    for slot in free[:count]:
        number = "-".join(str(value) for value in slot["props"].values())
        device = {"driver": slot["type"], "id": f"cpu-{number}", **slot["props"]}
        machine.qmp.execute("device_add", device)


def until_there(machine: Machine, steps: tuple[plan.Step, ...]) -> None:
    """Run steps in the guest's init that need a device it is about to find."""
    deadline = time.monotonic() + ONLINE_SECONDS
    while True:
        try:
            machine.within(steps)
            return
        except LaunchError as error:
            if time.monotonic() > deadline:
                raise Timeout(f"the guest does not find its new device: {error.message}") from error
        time.sleep(PAUSE_SECONDS)
