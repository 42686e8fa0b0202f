"""Docker's container API over the fake engine: shapes, statuses and words clients depend on."""

from __future__ import annotations

import json
import threading
import time

import pytest

from tests.unit.api_server import Api, connect, read_answer, read_head
from tests.unit.fake_engine import framed

MULTIPLEXED = "application/vnd.docker.multiplexed-stream"
RAW = "application/vnd.docker.raw-stream"


def test_life(api: Api) -> None:
    identity = api.create("sleep", "9")
    assert api("GET", "/containers/one/json").json["State"]["Status"] == "created"
    for method, target, status in (
        ("POST", "start", 204),
        ("POST", "start", 304),
        ("POST", "pause", 204),
        ("POST", "unpause", 204),
        ("POST", "rename?name=two", 204),
        ("POST", "resize?h=24&w=80", 200),
        ("GET", "top", 200),
        ("POST", "restart?t=1", 204),
        ("POST", "kill?signal=TERM", 204),
        ("POST", "kill", 409),
        ("POST", "stop", 304),
    ):
        assert api(method, f"/v1.43/containers/{identity[:12]}/{target}").status == status, target
    assert api("DELETE", f"/containers/{identity}").status == 204
    got = api("DELETE", f"/containers/{identity}")
    assert (got.status, got.message) == (404, f"No such container: {identity}")


def test_list(api: Api) -> None:
    first = api.create("sleep", "1", name="a")
    second = api.create("sleep", "1", name="b")
    api("POST", "/containers/a/start")
    assert [item["Id"] for item in api("GET", "/containers/json").json] == [first]
    every = [item["Id"] for item in api("GET", "/containers/json?all=1").json]
    assert every == [second, first]
    assert len(api("GET", "/containers/json?limit=1").json) == 1
    chosen = api("GET", '/containers/json?all=true&filters={"status":["running"]}').json
    assert [item["Id"] for item in chosen] == [first]


def test_refusals_have_dockers_words_and_statuses(api: Api) -> None:
    api.create("sleep", "1")
    got = api("POST", "/containers/create?name=one", {"Image": "tiny", "Cmd": ["x"]})
    assert got.status == 409 and "already in use" in got.message
    got = api("POST", "/containers/create", {"Image": "absent", "Cmd": ["x"]})
    assert (got.status, got.message) == (404, "No such image: absent:latest")
    got = api("POST", "/containers/create", {"Image": "r.io:5/absent@sha256:1", "Cmd": ["x"]})
    assert got.message == "No such image: r.io:5/absent@sha256:1"
    api.create("nope", name="bad")
    got = api("POST", "/containers/bad/start")
    assert got.status == 400 and "executable file not found" in got.message
    assert got.json["exitCode"] == 127


@pytest.mark.parametrize(
    ("platform", "status"),
    [("", 201), ("linux", 201), ("linux/amd64", 201), ("linux/arm64", 404), ("windows", 404)],
)
def test_another_platform_is_not_silently_accepted(api: Api, platform: str, status: int) -> None:
    target = f"/containers/create?platform={platform}"
    assert api("POST", target, {"Image": "tiny", "Cmd": ["x"]}).status == status


UNKNOWN = [
    ("GET", "json"), ("GET", "top"), ("GET", "logs?stdout=1"), ("GET", "stats"), ("POST", "start"),
    ("POST", "stop"), ("POST", "kill"), ("POST", "restart"), ("POST", "wait"), ("POST", "pause"),
    ("POST", "unpause"), ("POST", "rename?name=x"), ("POST", "update"), ("POST", "attach"),
    ("POST", "exec"), ("POST", "resize?h=1&w=1"), ("GET", "archive?path=/"),
    ("HEAD", "archive?path=/"), ("PUT", "archive?path=/"),
]  # fmt: skip


@pytest.mark.parametrize(("method", "action"), UNKNOWN)
def test_an_unknown_instance_is_404_everywhere(api: Api, method: str, action: str) -> None:
    got = api(method, f"/containers/ghost/{action}")
    assert got.status == 404
    if method != "HEAD":
        assert got.message == "No such container: ghost"


