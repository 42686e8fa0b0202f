"""The bridged network on the real kernel: who reaches whom, and what is left afterwards."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from proa.errors import Conflict
from proa.host import netlink
from proa.network.service import Networks
from proa.resources import Link
from proa.spec import Port
from tests.conftest import need

# Answers every TCP connection and datagram on port 80 with who asked.
_SERVER = """
import socket, threading
tcp = socket.create_server(("", 80))
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
udp.bind(("", 80))
def datagrams():
    while True:
        _, peer = udp.recvfrom(100)
        udp.sendto(peer[0].encode(), peer)
threading.Thread(target=datagrams, daemon=True).start()
print("up", flush=True)
while True:
    connection, peer = tcp.accept()
    connection.sendall(peer[0].encode())
    connection.close()
"""
_ASK = """
import socket, sys
try:
    with socket.create_connection((sys.argv[1], int(sys.argv[2])), 2) as connection:
        print(connection.recv(100).decode())
except OSError as error:
    print("no:", type(error).__name__)
"""


def run(*argv: str) -> str:
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout.strip()


@dataclass
class Node:
    """A network namespace plugged like an instance."""

    id: str
    holder: subprocess.Popen[bytes]
    link: Link

    @property
    def address(self) -> str:
        return self.link.address.partition("/")[0]

    def run(self, *argv: str) -> str:
        return run("nsenter", "-t", str(self.holder.pid), "-n", *argv)

    def ask(self, address: str, port: int) -> str:
        return self.run(sys.executable, "-c", _ASK, address, str(port))

    def serve(self) -> subprocess.Popen[str]:
        command = ["nsenter", "-t", str(self.holder.pid), "-n", sys.executable, "-c", _SERVER]
        server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert server.stdout is not None and server.stdout.readline() == "up\n"
        return server


@pytest.fixture
def tag() -> str:
    need(os.geteuid() == 0, "root", "networks need root")
    need(shutil.which("nft"), "nft", "'nft' is not installed")
    return secrets.token_hex(3)


@pytest.fixture
def networks(tag: str, tmp_path: Path) -> Iterator[Networks]:
    made = Networks(tmp_path / "network", tag)
    yield made
    made.destroy()


@pytest.fixture
def nodes(networks: Networks) -> Iterator[tuple[Node, Node]]:
    made = [plug(networks, letter * 64) for letter in "ab"]
    server = made[0].serve()
    yield made[0], made[1]
    server.kill()
    server.wait()
    for node in made:
        node.holder.kill()
        node.holder.wait()


def plug(networks: Networks, instance_id: str) -> Node:
    holder = subprocess.Popen(["unshare", "--net", "sleep", "300"])
    ours = Path("/proc/self/ns/net").readlink()
    while Path(f"/proc/{holder.pid}/ns/net").readlink() == ours:
        time.sleep(0.005)
    link = networks.link(instance_id)
    netlink.veth_create(link.host_name, link.name, holder.pid, link.bridge, mac=link.mac)
    node = Node(instance_id, holder, link)
    for command in (
        "ip link set lo up",
        f"ip address add {link.address} dev eth0",
        "ip link set eth0 up",
        f"ip route add default via {link.gateway}",
    ):
        node.run(*command.split())
    return node


def ask(address: str, port: int) -> str:
    return run(sys.executable, "-c", _ASK, address, str(port))


def ask_udp(address: str, port: int) -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(2)
        client.sendto(b"?", (address, port))
        return client.recv(100).decode()


def own_address() -> str:
    """An address of this host that is neither loopback nor a bridge's."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))
        return str(probe.getsockname()[0])


def test_link_is_stable_and_complete(networks: Networks, tag: str) -> None:
    link = networks.link("a" * 64)
    assert networks.link("a" * 64) == link
    assert link.bridge == f"proa-{tag}"
    assert link.host_name.startswith(f"pv{tag}-")
    assert len(link.host_name) <= 15
    assert networks.link("b" * 64).address != link.address
    networks.release("a" * 64)
    networks.release("a" * 64)


def test_host_and_instances_reach_each_other(nodes: tuple[Node, Node]) -> None:
    a, b = nodes
    assert ask(a.address, 80) == a.link.gateway
    assert b.ask(a.address, 80) == b.address


