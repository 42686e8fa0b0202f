"""Addresses for systems that ask for theirs: DHCP (RFC 2131, 2132), no more than it takes.

Each machine is answered on its own tap, by a packet socket: whoever sits at a tap gets the address
of that link and no other, a host's firewall or DHCP server is not concerned, and a flood of
requests concerns nobody else.  Leases are for ever: an address belongs to a link, not to time.
"""

from __future__ import annotations

import ctypes
import logging
import os
import selectors
import socket
import struct
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface

from proa.errors import HostError
from proa.network.addresses import mac_of
from proa.resources import Link

FRAME_MAXIMUM = 1514
PAUSE_SECONDS = 0.05  # after an answer, before the same link is heard again
FOREVER_SECONDS = 0xFFFFFFFF
_BUFFER_BYTES = 16 << 10
_COOKIE = b"\x63\x82\x53\x63"
_LEAST_BYTES = 300  # of an answer: older clients want that (RFC 1542, 2.1)
_BOOTP = struct.Struct("!BBBBIHH4s4s4s4s16s64x128x4s")
DISCOVER, OFFER, REQUEST, ACK, NAK, INFORM = 1, 2, 3, 5, 6, 8
_MASK, _ROUTER, _NAMES, _BROADCAST, _MTU = 1, 3, 6, 28, 26
_WANTED, _LEASE, _KIND, _SERVER, _END = 50, 51, 53, 54, 255
_ETH_P_ALL, _ETH_P_IP = 3, 0x0800
_SO_ATTACH_FILTER, _SOL_PACKET, _PACKET_IGNORE_OUTGOING = 26, 263, 23

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Request:
    """What of a client's message is looked at."""

    kind: int
    identity: int
    flags: int
    present: bytes  # the address it has, zeros for none
    mac: bytes
    wanted: bytes
    server: bytes


def parse(frame: bytes) -> Request | None:
    """A request to a server in an Ethernet frame; None for anything else or damaged."""
    if len(frame) < 42 or frame[12:14] != b"\x08\x00" or frame[14] >> 4 != 4 or frame[23] != 17:
        return None
    start = 14 + (frame[14] & 15) * 4
    if start < 34 or len(frame) < start + 8 or frame[start + 2 : start + 4] != b"\0\x43":
        return None
    message = frame[start + 8 :]
    if len(message) < _BOOTP.size:
        return None
    fields = _BOOTP.unpack_from(message)
    if fields[:3] != (1, 1, 6) or fields[12] != _COOKIE:
        return None
    options = _options(message[_BOOTP.size :])
    kind = options.get(_KIND, b"")
    if len(kind) != 1:
        return None
    wanted, server = options.get(_WANTED, b""), options.get(_SERVER, b"")
    return Request(kind[0], fields[4], fields[6], fields[7], fields[11][:6], wanted, server)


def _options(data: bytes) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    at = 0
    while at < len(data) and data[at] != _END:
        if data[at] == 0:
            at += 1
            continue
        length = data[at + 1] if at + 1 < len(data) else 0
        found.setdefault(data[at], data[at + 2 : at + 2 + length])
        at += 2 + length
    return found


def answer(request: Request, link: Link, nameservers: tuple[str, ...]) -> bytes | None:
    """The frame to send to the machine at the end of this link; None for silence."""
    mac, server = bytes.fromhex(link.mac.replace(":", "")), _server(link).packed
    mine = IPv4Interface(link.address)
    if request.mac != mac or request.server not in (b"", server):
        return None
    given = mine.ip.packed
    options = {_SERVER: server}
    if request.kind == REQUEST and (request.wanted or request.present) != given:
        return _frame(request, link, bytes(4), {_KIND: bytes([NAK]), **options})
    kind = {DISCOVER: OFFER, REQUEST: ACK, INFORM: ACK}.get(request.kind)
    if kind is None:
        return None
    names = b"".join(IPv4Address(name).packed for name in nameservers[:3])
    options |= {
        _MASK: mine.network.netmask.packed, _ROUTER: server if link.gateway else b"", _NAMES: names,
        _BROADCAST: mine.network.broadcast_address.packed, _MTU: struct.pack("!H", link.mtu),
    }  # fmt: skip
    if request.kind == INFORM:
        given = bytes(4)
    else:
        options[_LEASE] = struct.pack("!I", FOREVER_SECONDS)
    return _frame(request, link, given, {_KIND: bytes([kind]), **options})


def _server(link: Link) -> IPv4Address:
    """Who answers: the gateway; where there is none, whoever would be it."""
    return IPv4Address(link.gateway or IPv4Interface(link.address).network.network_address + 1)


