"""The bridged network of one engine: a bridge, a subnet, a firewall table, and leases.

`tag` is six hexadecimal digits that tell engines on one host apart.  Interfaces are plugged by
the isolation and vanish with its place; this service only says what they are.  IPv4 only.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from proa.errors import Conflict, HostError, ProaError
from proa.host import files, netlink
from proa.network import dhcp, dns
from proa.network.addresses import Leases, free_subnet, mac_of
from proa.network.firewall import Firewall
from proa.network.ports import Mapping, Published, Record, hold
from proa.resources import Link
from proa.spec import Port

_SYSCTL = Path("/proc/sys/net")


@dataclass(frozen=True)
class Shape:
    """A network's names on the host, and what is fixed of it.

    Without a subnet a free one is chosen, and remembered; an `internal` one leads nowhere else.
    """

    bridge: str
    prefix: str
    table: str
    subnet: IPv4Network | None = None
    gateway: IPv4Address | None = None
    internal: bool = False


class Networks:
    """Links and published ports of one network's instances; safe to use from any thread.

    Without a shape it is the engine's own.
    """

    def __init__(self, root: Path, tag: str, shape: Shape | None = None) -> None:
        self._shape = shape or Shape(f"proa-{tag}", f"pv{tag}-", f"proa_{tag}")
        self.bridge, self._prefix = self._shape.bridge, self._shape.prefix
        self._tag = tag
        self._subnet_file = root / "subnet"
        reserved = {self._shape.gateway} if self._shape.gateway else set()
        self._leases = Leases(root / "leases", reserved)
        self._record = Record(root / "ports")
        self._firewall = Firewall(self._shape.table, self.bridge, self._shape.internal)
        self._addresses: dhcp.Server | None = None
        self._lock = threading.RLock()  # of addresses and the set-up; taken inside the next one
        self._ports_lock = threading.RLock()  # taking a port back is slow and must not delay links
        self._ready: IPv4Network | None = None

    # -- one instance ---------------------------------------------------------------------------

    def link(self, instance_id: str, name: str = "eth0", wanted: str = "") -> Link:
        """The interface of an instance, the same at every call until it is released.

        `wanted` is the address it shall have.  Raises Invalid or Conflict for one it cannot.
        """
        with self._lock:
            subnet = self.prepare()
            return self._link(self._leases.take(instance_id, subnet, wanted), subnet, name)

    def link_of(self, instance_id: str, name: str = "eth0") -> Link | None:
        """The interface an instance has now, if any; takes none."""
        with self._lock:
            address = self._leases.of(instance_id)
            return None if address is None else self._link(address, self.prepare(), name)

    def members(self) -> dict[str, IPv4Address]:
        """Instances with an address, by id."""
        with self._lock:
            return self._leases.owners()

    def _link(self, address: IPv4Address, subnet: IPv4Network, name: str) -> Link:
        return Link(
            name=name,
            host_name=f"{self._prefix}{int(address) - int(subnet.network_address):04x}",
            bridge=self.bridge,
            mac=mac_of(str(address)),
            address=f"{address}/{subnet.prefixlen}",
            gateway="" if self._shape.internal else str(self._gateway(subnet)),
        )

    def serve(self, link: Link) -> None:
        """Tell a system that asks for its address, in whichever network, while its tap is there."""
        with self._lock:
            self._addresses = self._addresses or dhcp.Server()
        self._addresses.serve(link, self.nameservers())

    def release(self, instance_id: str) -> None:
        """Give the address back; one never taken is fine."""
        with self._lock:
            self._leases.give_back(instance_id)

    def publish(self, instance_id: str, address: str, ports: Sequence[Port]) -> list[Published]:
        """Make ports of the instance at `address` reachable through the host's.

        All or none: raises Conflict for a port in use.  What was published before is taken back.
        """
        held = _hold_all(ports)
        rows = [Mapping(p.protocol, p.host_address, p.host_port, address, p.port) for p in held]
        try:
            with self._ports_lock:
                self.prepare()
                self.unpublish(instance_id)
                self._record.save(instance_id, rows)
                self._add(instance_id, rows)
        except BaseException:
            _close(held)
            with suppress(ProaError):
                self.unpublish(instance_id)
            raise
        return held

    def _add(self, instance_id: str, rows: Sequence[Mapping]) -> None:
        """Enter port maps.  Whoever had one of these ports is over, or we could not have bound it:
        its entry is only not taken back yet."""
        try:
            self._firewall.add(rows)
            return
        except Conflict:
            taken = {row.host for row in rows}
        for owner in set(self._record.owners()) - {instance_id}:
            theirs = self._record.load(owner)
            stale = [row for row in theirs if row.host in taken]
            if stale:
                self._firewall.remove(stale)
                self._record.save(owner, [row for row in theirs if row not in stale])
        self._firewall.add(rows)

    def unpublish(self, instance_id: str) -> None:
        """Take the instance's ports back; none is fine."""
        with self._ports_lock:
            rows = self._record.load(instance_id)
            if rows:
                self._firewall.remove(rows)
            self._record.remove(instance_id)

    def published(self, instance_id: str) -> list[Mapping]:
        """The ports of the host that lead to an instance now."""
        return self._record.load(instance_id)

    def counters(self, instance_id: str) -> tuple[int, int, int, int] | None:
        """Received and sent bytes and packets as the instance counts them; None without a link.

        Read at the host's end, whose directions are the other way round.
        """
        link = self.link_of(instance_id)
        if link is None:
            return None
        names = ("tx_bytes", "tx_packets", "rx_bytes", "rx_packets")
        directory = Path("/sys/class/net", link.host_name, "statistics")
        try:
            received, packets, sent, sent_packets = (
                int((directory / name).read_text(encoding="ascii")) for name in names
            )
        except OSError:
            return None
        return received, packets, sent, sent_packets

    def nameservers(self) -> tuple[str, ...]:
        """Name servers that instances can reach."""
        return dns.nameservers()

    # -- the network itself ---------------------------------------------------------------------

    def prepare(self) -> IPv4Network:
        """Make bridge and firewall unless this engine has done so; returns the subnet."""
        with self._lock:
            if self._ready is None:
                self._ready = self._set_up()
            return self._ready

    def _set_up(self) -> IPv4Network:
        subnet = self._subnet()
        if not netlink.exists(self.bridge):
            netlink.bridge_create(self.bridge, mac=mac_of(str(self._gateway(subnet))))
        netlink.address_add(self.bridge, f"{self._gateway(subnet)}/{subnet.prefixlen}")
        _sysctl("ipv4/ip_forward", "1")
        _sysctl(f"ipv4/conf/{self.bridge}/route_localnet", "1")  # for 127.0.0.1:port
        with suppress(HostError):  # a kernel without IPv6
            _sysctl(f"ipv6/conf/{self.bridge}/disable_ipv6", "1")
        self._firewall.install(subnet, self._mappings())
        return subnet

    def _gateway(self, subnet: IPv4Network) -> IPv4Address:
        return self._shape.gateway or subnet.network_address + 1

    def _subnet(self) -> IPv4Network:
        """The subnet chosen before, unless the host has begun to use it meanwhile."""
        if self._shape.subnet is not None:
            return self._shape.subnet
        with suppress(OSError, ValueError):
            chosen = IPv4Network(self._subnet_file.read_text(encoding="ascii").strip())
            if netlink.exists(self.bridge) or not _overlaps_routes(chosen):
                return chosen
        routes = [route.destination for route in netlink.route_list()]
        subnet = free_subnet(routes, int(self._tag, 16))
        files.atomic_write(self._subnet_file, str(subnet).encode())
        return subnet

    def _mappings(self) -> list[Mapping]:
        return [row for owner in self._record.owners() for row in self._record.load(owner)]

    # -- recovery and the end -------------------------------------------------------------------

    def repair(self, live_ids: Collection[str]) -> None:
        """Remove addresses, ports and interfaces of instances that are not among `live_ids`."""
        with self._ports_lock, self._lock:
            for owner in set(self._leases.owners()) - set(live_ids):
                self._leases.give_back(owner)
            for owner in set(self._record.owners()) - set(live_ids):
                self._record.remove(owner)
            if not netlink.exists(self.bridge):
                return
            self.prepare()
            self._firewall.replace(self._mappings())
            kept = {self.link(owner).host_name for owner in self._leases.owners()}
            self._delete_interfaces(kept)

    def _delete_interfaces(self, kept: Collection[str]) -> None:
        for found in netlink.link_list():
            if found.name.startswith(self._prefix) and found.name not in kept:
                netlink.link_delete(found.name)

    def destroy(self) -> None:
        """Remove everything from the host; instances lose their network."""
        with self._ports_lock, self._lock:
            for owner in self._leases.owners():
                self._leases.give_back(owner)
            for owner in self._record.owners():
                self._record.remove(owner)
            self._firewall.delete()
            self._delete_interfaces(())
            netlink.link_delete(self.bridge)
            self._subnet_file.unlink(missing_ok=True)
            self._ready = None


def _overlaps_routes(subnet: IPv4Network) -> bool:
    routes = (route.destination for route in netlink.route_list())
    return any(subnet.overlaps(route) for route in routes if route.prefixlen)


def _hold_all(ports: Sequence[Port]) -> list[Published]:
    held: list[Published] = []
    try:
        for port in ports:
            host_address, number, holder = hold(port)
            published = Published(port.port, port.protocol, host_address, number, holder.detach())
            held.append(published)
    except BaseException:
        _close(held)
        raise
    return held


def _close(held: Sequence[Published]) -> None:
    for published in held:
        os.close(published.holder_fd)


def _sysctl(name: str, value: str) -> None:
    """Set a network setting, unless it is so already."""
    path = _SYSCTL / name
    try:
        if path.read_text(encoding="ascii").strip() != value:
            path.write_text(value, encoding="ascii")
    except OSError as error:
        raise HostError(f"cannot set '{path}' to '{value}': {error.strerror}") from error
