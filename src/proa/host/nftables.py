"""Elements of nftables maps, added and deleted by netlink.

Tables are installed by the `nft` program, once; this is for what happens at every start.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Sequence
from dataclasses import dataclass

from proa.errors import Conflict, HostError
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


def add_elements(table: str, elements: Sequence[Element]) -> None:
    """Add to maps of an IPv4 table, all or none; the very same element there already is fine.

    Raises Conflict for a key that leads elsewhere already.
    """
    try:
        _transact(_NEW_ELEMENT, nlmsg.CREATE, table, elements)
    except HostError as error:
        if isinstance(error.__cause__, OSError) and error.__cause__.errno == errno.EEXIST:
            raise Conflict(f"a key of a map in table '{table}' is taken") from error
        raise


def delete_elements(table: str, elements: Sequence[Element]) -> None:
    """Delete from maps of an IPv4 table; what is not there, or no such table, is fine.

    Takes the kernel some 10 ms (an RCU grace period), whatever their number.
    """
    try:
        _transact(_DELETE_ELEMENT, 0, table, elements)
    except HostError as error:
        if not (isinstance(error.__cause__, OSError) and error.__cause__.errno == errno.ENOENT):
            raise
        if len(elements) > 1:  # one missing element undid the others
            for element in elements:
                delete_elements(table, [element])


def _header(resource: int) -> bytes:
    return struct.pack("!BBH", _FAMILY_IPV4, 0, resource)


def _payload(table: str, element: Element) -> bytes:
    key = attribute(_ELEMENT_KEY | NESTED, attribute(_VALUE, element.key))
    data = attribute(_ELEMENT_DATA | NESTED, attribute(_VALUE, element.value))
    elements = attribute(_ITEM | NESTED, key + data)
    named = attribute(_LIST_TABLE, table) + attribute(_LIST_SET, element.map)
    return _header(0) + named + attribute(_LIST_ELEMENTS | NESTED, elements)


def _transact(kind: int, flags: int, table: str, elements: Sequence[Element]) -> None:
    """One message per element between a batch's begin and end.

    All share a number and only the last asks for an acknowledgement, so the first answer, good or
    bad, is that of the whole.
    """
    if not elements:
        return
    sequence = nlmsg.next_sequence()
    request = [nlmsg.message(_BATCH_BEGIN, 0, sequence, _header(_SUBSYSTEM))]
    for element in elements:
        last = nlmsg.ACK if element is elements[-1] else 0
        request.append(nlmsg.message(kind, flags | last, sequence, _payload(table, element)))
    request.append(nlmsg.message(_BATCH_END, 0, sequence, _header(_SUBSYSTEM)))
    try:
        nlmsg.exchange(nlmsg.NETFILTER, b"".join(request), sequence)
    except OSError as error:
        raise HostError(f"cannot change the maps of table '{table}': {error.strerror}") from error
