"""Where the memory of a vm is: its guest's RAM, QEMU beside that, servers of folders and TPMs.

A clone's RAM is a private mapping of its template: pages it has written are anonymous and its own,
the others are the template's file, which all clones map.
"""

from __future__ import annotations

from collections.abc import Iterator

from proa.costs import Memory, Part
from proa.errors import IsolationError, ProaError
from proa.host import smaps
from proa.host.cgroup import Cgroup
from proa.host.smaps import Area, Pages
from proa.isolation import memory
from proa.isolation.vm import architectures, pages
from proa.isolation.vm.machine import Machine

OWN_NOTE = "its kernel, its programs and what it caches; {0} MiB is what the guest sees"
SHARED_NOTE = "pages of its template that it has not written"
MAPPED_NOTE = "its program and libraries, a booted kernel's file: in the page cache, once for all"
TEMPLATE_NOTE = "kept in memory once for all clones; what this one has mapped of it is counted"


def account(machine: Machine) -> Memory:
    """A reading of a vm that runs or stands still."""
    place = machine.place
    found = [memory.held(place.cgroup)]
    helpers = [machine.places.cgroup(name) for name in machine.places_beside]
    found += [memory.held(helper) for helper in helpers]
    ram = _ram(machine)
    own = sum(area.pss if area.common else area.written for area in ram)
    shared = sum(area.pss for area in ram) - own
    inodes = {area.inode for area in ram if area.common and area.inode}
    also = _mapped_by(helpers, inodes)  # a server of folders maps the RAM as well
    qemu = found[0].pages - _pages(ram)
    beside = sum((item.pages for item in found[1:]), Pages()) - also
    note = OWN_NOTE.format(machine.facts.get("ram_mib", machine.shape.ram_bytes >> 20))
    parts = (
        Part("guest RAM, its own", own + also.pss, note=note),
        Part("guest RAM of the template", shared, True, SHARED_NOTE),
        Part("qemu", qemu.own, note="its heap, devices and translated code"),
        Part("files qemu has mapped", qemu.file, True, MAPPED_NOTE),
        Part("servers of folders and TPM", beside.own),
        Part("their programs", beside.file, True),
        *memory.around(found, sum(item.pages.shmem for item in found) - shared),
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


def _pages(areas: list[Area]) -> Pages:
    """The guest's memory as the process's account has it: files are in memory here."""
    written = sum(area.pss if not area.inode else area.written for area in areas)
    return Pages(written, 0, sum(area.pss for area in areas) - written)


def _mapped_by(helpers: list[Cgroup], inodes: set[int]) -> Pages:
    found = Pages()
    for helper in helpers if inodes else ():
        for pid in helper.pids():
            found += _pages([area for area in smaps.areas(pid) if area.inode in inodes])
    return found


def _template(ram: list[Area], pid: int) -> tuple[Part, ...]:
    inodes = {area.inode for area in ram if area.inode and not area.common}
    for inode in inodes:
        try:
            size = pages.file_bytes(pid, inode)
        except (IsolationError, OSError):
            continue
        return (Part("template, all of it", size, True, TEMPLATE_NOTE),)
    return ()
