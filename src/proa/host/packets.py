"""Hearing that somebody calls an interface, without taking part: a packet socket with a filter."""

from __future__ import annotations

import ctypes
import socket
import struct
from collections.abc import Sequence
from ipaddress import IPv4Address

from proa.errors import HostError

ETH_P_ALL, ETH_P_ARP = 0x0003, 0x0806
SO_ATTACH_FILTER = 26
LOAD_HALF, LOAD_WORD, IF_EQUAL, RETURN = 0x28, 0x20, 0x15, 0x06  # classic BPF, linux/filter.h
Instruction = tuple[int, int, int, int]


def listen(interface: str, mac: str, address: str) -> socket.socket:
    """Readable once a frame goes to this MAC, or an ARP request for this address, by `interface`.

    What everybody is told (other broadcasts) is not heard.  Raises HostError.
    """
    made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0)
    try:
        _attach(made, program(mac, address))  # before it is bound: nothing else gets in
        made.bind((interface, ETH_P_ALL))
    except OSError as error:
        made.close()
        raise HostError(f"cannot listen at '{interface}': {error.strerror}") from error
    return made


def program(mac: str, address: str) -> tuple[Instruction, ...]:
    """The filter: offsets are those of an Ethernet header and of ARP for IPv4 in it."""
    wanted = bytes.fromhex(mac.replace(":", ""))
    high, low = struct.unpack(">HI", wanted)
    return (
        (LOAD_HALF, 0, 0, 12),
        (IF_EQUAL, 4, 0, ETH_P_ARP),
        (LOAD_HALF, 0, 0, 0),
        (IF_EQUAL, 0, 5, high),
        (LOAD_WORD, 0, 0, 2),
        (IF_EQUAL, 2, 3, low),
        (LOAD_WORD, 0, 0, 38),
        (IF_EQUAL, 0, 1, int(IPv4Address(address))),
        (RETURN, 0, 0, 64),
        (RETURN, 0, 0, 0),
    )


def _attach(listener: socket.socket, instructions: Sequence[Instruction]) -> None:
    code = b"".join(struct.pack("HBBI", *item) for item in instructions)
    buffer = ctypes.create_string_buffer(code, len(code))
    pointer = ctypes.addressof(buffer)
    packed = struct.pack("HxxxxxxP", len(instructions), pointer)
    listener.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, packed)
