"""An app file for a machine: a service each; what is bound to its kernel stays in the vm.  Pure."""

from __future__ import annotations

import os
from collections.abc import Sequence

from proa.advice.disk.machine import Machine, Service
from proa.advice.split import parts
from proa.advice.split.parts import Names
from proa.advice.split.writer import Writer, guess, name_of, scalar

SERVICES_MAXIMUM = 100


def draft(machine: Machine, disk: str) -> str:
    """An app file of the machine on `disk`, a path as its user named it.

    Nothing in it is known to work: every guess says so (`# GUESS:`), with its reason and source.
    """
    stem = os.path.basename(disk).partition(".")[0]
    taken: set[str] = set()
    vm = name_of(machine.hostname or "machine", taken)
    shown = machine.role("part")[:SERVICES_MAXIMUM]
    bound = machine.role("kernel")
    services = {service.name: name_of(service.name, taken) for service in shown}
    services |= {service.name: vm for service in bound if service.name not in services}
    names = Names(services, name_of(f"{stem}-files", set()))
    to = Writer()
    _head(to, machine, disk, names)
    to.pair(0, "name", name_of(stem, set()))
    to.line(0, "services:" if shown or bound or not _is_split(machine) else "services: {}")
    volumes, secrets = _parts(to, machine, shown, names)
    if bound or not _is_split(machine):
        _vm(to, machine, disk, (vm, bound, shown))
    _tail(to, volumes, secrets)
    return to.text()


def _is_split(machine: Machine) -> bool:
    """Whether the machine is one that can be taken apart."""
    return machine.system == "linux"


def _head(to: Writer, machine: Machine, disk: str, names: Names) -> None:
    about = machine.title or machine.system or "an unknown system"
    to.note(0, f"A draft: the services found on '{disk}' ({about}), each on its own.")
    to.note(0, "Nothing here was tried.  Every GUESS is one, with its reason: read them all.")
    if _is_split(machine):
        to.note(0, f"What names the image '{names.files}' needs the files of the disk as an image:")
        to.note(0, f"- proa image from-disk {disk} -t {names.files}")
    others = sorted({service.name for service in machine.role("machine")})
    if others:
        to.note(0, "Left out, as they are the machine's own:")
        for start in range(0, min(len(others), 40), 6):
            to.note(0, f"- {', '.join(others[start : start + 6])}")
    for found in machine.modules[:10]:
        to.note(0, f"The machine loads the kernel module '{found.value}' ({found.source}).")
    for found in machine.settings[:10]:
        to.note(0, f"The machine sets {found.value} of its kernel ({found.source}).")
    if len(machine.role("part")) > SERVICES_MAXIMUM:
        to.note(0, f"Only the first {SERVICES_MAXIMUM} services are here.")


def _parts(
    to: Writer, machine: Machine, shown: Sequence[Service], names: Names
) -> tuple[list[str], list[str]]:
    volumes: list[str] = []
    secrets: list[str] = []
    everything = (*shown, *machine.role("kernel"))
    needs = {item.name: found for item, found in parts.without_circles(everything, names)}
    for service in shown:
        to.blank()
        kept, password = parts.write(to, machine, service, names)
        parts.depends(to, names, needs[service.name])
        volumes += kept
        secrets += [names.services[service.name]] if password else []
    return volumes, secrets


def _vm(
    to: Writer, machine: Machine, disk: str, which: tuple[str, Sequence[Service], Sequence[Service]]
) -> None:
    """What stays: the machine as it is, as a vm, with only what is bound to its kernel."""
    name, bound, moved = which
    to.blank()
    to.line(1, f"{name}:")
    to.note(
        2,
        "The machine itself, with what is bound to its kernel:"
        if bound
        else f"The machine as it is: {machine.system_source or 'no root of Linux was found'}.",
    )
    for service in bound:
        risk = service.risks[0]
        to.note(2, f"- {guess(f'{service.name} stays: {risk.value}', risk.source)}")
    units = [service.name for service in moved if service.kind != "cron"]
    if units:
        to.note(2, "Turn off in it what is a service of its own now:")
    for start in range(0, len(units), 6):
        to.note(2, f"- systemctl disable {' '.join(units[start : start + 6])}")
    to.line(2, "isolation: vm")
    to.line(2, "build:", "an image that holds the disk")
    to.line(3, "context: .")
    to.line(3, "dockerfile_inline: |")
    to.line(4, "FROM scratch")
    to.line(4, f'COPY [{scalar(os.path.basename(disk))}, "/disk/"]')
    ports = {str(port): port for service in bound for port in service.ports if not port.local}
    if ports:
        to.line(2, "ports:")
    for port in ports.values():
        written = f"{port.port}:{port.port}" + (
            "" if port.protocol == "tcp" else f"/{port.protocol}"
        )
        to.line(3, f"- {scalar(written)}", port.source if port.sure else guess("the usual port"))
    to.pair(2, "restart", "unless-stopped")


def _tail(to: Writer, volumes: Sequence[str], secrets: Sequence[str]) -> None:
    if volumes:
        to.blank()
        to.note(
            0, "Empty at first: bring the data before the services start (dump and restore, or cp)."
        )
        to.line(0, "volumes:")
        for name in volumes:
            to.line(1, f"{name}: {{}}")
    if secrets:
        to.blank()
        to.line(0, "secrets:")
        for name in secrets:
            to.line(1, f"{name}-password:")
            to.line(
                2, f"file: {scalar(f'./{name}-password.txt')}", "write it, and keep it to yourself"
            )