def test_published_port_answers_everywhere(networks: Networks, nodes: tuple[Node, Node]) -> None:
    a, b = nodes
    [published] = networks.publish(a.id, a.address, [Port(80)])
    port = published.host_port
    assert port > 1023
    assert ask("127.0.0.1", port) == a.link.gateway
    assert ask(own_address(), port) != "no: ConnectionRefusedError"
    assert ask(a.link.gateway, port) == a.link.gateway
    assert b.ask(a.link.gateway, port) == a.link.gateway
    assert b.ask(own_address(), port) == a.link.gateway
    assert a.ask(a.link.gateway, port) == a.link.gateway, "an instance reaches its own port"
    networks.unpublish(a.id)
    os.close(published.holder_fd)
    assert ask("127.0.0.1", port).startswith("no:")
    networks.unpublish(a.id)


def test_published_on_one_address_is_closed_on_others(
    networks: Networks, nodes: tuple[Node, Node]
) -> None:
    a, b = nodes
    [published] = networks.publish(a.id, a.address, [Port(80, host_address="127.0.0.1")])
    assert ask("127.0.0.1", published.host_port) == a.link.gateway
    assert ask(own_address(), published.host_port).startswith("no:")
    assert b.ask(a.link.gateway, published.host_port).startswith("no:")
    os.close(published.holder_fd)


def test_udp(networks: Networks, nodes: tuple[Node, Node]) -> None:
    a, _ = nodes
    [published] = networks.publish(a.id, a.address, [Port(80, "udp")])
    assert ask_udp("127.0.0.1", published.host_port) == a.link.gateway
    os.close(published.holder_fd)


def test_a_port_in_use_publishes_nothing(networks: Networks, nodes: tuple[Node, Node]) -> None:
    a, b = nodes
    before = len(os.listdir("/proc/self/fd"))
    with socket.create_server(("127.0.0.1", 0)) as server:
        taken = server.getsockname()[1]
        with pytest.raises(Conflict, match=rf"already allocated: '127.0.0.1:{taken}'"):
            networks.publish(a.id, a.address, [Port(80), Port(80, "tcp", "127.0.0.1", taken)])
    [first] = networks.publish(a.id, a.address, [Port(80)])
    with pytest.raises(Conflict):
        networks.publish(b.id, b.address, [Port(80, host_port=first.host_port)])
    assert ask("127.0.0.1", first.host_port) == a.link.gateway
    os.close(first.holder_fd)
    assert len(os.listdir("/proc/self/fd")) == before


def test_the_hosts_loopback_is_closed_to_instances(nodes: tuple[Node, Node]) -> None:
    """CVE-2020-8558: route_localnet must not let an instance reach 127.0.0.1 of the host."""
    _, b = nodes
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("0.0.0.0", 0))
        server.settimeout(1)
        port = server.getsockname()[1]
        send = f"import socket;s=socket.socket(2,2);s.sendto(b'x',('{{}}',{port}))"
        b.run(sys.executable, "-c", send.format(b.link.gateway))
        assert server.recvfrom(10)[1][0] == b.address, "the way as such is open"
        b.run("sysctl", "-qw", "net.ipv4.conf.all.route_localnet=1")
        b.run("ip", "route", "del", "local", "127.0.0.0/8", "dev", "lo", "table", "local")
        b.run("ip", "route", "del", "local", "127.0.0.1", "dev", "lo", "table", "local")
        b.run("ip", "route", "add", "127.0.0.1", "via", b.link.gateway)
        b.run(sys.executable, "-c", send.format("127.0.0.1"))
        with pytest.raises(TimeoutError):
            server.recvfrom(10)


def test_a_foreign_source_address_is_dropped(nodes: tuple[Node, Node]) -> None:
    _, b = nodes
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("0.0.0.0", 0))
        server.settimeout(0.5)
        port = server.getsockname()[1]
        b.run("ip", "address", "add", "203.0.113.7/32", "dev", "eth0")
        send = (
            "import socket;s=socket.socket(2,2);s.bind(('203.0.113.7',0));"
            f"s.sendto(b'x',('{b.link.gateway}',{port}))"
        )
        b.run(sys.executable, "-c", send)
        with pytest.raises(TimeoutError):
            server.recvfrom(10)


def test_repair_keeps_the_living_and_removes_the_rest(
    networks: Networks, nodes: tuple[Node, Node], tmp_path: Path, tag: str
) -> None:
    a, b = nodes
    [kept] = networks.publish(a.id, a.address, [Port(80)])
    [lost] = networks.publish(b.id, b.address, [Port(80)])
    again = Networks(tmp_path / "network", tag)  # as after the engine was killed
    again.repair([a.id])
    assert ask("127.0.0.1", kept.host_port) == a.link.gateway
    assert again.link(a.id) == a.link
    assert netlink.exists(a.link.host_name)
    assert not netlink.exists(b.link.host_name)
    os.close(lost.holder_fd)
    assert ask("127.0.0.1", lost.host_port) == "no: ConnectionRefusedError"
    os.close(kept.holder_fd)


