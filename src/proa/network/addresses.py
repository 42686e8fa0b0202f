"""Which subnet an engine uses and which address an instance gets.

A lease is a file named after the instance, holding its address: written whole or not at all, and
all there is to read back after a crash.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from proa.errors import Conflict, Invalid, NoSpace
from proa.host import files

_MAC_PREFIX = "2e:50"  # locally administered, unicast; the address follows
_FIRST_OFFSET = 2  # 0 is the network, 1 the gateway

# Private ranges, cut into subnets of this prefix length, in the order they are tried.
_RANGES = (("10.64.0.0/10", 16), ("10.128.0.0/9", 16), ("172.16.0.0/12", 16))
_SMALL_RANGES = (("192.168.0.0/16", 20), ("10.0.0.0/10", 20))


def _candidates(start: int) -> Iterator[IPv4Network]:
    """Large subnets, beginning at the `start`th so that engines differ, then small ones."""
    large = [net for text, size in _RANGES for net in IPv4Network(text).subnets(new_prefix=size)]
    turn = start % len(large)
    yield from large[turn:]
    yield from large[:turn]
    for text, size in _SMALL_RANGES:
        yield from IPv4Network(text).subnets(new_prefix=size)


def free_subnet(routes: Iterable[IPv4Network], start: int) -> IPv4Network:
    """A private subnet that none of the host's routes (but the default one) touches."""
    taken = [route for route in routes if route.prefixlen]
    for subnet in _candidates(start):
        if not any(subnet.overlaps(route) for route in taken):
            return subnet
    raise NoSpace("the host's routes cover every private subnet", hint="remove a route")


def mac_of(address: str) -> str:
    """The hardware address that belongs to an IPv4 address."""
    return f"{_MAC_PREFIX}:{IPv4Address(address).packed.hex(':')}"


class Leases:
    """The addresses in use in one subnet, kept in `directory`.  The caller locks."""

    def __init__(self, directory: Path, reserved: Iterable[IPv4Address] = ()) -> None:
        self._directory = directory
        self._reserved = frozenset(reserved)
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._by_owner = dict(self._read())
        self._used = set(self._by_owner.values())
        self._last = _FIRST_OFFSET - 1

    def _read(self) -> Iterator[tuple[str, IPv4Address]]:
        for path in self._directory.iterdir():
            try:
                yield path.name, IPv4Address(path.read_text(encoding="ascii").strip())
            except ValueError:  # a temporary or foreign file is nobody's lease
                path.unlink(missing_ok=True)

    def owners(self) -> dict[str, IPv4Address]:
        """Every lease."""
        return dict(self._by_owner)

    def of(self, owner: str) -> IPv4Address | None:
        """The lease of `owner`, if it has one."""
        return self._by_owner.get(owner)

    def take(self, owner: str, subnet: IPv4Network, wanted: str = "") -> IPv4Address:
        """The address of `owner`, the same at every call until it is given back.

        Raises Invalid or Conflict when it cannot be the one that is `wanted`.
        """
        held = self._by_owner.get(owner)
        if held is not None and held in subnet:
            return held
        self.give_back(owner)
        address = self._asked(wanted, subnet) if wanted else self._free(subnet)
        files.atomic_write(self._directory / owner, str(address).encode())
        self._by_owner[owner] = address
        self._used.add(address)
        return address

    def _asked(self, text: str, subnet: IPv4Network) -> IPv4Address:
        try:
            address = IPv4Address(text)
        except ValueError:
            raise Invalid(f"'{text}' is not an IPv4 address") from None
        ends = (subnet.network_address, subnet.network_address + 1, subnet.broadcast_address)
        if address not in subnet or address in ends or address in self._reserved:
            raise Invalid(f"no instance can have '{text}' in '{subnet}'")
        if address in self._used:
            raise Conflict(f"Address already in use: '{text}'")
        return address

    def _free(self, subnet: IPv4Network) -> IPv4Address:
        """The next free address after the last one given, so that none is reused at once."""
        end = subnet.num_addresses - 1
        count = end - _FIRST_OFFSET
        for step in range(1, count + 1):
            offset = _FIRST_OFFSET + (self._last - _FIRST_OFFSET + step) % count
            address = subnet.network_address + offset
            if address not in self._used and address not in self._reserved:
                self._last = offset
                return address
        raise NoSpace(f"no free address in '{subnet}'", hint="remove some instances")

    def give_back(self, owner: str) -> None:
        """Forget a lease; none is fine."""
        address = self._by_owner.pop(owner, None)
        if address is not None:
            self._used.discard(address)
            (self._directory / owner).unlink(missing_ok=True)
