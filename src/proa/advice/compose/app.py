"""An app: its services as an app file declares them, typed, each finding with its place.  Pure.

What Proa has no use for yet stays readable in `Service.node`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from proa.advice.compose import files, values
from proa.advice.compose.document import Mark, Node
from proa.advice.compose.values import Mount, Port

STARTED, HEALTHY, COMPLETED = (
    "service_started", "service_healthy", "service_completed_successfully",
)  # fmt: skip
EMPTY = Node(Mark("", 0, 0), {})


@dataclass(frozen=True)
class Service:
    """One service.  Absent texts are empty, absent numbers 0, absent commands None."""

    name: str
    node: Node
    image: str = ""
    build: str = ""  # its context
    isolation: str = ""
    platform: str = ""
    runtime: str = ""
    command: tuple[str, ...] | None = None
    entrypoint: tuple[str, ...] | None = None
    user: str = ""
    working_dir: str = ""
    hostname: str = ""
    environment: Mapping[str, str | None] = field(default_factory=dict)
    env_file: tuple[Node, ...] = ()
    labels: Mapping[str, str | None] = field(default_factory=dict)
    ports: tuple[Port, ...] = ()
    expose: tuple[str, ...] = ()
    volumes: tuple[Mount, ...] = ()
    tmpfs: tuple[str, ...] = ()
    depends_on: Mapping[str, str] = field(default_factory=dict)  # service → condition
    networks: tuple[str, ...] = ()
    network_mode: str = ""
    pid: str = ""
    ipc: str = ""
    uts: str = ""
    userns_mode: str = ""
    cgroup: str = ""
    privileged: bool = False
    cap_add: tuple[str, ...] = ()
    cap_drop: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()
    gpus: bool = False
    sysctls: Mapping[str, str | None] = field(default_factory=dict)
    security_opt: tuple[str, ...] = ()
    use_api_socket: bool = False
    read_only: bool = False
    mem_limit: int = 0
    cpus: float = 0.0
    scale: int = 1
    mode: str = ""  # of deploy: replicated, global, and their jobs
    restart: str = ""
    stop_signal: str = ""
    stop_grace_seconds: float = 0.0
    healthcheck: bool = False
    profiles: tuple[str, ...] = ()

    def source(self, *path: str) -> str:
        """Where something of it is said: `compose.yaml:12 services.db.privileged`."""
        node = self.node
        for key in path:
            items = node.each()
            node = items[int(key)] if items else node.get(key) or node
        return f"{node.mark} {'.'.join(('services', self.name, *path))}"


@dataclass(frozen=True)
class App:
    """All of it; `unset` are variables that were asked for and are not set, with their place."""

    name: str
    services: tuple[Service, ...]
    volumes: tuple[str, ...] = ()
    networks: tuple[str, ...] = ()
    unset: Mapping[str, Mark] = field(default_factory=dict)
    node: Node = EMPTY

    def active(self, profiles: Sequence[str] = ()) -> tuple[Service, ...]:
        """The services without a profile, and those of the profiles named (`*`: of all)."""
        wanted = set(profiles)
        return tuple(
            service
            for service in self.services
            if not service.profiles or "*" in wanted or wanted & set(service.profiles)
        )


def read(reading: files.Reading, paths: Sequence[str], where: files.Place) -> App:
    """The app of these files, later ones over earlier ones.  Raises Invalid, with a place."""
    tree = files.read(reading, paths, where)
    services = tree.get("services") or EMPTY
    name = tree.get("name")
    found = App(
        values.text(name) if name else "",
        tuple(service(key, node) for key, node in services.items()),
        tuple(key for key, _ in (tree.get("volumes") or EMPTY).items()),
        tuple(key for key, _ in (tree.get("networks") or EMPTY).items()),
        reading.unset,
        tree,
    )
    for item in found.services:
        _check_references(found, item)
    return found


def _check_references(app: App, service: Service) -> None:
    """Raises Invalid for a service, a volume or a network that the app does not have."""
    named = {item.name for item in app.services}
    volumes = {mount.source for mount in service.volumes if mount.type == "volume"} - {""}
    rows = (
        ("depends_on", "service", set(service.depends_on), named),
        ("volumes", "volume", volumes, set(app.volumes)),
        ("networks", "network", set(service.networks), {*app.networks, "default"}),
    )
    for key, what, used, known in rows:
        if missing := sorted(used - known):
            node = service.node.get(key) or service.node
            raise node.mark.error(f"the app has no {what} '{missing[0][:80]}'")


def _depends(node: Node) -> dict[str, str]:
    found: dict[str, str] = {}
    for key, item in node.items():
        condition = item.get("condition")
        found[key] = values.text(condition) if condition else STARTED
        if found[key] not in (STARTED, HEALTHY, COMPLETED):
            raise (condition or item).mark.error(f"unknown condition '{found[key][:80]}'")
    return found


def _context(node: Node) -> str:
    context = node.get("context")
    return values.text(context) if context else "."


def _gpus(node: Node) -> bool:
    return bool(node.value)


def _health(node: Node) -> bool:
    disable, test = node.get("disable"), node.get("test")
    if disable is not None and values.flag(disable):
        return False
    return test is not None and values.texts(test)[:1] != ("NONE",)


def _capabilities(node: Node) -> tuple[str, ...]:
    return tuple(name.upper().removeprefix("CAP_") for name in values.texts(node))


# Key → how it is read; the attribute has the key's name, except for those of RENAMED.
_READERS: dict[str, Callable[[Node], Any]] = {
    **dict.fromkeys(
        "image isolation platform runtime user working_dir hostname network_mode pid ipc uts "
        "userns_mode cgroup restart stop_signal".split(),
        values.optional,
    ),
    **dict.fromkeys("privileged use_api_socket read_only".split(), values.flag),
    **dict.fromkeys("tmpfs security_opt profiles expose".split(), values.texts),
    **dict.fromkeys("environment labels sysctls".split(), values.pairs),
    **dict.fromkeys("command entrypoint".split(), values.words),
    "cap_add": _capabilities, "cap_drop": _capabilities,
    "env_file": values.sequence, "build": _context, "ports": values.ports,
    "volumes": values.mounts, "depends_on": _depends, "gpus": _gpus, "scale": values.whole,
    "mem_limit": values.size_bytes, "cpus": values.number, "healthcheck": _health,
    "stop_grace_period": values.seconds,
    "networks": lambda node: tuple(key for key, _ in node.items()),
    "devices": lambda node: tuple(map(values.device, values.sequence(node))),
}  # fmt: skip
_RENAMED = {"stop_grace_period": "stop_grace_seconds"}
_NULLS = ("command", "entrypoint")


def service(name: str, node: Node) -> Service:
    """One service of a merged tree.  Raises Invalid."""
    found: dict[str, Any] = {}
    for key, item in node.items():
        if key in _READERS and (item.value is not None or key not in _NULLS):
            found[_RENAMED.get(key, key)] = _READERS[key](item)
    return Service(name, node, **{**found, **_deployed(node.get("deploy") or EMPTY, found)})


def _deployed(deploy: Node, found: Mapping[str, Any]) -> dict[str, Any]:
    """What `deploy` says, where the service itself does not."""
    more: dict[str, Any] = {}
    limits = (deploy.get("resources") or EMPTY).get("limits") or EMPTY
    rows = (
        ("scale", deploy.get("replicas"), values.whole),
        ("mode", deploy.get("mode"), values.optional),
        ("mem_limit", limits.get("memory"), values.size_bytes),
        ("cpus", limits.get("cpus"), values.number),
    )
    for key, node, reader in rows:
        if node is not None and node.value is not None and not found.get(key):
            more[key] = reader(node)
    reserved = ((deploy.get("resources") or EMPTY).get("reservations") or EMPTY).get("devices")
    if reserved is not None and reserved.each():
        more["gpus"] = True
    return more
