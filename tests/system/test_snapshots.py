"""Snapshots with and without memory, suspending: an instance's past can be had again."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from tests.support.copies import (
    SERVER,
    address,
    counted,
    counting,
    goes_on,
    own,
    page,
    port,
    refusal,
    restore,
)
from tests.support.engine import EngineProcess
from tests.support.instances import Instance, Place, eventually


def snapshot(instance: Instance, name: str, **query: int) -> None:
    own(instance, "POST", "/snapshots", name=name, **query)


def put_back(instance: Instance, name: str) -> None:
    own(instance, "POST", "/restore", name=name)


def directory(engine: EngineProcess, instance: Instance) -> Path:
    return engine.root / "instances" / instance.id


def test_files_of_a_running_instance(place: Place) -> None:
    """What was written and not yet on disk is in the snapshot; the same on both isolations."""
    made = place.start("busy", "sleep", "1000")
    made.exec("sh", "-c", "mkdir /d; echo one > /d/f; ln /d/f /d/g; chown 5:6 /d/f; rm /etc/group")
    snapshot(made, "first")
    made.exec("sh", "-c", "echo two > /d/f; echo new > /d/new; touch /etc/group")
    snapshot(made, "second")
    assert [item["Name"] for item in own(made, "GET", "/snapshots")] == ["first", "second"]
    assert own(made, "GET", "/snapshot", name="first")["State"] == "written out"
    path = f"/proa/instances/{made.id}/restore"
    assert refusal(made.api, "POST", path, name="first")[0] == 409  # it runs

    made.stop(0)
    put_back(made, "first")
    look = "cat /d/f; ls /d; [ -e /etc/group ]; echo $?; stat -c '%u %g %h' /d/f"
    made.start()
    assert made.exec("sh", "-c", look).stdout.split() == "one f g 1 5 6 2".split()
    copy = restore(place, made, "second", f"later-{place.isolation}").start()
    assert copy.inspect()["Name"] == f"/later-{place.isolation}"
    assert copy.exec("sh", "-c", look).stdout.split() == "two f g new 0 5 6 2".split()
    own(made, "DELETE", "/snapshots", name="first")
    assert [item["Name"] for item in own(made, "GET", "/snapshots")] == ["second"]
    assert made.exec("cat", "/d/f").stdout == "one\n"


def test_files_of_a_stopped_instance(place: Place) -> None:
    made = place.start("busy", "sh", "-c", "echo x >> /f")
    made.wait()
    snapshot(made, "one")
    for name in ("two", "three"):
        made.start().wait()
        snapshot(made, name)
    for name, count in (("one", 1), ("three", 3), ("two", 2)):
        put_back(made, name)
        assert made.get("/f")["f"] == b"x\n" * count


def test_names_and_refusals(place: Place) -> None:
    made = place.create("busy", "true")
    path = f"/proa/instances/{made.id}"
    for name in ("", ".", "..", "../x", "a/b", "x" * 64, ".new-1"):
        assert refusal(made.api, "POST", f"{path}/snapshots", name=name)[0] == 400, name
        assert refusal(made.api, "POST", f"{path}/restore", name=name)[0] == 404, name
        assert refusal(made.api, "DELETE", f"{path}/snapshots", name=name)[0] == 404, name
    snapshot(made, "never.started")
    assert refusal(made.api, "POST", f"{path}/snapshots", name="never.started")[0] == 409
    put_back(made, "never.started")
    assert made.start().wait() == 0


def test_memory_of_a_container_is_the_hosts(container: Place) -> None:
    made = container.start("busy", "sleep", "1000")
    path = f"/proa/instances/{made.id}"
    for rest, query in (("/snapshots", {"name": "x", "memory": 1}), ("/suspend", {})):
        status, said = refusal(made.api, "POST", f"{path}{rest}", **query)
        assert status == 501 and "container" in said
    assert own(made, "GET", "/snapshots") == []


def test_a_machine_is_put_back_with_its_memory(vm: Place) -> None:
    source = counting(vm, SERVER, PortBindings={"80/tcp": [{"HostPort": ""}]})
    snapshot(source, "warm", memory=1)
    then = max(counted(source))
    goes_on(source)
    other = restore(vm, source, "warm", "thawed")
    assert min(eventually(lambda: counted(other), 20)) <= then + 1
    assert other.exec("hostname").stdout.strip() == other.id[:12]
    assert eventually(lambda: page(address(other)), 10) == "here\n"
    goes_on(source)
    source.exec("sh", "-c", "echo changed > /www/index.html; sync")
    source.stop(0)
    put_back(source, "warm")
    assert source.state()["Running"]
    goes_on(source)
    assert page("127.0.0.1", port(source)) == "here\n"
    other.remove()
    own(source, "DELETE", "/snapshots", name="warm")
    goes_on(source)


def test_suspended_and_resumed(vm: Place, session_engine: EngineProcess) -> None:
    """Its listener, its connections, its address, its clock; also over an engine's end."""
    script = f"nc -lk -p 7 -e cat & {SERVER}"
    source = counting(vm, script)
    before, at = address(source), max(counted(source))
    own(source, "POST", "/suspend")
    assert source.state()["Status"] == "suspended" and not source.state()["Running"]
    assert not page(before)
    session_engine.kill()
    session_engine.start()
    assert source.state()["Status"] == "suspended"
    time.sleep(1.2)  # a clock that was not set would be this late
    own(source, "POST", "/resume")
    assert address(source) == before
    assert goes_on(source) > at
    numbers = counted(source)
    assert numbers == list(range(1, numbers[-1] + 1))  # not one was lost
    assert abs(int(source.exec("date", "+%s").stdout) - time.time()) <= 1.5
    assert page(before) == "here\n"
    assert not (directory(session_engine, source) / "suspended").exists()
    own(source, "POST", "/suspend")
    source.start()  # docker's clients know no other word
    goes_on(source)
    source.remove()
    assert not directory(session_engine, source).exists()


