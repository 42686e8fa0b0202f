"""Elements of nftables maps, added and deleted by one netlink message each.

Tables are installed by the `nft` program, once; this is for what happens at every start.
"""

from __future__ import annotations

import errno
import struct
from dataclasses import dataclass

from proa.errors import HostError
from proa.host import nlmsg
from proa.host.nlmsg import NESTED, attribute

_BATCH_BEGIN, _BATCH_END = 0x10, 0x11
_SUBSYSTEM = 10
_NEW_ELEMENT, _DELETE_ELEMENT = _SUBSYSTEM << 8 | 12, _SUBSYSTEM << 8 | 14
_FAMILY_IPV4 = 2
_LIST_TABLE, _LIST_SET, _LIST_ELEMENTS = 1, 2, 3
_ELEMENT_KEY, _ELEMENT_DATA = 1, 2
_ITEM = _VALUE = 1


@dataclass(frozen=True)
class Element:
    """One element: key and value as the kernel stores them, every part padded to 32 bits."""

    map: str
    key: bytes
    value: bytes


def add_element(table: str, element: Element) -> None:
    """Add to a map of an IPv4 table; the very same element there already is fine."""
    payload = _payload(table, element)
    _transact(_NEW_ELEMENT, nlmsg.CREATE, payload, f"add to map '{table} {element.map}'")


def delete_element(table: str, element: Element) -> None:
    """Delete from a map of an IPv4 table; nothing there, or no such table, is fine."""
    what = f"delete from map '{table} {element.map}'"
    try:
        _transact(_DELETE_ELEMENT, 0, _payload(table, element), what)
    except HostError as error:
        if not (isinstance(error.__cause__, OSError) and error.__cause__.errno == errno.ENOENT):
            raise


def _header(resource: int) -> bytes:
    return struct.pack("!BBH", _FAMILY_IPV4, 0, resource)


def _payload(table: str, element: Element) -> bytes:
    key = attribute(_ELEMENT_KEY | NESTED, attribute(_VALUE, element.key))
    data = attribute(_ELEMENT_DATA | NESTED, attribute(_VALUE, element.value))
    elements = attribute(_ITEM | NESTED, key + data)
    named = attribute(_LIST_TABLE, table) + attribute(_LIST_SET, element.map)
    return _header(0) + named + attribute(_LIST_ELEMENTS | NESTED, elements)


def _transact(kind: int, flags: int, payload: bytes, what: str) -> None:
    """One message between a batch's begin and end; all share a number, so any error is seen."""
    sequence = nlmsg.next_sequence()
    request = (
        nlmsg.message(_BATCH_BEGIN, 0, sequence, _header(_SUBSYSTEM))
        + nlmsg.message(kind, flags | nlmsg.ACK, sequence, payload)
        + nlmsg.message(_BATCH_END, 0, sequence, _header(_SUBSYSTEM))
    )
    try:
        nlmsg.exchange(nlmsg.NETFILTER, request, sequence)
    except OSError as error:
        raise HostError(f"cannot {what}: {error.strerror}") from error
