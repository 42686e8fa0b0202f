"""What an app file's service says, as facts: `compose.yaml:12 services.db.privileged`.  Pure."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterator, Sequence

from proa.advice import stated
from proa.advice.compose import values
from proa.advice.compose.app import COMPLETED, EMPTY, App, Service
from proa.advice.compose.document import Node
from proa.advice.compose.values import Mount
from proa.advice.facts import Fact, Facts, Value
from proa.errors import Invalid

OWN = "x-proa"  # a mapping, or the beginning of a key, of a service, of its labels, of the file
_SOCKETS = ("docker.sock", "podman.sock", "containerd.sock", "crio.sock", "proa.sock")
# Kernel settings each namespace has of its own (namespaces(7), ipc_namespaces(7)).
_NAMESPACED = re.compile(
    r"net\..*|kernel\.(?:shm.*|msg.*|sem)|fs\.mqueue\..*|kernel\.(?:host|domain)name"
)
_OFF = re.compile(
    r"(?:seccomp|apparmor|systempaths|proc-opts)[:=]\s*unconfined|label[:=]\s*disable|"
    r"no-new-privileges[:=]false", re.IGNORECASE,
)  # fmt: skip
# Last part of an image's name → the database it is.
DATABASES = {
    **{name: name for name in (
        "postgres mysql mariadb mongo redis valkey memcached cassandra couchdb influxdb "
        "elasticsearch opensearch neo4j etcd clickhouse cockroach percona timescaledb keydb"
    ).split()},
    "clickhouse-server": "clickhouse", "postgis": "postgres", "postgresql": "postgres",
    "mongodb": "mongo", "mysql-server": "mysql", "mssql": "mssql",
}  # fmt: skip
_Said = Iterator[tuple[str, Value, tuple[str, ...]]]


def facts_of(app: App, service: Service) -> Facts:
    """All an app file says of one service."""
    found = [Fact(key, value, service.source(*path)) for key, value, path in _said(service)]
    found += _of_app(app, service)
    return Facts("service", service.name, (*_stated(app, service), *found))


def combine(service: Facts, image: Facts | None) -> Facts:
    """A service's facts before those of its image: what the app file says counts."""
    if image is None:
        return service
    said = {fact.key for fact in service.all}
    rest = tuple(fact for fact in image.all if fact.key not in said)
    return Facts(service.kind, service.name, (*service.all, *rest))


def _said(service: Service) -> _Said:
    for rows in (_is, _runs, _asks, _limits):
        yield from rows(service)


def _is(service: Service) -> _Said:
    system, _, architecture = service.platform.partition("/")
    if system:
        yield "os.kind", system.lower(), ("platform",)
    if architecture:
        yield "os.architecture", architecture.partition("/")[0].lower(), ("platform",)
    name = service.image.rpartition("/")[2].partition("@")[0].partition(":")[0].lower()
    if service.image and "/windows/" in f"/{service.image.lower()}":
        yield "os.kind", "windows", ("image",)
    if DATABASES.get(name):
        yield "database", (DATABASES[name],), ("image",)


def _runs(service: Service) -> _Said:
    if service.isolation:
        yield "run.isolation", service.isolation, ("isolation",)
    command = (*(service.entrypoint or ()), *(service.command or ()))
    if command:
        path = ("entrypoint",) if service.entrypoint else ("command",)
        yield "run.command", " ".join(command), path
    if service.user:
        yield "run.user", service.user, ("user",)
    ports = [str(port) for port in service.ports]
    ports += [port if "/" in port else f"{port}/tcp" for port in service.expose]
    if ports:
        yield "run.ports", tuple(dict.fromkeys(ports)), ("ports" if service.ports else "expose",)
    kept = _mounts(service, lambda mount: mount.type in ("volume", "bind") and not _socket(mount))
    if kept:
        yield "run.volumes", tuple(service.volumes[at].target for at in kept), _item(kept)
    if service.stop_signal and service.stop_signal not in ("SIGTERM", "TERM", "15"):
        yield "run.stop_signal", service.stop_signal, ("stop_signal",)
    if service.healthcheck:
        yield "run.healthcheck", True, ("healthcheck",)
    if service.mode.endswith("-job"):
        yield "run.one_shot", True, ("deploy", "mode")
    elif "replicas" in dict((service.node.get("deploy") or EMPTY).items()):
        yield "run.replicas", service.scale, ("deploy", "replicas")
    elif service.node.get("scale"):
        yield "run.replicas", service.scale, ("scale",)


