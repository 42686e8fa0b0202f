"""Routing, versions, images, networks, volumes, events and Proa's own extensions."""

from __future__ import annotations

import json
import threading
from typing import Any

import pytest

from proa.api.docker import attach, events, times
from proa.api.routes import Router
from proa.api.table import ROUTES
from proa.errors import Invalid
from tests.unit.api_server import Api, connect, read_head
from tests.unit.fake_engine import IMAGE_ID


def test_ping(api: Api) -> None:
    got = api("GET", "/_ping")
    assert (got.status, got.body) == (200, b"OK")
    assert got.fields["api-version"] == "1.43"
    assert got.fields["docker-experimental"] == "false"
    assert "builder-version" not in got.fields
    head = api("HEAD", "/v1.24/_ping")
    assert (head.status, head.fields["content-length"]) == (200, "2")


@pytest.mark.parametrize(
    ("target", "status"),
    [
        ("/v1.43/version", 200), ("/v1.24/version", 200), ("/version", 200),
        ("/v1.23/version", 400), ("/v1.44/version", 400), ("/v2.0/version", 400),
        ("/v1/version", 404), ("/vx.y/version", 404), ("/nonsense", 404), ("/", 404),
        ("/containers", 404), ("/containers/", 404), ("/containers//json", 404),
        ("/containers/a/b/json", 404), ("/images/json/json", 404), ("/v1.43", 404),
        ("/volumes/a/b", 404), ("/exec//json", 404), ("/proa/instances/x/trace", 404),
    ],
)  # fmt: skip
def test_paths_and_versions(api: Api, target: str, status: int) -> None:
    assert api("GET", target).status == status


def test_wrong_methods(api: Api) -> None:
    for method, target in (("PUT", "/version"), ("GET", "/containers/x/start"), ("POST", "/info")):
        assert api(method, target).status == 405


def test_every_route_is_found_by_its_own_template(api: Api) -> None:
    router = Router(api.engine, ROUTES)  # type: ignore[arg-type]
    for route in ROUTES:
        path = route.template.replace("{id}", "abc").replace("{name}", "r:5/some/image:1")
        methods, parameter = router._find(path, route.method)
        assert methods is not None and methods[route.method] is route, route
        assert parameter == ("abc" if "{id}" in route.template else
                             "r:5/some/image:1" if "{name}" in route.template else "")  # fmt: skip


def test_version_and_info(api: Api) -> None:
    version = api("GET", "/version").json
    assert (version["ApiVersion"], version["MinAPIVersion"]) == ("1.43", "1.24")
    assert version["Components"][0]["Details"]["ApiVersion"] == "1.43"
    info = api("GET", "/info").json
    assert info["OSType"] == "linux" and info["NCPU"] == 2 and info["DockerRootDir"] == "/fake"


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("GET", "/images/search"),
        ("POST", "/images/create?fromSrc=http%3A%2F%2Fx"),
    ],
)  # fmt: skip
def test_what_is_not_there_says_so_in_one_clear_line(api: Api, method: str, target: str) -> None:
    got = api(method, target)
    assert got.status == 501 and "not supported" in got.message.splitlines()[0]
    assert got.json["code"] == "unsupported"


def test_swarm_is_absent_as_in_dockerd(api: Api) -> None:
    assert api("GET", "/services").status == 503


def test_images(api: Api) -> None:
    assert api("GET", "/images/json").json[0]["RepoTags"] == ["tiny:latest"]
    assert api("GET", "/images/tiny/json").json["Id"] == IMAGE_ID
    assert api("GET", "/images/tiny:latest/history").json[0]["Id"] == IMAGE_ID
    assert api("POST", "/images/tiny/tag?repo=r.io:5/a/b&tag=1").status == 201
    assert api("GET", "/images/r.io:5/a/b:1/json").status == 200
    assert api("POST", "/images/tiny/tag").status == 400
    got = api("GET", "/images/none/json")
    assert (got.status, got.message) == (404, "No such image: none:latest")
    assert api("GET", "/images/get?names=none").status == 404
    assert api("GET", "/images/get?names=tiny&names=tiny").body == b"x" * 300_000
    assert api("GET", "/images/r.io:5/a/b:1/get").body == b"x" * 300_000
    assert api("DELETE", "/images/r.io:5/a/b:1").json == [{"Untagged": "r.io:5/a/b:1"}]
    assert api("DELETE", "/images/none").status == 404


@pytest.mark.parametrize(
    ("filters", "count"),
    [
        ({"reference": ["tiny"]}, 1), ({"reference": ["ti*:latest"]}, 1), ({"reference": ["x"]}, 0),
        ({"dangling": ["false"]}, 1), ({"dangling": {"true": True}}, 0), ({"label": ["made"]}, 1),
        ({"label": ["made=there"]}, 0), ({"until": ["1h"]}, 1), ({"before": ["tiny"]}, 0),
        ({"since": ["tiny"]}, 0),
    ],
)  # fmt: skip
def test_image_filters(api: Api, filters: Any, count: int) -> None:
    assert (
        len(api("GET", f"/images/json?filters={json.dumps(filters).replace(' ', '')}").json)
        == count
    )


def test_load_and_import_stream_their_body(api: Api) -> None:
    data = b"t" * (9 << 20)
    got = api("POST", "/images/load?quiet=1", data)
    assert got.json == {"stream": "Loaded image: tiny:latest\n"}
    assert api.engine.images.loaded == data
    got = api("POST", "/images/create?fromSrc=-&repo=new&tag=1&changes=CMD+x", b"tar")
    assert got.json == {"status": IMAGE_ID}
    assert "new:1" in api.engine.images.names


