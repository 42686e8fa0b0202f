"""Bodies and queries nobody should send: refused with the field's name, never a 500."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.api_server import Api

HOSTILE: list[tuple[Any, str]] = [
    (b"", "JSON"), (b"{", "JSON"), (b"null", "object"), (b"[]", "object"), (b'"x"', "object"),
    (b"NaN", "JSON"), (b"\xff\xfe", "JSON"), (b"[" * 100_000, "JSON"), (b"1" * 10_000, ""),
    ({"Cmd": 5}, "Cmd"), ({"Cmd": [5]}, "Cmd"), ({"Cmd": {"a": 1}}, "Cmd"),
    ({"Cmd": ["a\0b"]}, "Cmd"), ({"Env": "x", "Cmd": ["a"], "User": 7}, "User"),
    ({"Env": {"a": "b"}}, "Env"), ({"Env": [["a"]]}, "Env"), ({"Entrypoint": True}, "Entrypoint"),
    ({"WorkingDir": ["/"]}, "WorkingDir"), ({"Tty": "yes"}, "Tty"), ({"OpenStdin": 1}, "OpenStdin"),
    ({"Labels": ["a"]}, "Labels"), ({"Labels": {"a": 1}}, "Labels"),
    ({"HostConfig": []}, "HostConfig"), ({"HostConfig": "x"}, "HostConfig"),
    ({"HostConfig": {"Memory": "64m"}}, "Memory"), ({"HostConfig": {"Memory": 1e30}}, "Memory"),
    ({"HostConfig": {"Memory": 2**70}}, "Memory"), ({"HostConfig": {"NanoCpus": True}}, "NanoCpus"),
    ({"HostConfig": {"Binds": "a:b"}}, ""), ({"HostConfig": {"Binds": [1]}}, "Binds"),
    ({"HostConfig": {"Mounts": {"a": 1}}}, "Mounts"), ({"HostConfig": {"Mounts": ["x"]}}, "Mounts"),
    ({"HostConfig": {"Tmpfs": ["/x"]}}, "Tmpfs"), ({"HostConfig": {"Tmpfs": {"/x": 1}}}, "Tmpfs"),
    ({"HostConfig": {"PortBindings": ["80"]}}, "PortBindings"),
    ({"HostConfig": {"PortBindings": {"80/tcp": {"HostPort": "1"}}}}, "80/tcp"),
    ({"HostConfig": {"PortBindings": {"80/tcp": [{"HostPort": 80}]}}}, "HostPort"),
    ({"HostConfig": {"PortBindings": {"http": []}}}, "http"),
    ({"HostConfig": {"CapAdd": "NET_ADMIN"}}, ""), ({"HostConfig": {"CapAdd": [1]}}, "CapAdd"),
    ({"HostConfig": {"CapAdd": ["NO_SUCH"]}}, "NO_SUCH"),
    ({"HostConfig": {"Ulimits": [5]}}, "Ulimits"),
    ({"HostConfig": {"Ulimits": [{"Name": "nofile", "Soft": "x"}]}}, "Soft"),
    ({"HostConfig": {"Sysctls": {"kernel.core_pattern": "|x"}}}, "core_pattern"),
    ({"HostConfig": {"Isolation": 5}}, "Isolation"),
    ({"HostConfig": {"NetworkMode": 5}}, "NetworkMode"),
    ({"HostConfig": {"ExtraHosts": [5]}}, "ExtraHosts"), ({"HostConfig": {"Dns": [{}]}}, "Dns"),
    ({"HostConfig": {"ShmSize": "64m"}}, "ShmSize"),
    ({"HostConfig": {"AutoRemove": "x"}}, "AutoRemove"),
    ({"HostConfig": {"RestartPolicy": 5}}, "RestartPolicy"), ({"Hostname": "a b"}, "a b"),
    ({"StopSignal": 9}, "StopSignal"), ({"StopTimeout": "x"}, "StopTimeout"),
]  # fmt: skip


@pytest.mark.parametrize(("body", "named"), HOSTILE)
def test_hostile_create_bodies_are_400_and_name_the_field(api: Api, body: Any, named: str) -> None:
    if isinstance(body, dict):
        body = {"Image": "tiny", "Cmd": ["echo"]} | body
    got = api("POST", "/containers/create", body)
    if named:
        assert got.status == 400, got.body
        assert named in got.message
    assert got.status in (201, 400)


@pytest.mark.parametrize("image", [5, True, ["tiny"], {"a": 1}, "a\0b", "", None])
def test_hostile_image_names(api: Api, image: Any) -> None:
    got = api("POST", "/containers/create", {"Image": image, "Cmd": ["echo"]})
    assert got.status in (400, 404) and got.message


@pytest.mark.parametrize(
    "target",
    [
        "/containers/json?filters={",
        "/containers/json?filters=[1]",
        '/containers/json?filters={"label":5}',
        '/containers/json?filters={"label":[5]}',
        "/containers/json?limit=x",
        "/containers/one/logs",
        "/containers/one/logs?stdout=1&since=tuesday",
        "/containers/one/archive",
        "/containers/one/archive?path=%00",
        "/events?since=x",
        '/events?filters={"colour":["red"]}',
        '/images/json?filters={"dangling":["maybe"]}',
        "/system/df?type=dreams",
    ],
)
def test_hostile_queries_are_400(api: Api, target: str) -> None:
    api.create("echo")
    assert api("GET", target).status == 400


@pytest.mark.parametrize("size", ["", "h=1", "h=-1&w=1", "h=99999&w=1", "h=x&w=1"])
def test_terminal_sizes_are_checked(api: Api, size: str) -> None:
    api.create("echo")
    assert api("POST", f"/containers/one/resize?{size}").status == 400
