"""Holding ports of the host, their record, and the firewall's words for them."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from proa.errors import Conflict, Invalid
from proa.network.dns import parse
from proa.network.firewall import element, packed
from proa.network.ports import Mapping, Record, hold
from proa.spec import Port


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_a_free_port_is_found_and_held(protocol: str) -> None:
    address, number, holder = hold(Port(80, protocol, "127.0.0.1"))
    with holder:
        assert address == "127.0.0.1"
        assert number > 1023
        with pytest.raises(Conflict, match=rf"port is already allocated: '127.0.0.1:{number}'"):
            hold(Port(80, protocol, "127.0.0.1", number))
        with pytest.raises(Conflict):
            hold(Port(80, protocol, "", number))


def test_a_listening_server_is_a_conflict() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, pytest.raises(Conflict):
        hold(Port(80, host_port=server.getsockname()[1]))


@pytest.mark.parametrize(
    ("port", "said"),
    [
        (Port(80, "sctp"), "protocol 'sctp'"),
        (Port(0), "'0' is not a port"),
        (Port(80, host_port=65536), "'65536' is not a port"),
        (Port(80, host_address="example"), "cannot publish on 'example'"),
        (Port(80, host_address="203.0.113.9"), "is not an address of this host"),
    ],
)
def test_bad_requests(port: Port, said: str) -> None:
    with pytest.raises(Invalid, match=said):
        hold(port)


def test_record_survives_and_forgives(tmp_path: Path) -> None:
    rows = [Mapping("tcp", "0.0.0.0", 8080, "10.0.0.2", 80)]
    record = Record(tmp_path)
    record.save("a", rows)
    assert Record(tmp_path).load("a") == rows
    assert record.owners() == ["a"]
    (tmp_path / "broken").write_text('[{"port": 1}]')
    assert record.load("broken") == []
    assert record.load("missing") == []
    record.remove("a")
    record.remove("a")


def test_elements_in_words_and_bytes() -> None:
    anywhere = Mapping("tcp", "0.0.0.0", 8080, "10.0.0.2", 80)
    assert element(anywhere) == "any_port { tcp . 8080 : 10.0.0.2 . 80 }"
    assert packed(anywhere).key == b"\x06\0\0\0" + b"\x1f\x90\0\0"
    assert packed(anywhere).value == b"\x0a\0\0\x02" + b"\0\x50\0\0"
    local = Mapping("udp", "127.0.0.1", 53, "10.0.0.2", 53)
    assert element(local) == "one_port { 127.0.0.1 . udp . 53 : 10.0.0.2 . 53 }"
    assert packed(local).map == "one_port"
    assert packed(local).key == b"\x7f\0\0\x01" + b"\x11\0\0\0" + b"\0\x35\0\0"


def test_name_servers_only_the_host_reaches_are_left_out() -> None:
    text = "# a\nnameserver 127.0.0.53\nnameserver 10.1.1.1\nnameserver fd00::1\nnameserver x\n"
    assert parse(text) == ("10.1.1.1",)