def test_volumes(api: Api) -> None:
    got = api("POST", "/volumes/create", {"Name": "v", "Labels": {"a": "b"}})
    assert got.status == 201 and got.json["Mountpoint"] == "/v/v"
    anonymous = api("POST", "/volumes/create", {}).json["Name"]
    assert len(api("GET", "/volumes").json["Volumes"]) == 2
    assert len(api("GET", '/volumes?filters={"label":["a=b"]}').json["Volumes"]) == 1
    body = {"Image": "tiny", "Cmd": ["x"], "HostConfig": {"Binds": ["v:/v"]}}
    api("POST", "/containers/create?name=user", body)
    assert api("DELETE", "/volumes/v").status == 409
    found = api("GET", '/volumes?filters={"dangling":["true"]}').json["Volumes"]
    assert [volume["Name"] for volume in found] == [anonymous]
    assert api("POST", "/volumes/prune").json["VolumesDeleted"] == [anonymous]
    api("DELETE", "/containers/user")
    assert api("DELETE", "/volumes/v").status == 204
    assert api("DELETE", "/volumes/v").status == 404
    assert api("DELETE", "/volumes/v?force=1").status == 204
    for wrong in ({"Name": 5}, {"Labels": [1]}, {"Labels": {"a": 1}}):
        assert api("POST", "/volumes/create", wrong).status == 400
    assert api("POST", "/volumes/create", {"Driver": "nfs"}).status == 501


def test_events_stream_history_and_news(api: Api) -> None:
    api("POST", "/containers/create?name=a", {"Image": "tiny", "Cmd": ["sleep"]})
    with connect(api.path) as sock:
        sock.sendall(
            b'GET /events?since=1&filters={"event":["create"]} HTTP/1.1\r\nHost: d\r\n\r\n'
        )
        stream = sock.makefile("rb")
        read_head(stream)
        stream.readline()
        first = json.loads(stream.readline())
        assert (first["status"], first["from"], first["Type"]) == ("create", "tiny", "container")
        stream.readline()
        later = {"Image": "tiny", "Cmd": ["sleep"]}
        threading.Timer(0.1, lambda: api("POST", "/containers/create?name=b", later)).start()
        stream.readline()
        assert json.loads(stream.readline())["Actor"]["Attributes"]["name"] == "b"
    lines = api("GET", "/events?since=10m&until=0s").body.splitlines()
    assert len(lines) == 2


EVENT = {
    "Type": "container", "Action": "exec_start: sh -c x", "scope": "local",
    "Actor": {"ID": "ab" * 32, "Attributes": {"name": "web", "image": "tiny", "tier": "1"}},
}  # fmt: skip


@pytest.mark.parametrize(
    ("wanted", "passes"),
    [
        ({}, True), ({"type": ["container"]}, True), ({"type": ["image"]}, False),
        ({"event": ["exec_start"]}, True), ({"event": ["exec"]}, False),
        ({"container": ["web"]}, True), ({"container": ["abab" * 4]}, True),
        ({"container": ["ab"]}, False), ({"image": ["tiny"]}, True), ({"volume": ["web"]}, False),
        ({"label": ["tier"]}, True), ({"label": ["tier=1"]}, True), ({"label": ["tier=2"]}, False),
        ({"label": ["tier", "other"]}, False), ({"daemon": ["x"]}, False), ({"type": []}, True),
    ],
)  # fmt: skip
def test_event_filters(wanted: dict[str, list[str]], passes: bool) -> None:
    assert events.matches(EVENT, wanted) is passes


def test_extensions(api: Api) -> None:
    made = api("POST", "/containers/create?name=a", {"Image": "tiny", "Cmd": ["x"]}).json["Id"]
    trace = api("GET", "/proa/instances/a/trace").json
    assert trace["Id"] == made and trace["Milestones"][0] == {
        "Milestone": "request",
        "Nanoseconds": 1,
    }
    assert api("GET", "/proa/instances/a/usage").json == {"memory_bytes": 7}
    assert api("GET", "/v1.43/proa/engine").json["Root"] == "/fake"
    assert api("GET", "/proa/isolations").json == [
        {"Name": "container", "Available": True, "Reasons": []},
        {"Name": "vm", "Available": False, "Reasons": ["no QEMU"]},
    ]


def test_detach_keys() -> None:
    assert attach.detach_keys("ctrl-p,ctrl-q") == b"\x10\x11"
    assert attach.detach_keys("a,ctrl-@,ctrl-_,ctrl-[") == b"a\x00\x1f\x1b"
    assert attach.detach_keys("") == b""
    for wrong in ("ctrl-", "ctrl-1", "ab", "é", "a,,b"):
        with pytest.raises(Invalid):
            attach.detach_keys(wrong)


def test_times() -> None:
    assert times.seconds("") == 0
    assert times.seconds("1700000000.5") == 1700000000.5
    assert times.seconds("1700000000.123456789") == pytest.approx(1700000000.123456789)
    assert times.seconds("2023-11-14T22:13:20Z") == 1700000000
    assert times.seconds("2023-11-14T22:13:20.123456789+00:00") == pytest.approx(1700000000.123456)
    assert times.seconds("2023-11-14") == 1699920000
    import time

    assert times.seconds("1h30m") == pytest.approx(time.time() - 5400, abs=2)
    for wrong in ("x", "1x", "-5", "99999-01-01"):
        with pytest.raises(Invalid):
            times.seconds(wrong)
    assert times.rfc3339(0) == "1970-01-01T00:00:00.000000000Z"
    assert times.rfc3339(1700000000_000000005) == "2023-11-14T22:13:20.000000005Z"
