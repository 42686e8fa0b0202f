"""Packing of netlink messages."""

from __future__ import annotations

import struct

from proa.host import nlmsg


def test_attributes_round_trip() -> None:
    data = nlmsg.attribute(3, "eth0") + nlmsg.attribute(4, 1500) + nlmsg.attribute(1, b"\x02abc")
    assert len(data) % 4 == 0
    found = nlmsg.attributes(data)
    assert found == {3: b"eth0\0", 4: struct.pack("=I", 1500), 1: b"\x02abc"}


def test_nested_flag_is_dropped() -> None:
    inner = nlmsg.attribute(1, 7)
    assert nlmsg.attributes(nlmsg.attribute(18 | nlmsg.NESTED, inner)) == {18: inner}


def test_a_broken_attribute_ends_the_list() -> None:
    assert nlmsg.attributes(b"\0\0\1\0" + nlmsg.attribute(1, 1)) == {}
    assert nlmsg.attributes(b"\1") == {}


def test_message_header() -> None:
    packed = nlmsg.message(16, nlmsg.ACK, 9, b"abcd")
    assert struct.unpack_from("=IHHII", packed) == (20, 16, nlmsg.ACK | nlmsg.REQUEST, 9, 0)
