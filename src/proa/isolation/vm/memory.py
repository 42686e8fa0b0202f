"""Where the memory of a vm is: its guest's RAM, QEMU beside that, servers of folders and TPMs.

A clone's RAM is a private mapping of its template: pages it has written are anonymous and its own,
the others are the template's file, which all clones map.
"""

from __future__ import annotations

from collections.abc import Iterator

from proa.errors import IsolationError, ProaError
from proa.host import smaps
from proa.host.cgroup import Cgroup
from proa.host.smaps import Area, Pages
from proa.isolation import memory
from proa.isolation.memory import Memory, Part
from proa.isolation.vm import architectures, pages
from proa.isolation.vm.machine import Machine

OWN_NOTE = "its kernel, its programs and what it caches; {0} MiB is what the guest sees"
SHARED_NOTE = "pages of its template that it has not written"
TEMPLATE_NOTE = "kept in memory once for all clones; what this one has mapped of it is counted"


def account(machine: Machine) -> Memory:
    """A reading of a vm that runs or stands still."""
    place = machine.place
    found = [memory.held(place.cgroup)]
    helpers = [machine.places.cgroup(name) for name in machine.places_beside]
    found += [memory.held(helper) for helper in helpers]
    ram = _ram(machine)
    own, shared = _split(ram)
    inodes = {area.inode for area in ram if area.common and area.inode}
    also = _mapped_by(helpers, inodes)  # a server of folders maps the RAM as well
    qemu = found[0].pages - _sum(ram)
    beside = sum((item.pages for item in found[1:]), Pages()) - also
    note = OWN_NOTE.format(machine.facts.get("ram_mib", machine.shape.ram_bytes >> 20))
    parts = (
        Part("guest RAM, its own", own + also.pss, note=note),
        Part("guest RAM of the template", shared, True, SHARED_NOTE),
        Part("qemu", qemu.private, note="its heap, devices and translated code"),
        Part("qemu's program and libraries", qemu.shared, True, "one for all vms of the host"),
        Part("servers of folders and TPM", beside.private),
        Part("their programs", beside.shared, True),
        *memory.around(found, _in_files(found, ram)),
    )
    return Memory(
        memory.there(parts), memory.there((*_template(ram, place.pid), *memory.cache(found))),
        sum(item.processes for item in found), sum(item.cpu_ns for item in found),
    )  # fmt: skip


def _ram(machine: Machine) -> list[Area]:
    """The mappings of QEMU that are the guest's memory; none when QEMU does not tell."""
    try:
        ranges = list(_ranges(machine))
    except ProaError:
        return []
    return [
        area
        for area in smaps.areas(machine.place.pid)
        if any(area.start < end and start < area.end for start, end in ranges)
    ]


def _ranges(machine: Machine) -> Iterator[tuple[int, int]]:
    """Where the RAM is that it was started with, and what was plugged since."""
    start = architectures.ALL[machine.shape.architecture].ram_start
    address = pages.address(machine.qmp, start)
    yield address, address + machine.shape.ram_bytes
    for device in machine.qmp.execute("query-memory-devices"):
        facts = device["data"]
        if size := int(facts.get("max-size", facts["size"])):
            try:
                address = pages.address(machine.qmp, int(facts["memaddr"]))
            except IsolationError:  # nothing of it is plugged
                continue
            yield address, address + size


def _split(ram: list[Area]) -> tuple[int, int]:
    """Bytes of its own, and of a template's file."""
    own = sum(area.pages.pss if area.common else area.pages.anonymous for area in ram)
    return own, _sum(ram).pss - own


def _sum(areas: list[Area]) -> Pages:
    return sum((area.pages for area in areas), Pages())


def _mapped_by(helpers: list[Cgroup], inodes: set[int]) -> Pages:
    found = Pages()
    for helper in helpers if inodes else ():
        for pid in helper.pids():
            found += _sum([area for area in smaps.areas(pid) if area.inode in inodes])
    return found


def _in_files(found: list[memory.Held], ram: list[Area]) -> int:
    """Of the charge for files in memory, what is in a process's account already."""
    template = sum(a.pages.pss - a.pages.anonymous for a in ram if a.inode and not a.common)
    return max(0, sum(item.pages.shmem for item in found) - template)


def _template(ram: list[Area], pid: int) -> tuple[Part, ...]:
    inodes = {area.inode for area in ram if area.inode and not area.common}
    for inode in inodes:
        try:
            size = pages.file_bytes(pid, inode)
        except (IsolationError, OSError):
            continue
        return (Part("template, all of it", size, True, TEMPLATE_NOTE),)
    return ()