def _frame(request: Request, link: Link, given: bytes, options: dict[int, bytes]) -> bytes:
    """Ethernet, IP and UDP around an answer, straight to the client's card."""
    server = _server(link).packed
    head = _BOOTP.pack(
        2, 1, 6, 0, request.identity, 0, request.flags, request.present, given, bytes(4), bytes(4),
        request.mac, _COOKIE,
    )  # fmt: skip
    body = b"".join(bytes([code, len(value)]) + value for code, value in options.items() if value)
    message = (head + body + bytes([_END])).ljust(_LEAST_BYTES, b"\0")
    target = b"\xff\xff\xff\xff" if request.flags & 0x8000 or not any(given) else given
    length = 8 + len(message)
    ports = struct.pack("!HHHH", 67, 68, length, 0)
    pseudo = server + target + struct.pack("!BBH", 0, 17, length)
    ports = ports[:6] + struct.pack("!H", _checksum(pseudo + ports + message) or 0xFFFF)
    ip = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + length, 0, 0, 64, 17, 0, server, target)
    ip = ip[:10] + struct.pack("!H", _checksum(ip)) + ip[12:]
    source = bytes.fromhex(mac_of(str(_server(link))).replace(":", ""))
    return request.mac + source + b"\x08\x00" + ip + ports + message


def _checksum(data: bytes) -> int:
    """The Internet's (RFC 1071)."""
    even: bytes = data + bytes(len(data) % 2)
    total: int = sum(struct.unpack(f"!{len(even) // 2}H", even))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


# -- the server ------------------------------------------------------------------------------------

# IPv4, UDP, no later fragment, to port 67; else nothing of the packet.
_FILTER = (
    (0x28, 0, 0, 12), (0x15, 0, 8, _ETH_P_IP), (0x30, 0, 0, 23), (0x15, 0, 6, 17),
    (0x28, 0, 0, 20), (0x45, 4, 0, 0x1FFF), (0xB1, 0, 0, 14), (0x48, 0, 0, 16),
    (0x15, 0, 1, 67), (0x06, 0, 0, FRAME_MAXIMUM), (0x06, 0, 0, 0),
)  # fmt: skip


def _listen(interface: str) -> socket.socket:
    """Hear requests that come in at an interface, and send there."""
    code = b"".join(struct.pack("HBBI", *row) for row in _FILTER)
    kept = ctypes.create_string_buffer(code, len(code))
    program = struct.pack("HL", len(_FILTER), ctypes.addressof(kept))
    listener = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0)
    try:
        listener.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER_BYTES)
        with suppress(OSError):  # before Linux 4.20: the filter alone
            listener.setsockopt(_SOL_PACKET, _PACKET_IGNORE_OUTGOING, 1)
        listener.bind((interface, _ETH_P_ALL))
    except OSError as error:
        listener.close()
        raise HostError(f"cannot listen at '{interface}': {error.strerror}") from error
    return listener


@dataclass
class _Tap:
    listener: socket.socket
    link: Link
    nameservers: tuple[str, ...]


class Server:
    """One thread that answers the machines behind any number of taps, until these are gone."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._lock = threading.Lock()
        self._resting: list[tuple[float, _Tap]] = []  # and until when
        self._thread: threading.Thread | None = None
        self._wake, self._woken = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)[::-1]
        self._selector.register(self._woken, selectors.EVENT_READ)

    def serve(self, link: Link, nameservers: tuple[str, ...]) -> None:
        """Answer at a link's tap from now on.  Raises HostError when there is none."""
        tap = _Tap(_listen(link.host_name), link, nameservers)
        with self._lock:
            self._resting.append((0.0, tap))
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="dhcp", daemon=True)
                self._thread.start()
        with suppress(BlockingIOError):
            os.write(self._wake, b"x")

    def _run(self) -> None:
        while True:
            for key, _ in self._selector.select(self._due()):
                if key.data is None:
                    os.read(self._woken, 4096)
                    continue
                self._selector.unregister(key.data.listener)
                if _heard(key.data):
                    with self._lock:
                        self._resting.append((time.monotonic() + PAUSE_SECONDS, key.data))

    def _due(self) -> float | None:
        """Listen again to those whose pause is over; seconds until the next one's is."""
        now = time.monotonic()
        with self._lock:
            for moment, tap in self._resting:
                if moment <= now:
                    self._selector.register(tap.listener, selectors.EVENT_READ, tap)
            self._resting = [item for item in self._resting if item[0] > now]
            return min((moment - now for moment, _ in self._resting), default=None)


def _heard(tap: _Tap) -> bool:
    """Answer one request; false when the tap is gone."""
    try:
        request = parse(tap.listener.recv(FRAME_MAXIMUM))
        reply = answer(request, tap.link, tap.nameservers) if request else None
        if reply:
            tap.listener.send(reply)
    except BlockingIOError:
        return True
    except OSError:
        tap.listener.close()
        return False
    return True
