"""Published ports: who holds which port of the host, and the record of it on disk.

A held port is a socket that is bound but never listens: it keeps others off the port while the
firewall sends its traffic to the instance.  IPv4 only.
"""

from __future__ import annotations

import errno
import json
import socket
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from ipaddress import IPv4Address
from pathlib import Path

from proa.errors import Conflict, HostError, Invalid
from proa.host import files
from proa.spec import Port

ANY = "0.0.0.0"
_KINDS = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}


@dataclass(frozen=True)
class Published:
    """A port of the host that leads to an instance.

    `holder_fd` is the bound socket; whoever keeps the instance alive keeps it open, and the caller
    of `publish` closes its own copy.
    """

    port: int
    protocol: str
    host_address: str
    host_port: int
    holder_fd: int


@dataclass(frozen=True)
class Mapping:
    """One entry of the firewall's port maps."""

    protocol: str
    host_address: str
    host_port: int
    address: str
    port: int

    @property
    def host(self) -> tuple[str, str, int]:
        """The host's side, which only one entry may have."""
        return self.protocol, self.host_address, self.host_port


def hold(port: Port) -> tuple[str, int, socket.socket]:
    """Bind a port of the host: its address, number and the bound socket.

    Raises Conflict when somebody has it, Invalid for what cannot be a port.
    """
    kind = _KINDS.get(port.protocol)
    if kind is None:
        raise Invalid(f"protocol '{port.protocol}' cannot be published", hint="use tcp or udp")
    host_address = _host_address(port.host_address)
    for number in (port.port, port.host_port or 1):
        if not 0 < number < 65536:
            raise Invalid(f"'{number}' is not a port number")
    holder = socket.socket(socket.AF_INET, kind)
    try:
        holder.bind((host_address, port.host_port))
    except OSError as error:
        holder.close()
        raise _bind_error(f"{host_address}:{port.host_port}", error) from error
    return host_address, holder.getsockname()[1], holder


def _host_address(text: str) -> str:
    if text in ("", "::", "[::]"):
        return ANY
    try:
        return str(IPv4Address(text))
    except ValueError as error:
        raise Invalid(
            f"cannot publish on '{text}'", hint="give an IPv4 address of this host"
        ) from error


def _bind_error(where: str, error: OSError) -> Exception:
    if error.errno == errno.EADDRINUSE:
        return Conflict(f"port is already allocated: '{where}'", hint="choose another host port")
    if error.errno == errno.EADDRNOTAVAIL:
        return Invalid(f"'{where}' is not an address of this host")
    return HostError(f"cannot bind '{where}': {error.strerror}")


class Record:
    """The mappings of every instance, one file each in `directory`.  The caller locks."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)

    def save(self, owner: str, mappings: Sequence[Mapping]) -> None:
        """Remember what is published for `owner`."""
        data = json.dumps([asdict(mapping) for mapping in mappings]).encode()
        files.atomic_write(self._directory / owner, data)

    def load(self, owner: str) -> list[Mapping]:
        """What is published for `owner`; a missing or broken file means nothing."""
        with suppress(OSError, ValueError, TypeError):
            return [Mapping(**row) for row in json.loads((self._directory / owner).read_bytes())]
        return []

    def owners(self) -> list[str]:
        """Everybody with something published."""
        return sorted(path.name for path in self._directory.iterdir())

    def remove(self, owner: str) -> None:
        """Forget `owner`; unknown is fine."""
        (self._directory / owner).unlink(missing_ok=True)
