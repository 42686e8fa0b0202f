"""A vm moves to another engine: its processes, connections and log go on, in one place only."""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import threading
import time
from collections.abc import Iterator

import pytest

from tests.support.copies import COUNTER, address, counted, counting, goes_on, own, port, refusal
from tests.support.engine import EngineProcess, engine
from tests.support.http import ApiError, Request, hijack
from tests.support.images import busy_image
from tests.support.instances import Instance, Place

ECHO = f"nc -ll -p 7 -e cat & {COUNTER}"


@pytest.fixture(scope="module")
def other() -> Iterator[EngineProcess]:
    """A second engine on this host."""
    with engine("proa-other-") as running:
        running.api.load(busy_image())
        Place(running.api, "vm").run("busy", "true", host={"Memory": 128 << 20})
        running.remove_all()
        yield running


def url(engine: EngineProcess) -> str:
    return f"unix://{engine.socket}"


def move(source: Instance, to: EngineProcess) -> Instance:
    own(source, "POST", "/migrate", to=url(to))
    return Instance(to.api, source.id)


class Talk:
    """A connection that says one line and hears it again."""

    def __init__(self, host: str, number: int) -> None:
        self._socket = socket.create_connection((host, number), 30)
        self._file = self._socket.makefile("rwb")
        self._count = 0

    def __call__(self) -> None:
        self._count += 1
        self._file.write(b"%d\n" % self._count)
        self._file.flush()
        assert self._file.readline() == b"%d\n" % self._count


def test_a_machine_moves_and_comes_back(
    vm: Place, session_engine: EngineProcess, other: EngineProcess
) -> None:
    source = counting(vm, ECHO, PortBindings={"7/tcp": [{"HostPort": ""}]})
    source.exec("sh", "-c", "echo written > /file")
    at, number = address(source), port(source, "7/tcp")
    talks = [Talk(at, 7), Talk("127.0.0.1", number)]
    here, there = source, other
    for there, back in ((other, session_engine), (session_engine, other)):
        for talk in talks:
            talk()
        moved = move(here, there)
        for talk in talks:  # the very connections
            talk()
        assert goes_on(moved)
        numbers = counted(moved)
        assert numbers == list(range(1, numbers[-1] + 1))  # one log, nothing lost, nothing twice
        assert source.id not in back.api.ids()
        assert moved.inspect()["Proa"]["StartedBy"] == "migration"
        assert moved.exec("cat", "/file").stdout == "written\n"
        assert (address(moved), port(moved, "7/tcp")) == (at, number)
        Talk("127.0.0.1", number)()
        here = moved
    here.stop(0)
    here.start()
    assert here.exec("cat", "/file").stdout == "written\n"


def test_what_cannot_move(vm: Place, container: Place, other: EngineProcess) -> None:
    source = counting(vm)
    path = f"/proa/instances/{source.id}/migrate"
    for to, status in (("", 400), ("tcp://127.0.0.1:1", 400), ("unix:///nowhere", 503)):
        assert refusal(vm.api, "POST", path, to=to)[0] == status, to
    made = container.start("busy", "sleep", "1000")
    assert refusal(vm.api, "POST", f"/proa/instances/{made.id}/migrate", to=url(other))[0] == 501
    name = source.inspect()["Name"].strip("/")
    taken = Place(other.api, "vm").create("busy", "true", name=name)
    status, said = refusal(vm.api, "POST", path, to=url(other))
    assert status == 409 and "other engine refuses" in said
    taken.remove()
    other.api.call("DELETE", "/images/busy", force=1)
    status, said = refusal(vm.api, "POST", path, to=url(other))
    assert "no such image" in said
    other.api.load(busy_image())
    assert other.api.ids() == set()
    goes_on(source)
    moved = move(source, other)
    goes_on(moved)
    moved.remove()


def running_at(instance: Instance, engines: tuple[EngineProcess, ...]) -> list[EngineProcess]:
    found = []
    for each in engines:
        with contextlib.suppress(ApiError):
            state = Instance(each.api, instance.id).state()
            if state["Running"] and not state["Paused"]:
                found.append(each)
    return found


@pytest.mark.parametrize("victim", ["giver", "taker"])
def test_killed_at_any_moment_it_runs_once(
    vm: Place, session_engine: EngineProcess, other: EngineProcess, victim: str
) -> None:
    engines = {"giver": session_engine, "taker": other}
    source = counting(vm)
    for delay in (0.1, 0.5, 0.9):
        moving = threading.Thread(target=_attempt, args=(source, other))
        moving.start()
        time.sleep(delay)  # a moment of the migration, not an event to wait for
        engines[victim].kill()
        engines[victim].start()
        moving.join()
        if source.id in vm.api.ids() and source.state()["Paused"]:
            session_engine.kill()  # it could not ask: it asks when it comes back
            session_engine.start()
        found = running_at(source, (session_engine, other))
        assert len(found) == 1
        at = Instance(found[0].api, source.id)
        goes_on(at)
        numbers = counted(at)
        assert numbers == list(range(1, numbers[-1] + 1))
        if found[0] is other:
            move(at, session_engine)
    goes_on(source)


def _attempt(source: Instance, to: EngineProcess) -> None:
    with contextlib.suppress(ApiError, OSError, ValueError):  # an engine is killed under it
        move(source, to)


HEADER = struct.Struct("<BBxxIQ")
OFFER = {
    "kind": "offer", "format": 1, "id": "a" * 64, "name": "evil", "image_id": "busy",
    "spec": {}, "body": {}, "created_ns": 1, "image_disk": "", "link": None,
    "machine": {}, "disks": {}, "ports": [],
}  # fmt: skip


@pytest.mark.parametrize(
    "sent",
    [
        b"nonsense that is long enough to be a header",
        HEADER.pack(0, 0, 0xFFFFFFFF, 0),
        HEADER.pack(1, 0, 4, 0) + b"data",
        HEADER.pack(0, 0, 4, 0) + b"[[[[",
        json.dumps({"kind": "go"}).encode(),
        json.dumps(OFFER).encode(),
        json.dumps(OFFER | {"format": 99}).encode(),
        json.dumps(OFFER | {"id": "../../etc", "spec": {"isolation": "vm"}}).encode(),
        json.dumps(OFFER | {"disks": {"disk": [{"file": "../x", "format": "raw"}]}}).encode(),
    ],
)
def test_an_engine_believes_no_other(other: EngineProcess, sent: bytes) -> None:
    stream = hijack(other.socket, Request("POST", "/proa/migration"))
    framed = sent if sent[:1] in (b"n", b"\0", b"\1") else HEADER.pack(0, 0, len(sent), 0) + sent
    stream.sendall(framed)
    stream.shutdown(socket.SHUT_WR)
    answer = b""
    with contextlib.suppress(ConnectionError):
        while piece := stream.recv(4096):
            answer += piece
    assert b'"kind": "error"' in answer or not answer
    assert other.api.ids() == set()
