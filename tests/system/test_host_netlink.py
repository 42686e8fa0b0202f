"""Interfaces by rtnetlink on the real kernel."""

from __future__ import annotations

import os
import secrets
import subprocess
import time
from collections.abc import Iterator
from ipaddress import IPv4Network
from pathlib import Path

import pytest

from proa.errors import HostError
from proa.host import netlink
from tests.conftest import need


@pytest.fixture
def bridge() -> Iterator[str]:
    need(os.geteuid() == 0, "root", "interfaces need root")
    name = f"pt{secrets.token_hex(4)}"
    netlink.bridge_create(name, mac="2e:50:00:00:00:01")
    yield name
    netlink.link_delete(name)


@pytest.fixture
def other() -> Iterator[int]:
    """The pid of a process in a network namespace of its own."""
    holder = subprocess.Popen(["unshare", "--net", "sleep", "300"])
    ours = Path("/proc/self/ns/net").readlink()
    while Path(f"/proc/{holder.pid}/ns/net").readlink() == ours:
        time.sleep(0.005)
    yield holder.pid
    holder.kill()
    holder.wait()


def found(name: str) -> netlink.Interface | None:
    return next((link for link in netlink.link_list() if link.name == name), None)


def test_bridge_with_address_and_route(bridge: str) -> None:
    made = found(bridge)
    assert made is not None
    assert (made.kind, made.mac, made.up) == ("bridge", "2e:50:00:00:00:01", True)
    for _ in range(2):
        netlink.address_add(bridge, "198.18.7.1/24")
    routes = [route for route in netlink.route_list() if route.interface == made.index]
    assert IPv4Network("198.18.7.0/24") in {route.destination for route in routes}
    with pytest.raises(HostError, match=f"cannot create bridge '{bridge}': File exists"):
        netlink.bridge_create(bridge)


def test_veth_joins_bridge_and_namespace_and_replaces_a_stale_one(bridge: str, other: int) -> None:
    host = f"{bridge}-v"
    for _ in range(2):
        netlink.veth_create(host, "eth0", other, bridge, mac="2e:50:00:00:00:02")
    here, master = found(host), found(bridge)
    assert here is not None and master is not None
    assert (here.kind, here.master, here.up) == ("veth", master.index, True)
    command = ["nsenter", "-t", str(other), "-n", "ip", "-o", "link", "show", "eth0"]
    assert b"2e:50:00:00:00:02" in subprocess.run(command, check=True, capture_output=True).stdout
    assert netlink.link_delete(host)
    assert not netlink.link_delete(host)
    assert not netlink.exists(host)


def test_tap_lives_as_long_as_its_descriptor(bridge: str) -> None:
    name = f"{bridge}-t"
    fd = netlink.tap_open(name, bridge)
    made, master = found(name), found(bridge)
    assert made is not None and master is not None
    assert (made.kind, made.master, made.up) == ("tun", master.index, True)
    with pytest.raises(HostError, match=f"cannot create interface '{name}'"):
        netlink.tap_open(name, bridge)
    os.close(fd)
    assert not netlink.exists(name)


def test_errors_name_the_interface_and_leave_nothing(bridge: str) -> None:
    with pytest.raises(HostError, match="no interface 'nowhere'"):
        netlink.tap_open(f"{bridge}-t", "nowhere")
    assert not netlink.exists(f"{bridge}-t")
    with pytest.raises(HostError, match=r"cannot create interface '.*': No such process"):
        netlink.veth_create(f"{bridge}-v", "eth0", 4_000_000, bridge)
    with pytest.raises(HostError, match="cannot create interface 'far-too-long-a-name'"):
        netlink.veth_create("far-too-long-a-name", "eth0", os.getpid(), bridge)
    with pytest.raises(HostError, match="no interface 'nowhere'"):
        netlink.address_add("nowhere", "198.18.7.1/24")