def test_repair_of_an_engine_without_a_network_makes_none(networks: Networks) -> None:
    networks.repair([])
    assert not netlink.exists(networks.bridge)


def test_many_at_once(networks: Networks) -> None:
    """Threads take links, plug and publish together; nobody gets what another has."""
    holder = subprocess.Popen(["unshare", "--net", "sleep", "300"])
    ours = Path("/proc/self/ns/net").readlink()
    while Path(f"/proc/{holder.pid}/ns/net").readlink() == ours:
        time.sleep(0.005)

    def start(number: int) -> tuple[Link, int]:
        link = networks.link(f"{number:064x}")
        netlink.veth_create(link.host_name, f"e{number}", holder.pid, link.bridge)
        address = link.address.partition("/")[0]
        [published] = networks.publish(f"{number:064x}", address, [Port(80)])
        os.close(published.holder_fd)
        return link, published.host_port

    try:
        with ThreadPoolExecutor(8) as pool:
            made = list(pool.map(start, range(40)))
        assert len({link.address for link, _ in made}) == 40
        assert len({link.host_name for link, _ in made}) == 40
        plugged = {found.name for found in netlink.link_list()}
        assert {link.host_name for link, _ in made} <= plugged
        assert len(networks.published(f"{7:064x}")) == 1
    finally:
        holder.kill()
        holder.wait()


# In a network namespace where iptables drops all that is forwarded, as Docker sets it up: an
# instance reaches a machine beyond the host, and its published port answers that machine.
_BEHIND_A_DROPPING_HOST = """
import os, subprocess, sys, time
from pathlib import Path
sys.path[:0] = sys.argv[2:4]
from proa.network.service import Networks
from proa.spec import Port
from tests.system import test_network_real as tools
def sh(line): subprocess.run(line, shell=True, check=True)
sh("ip link set lo up; iptables -P FORWARD DROP")
beyond = subprocess.Popen(["unshare", "--net", "sleep", "100"])
time.sleep(0.3)
sh(f"ip link add out type veth peer name in netns {beyond.pid}")
sh("ip address add 203.0.113.1/24 dev out; ip link set out up")
enter = f"nsenter -t {beyond.pid} -n "
sh(enter + "ip address add 203.0.113.9/24 dev in; " + enter + "ip link set in up")
networks = Networks(Path(sys.argv[1]), "d0d0d0")
node = tools.plug(networks, "a" * 64)
servers = [node.serve(), tools.Node("", beyond, node.link).serve()]
[published] = networks.publish(node.id, node.address, [Port(80)])
print("out", node.ask("203.0.113.9", 80))
there = tools.Node("", beyond, node.link)
print("in", there.ask("203.0.113.1", published.host_port))
sh(enter + f"ip route add default via 203.0.113.1")
print("direct", there.ask(node.address, 80))
networks.destroy()
print("left", tools.run("iptables", "-S", "FORWARD"))
for process in (*servers, node.holder, beyond):
    process.kill()
"""


def test_a_host_that_drops_what_it_forwards(tmp_path: Path, tag: str) -> None:
    need(shutil.which("iptables"), "iptables", "'iptables' is not installed")
    root = Path(__file__).parents[2]
    source = str(Path(netlink.__file__).parents[2])
    said = run(
        "unshare", "--net", sys.executable, "-c", _BEHIND_A_DROPPING_HOST,
        str(tmp_path / "network"), source, str(root),
    )  # fmt: skip
    assert said.splitlines() == [
        "out 203.0.113.1",
        "in 203.0.113.9",
        "direct no: TimeoutError",
        "left -P FORWARD DROP",
    ]


def test_engines_side_by_side_do_not_meet(networks: Networks, tmp_path: Path) -> None:
    other = Networks(tmp_path / "other", secrets.token_hex(3))
    try:
        first, second = networks.link("a" * 64), other.link("a" * 64)
        assert first.gateway != second.gateway
        assert first.host_name != second.host_name
    finally:
        other.destroy()
    assert netlink.exists(networks.bridge)


def test_destroy_leaves_nothing(networks: Networks, nodes: tuple[Node, Node], tag: str) -> None:
    networks.destroy()
    networks.destroy()
    assert tag not in run("nft", "list", "ruleset")
    assert not [link.name for link in netlink.link_list() if tag in link.name]
