"""Netlink's messages: packing, sending, and reading the answers.

Every exchange opens its own socket (a few microseconds), so all are safe in any thread.
"""

from __future__ import annotations

import os
import socket
import struct
from itertools import count

ROUTE, NETFILTER = 0, 12  # protocols
REQUEST, ACK, DUMP = 1, 4, 0x300
REPLACE, EXCLUSIVE, CREATE = 0x100, 0x200, 0x400
NESTED = 0x8000  # flag of an attribute that holds attributes

_ERROR, _DONE = 2, 3
_FLAG_CAPPED, _FLAG_EXPLAINED = 0x100, 0x200  # of an acknowledgement
_SOL_NETLINK, _OPTION_CAPPED, _OPTION_EXPLAINED = 270, 10, 11
_HEADER = struct.Struct("=IHHII")  # length, kind, flags, sequence, port

_sequence = count(1)


def next_sequence() -> int:
    """A number for a request and its answers."""
    return next(_sequence) & 0xFFFFFFFF


def attribute(kind: int, data: bytes | str | int) -> bytes:
    """One padded attribute; text gets its NUL, a number is 32 bits of the host's order."""
    if isinstance(data, str):
        data = data.encode() + b"\0"
    elif isinstance(data, int):
        data = struct.pack("=I", data)
    size = 4 + len(data)
    return struct.pack("=HH", size, kind) + data + b"\0" * (-size % 4)


def attributes(data: bytes) -> dict[int, bytes]:
    """The attributes in `data` by number, flags dropped."""
    found: dict[int, bytes] = {}
    offset = 0
    while offset + 4 <= len(data):
        size, kind = struct.unpack_from("=HH", data, offset)
        if size < 4:
            break
        found[kind & 0x3FFF] = data[offset + 4 : offset + size]
        offset += (size + 3) & ~3
    return found


def message(kind: int, flags: int, sequence: int, payload: bytes) -> bytes:
    """One message; payloads are padded already."""
    size = _HEADER.size + len(payload)
    return _HEADER.pack(size, kind, flags | REQUEST, sequence, 0) + payload


def exchange(protocol: int, request: bytes, sequence: int) -> list[bytes]:
    """Send messages that share a number; what is answered up to the acknowledgement.

    Raises the OSError the kernel answers with, its explanation in the text.
    """
    kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC
    with socket.socket(socket.AF_NETLINK, kind, protocol) as opened:
        for option in (_OPTION_CAPPED, _OPTION_EXPLAINED):
            opened.setsockopt(_SOL_NETLINK, option, 1)
        opened.send(request)
        answers: list[bytes] = []
        while _read(opened.recv(1 << 18), sequence, answers):
            pass
    return answers


def _read(data: bytes, sequence: int, answers: list[bytes]) -> bool:
    """Take the answers out of one datagram; False at the end."""
    offset = 0
    while offset + _HEADER.size <= len(data):
        size, kind, flags, number, _ = _HEADER.unpack_from(data, offset)
        body = data[offset + _HEADER.size : offset + size]
        offset += (size + 3) & ~3
        if number != sequence:
            continue
        if kind in (_ERROR, _DONE):
            _check(body, flags)
            return False
        answers.append(body)
    return True


def _check(body: bytes, flags: int) -> None:
    code = struct.unpack_from("=i", body)[0] if len(body) >= 4 else 0
    if code >= 0:
        return
    text = os.strerror(-code)
    if flags & _FLAG_EXPLAINED and flags & _FLAG_CAPPED:
        said = attributes(body[20:]).get(1, b"").rstrip(b"\0").decode(errors="replace")
        text = f"{text} ({said})" if said else text
    raise OSError(-code, text)