@pytest.mark.parametrize("what", ["memory", "state", "saved.json"])
def test_a_damaged_memory_is_refused(vm: Place, session_engine: EngineProcess, what: str) -> None:
    """Nothing is changed then: the disks can still be had, and what is put right goes on."""
    source = counting(vm)
    own(source, "POST", "/suspend")
    path = directory(session_engine, source) / "suspended" / "memory" / what
    good = path.read_bytes() if what != "memory" else b""
    with path.open("r+b") as file:
        offset = os.lseek(file.fileno(), 0, os.SEEK_DATA) + 100
        byte = os.pread(file.fileno(), 1, offset)
        os.pwrite(file.fileno(), bytes([byte[0] ^ 1]), offset)
    status, said = refusal(source.api, "POST", f"/proa/instances/{source.id}/resume")
    assert status in (422, 501) and "saved" in said
    assert source.state()["Status"] == "suspended"
    if what == "memory":
        with path.open("r+b") as file:
            os.pwrite(file.fileno(), byte, offset)
    else:
        path.write_bytes(good)
    own(source, "POST", "/resume")
    goes_on(source)


def test_another_qemu_is_refused(vm: Place, session_engine: EngineProcess) -> None:
    source = counting(vm)
    own(source, "POST", "/suspend")
    path = directory(session_engine, source) / "suspended" / "memory" / "saved.json"
    good = path.read_bytes()
    path.write_bytes(good.replace(b'"qemu": "', b'"qemu": "1'))
    status, said = refusal(source.api, "POST", f"/proa/instances/{source.id}/resume")
    assert status == 501 and "saved where qemu is '1" in said
    path.write_bytes(good.replace(b'"ram_bytes": ', b'"ram_bytes": 9'))
    assert refusal(source.api, "POST", f"/proa/instances/{source.id}/resume")[0] in (422, 501)
    path.write_bytes(good)
    own(source, "POST", "/resume")
    goes_on(source)
