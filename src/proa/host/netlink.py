"""Interfaces, addresses and routes through rtnetlink, without a subprocess.

Every function opens its own socket (a few microseconds), so all are safe in any thread.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import struct
from dataclasses import dataclass
from ipaddress import IPv4Interface, IPv4Network

from proa.errors import HostError
from proa.host import nlmsg
from proa.host.nlmsg import attribute, attributes

_NEWLINK, _DELLINK, _GETLINK = 16, 17, 18
_NEWADDR, _GETROUTE = 20, 26

_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MASTER = 1, 3, 10
_IFLA_LINKINFO, _IFLA_NET_NS_PID = 18, 19
_INFO_KIND, _INFO_DATA, _INFO_SLAVE_KIND, _INFO_SLAVE_DATA = 1, 2, 4, 5
_VETH_PEER = 1
_BR_FORWARD_DELAY, _BR_STP = 1, 5
_BRPORT_HAIRPIN = 4
_IFA_ADDRESS, _IFA_LOCAL = 1, 2
_RTA_DST, _RTA_OIF, _RTA_GATEWAY = 1, 4, 5
_IFF_UP = 1

_TUNSETIFF = 0x400454CA
_IFF_TAP, _IFF_NO_PI, _IFF_VNET_HDR = 0x2, 0x1000, 0x4000


@dataclass(frozen=True)
class Interface:
    """One network interface of this network namespace."""

    index: int
    name: str
    kind: str
    mac: str
    master: int
    up: bool


@dataclass(frozen=True)
class Route:
    """One IPv4 route, of any table; `gateway` is empty for a direct one."""

    destination: IPv4Network
    gateway: str
    interface: int


# -- requests -------------------------------------------------------------------------------------


def _link_header(*, index: int = 0, flags: int = 0, change: int = 0) -> bytes:
    return struct.pack("=BxHiII", socket.AF_UNSPEC, 0, index, flags, change)


def _mac_bytes(mac: str) -> bytes:
    return bytes.fromhex(mac.replace(":", ""))


def _request(kind: int, flags: int, payload: bytes, what: str) -> None:
    sequence = nlmsg.next_sequence()
    request = nlmsg.message(kind, flags | nlmsg.ACK, sequence, payload)
    try:
        nlmsg.exchange(nlmsg.ROUTE, request, sequence)
    except OSError as error:
        raise HostError(f"cannot {what}: {error.strerror}") from error


def _dump(kind: int, payload: bytes, what: str) -> list[bytes]:
    sequence = nlmsg.next_sequence()
    request = nlmsg.message(kind, nlmsg.DUMP, sequence, payload)
    try:
        return nlmsg.exchange(nlmsg.ROUTE, request, sequence)
    except OSError as error:
        raise HostError(f"cannot {what}: {error.strerror}") from error


# -- interfaces -----------------------------------------------------------------------------------


def index_of(name: str) -> int:
    """The number of an interface; HostError when there is none of that name."""
    try:
        return socket.if_nametoindex(name)
    except OSError as error:
        raise HostError(f"no interface '{name}'") from error


def exists(name: str) -> bool:
    """Whether there is an interface of that name."""
    try:
        socket.if_nametoindex(name)
    except OSError:
        return False
    return True


def link_list() -> list[Interface]:
    """Every interface."""
    return [_interface(body) for body in _dump(_GETLINK, _link_header(), "list interfaces")]


def _interface(body: bytes) -> Interface:
    _, _, index, flags, _ = struct.unpack_from("=BxHiII", body)
    found = attributes(body[16:])
    master = found.get(_IFLA_MASTER)
    kind = attributes(found.get(_IFLA_LINKINFO, b"")).get(_INFO_KIND, b"")
    return Interface(
        index=index,
        name=found.get(_IFLA_IFNAME, b"").rstrip(b"\0").decode(errors="replace"),
        kind=kind.rstrip(b"\0").decode(errors="replace"),
        mac=found.get(_IFLA_ADDRESS, b"").hex(":"),
        master=struct.unpack("=I", master)[0] if master else 0,
        up=bool(flags & _IFF_UP),
    )


def bridge_create(name: str, *, mac: str = "") -> None:
    """A bridge without spanning tree or forwarding delay, up.  HostError when the name is taken."""
    data = attribute(_BR_STP, 0) + attribute(_BR_FORWARD_DELAY, 0)
    info = attribute(_INFO_KIND, "bridge") + attribute(_INFO_DATA, data)
    payload = _link_header(flags=_IFF_UP, change=_IFF_UP) + attribute(_IFLA_IFNAME, name)
    if mac:  # a set address stays when ports come and go
        payload += attribute(_IFLA_ADDRESS, _mac_bytes(mac))
    payload += attribute(_IFLA_LINKINFO, info)
    _request(_NEWLINK, nlmsg.CREATE | nlmsg.EXCLUSIVE, payload, f"create bridge '{name}'")


def veth_create(host_name: str, peer_name: str, pid: int, bridge: str, *, mac: str = "") -> None:
    """A veth pair in one message: this end up in `bridge`, the peer (with `mac`) where `pid` lives.

    An interface that still has the name, of a place being torn down, is deleted first.
    """
    far = _link_header() + attribute(_IFLA_IFNAME, peer_name) + attribute(_IFLA_NET_NS_PID, pid)
    if mac:
        far += attribute(_IFLA_ADDRESS, _mac_bytes(mac))
    info = attribute(_INFO_KIND, "veth") + attribute(_INFO_DATA, attribute(_VETH_PEER, far))
    payload = _link_header(flags=_IFF_UP, change=_IFF_UP) + attribute(_IFLA_IFNAME, host_name)
    payload += attribute(_IFLA_MASTER, index_of(bridge))
    payload += attribute(_IFLA_LINKINFO, info)
    what = f"create interface '{host_name}'"
    try:
        _request(_NEWLINK, nlmsg.CREATE | nlmsg.EXCLUSIVE, payload, what)
    except HostError as error:
        if not (_is_errno(error, errno.EEXIST) and link_delete(host_name)):
            raise
        _request(_NEWLINK, nlmsg.CREATE | nlmsg.EXCLUSIVE, payload, what)
    _hairpin(host_name)


def _hairpin(name: str) -> None:
    """Let a bridge port send back what came in by it: an instance reaching its own published port.

    Needed where br_netfilter rewrites frames in the bridge.
    """
    data = attribute(_BRPORT_HAIRPIN, b"\1")
    info = attribute(_INFO_SLAVE_KIND, "bridge") + attribute(_INFO_SLAVE_DATA, data)
    payload = _link_header() + attribute(_IFLA_IFNAME, name) + attribute(_IFLA_LINKINFO, info)
    _request(_NEWLINK, 0, payload, f"set up bridge port '{name}'")


def _is_errno(error: HostError, number: int) -> bool:
    return isinstance(error.__cause__, OSError) and error.__cause__.errno == number


def link_delete(name: str) -> bool:
    """Delete an interface (a veth takes its peer along); False when there was none."""
    payload = _link_header() + attribute(_IFLA_IFNAME, name)
    try:
        _request(_DELLINK, 0, payload, f"delete interface '{name}'")
    except HostError as error:
        if _is_errno(error, errno.ENODEV):
            return False
        raise
    return True


def link_up(name: str, *, bridge: str = "") -> None:
    """Bring an interface up, in a bridge when one is named."""
    payload = _link_header(index=index_of(name), flags=_IFF_UP, change=_IFF_UP)
    if bridge:
        payload += attribute(_IFLA_MASTER, index_of(bridge))
    _request(_NEWLINK, 0, payload, f"bring interface '{name}' up")
    if bridge:
        _hairpin(name)


def link_rename(name: str, new_name: str) -> None:
    """Give an interface another name; it is down afterwards."""
    index = index_of(name)
    _request(_NEWLINK, 0, _link_header(index=index, change=_IFF_UP), f"bring '{name}' down")
    payload = _link_header(index=index) + attribute(_IFLA_IFNAME, new_name)
    _request(_NEWLINK, 0, payload, f"rename interface '{name}' to '{new_name}'")


def link_retire(name: str, new_name: str) -> None:
    """Take an interface out of its bridge, down, under another name."""
    link_rename(name, new_name)
    payload = _link_header(index=index_of(new_name)) + attribute(_IFLA_MASTER, 0)
    _request(_NEWLINK, 0, payload, f"take interface '{new_name}' from its bridge")


def tap_open(name: str, bridge: str, *, vnet_hdr: bool = True) -> int:
    """A tap interface, up in `bridge`, that lives as long as the descriptor returned."""
    flags = _IFF_TAP | _IFF_NO_PI | (_IFF_VNET_HDR if vnet_hdr else 0)
    try:
        fd = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise HostError(f"cannot open '/dev/net/tun': {error.strerror}") from error
    try:
        fcntl.ioctl(fd, _TUNSETIFF, struct.pack("16sH22x", name.encode(), flags))
        link_up(name, bridge=bridge)
    except OSError as error:
        os.close(fd)
        raise HostError(f"cannot create interface '{name}': {error.strerror}") from error
    except BaseException:
        os.close(fd)
        raise
    return fd


# -- addresses and routes -------------------------------------------------------------------------


def address_add(name: str, address: str) -> None:
    """Give an interface the IPv4 address `a.b.c.d/prefix`; one it has already is fine."""
    parsed = IPv4Interface(address)
    prefix = parsed.network.prefixlen
    payload = struct.pack("=BBBBI", socket.AF_INET, prefix, 0, 0, index_of(name))
    for kind in (_IFA_LOCAL, _IFA_ADDRESS):
        payload += attribute(kind, parsed.packed)
    what = f"add address '{address}' to interface '{name}'"
    _request(_NEWADDR, nlmsg.CREATE | nlmsg.REPLACE, payload, what)


def route_list() -> list[Route]:
    """Every IPv4 route, those of local addresses included."""
    header = struct.pack("=BBBBBBBBI", socket.AF_INET, 0, 0, 0, 0, 0, 0, 0, 0)
    return [_route(body) for body in _dump(_GETROUTE, header, "list routes")]


def _route(body: bytes) -> Route:
    prefix = body[1]
    found = attributes(body[12:])
    gateway = found.get(_RTA_GATEWAY)
    out = found.get(_RTA_OIF)
    return Route(
        destination=IPv4Network((found.get(_RTA_DST, b"\0" * 4), prefix), strict=False),
        gateway=socket.inet_ntoa(gateway) if gateway else "",
        interface=struct.unpack("=I", out)[0] if out else 0,
    )