def _asks(service: Service) -> _Said:
    """What it asks of the host."""
    if service.privileged:
        yield "run.privileged", True, ("privileged",)
    if service.cap_add:
        yield "run.capabilities", service.cap_add, ("cap_add",)
    if service.devices:
        yield "run.devices", service.devices, ("devices",)
    elif service.gpus:
        yield "run.devices", ("gpu",), ("gpus" if service.node.get("gpus") else "deploy",)
    shared = [
        (title, key)
        for title, key, said in (
            ("network", "network_mode", service.network_mode), ("pid", "pid", service.pid),
            ("ipc", "ipc", service.ipc), ("uts", "uts", service.uts),
            ("user", "userns_mode", service.userns_mode), ("cgroup", "cgroup", service.cgroup),
        ) if said == "host"
    ]  # fmt: skip
    if shared:
        yield "run.host_namespaces", tuple(title for title, _ in shared), (shared[0][1],)
    sockets = _mounts(service, _socket)
    if sockets or service.use_api_socket:
        yield "run.engine_socket", True, _item(sockets) if sockets else ("use_api_socket",)
    bound = _mounts(service, lambda mount: mount.type == "bind" and not _socket(mount))
    if bound:
        paths = tuple(_host_path(service.volumes[at].source) for at in bound)
        yield "run.host_paths", paths, _item(bound)
    settings = tuple(key for key in service.sysctls if not _NAMESPACED.fullmatch(key))
    if settings:
        yield "run.sysctls", settings, ("sysctls",)
    off = tuple(option for option in service.security_opt if _OFF.search(option))
    if off:
        yield "run.security_off", off, ("security_opt",)


def _socket(mount: Mount) -> bool:
    return mount.type == "bind" and posixpath.basename(mount.source) in _SOCKETS


def _mounts(service: Service, test: Callable[[Mount], bool]) -> list[int]:
    return [index for index, mount in enumerate(service.volumes) if test(mount)]


def _item(indices: Sequence[int]) -> tuple[str, ...]:
    return "volumes", str(indices[0])


def _host_path(path: str) -> str:
    plain = posixpath.normpath(path)
    return plain if plain == "." or plain.startswith(("/", "~", "..")) else f"./{plain}"


def _limits(service: Service) -> _Said:
    deploy = ("deploy", "resources", "limits")
    if service.mem_limit:
        path = ("mem_limit",) if service.node.get("mem_limit") else (*deploy, "memory")
        yield "run.memory_bytes", service.mem_limit, path
    if service.cpus:
        path = ("cpus",) if service.node.get("cpus") else (*deploy, "cpus")
        yield "run.cpus", service.cpus, path


def _of_app(app: App, service: Service) -> Iterator[Fact]:
    """What the other services say of it."""
    if len(app.services) > 1:
        where = app.node.get("services")
        yield Fact("app.services", len(app.services), f"{where.mark if where else ''} services")
    for other in app.services:
        if other.depends_on.get(service.name) == COMPLETED:
            yield Fact("run.one_shot", True, other.source("depends_on", service.name))
            return


def _stated(app: App, service: Service) -> Iterator[Fact]:
    """What its owner states: of the service, in its labels, of the whole file; the first counts."""
    labels = service.node.get("labels") or EMPTY
    places: Sequence[tuple[Node, str]] = (
        (service.node, f"services.{service.name}"),
        (labels, f"services.{service.name}.labels"),
        (app.node, ""),
    )
    seen: set[str] = set()
    for node, path in places:
        for name, item, key in _own(node):
            fact = _statement(name, item, f"{item.mark} {path}{'.' if path else ''}{key}")
            if fact.key not in seen:
                seen.add(fact.key)
                yield fact


def _statement(name: str, item: Node, source: str) -> Fact:
    try:
        return stated.fact(name, values.text(item), source)
    except Invalid as error:
        raise item.mark.error(error.message, error.hint) from None


def _own(node: Node) -> Iterator[tuple[str, Node, str]]:
    """(statement, value, key as written) of `x-proa: {trust: ...}` and of `x-proa-trust`."""
    for key, item in node.items():
        if key == OWN:
            for inner, value in item.items():
                yield inner, value, f"{key}.{inner}"
        elif key.startswith(f"{OWN}-"):
            yield key.removeprefix(f"{OWN}-"), item, key
