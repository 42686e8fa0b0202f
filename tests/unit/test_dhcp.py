"""DHCP answers, and what a hostile machine may send."""

from __future__ import annotations

import struct
from ipaddress import IPv4Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proa.network import dhcp
from proa.resources import Link

LINK = Link("eth0", "pvtap", "proa-x", "2e:50:0a:40:00:05", "10.64.0.5/16", "10.64.0.1", 1400)
MAC = bytes.fromhex("2e500a400005")
OTHER = bytes.fromhex("2e500a400006")
NAMES = ("10.0.0.53", "10.0.0.54")
MINE = IPv4Address("10.64.0.5").packed
GATEWAY = IPv4Address("10.64.0.1").packed
Options = dict[int, bytes]


def ask(kind: int, options: Options | None = None, mac: bytes = MAC, flags: int = 0) -> bytes:
    """A client's frame."""
    head = struct.pack("!BBBBIHH16x16s192x4s", 1, 1, 6, 0, 77, 0, flags, mac, b"\x63\x82\x53\x63")
    extra = {53: bytes([kind]), **(options or {})}
    body = head + b"".join(bytes([k, len(v)]) + v for k, v in extra.items()) + b"\xff"
    udp = struct.pack("!HHHH", 68, 67, 8 + len(body), 0) + body
    ip = struct.pack("!BBHHHBBH4x4s", 0x45, 0, 20 + len(udp), 0, 0, 64, 17, 0, b"\xff" * 4)
    return b"\xff" * 6 + mac + b"\x08\x00" + ip + udp


def told(frame: bytes) -> tuple[bytes, Options] | None:
    """The address given and the options, or silence."""
    request = dhcp.parse(frame)
    answer = dhcp.answer(request, LINK, NAMES) if request else None
    if answer is None:
        return None
    assert answer[:6] == MAC
    assert sum(struct.unpack("!10H", answer[14:34])) % 0xFFFF == 0  # the header's checksum
    assert struct.unpack("!HH", answer[34:38]) == (67, 68)
    message = answer[42:]
    assert message[0] == 2
    assert message[4:8] == struct.pack("!I", 77)
    options: Options = {}
    rest = message[240:]
    while rest[0] != 255:
        options[rest[0]], rest = rest[2 : 2 + rest[1]], rest[2 + rest[1] :]
    return message[16:20], options


def test_a_lease_is_offered_and_given_for_ever() -> None:
    for kind, answered in ((dhcp.DISCOVER, dhcp.OFFER), (dhcp.REQUEST, dhcp.ACK)):
        found = told(ask(kind, {50: MINE}))
        assert found is not None
        assert found[0] == MINE
        assert found[1][53] == bytes([answered])
        assert found[1][1] == b"\xff\xff\0\0"
        assert found[1][3] == found[1][54] == GATEWAY
        assert found[1][6] == bytes((10, 0, 0, 53, 10, 0, 0, 54))
        assert found[1][26] == struct.pack("!H", 1400)
        assert found[1][51] == b"\xff" * 4


def test_another_address_is_refused_and_other_machines_hear_nothing() -> None:
    found = told(ask(dhcp.REQUEST, {50: IPv4Address("10.64.0.9").packed}))
    assert found is not None
    assert (found[0], found[1][53]) == (bytes(4), bytes([dhcp.NAK]))
    assert told(ask(dhcp.DISCOVER, mac=OTHER)) is None
    assert told(ask(dhcp.REQUEST, {54: IPv4Address("10.64.0.2").packed})) is None


def test_information_alone_comes_without_an_address() -> None:
    found = told(ask(dhcp.INFORM))
    assert found is not None
    assert found[0] == bytes(4)
    assert 51 not in found[1]


@pytest.mark.parametrize("kind", [0, 4, 7, 9, 255])
def test_other_kinds_are_passed_over(kind: int) -> None:
    assert told(ask(kind)) is None


@given(st.binary(max_size=1600))
def test_any_bytes(data: bytes) -> None:
    told(data)
    told(ask(dhcp.DISCOVER)[:42] + data)


@given(st.integers(0, 400), st.binary(min_size=1, max_size=8))
def test_any_damage(at: int, damage: bytes) -> None:
    frame = ask(dhcp.REQUEST, {50: MINE})
    request = dhcp.parse(frame[:at] + damage + frame[at + len(damage) :])
    if request is not None:
        dhcp.answer(request, LINK, NAMES)


def test_cut_off_anywhere() -> None:
    frame = ask(dhcp.DISCOVER, {12: b"host"})
    for length in range(len(frame)):
        told(frame[:length])
