"""A machine as its disk shows it: its system, its services, where each finding stands.  Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from proa.errors import Corrupt

KINDS = ("service", "socket", "timer", "cron")
LOCAL = ("127.0.0.1", "localhost", "::1", "127.0.1.1", "")


@dataclass(frozen=True)
class Found:
    """A finding; `source` is a path on the disk, often with a line: `/etc/redis/redis.conf:12`."""

    value: str
    source: str


@dataclass(frozen=True)
class Listening:
    """A port; `address` is empty for all, `sure` false where only the usual port is known."""

    port: int
    protocol: str
    address: str
    source: str
    sure: bool = True

    def __str__(self) -> str:
        return f"{self.port}/{self.protocol}"

    @property
    def local(self) -> bool:
        """Whether only the machine itself reaches it."""
        return self.address != "" and self.address in LOCAL


@dataclass(frozen=True)
class Need:
    """That one service uses another; `setting` is the text that says so, where there is one.

    `strict` is false for an order only.
    """

    service: str
    why: str
    source: str
    setting: str = ""
    port: int = 0
    strict: bool = True


@dataclass(frozen=True)
class Service:
    """One thing that runs by itself, of the machine's enabled ones.

    `product` is a row of products.TABLE, or empty: an application of its own.  `role` says what it
    is to the app: `part` of it, of the `machine` (logging in, the clock), or bound to the `kernel`.
    """

    name: str
    kind: str
    source: str  # its unit, script or table
    enabled: str  # what enables it
    role: str = "part"
    product: str = ""
    version: Found | None = None
    command: str = ""
    before: tuple[Found, ...] = ()  # what is run before it
    user: str = ""
    directory: str = ""
    forks: bool = False
    once: bool = False
    when: str = ""  # of timers and cron
    ports: tuple[Listening, ...] = ()
    data: tuple[Found, ...] = ()
    configuration: tuple[str, ...] = ()
    environment: tuple[Found, ...] = ()  # NAME=value
    needs: tuple[Need, ...] = ()
    risks: tuple[Found, ...] = ()


@dataclass(frozen=True)
class Machine:
    """All of it.  `system` is linux, windows, freebsd ..., empty when nothing is known."""

    name: str
    system: str
    system_source: str
    architecture: str = ""
    distribution: Found | None = None
    version: Found | None = None
    title: str = ""
    hostname: str = ""
    init: Found | None = None
    kernel: Found | None = None
    bootloader: Found | None = None
    modules: tuple[Found, ...] = ()
    settings: tuple[Found, ...] = ()  # of the kernel (sysctl)
    users: tuple[str, ...] = ()
    setuid: tuple[str, ...] = ()
    desktop: Found | None = None
    packages: int = 0
    services: tuple[Service, ...] = ()
    sizes: tuple[tuple[str, int], ...] = ()  # of data directories
    partitions: tuple[str, ...] = ()
    virtual_bytes: int = 0
    used_bytes: int = 0
    problems: tuple[str, ...] = ()

    def size_of(self, path: str) -> int:
        """Bytes below a directory; 0 when it was not counted."""
        return dict(self.sizes).get(path, 0)

    def role(self, role: str) -> tuple[Service, ...]:
        """The services with a role."""
        return tuple(service for service in self.services if service.role == role)


def document(machine: Machine) -> dict[str, Any]:
    """For the API: the fields by their names."""
    return dataclasses.asdict(machine)


_PARTS: dict[str, Any] = {
    "services": Service, "ports": Listening, "needs": Need,
    **dict.fromkeys(("distribution", "version", "init", "kernel", "bootloader", "desktop"), Found),
    **dict.fromkeys(("modules", "settings", "data", "environment", "risks", "before"), Found),
}  # fmt: skip


def load(found: Mapping[str, Any]) -> Machine:
    """The reverse of `document`.  Raises Corrupt."""
    try:
        machine: Machine = _make(Machine, found)
    except (TypeError, ValueError, AttributeError) as error:
        raise Corrupt(f"what the engine says of the disk is not understood: {error}") from error
    return machine


def _make(kind: Any, found: Mapping[str, Any]) -> Any:
    return kind(**{key: _value(key, value) for key, value in found.items()})


def _value(key: str, value: Any) -> Any:
    if isinstance(value, list | tuple):
        return tuple(
            _make(_PARTS[key], item) if isinstance(item, Mapping)
            else tuple(item) if isinstance(item, list) else item
            for item in value
        )  # fmt: skip
    return _make(_PARTS[key], value) if isinstance(value, Mapping) else value
