"""Networks that users make: each a bridge, a subnet and a firewall table of its own.

`root/<id>/network.json` says what was asked for; leases and ports lie beside it, as for the
engine's own network.  Bridges are made when the first instance needs one.
"""

from __future__ import annotations

import json
import re
import secrets
import threading
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

from proa.errors import Conflict, Invalid, NoSpace, NotFound
from proa.host import files, netlink
from proa.network.addresses import free_subnet
from proa.network.service import Networks, Shape

MAXIMUM = 255  # two digits of every interface's name
PREDEFINED = ("bridge", "none", "host", "default")
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}")
_FACTS = "network.json"


@dataclass(frozen=True)
class Wanted:
    """What a request says of a network to be made; an empty subnet means a free one."""

    name: str
    subnet: str = ""
    gateway: str = ""
    internal: bool = False
    labels: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Network:
    """One network: what it is, and the `links` it gives."""

    id: str
    number: int
    name: str
    subnet: str
    gateway: str
    internal: bool
    created_ns: int
    labels: dict[str, str]
    options: dict[str, str]


class UserNetworks:
    """The networks of an engine, by id and name; safe to use from any thread."""

    def __init__(self, root: Path, tag: str) -> None:
        self._root, self._tag = root, tag
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock = threading.RLock()
        self._links: dict[str, Networks] = {}
        self._known = {network.id: network for network in self._read()}

    def _read(self) -> Iterator[Network]:
        for path in sorted(self._root.iterdir()):
            try:
                yield Network(**json.loads((path / _FACTS).read_bytes()))
            except (OSError, ValueError, TypeError):  # half made or half removed
                files.remove_tree(path)

    # -- which there are --------------------------------------------------------------------------

    def all(self) -> list[Network]:
        """Every network, oldest first."""
        return sorted(self._known.values(), key=lambda network: network.created_ns)

    def get(self, reference: str) -> Network:
        """By name, id or unique beginning of an id.  Raises NotFound or Conflict."""
        everyone = self.all()
        for network in everyone:
            if reference in (network.name, network.id):
                return network
        found = [item for item in everyone if reference and item.id.startswith(reference)]
        if len(found) > 1:
            raise Conflict(f"'{reference}' is the beginning of several networks' ids")
        if not found:
            raise NotFound(f"network {reference} not found")
        return found[0]

    def links(self, network: Network) -> Networks:
        """Who gives links and ports of a network."""
        with self._lock:
            if network.id not in self._links:
                self._links[network.id] = Networks(
                    self._root / network.id, self._tag, _shape(network, self._tag)
                )
            return self._links[network.id]

    # -- making and removing ----------------------------------------------------------------------

    def create(self, wanted: Wanted) -> Network:
        """Make one.  Raises Invalid, Conflict for a name or subnet in use, NoSpace."""
        if not _NAME.fullmatch(wanted.name) or wanted.name in PREDEFINED:
            raise Invalid(f"'{wanted.name}' cannot be a network's name")
        with self._lock:
            if any(item.name == wanted.name for item in self._known.values()):
                raise Conflict(f"network with name {wanted.name} already exists")
            numbers = {item.number for item in self._known.values()}
            number = next((n for n in range(1, MAXIMUM + 1) if n not in numbers), 0)
            if not number:
                raise NoSpace(f"there are {MAXIMUM} networks already", hint="remove some")
            subnet = self._subnet(wanted.subnet, number)
            made = Network(
                secrets.token_hex(32), number, wanted.name, str(subnet),
                str(_gateway(wanted.gateway, subnet)), wanted.internal, time.time_ns(),
                dict(wanted.labels), dict(wanted.options),
            )  # fmt: skip
            home = self._root / made.id
            home.mkdir(mode=0o700)
            files.atomic_write(home / _FACTS, json.dumps(asdict(made)).encode())
            self._known[made.id] = made
            return made

    def _subnet(self, text: str, number: int) -> IPv4Network:
        taken = [IPv4Network(item.subnet) for item in self._known.values()]
        routes = [route.destination for route in netlink.route_list()]
        if not text:
            return free_subnet([*routes, *taken], int(self._tag, 16) + number)
        try:
            wanted = IPv4Network(text)
        except ValueError as error:
            raise Invalid(f"invalid subnet '{text}': {error}", hint="like 10.7.0.0/16") from None
        if wanted.prefixlen > 29:
            raise Invalid(f"the subnet '{text}' is too small", hint="at most /29")
        busy = [net for net in (*taken, *routes) if net.prefixlen and net.overlaps(wanted)]
        if busy:
            raise Conflict(
                f"Pool overlaps with other one on this address space: '{wanted}' and '{busy[0]}'"
            )
        return wanted

    def remove(self, network: Network) -> None:
        """Take it off the host and forget it."""
        with self._lock:
            links = self.links(network)
            links.destroy()
            del self._known[network.id], self._links[network.id]
            files.remove_tree(self._root / network.id)

    # -- instances --------------------------------------------------------------------------------

    def release(self, instance_id: str) -> None:
        """Give back every address and port of an instance; none is fine."""
        for network in self.all():
            links = self.links(network)
            links.unpublish(instance_id)
            links.release(instance_id)

    def repair(self, live_ids: Collection[str]) -> None:
        """Remove what belongs to no live instance, in every network."""
        for network in self.all():
            self.links(network).repair(live_ids)

    def rest(self) -> None:
        """Take all of them off the host, which has no instance now; they stay known."""
        for network in self.all():
            self.links(network).destroy()


def _shape(network: Network, tag: str) -> Shape:
    return Shape(
        bridge=f"pn{tag}-{network.number:02x}",
        prefix=f"p{network.number:02x}{tag}-",
        table=f"proa_{tag}_{network.number:02x}",
        subnet=IPv4Network(network.subnet),
        gateway=IPv4Address(network.gateway),
        internal=network.internal,
    )


def _gateway(text: str, subnet: IPv4Network) -> IPv4Address:
    if not text:
        return subnet.network_address + 1
    with suppress(ValueError):
        wanted = IPv4Address(text)
        if wanted in subnet and wanted not in (subnet.network_address, subnet.broadcast_address):
            return wanted
    raise Invalid(f"'{text}' cannot be the gateway of '{subnet}'")


def facts(network: Network) -> dict[str, Any]:
    """As data."""
    return asdict(network)