def test_wait_sends_its_head_at_once(api: Api) -> None:
    api.create("sleep", "9")
    with connect(api.path) as sock:
        sock.sendall(b"POST /containers/one/wait?condition=next-exit HTTP/1.1\r\nHost: d\r\n\r\n")
        stream = sock.makefile("rb")
        status, fields = read_head(stream)
        assert (status, fields["transfer-encoding"]) == (200, "chunked")
        api("POST", "/containers/one/start")
        api("POST", "/containers/one/kill")
        stream.readline()
        assert json.loads(stream.readline()) == {"StatusCode": 137}
    assert api("POST", "/containers/one/wait?condition=sometime").status == 400
    assert api("POST", "/containers/one/wait").json == {"StatusCode": 137}


@pytest.mark.parametrize(
    ("version", "tty", "kind"),
    [("v1.43", False, MULTIPLEXED), ("v1.41", False, RAW), ("v1.43", True, RAW)],
)
def test_attach_upgrades_and_streams(api: Api, version: str, tty: bool, kind: str) -> None:
    api.create("echo", "hi", Tty=tty, AttachStdout=True)
    query = "stream=1&stdout=1&stderr=1"
    sock, stream, fields = api.hijack(f"/{version}/containers/one/attach?{query}")
    with sock:
        assert (fields["content-type"], fields["upgrade"]) == (kind, "tcp")
        api("POST", "/containers/one/start")
        expected = b"hi\ndone\n" if tty else framed(1, b"hi\n") + framed(2, b"done\n")
        assert stream.read() == expected


def test_attach_joins_before_a_start_can_slip_in(api: Api) -> None:
    for number in range(30):
        api.create("echo", "hi", name=f"n{number}")
        sock, stream, _ = api.hijack(f"/containers/n{number}/attach?stream=1&stdout=1")
        with sock:
            api("POST", f"/containers/n{number}/start")
            assert stream.read() == framed(1, b"hi\n")


def test_attach_failures(api: Api) -> None:
    api.create("echo", name="unattachable")
    sock, stream, _ = api.hijack("/containers/unattachable/attach?stream=1&stdout=1")
    with sock:
        assert stream.read() == framed(1, b"cannot attach\r\n")
    api.create("sleep", name="p")
    api("POST", "/containers/p/pause")
    assert api("POST", "/containers/p/attach?stream=1").status == 409
    assert api("POST", "/containers/unattachable/attach?stream=1&detachKeys=ctrl-1").status == 400


def test_exec(api: Api) -> None:
    api.create("sleep", "9")
    assert api("POST", "/containers/one/exec", {"Cmd": ["echo"]}).status == 409
    api("POST", "/containers/one/start")
    assert api("POST", "/containers/one/exec", {"Cmd": []}).status == 400
    made = api("POST", "/containers/one/exec", {"Cmd": ["echo", "hi"], "AttachStdout": True})
    assert made.status == 201
    identity = made.json["Id"]
    sock, stream, fields = api.hijack(f"/v1.43/exec/{identity}/start", b'{"Tty":false}')
    with sock:
        assert fields["content-type"] == MULTIPLEXED
        assert stream.read() == framed(1, b"hi\n")
    assert api("GET", f"/exec/{identity}/json").json["ExitCode"] == 0
    assert api("POST", f"/exec/{identity}/start", {"Detach": True}).status == 409
    assert api("POST", f"/exec/{identity}/resize?h=1&w=2").status == 200
    got = api("GET", "/exec/ghost/json")
    assert (got.status, got.message) == (404, "No such exec instance: ghost")


def test_exec_that_cannot_run(api: Api) -> None:
    api.create("sleep", "9")
    api("POST", "/containers/one/start")
    identity = api("POST", "/containers/one/exec", {"Cmd": ["nope"], "Tty": True}).json["Id"]
    sock, stream, fields = api.hijack(f"/exec/{identity}/start", b'{"Tty":true}')
    with sock:
        assert fields["content-type"] == RAW
        assert b"executable file not found" in stream.read()
    assert api("GET", f"/exec/{identity}/json").json["ExitCode"] == 127
    other = api("POST", "/containers/one/exec", {"Cmd": ["nope"]}).json["Id"]
    got = api("POST", f"/exec/{other}/start", {"Detach": True})
    assert got.status == 400
    assert api("POST", f"/exec/{other}/start", {"Detach": "x"}).status == 400


