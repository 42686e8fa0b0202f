"""Choosing a subnet and handing out its addresses."""

from __future__ import annotations

from ipaddress import IPv4Network
from pathlib import Path

import pytest

from proa.errors import NoSpace
from proa.network.addresses import Leases, free_subnet, mac_of

SUBNET = IPv4Network("10.99.0.0/29")  # 10.99.0.2 to 10.99.0.6


def test_subnet_avoids_routes_but_not_the_default_one() -> None:
    first = free_subnet([IPv4Network("0.0.0.0/0")], 0)
    assert first == IPv4Network("10.64.0.0/16")
    assert free_subnet([IPv4Network("10.64.3.0/24")], 0) == IPv4Network("10.65.0.0/16")
    assert free_subnet([IPv4Network("10.0.0.0/8")], 0) == IPv4Network("172.16.0.0/16")


def test_subnet_differs_by_engine() -> None:
    assert len({free_subnet([], int(tag, 16)) for tag in ("abc123", "abc124", "000001")}) == 3


def test_subnet_small_ranges_come_last_and_end() -> None:
    most = [IPv4Network("10.0.0.0/8"), IPv4Network("172.16.0.0/12")]
    assert free_subnet(most, 5) == IPv4Network("192.168.0.0/20")
    with pytest.raises(NoSpace):
        free_subnet([*most, IPv4Network("192.168.0.0/16")], 5)


def test_mac_is_local_unicast_and_of_the_address() -> None:
    mac = mac_of("10.99.1.2")
    assert mac == "2e:50:0a:63:01:02"
    assert int(mac[:2], 16) & 3 == 2


def test_lease_is_stable_and_survives_a_restart(tmp_path: Path) -> None:
    leases = Leases(tmp_path)
    address = leases.take("one", SUBNET)
    assert str(address) == "10.99.0.2"
    assert leases.take("one", SUBNET) == address
    again = Leases(tmp_path)
    assert again.take("two", SUBNET) != address
    assert again.take("one", SUBNET) == address


def test_addresses_are_not_reused_at_once_and_never_twice(tmp_path: Path) -> None:
    leases = Leases(tmp_path)
    first = leases.take("a", SUBNET)
    leases.give_back("a")
    leases.give_back("a")
    assert leases.take("b", SUBNET) != first
    given = {leases.take(name, SUBNET) for name in "bcdef"}
    assert len(given) == 5
    with pytest.raises(NoSpace, match="no free address"):
        leases.take("g", SUBNET)
    leases.give_back("c")
    assert leases.take("g", SUBNET) not in {leases.take(name, SUBNET) for name in "bdef"}


def test_broken_lease_files_are_nobodys(tmp_path: Path) -> None:
    (tmp_path / "half").write_text("10.99.")
    assert Leases(tmp_path).owners() == {}
    assert list(tmp_path.iterdir()) == []


def test_a_lease_of_another_subnet_is_renewed(tmp_path: Path) -> None:
    leases = Leases(tmp_path)
    leases.take("a", IPv4Network("10.88.0.0/24"))
    assert leases.take("a", SUBNET) in SUBNET
