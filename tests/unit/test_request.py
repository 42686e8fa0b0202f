"""From Docker's create body to a Spec."""

from __future__ import annotations

from typing import Any

import pytest

from proa.engine.request import merge, merge_environment
from proa.errors import Invalid, ProaError, Unsupported
from proa.spec import Mount, Port, Spec

IMAGE = {
    "Entrypoint": ["/entry"],
    "Cmd": ["default"],
    "Env": ["PATH=/bin", "A=image"],
    "User": "www",
    "WorkingDir": "/srv",
    "Volumes": {"/data": {}},
    "ExposedPorts": {"80/tcp": {}},
    "Labels": {"a": "image", "b": "image"},
}
ID = "0123456789abcdef" * 4


def spec(body: dict[str, Any], host: dict[str, Any] | None = None, image: Any = None) -> Spec:
    full = {"Image": "web", **body, "HostConfig": host or {}}
    return merge(full, IMAGE if image is None else image, ID)


@pytest.mark.parametrize(
    ("body", "arguments"),
    [
        ({}, ("/entry", "default")),
        ({"Cmd": ["x"]}, ("/entry", "x")),
        ({"Entrypoint": ["/other"]}, ("/other",)),
        ({"Entrypoint": ["/other"], "Cmd": ["y"]}, ("/other", "y")),
        ({"Entrypoint": [""], "Cmd": ["sh"]}, ("sh",)),
        ({"Entrypoint": [], "Cmd": ["sh"]}, ("sh",)),
        ({"Entrypoint": "/one"}, ("/one",)),
    ],
)
def test_command_is_merged_as_docker_does(body: dict[str, Any], arguments: tuple[str, ...]) -> None:
    assert spec(body).process.arguments == arguments


def test_no_command_is_refused() -> None:
    with pytest.raises(Invalid, match="no command"):
        spec({}, image={})
    with pytest.raises(Invalid, match="no command"):
        spec({"Entrypoint": [""]})


def test_the_image_gives_defaults() -> None:
    made = spec({"Env": ["A=mine", "B=1"], "Labels": {"b": "mine"}})
    assert made.process.environment == ("PATH=/bin", "A=mine", "B=1")
    assert (made.process.user, made.process.directory) == ("www", "/srv")
    assert made.labels == {"a": "image", "b": "mine"}
    assert made.hostname == ID[:12]
    assert made.mounts == (Mount("volume", "", "/data"),)
    assert made.isolation == "container"


def test_environment_without_value_removes() -> None:
    assert merge_environment(("A=1", "B=2"), ("A",)) == ("B=2",)


def test_ports_and_publish_all() -> None:
    bindings = {"8080/udp": [{"HostIp": "127.0.0.1", "HostPort": "53"}]}
    assert spec({}, {"PortBindings": bindings}).ports == (Port(8080, "udp", "127.0.0.1", 53),)
    everything = spec({}, {"PublishAllPorts": True, "PortBindings": bindings})
    assert Port(80) in everything.ports


def test_mounts() -> None:
    host = {
        "Binds": ["/host:/a:ro", "name:/b"],
        "Tmpfs": {"/t": "size=1m"},
        "Mounts": [{"Type": "bind", "Source": "/s", "Target": "/c/", "ReadOnly": True}],
    }
    assert set(spec({}, host).mounts) == {
        Mount("bind", "/host", "/a", True, make=True),
        Mount("volume", "name", "/b"),
        Mount("tmpfs", "", "/t", options="size=1m"),
        Mount("bind", "/s", "/c", True),
        Mount("volume", "", "/data"),
    }


@pytest.mark.parametrize(
    ("body", "host"),
    [
        ({"Cmd": 3}, {}),
        ({"Env": {"a": 1}}, {}),
        ({"Env": ["=x"]}, {}),
        ({"Hostname": "a b"}, {}),
        ({"Tty": "yes"}, {}),
        ({"Labels": {"a": 1}}, {}),
        ({}, {"Memory": "1g"}),
        ({}, {"Memory": 1000}),
        ({}, {"Memory": -1}),
        ({}, {"Memory": True}),
        ({}, {"NanoCpus": -1}),
        ({}, {"Binds": ["/a:/../b"]}),
        ({}, {"Binds": ["/a:b"]}),
        ({}, {"Binds": ["/a:/"]}),
        ({}, {"Binds": ["/a:/b:shiny"]}),
        ({}, {"Binds": ["../x:/b"]}),
        ({}, {"Binds": ["/a:/b", "/c:/b"]}),
        ({}, {"PortBindings": {"99999/tcp": []}}),
        ({}, {"PortBindings": {"80/tcp": [{"HostPort": "-1"}]}}),
        ({}, {"PortBindings": {"80/icmp": []}}),
        ({}, {"CapAdd": ["CAP_FLY"]}),
        ({}, {"Sysctls": {"kernel.core_pattern": "|/x"}}),
        ({}, {"Sysctls": {"net/../kernel.x": "1"}}),
        ({}, {"ExtraHosts": ["nocolon"]}),
        ({"Cmd": ["a\0b"]}, {}),
    ],
)
def test_bad_fields_are_named(body: dict[str, Any], host: dict[str, Any]) -> None:
    with pytest.raises(Invalid):
        spec(body, host)


@pytest.mark.parametrize(
    "host",
    [
        {"Privileged": True},
        {"PidMode": "host"},
        {"IpcMode": "host"},
        {"UsernsMode": "host"},
        {"NetworkMode": "host"},
        {"NetworkMode": "container:x"},
        {"Devices": [{"PathOnHost": "/dev/sda"}]},
        {"RestartPolicy": {"Name": "always"}},
        {"SecurityOpt": ["apparmor=custom"]},
    ],
)
def test_what_cannot_be_done_is_refused_by_name(host: dict[str, Any]) -> None:
    with pytest.raises(Unsupported):
        spec({}, host)


@pytest.mark.parametrize("body", [[], "x", 3, {"HostConfig": []}, {"HostConfig": {"Mounts": [1]}}])
def test_wrong_shapes_never_crash(body: Any) -> None:
    with pytest.raises(ProaError):
        merge(body, IMAGE, ID)
