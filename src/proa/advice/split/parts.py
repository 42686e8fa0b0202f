"""One service of a machine as one of an app: image, command, environment, ports, data.  Pure."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from proa.advice.disk import needs, products
from proa.advice.disk.machine import Found, Listening, Machine, Need, Service
from proa.advice.disk.products import Product
from proa.advice.split.writer import Writer, guess, scalar

_SECRET = re.compile(r"PASS|SECRET|TOKEN|PRIVATE|CREDENTIAL|API_?KEY|_KEY$", re.IGNORECASE)
_LOGIN = re.compile(r"://[^/@\s]*:[^/@\s]+@")
_HERE = re.compile(r"\b(?:localhost|127\.0\.0\.1)\b|\[::1\]|(?<![\w:])::1\b")
_PATH = re.compile(r"(?:/[\w.@+-]+)+")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True)
class Names:
    """What everything is called in the app: services by name, and the image of the disk's files."""

    services: Mapping[str, str]
    files: str


def write(to: Writer, machine: Machine, service: Service, names: Names) -> tuple[list[str], bool]:
    """Write its block; the volumes it keeps data in, and whether it wants a password."""
    own = names.services[service.name]
    product = products.BY_KEY.get(service.product)
    official = product is not None and bool(product.image)
    to.line(1, f"{own}:")
    to.note(2, f"{service.name} ({service.kind}) of {service.source}, enabled by {service.enabled}")
    _image(to, service, product if official else None, names)
    if not official:
        _program(to, service)
    password = _environment(to, service, product if official else None, names)
    _ports(to, service)
    volumes = _volumes(to, machine, service, product if official else None, own)
    _configuration(to, service, official=official)
    _life(to, service)
    return volumes, password


def _image(to: Writer, service: Service, product: Product | None, names: Names) -> None:
    if product is None:
        why = "no image of its own is known" if service.product else "it is the machine's own"
        to.pair(2, "image", names.files, guess(f"{why}; the image of the disk's files has it"))
        return
    version = service.version
    tag = version.value if version else ""
    name, _, pattern = product.image.partition(":")
    tag = pattern.format(tag).lstrip("-") if pattern else tag
    image = f"{name}:{tag}" if tag else name
    if version:
        to.pair(
            2, "image", image, guess(f"the version installed is {version.value}", version.source)
        )
    else:
        to.pair(2, "image", image, guess("its version was not found: name the one you had"))


def _program(to: Writer, service: Service) -> None:
    """The command of what has no image that knows it."""
    if not service.command:
        to.note(2, guess("its command was not found: name it here", service.source))
        return
    instance = service.name.partition("@")[2]
    command = service.command.replace("%i", instance).replace("%I", instance)
    reason, source = "the command of its unit", service.source
    if opened := _opened(command, service.ports):
        command, reason = opened, "it listened on this machine only; others come by network now"
    try:
        words = shlex.split(command)
    except ValueError:
        words = ["sh", "-c", command]
    if "$" in command or service.kind == "cron":
        words = ["sh", "-c", command if service.kind == "cron" else f"exec {command}"]
    shown = ", ".join(scalar(word) for word in words)
    to.line(2, f"command: [{shown}]", guess(reason, source))
    for found in service.before[:4]:
        to.note(2, guess(f"before it, its unit ran '{found.value}'", found.source))
    if service.forks:
        to.note(2, guess("it forks; find its option to stay in the foreground", source))
    if "%" in command:
        to.note(2, guess("systemd replaces words with %: write what they stand for", source))
    if service.user and service.user != "root" and not service.user.startswith("%"):
        to.pair(2, "user", service.user, f"User= of {service.source}")
    if service.directory.startswith("/"):
        to.pair(2, "working_dir", service.directory, f"WorkingDirectory= of {service.source}")


def _opened(command: str, ports: tuple[Listening, ...]) -> str:
    """The command that listens on all addresses, where it did on the machine's own; or empty."""
    changed = command
    for port in ports:
        if port.local:
            here = rf"(?:localhost|127\.0\.0\.1|\[::1\])(?=:{port.port}\b)"
            changed = re.sub(here, "0.0.0.0", changed)
    return changed if changed != command else ""


def _environment(to: Writer, service: Service, product: Product | None, names: Names) -> bool:
    rows: list[tuple[str, str, str]] = []
    for found in service.environment if product is None else ():
        name, _, value = found.value.partition("=")
        if _VARIABLE.fullmatch(name):
            rows.append(_variable(name, value.strip().strip("\"'"), found, service, names))
    for need in service.needs:
        if needs.LIBPQ in need.why and need.service in names.services:
            host = scalar(names.services[need.service])
            rows.append(
                ("PGHOST", host, guess(f"{need.why}; another container has none", need.source))
            )
    for name, who in product.secrets if product else ():
        path = scalar(f"/run/secrets/{names.services[service.name]}-password")
        rows.append((name, path, guess(f"the image wants a password for '{who}'")))
    if rows:
        to.line(2, "environment:")
    for name, value, remark in {row[0]: row for row in rows}.values():
        to.line(3, f"{name}: {value}", remark)
    if product and product.secrets:
        to.line(2, f"secrets: [{scalar(names.services[service.name] + '-password')}]")
        return True
    return False


