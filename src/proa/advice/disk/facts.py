"""What a machine's disk says, as facts with paths on it: `a.qcow2:/etc/hosts:1`.  Pure."""

from __future__ import annotations

from collections.abc import Iterator

from proa.advice.disk import products
from proa.advice.disk.machine import Found, Listening, Machine, Service
from proa.advice.facts import Fact, Facts

_Row = tuple[str, bool | int | str | tuple[str, ...], str]


def facts_of(machine: Machine) -> Facts:
    """All of it, as rules of advice read it."""
    rows = [*_system(machine), *_services(machine), *_asks(machine), *_size(machine)]
    found = (
        Fact(key, value, f"{machine.name}:{source}" if source.startswith("/") else source)
        for key, value, source in rows
    )
    return Facts("disk", machine.name, tuple(found))


def _system(machine: Machine) -> Iterator[_Row]:
    if machine.system:
        yield "os.kind", machine.system, machine.system_source
    for key, found in (
        ("os.name", machine.distribution), ("os.version", machine.version),
        ("os.init", machine.init), ("os.kernel", machine.kernel),
        ("os.bootloader", machine.bootloader), ("desktop", machine.desktop),
    ):  # fmt: skip
        if found:
            yield key, found.value, found.source
        elif machine.system == "linux" and key in ("os.init", "os.kernel"):
            yield key, "", "looked for, and not on the disk"
    if machine.architecture:
        yield "os.architecture", machine.architecture, "its dynamic loader"
    yield "os.disk", bool(machine.init or machine.system != "linux"), machine.name


def _services(machine: Machine) -> Iterator[_Row]:
    running = [item for item in machine.services if item.kind == "service" and not item.once]
    named = [item for item in running if not item.name.startswith("systemd-")]
    names = tuple(dict.fromkeys(item.name.partition("@")[0] for item in named))
    if names:
        yield "services", names, _first([item.enabled for item in named])
    elif machine.system == "linux":
        yield "services", (), "no service is enabled"
    bound = machine.role("kernel")
    if bound:
        yield "services.kernel", tuple(item.name for item in bound), bound[0].risks[0].source
    stores = [item for item in running if item.product in products.DATABASES]
    if stores:
        yield "database", tuple(item.product for item in stores), stores[0].enabled
    ports = [port for item in running for port in item.ports if not port.local]
    if ports:
        yield "run.ports", tuple(dict.fromkeys(map(str, ports))), ports[0].source
    data = [found for item in machine.role("part") for found in item.data]
    if data:
        yield "run.volumes", tuple(found.value for found in data), data[0].source


def _asks(machine: Machine) -> Iterator[_Row]:
    for key, several in (
        ("os.modules_loaded", machine.modules), ("run.sysctls", machine.settings),
    ):  # fmt: skip
        if several:
            yield key, tuple(found.value for found in several), several[0].source


def _size(machine: Machine) -> Iterator[_Row]:
    if machine.used_bytes:
        yield "size.bytes", machine.used_bytes, "what its file systems say is in use"
    elif machine.virtual_bytes:
        yield "size.bytes", machine.virtual_bytes, "the disk's size"
    if machine.packages:
        yield "packages.count", machine.packages, "/var/lib/dpkg/info"
    if machine.setuid:
        yield "programs.setuid", machine.setuid, machine.setuid[0]


def _first(sources: list[str]) -> str:
    return sources[0] + (f" and {len(sources) - 1} more" if len(sources) > 1 else "")


_TITLES = (
    ("part", "services that could be split off"),
    ("kernel", "services bound to its kernel, which stay in the vm"),
)


def described(machine: Machine) -> Iterator[str]:
    """The services found, for people: units, ports, data, configuration, needs, risks."""
    for role, title in _TITLES:
        found = machine.role(role)
        if found:
            yield title
        for service in found:
            yield f"  {service.name}: {service.enabled}"
            yield from (f"      {line}" for line in _details(machine, service) if line)
    others = ", ".join(item.name for item in machine.role("machine"))
    if others:
        yield from ("services of the machine itself", f"  {others}")
    yield from (f"note: {problem}" for problem in machine.problems)


def _details(machine: Machine, service: Service) -> Iterator[str]:
    version = f" {service.version.value}" if service.version else ""
    yield f"is {service.product}{version}" if service.product else f"runs {service.command}"
    ports = ", ".join(map(_port, service.ports))
    yield f"ports: {ports}" if ports else ""
    yield f"when: {service.when}" if service.when else ""
    yield from (f"data: {_sized(machine, item)}" for item in service.data)
    settings = ", ".join(service.configuration[:8])
    yield f"configuration: {settings}" if settings else ""
    yield from (f"uses {need.service}: {need.why} ({need.source})" for need in service.needs)
    yield from (f"{risk.value} ({risk.source})" for risk in service.risks[:3])


def _port(item: Listening) -> str:
    where = f"{item.address}:" if item.address else ""
    return f"{where}{item} ({item.source if item.sure else 'a guess: the usual one'})"


def _sized(machine: Machine, found: Found) -> str:
    size = machine.size_of(found.value)
    shown = f", {size / 1e6:.1f} MB" if size else ""
    return f"{found.value}{shown} ({found.source})"
