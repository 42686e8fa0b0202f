"""One network for both: published ports, addresses, no network at all."""

from __future__ import annotations

import socket
import urllib.request

import pytest

from tests.support.http import ApiError
from tests.support.instances import Instance, Place, eventually

SERVE = "echo hello from $(hostname) >/srv/index.html; exec httpd -f -p 8080 -h /srv"


def serve(place: Place, **binding: str) -> Instance:
    """A web server with port 8080 published."""
    bindings = {"8080/tcp": [{"HostPort": ""} | binding]}
    return place.start(
        "busy", "sh", "-c", SERVE, ExposedPorts={"8080/tcp": {}}, host={"PortBindings": bindings}
    )


def port_of(instance: Instance) -> int:
    """The host port it got."""
    return int(instance.inspect()["NetworkSettings"]["Ports"]["8080/tcp"][0]["HostPort"])


def fetch(address: str, port: int) -> str:
    """The page, once it answers."""

    def attempt() -> str:
        try:
            with urllib.request.urlopen(f"http://{address}:{port}/", timeout=5) as page:
                return str(page.read().decode())
        except OSError:
            return ""

    return str(eventually(attempt, 20, f"nothing answers at {address}:{port}"))


def free_port() -> int:
    """A port nobody has at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_a_published_port_answers(place: Place) -> None:
    instance = serve(place)
    port = port_of(instance)
    assert instance.id[:12] in fetch("127.0.0.1", port)
    instance.stop(0)
    with pytest.raises(OSError):
        urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=2)


def test_a_chosen_port_and_address(place: Place) -> None:
    port = free_port()
    instance = serve(place, HostIp="127.0.0.1", HostPort=str(port))
    assert port_of(instance) == port
    assert instance.id[:12] in fetch("127.0.0.1", port)


def test_it_answers_at_its_own_address(place: Place) -> None:
    instance = serve(place)
    address = instance.inspect()["NetworkSettings"]["IPAddress"]
    assert instance.id[:12] in fetch(address, 8080)


def test_instances_reach_each_other(place: Place) -> None:
    instance = serve(place)
    address = instance.inspect()["NetworkSettings"]["IPAddress"]
    fetch(address, 8080)
    result = place.run("busy", "wget", "-q", "-O", "-", f"http://{address}:8080/")
    assert instance.id[:12] in result.stdout


def test_a_port_in_use_is_refused(place: Place) -> None:
    with socket.socket() as holder:
        holder.bind(("0.0.0.0", 0))
        holder.listen()
        port = holder.getsockname()[1]
        with pytest.raises(ApiError) as refusal:
            serve(place, HostPort=str(port))
    assert str(port) in refusal.value.message
    assert not place.made[-1].state()["Running"]


def test_an_address_and_a_route_of_its_own(place: Place) -> None:
    script = "ip -o -4 addr show dev eth0; ip route; cat /sys/class/net/eth0/address"
    instance = place.start("busy", "sleep", "1000")
    settings = instance.inspect()["NetworkSettings"]
    output = instance.exec("sh", "-c", script).stdout
    assert f"{settings['IPAddress']}/{settings['IPPrefixLen']}" in output
    assert f"default via {settings['Gateway']}" in output
    assert settings["MacAddress"] in output


def test_two_instances_have_two_addresses(place: Place) -> None:
    pair = [place.start("busy", "sleep", "1000").inspect()["NetworkSettings"] for _ in range(2)]
    assert pair[0]["IPAddress"] != pair[1]["IPAddress"]
    assert pair[0]["MacAddress"] != pair[1]["MacAddress"]


def test_no_network(place: Place) -> None:
    result = place.run(
        "busy",
        "sh",
        "-c",
        "ls /sys/class/net; ip route; ping -c1 127.0.0.1",
        host={"NetworkMode": "none"},
    )
    assert result.code == 0
    assert "eth0" not in result.stdout
    assert "default" not in result.stdout


def test_host_and_a_service_on_it(place: Place) -> None:
    """Outgoing connections leave through the gateway."""
    instance = place.start("busy", "sleep", "1000")
    gateway = instance.inspect()["NetworkSettings"]["Gateway"]
    with socket.create_server((gateway, 0)) as server:
        server.settimeout(10)
        port = server.getsockname()[1]
        identity = instance.exec_create("nc", gateway, str(port), "-w", "5")
        instance.api.call("POST", f"/exec/{identity}/start", {"Detach": True})
        connection, peer = server.accept()
        connection.close()
    assert peer[0] == instance.inspect()["NetworkSettings"]["IPAddress"]