def _variable(
    name: str, value: str, found: Found, service: Service, names: Names
) -> tuple[str, str, str]:
    if _SECRET.search(name) or _LOGIN.search(value):
        asked = scalar(f"${{{name}:-}}", variables=True)
        return (
            name,
            asked,
            guess("it looks like a secret and was not copied; set it in .env", found.source),
        )
    for need in service.needs:
        if need.source == found.source and need.service in names.services and _HERE.search(value):
            changed = _HERE.sub(names.services[need.service], value)
            why = f"it was {value!r}; {need.service} has a place of its own now"
            return name, scalar(changed), guess(why, found.source)
    return name, scalar(value), found.source


def _ports(to: Writer, service: Service) -> None:
    published = [port for port in service.ports if not port.local]
    inside = [port for port in service.ports if port.local]
    if published:
        to.line(2, "ports:")
    for port in published:
        written = f"{port.port}:{port.port}" + (
            "" if port.protocol == "tcp" else f"/{port.protocol}"
        )
        to.line(3, f"- {scalar(written)}", _said(port))
    if inside:
        to.line(2, "expose:")
    for port in inside:
        to.line(3, f"- {scalar(str(port))}", f"{_said(port)}: only this machine reached it")


def _said(port: Listening) -> str:
    if port.sure:
        return port.source
    return guess("no setting names a port; it is the usual one", port.source)


def _volumes(
    to: Writer, machine: Machine, service: Service, product: Product | None, own: str
) -> list[str]:
    names: list[str] = []
    plain = [found for found in service.data if _PATH.fullmatch(found.value)]
    for found in service.data:
        if found not in plain:
            to.note(2, guess(f"its data is in '{found.value}', too strange a path", found.source))
    if plain:
        to.line(2, "volumes:")
    for index, found in enumerate(plain):
        moved = product.at if product and product.at and product.data and not index else found.value
        name = f"{own}-data" if not index else f"{own}-data-{index + 1}"
        names.append(name)
        size = machine.size_of(found.value)
        was = f"{found.value}, {size / 1e6:.1f} MB" if size else found.value
        to.line(3, f"- {scalar(f'{name}:{moved}')}", guess(f"its data was in {was}", found.source))
    return names


def _configuration(to: Writer, service: Service, *, official: bool) -> None:
    if official and service.configuration:
        to.note(
            2, "Its settings, which the image does not have; copy what you changed and mount it:"
        )
        for path in service.configuration[:12]:
            to.note(2, f"- {path}")
    told = {found.source for found in service.environment}
    for need in service.needs:
        named = need.setting and need.source.startswith("/") and need.source not in told
        told.add(need.source)
        if named and needs.LIBPQ not in need.why:
            to.note(2, f"{need.source} says '{need.setting}': name the other service there")


def _life(to: Writer, service: Service) -> None:
    if service.kind in ("timer", "cron"):
        when = service.when or "times of its timer"
        to.note(2, guess(f"it ran at '{when}'; let a scheduler do 'compose run --rm'"))
        to.line(2, 'profiles: ["jobs"]')
    elif service.once:
        to.pair(2, "restart", "no", guess("it ran once at each boot", service.source))
    else:
        to.pair(2, "restart", "unless-stopped", "it was started at every boot")


def depends(to: Writer, names: Names, wanted: list[Need]) -> None:
    """What it depends on; a reason each."""
    if not wanted:
        return
    to.line(2, "depends_on:")
    for need in wanted:
        to.line(3, f"{names.services[need.service]}:", guess(need.why, need.source))
        to.line(4, "condition: service_started")


def without_circles(
    services: tuple[Service, ...], names: Names
) -> Iterator[tuple[Service, list[Need]]]:
    """Each service with its needs, less those that would close a circle: strict ones go first."""
    edges: dict[str, set[str]] = {service.name: set() for service in services}
    kept: dict[str, list[Need]] = {service.name: [] for service in services}
    every = [(service, need) for service in services for need in service.needs]
    for service, need in sorted(every, key=lambda pair: not pair[1].strict):
        start, end = names.services.get(service.name), names.services.get(need.service)
        if end is None or start == end or need.service not in edges:
            continue
        if end not in {names.services[item.service] for item in kept[service.name]} and not _leads(
            edges, need.service, service.name
        ):
            edges[service.name].add(need.service)
            kept[service.name].append(need)
    for service in services:
        yield service, kept[service.name]


def _leads(edges: Mapping[str, set[str]], start: str, end: str) -> bool:
    pending, seen = [start], {start}
    while pending:
        here = pending.pop()
        if here == end:
            return True
        fresh = edges.get(here, set()) - seen
        seen |= fresh
        pending += fresh
    return False