def test_logs(api: Api) -> None:
    api.create("echo", "hi")
    api("POST", "/containers/one/start")
    api("POST", "/containers/one/wait")
    got = api("GET", "/v1.43/containers/one/logs?stdout=1&stderr=1")
    assert got.fields["content-type"] == MULTIPLEXED
    assert got.body == framed(1, b"hi\n") + framed(2, b"done\n")
    assert api("GET", "/containers/one/logs?stderr=1&tail=1").body == framed(2, b"done\n")
    api.create("echo", "hi", name="t", Tty=True)
    api("POST", "/containers/t/start")
    api("POST", "/containers/t/wait")
    got = api("GET", "/containers/t/logs?stdout=1&tail=all")
    assert (got.fields["content-type"], got.body) == (RAW, b"hi\n")


def test_following_logs_ends_with_the_instance_or_the_client(api: Api) -> None:
    api.create("sleep", "9")
    api("POST", "/containers/one/start")
    with connect(api.path) as sock:
        sock.sendall(b"GET /containers/one/logs?stdout=1&follow=1 HTTP/1.1\r\nHost: d\r\n\r\n")
        read_head(sock.makefile("rb"))
    assert api.engine.log_ended.wait(5)
    threading.Timer(0.2, lambda: api("POST", "/containers/one/kill")).start()
    assert api("GET", "/containers/one/logs?stdout=1&follow=1").body == b""


def test_stats(api: Api) -> None:
    api.create("sleep", "9")
    still = api("GET", "/containers/one/stats?stream=0").json
    assert still["read"].startswith("0001") and still["memory_stats"] == {}
    api("POST", "/containers/one/start")
    one = api("GET", "/containers/one/stats?stream=false").json
    assert one["memory_stats"]["usage"] == 10 and one["networks"]["eth0"]["tx_bytes"] == 3
    assert one["precpu_stats"]["cpu_usage"]["total_usage"] == 5 and one["name"] == "/one"
    with connect(api.path) as sock:
        sock.sendall(b"GET /containers/one/stats HTTP/1.1\r\nHost: d\r\n\r\n")
        stream = sock.makefile("rb")
        read_head(stream)
        stream.readline()
        assert json.loads(stream.readline())["pids_stats"] == {"current": 1}


def test_archive(api: Api) -> None:
    api.create("sleep")
    head = api("HEAD", "/containers/one/archive?path=/etc/hostname")
    assert head.status == 200 and head.body == b""
    import base64

    stat = json.loads(base64.b64decode(head.fields["x-docker-container-path-stat"]))
    assert (stat["name"], stat["mtime"]) == ("hostname", "2023-11-14T22:13:20.500000000Z")
    tar = api("GET", "/containers/one/archive?path=/etc/hostname").body
    assert api("PUT", "/containers/one/archive?path=/tmp", tar).status == 200
    assert api.engine.files["/tmp/hostname"] == b"fake\n"
    assert api("GET", "/containers/one/archive?path=/none").status == 404


def test_update_and_prune(api: Api) -> None:
    api.create("sleep")
    assert api("POST", "/containers/one/update", {"Memory": 64 << 20}).json == {"Warnings": []}
    assert api("POST", "/containers/one/update", {"Memory": "x"}).status == 400
    identity = api.engine.get("one").id
    assert (
        api("POST", '/containers/prune?filters={"until":["10m"]}').json["ContainersDeleted"] is None
    )
    assert api("POST", "/containers/prune").json["ContainersDeleted"] == [identity]


def test_requests_cost_well_under_a_millisecond(api: Api) -> None:
    api.create("sleep", "9")
    request = b"GET /v1.43/containers/one/json HTTP/1.1\r\nHost: d\r\n\r\n"
    with connect(api.path) as sock:
        stream = sock.makefile("rb")
        samples = []
        for _ in range(200):
            begun = time.perf_counter()
            sock.sendall(request)
            read_answer(stream)
            samples.append(time.perf_counter() - begun)
    assert sorted(samples)[len(samples) // 2] < 0.002
