"""Disks of vms: what a guest was told is on its disk stays there, whoever is killed, whatever is
done to the files below it."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from proa.isolation.vm import layers
from tests.support.engine import EngineProcess, engine
from tests.support.http import ApiError
from tests.support.images import busy_image
from tests.support.instances import Instance, Json, Place, eventually

MIB = 1 << 20
SEED = int(os.environ.get("PROA_SEED", "4021"))
# Tells each number once it is on the disk; a second start tells how far they go without a gap.
WRITER = """
if [ -e /numbers ]; then
  n=0; for got in $(cat /numbers); do n=$((n + 1)); [ $got = $n ] || break; done
  echo found $n; exit 0
fi
i=0
while :; do
  i=$((i + 1))
  printf '%7d\\n' $i | dd of=/numbers bs=8 seek=$((i - 1)) conv=notrunc,fsync 2> /dev/null
  echo $i
done
"""
IDLE = ("sh", "-c", "trap 'exit 0' TERM; while :; do sleep 1000 & wait; done")


@pytest.fixture(scope="module")
def running() -> Iterator[EngineProcess]:
    """An engine whose files and processes a test may touch."""
    with engine() as made:
        made.api.load(busy_image())
        yield made


@pytest.fixture
def vms(running: EngineProcess) -> Iterator[Place]:
    made = Place(running.api, "vm")
    yield made
    made.close()


def directory(running: EngineProcess, instance: Instance) -> Path:
    return running.root / "instances" / instance.id


def files(instance: Instance) -> list[Json]:
    """The files of its one disk, top first."""
    (disk,) = instance.api.json("GET", f"/proa/instances/{instance.id}/disks")
    found: list[Json] = disk["Files"]
    return found


def allocated(running: EngineProcess, instance: Instance) -> int:
    return sum(layer["Size"] for layer in files(instance))


def qemu(running: EngineProcess, instance: Instance) -> int:
    """The process that has the instance's disk open."""
    top = layers.load(directory(running, instance))[layers.FIRST].top.path
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            with contextlib.suppress(OSError):
                program = os.readlink(process / "exe")
                opened = {os.readlink(link) for link in (process / "fd").iterdir()}
                if "qemu" in program and str(top) in opened:
                    return int(process.name)
    raise AssertionError(f"nobody has '{top}' open")


def put_overlays(running: EngineProcess, vms: Place, instance: Instance, count: int) -> None:
    """Give an instance that never ran a disk that is a chain."""
    first = vms.create("busy", "true")
    first.start().wait()
    layers.share(layers.load(directory(running, first)), directory(running, instance))
    for _ in range(count):
        layers.grow(directory(running, instance))


def told(instance: Instance) -> int:
    """The last number the writer has told."""
    lines = instance.logs().stdout.split()
    return int(lines[-1]) if lines else 0


@pytest.mark.parametrize(
    ("cache", "overlays"),
    [("writeback", 0), ("writeback", 2), ("none", 1), ("writethrough", 1)],
)
def test_what_a_guest_synced_is_there_after_qemu_was_killed(
    running: EngineProcess, vms: Place, cache: str, overlays: int
) -> None:
    dice = random.Random(f"{SEED} {cache} {overlays}")
    made = vms.create("busy", "sh", "-c", WRITER, Proa={"Cache": cache})
    if overlays:
        put_overlays(running, vms, made, overlays)
    made.start()
    wanted = dice.randrange(5, 60)
    eventually(lambda: told(made) >= wanted, 20)
    process = qemu(running, made)
    if dice.random() < 0.5:
        running.kill()
        os.kill(process, signal.SIGKILL)
        running.start()
    else:
        os.kill(process, signal.SIGKILL)
    made.wait()
    last = told(made)
    assert last >= wanted
    made.start().wait()
    found = int(made.logs().stdout.split()[-1])
    assert found >= last


@pytest.mark.parametrize("overlays", [0, 1])
def test_what_a_guest_removes_comes_back_to_the_host(
    running: EngineProcess, vms: Place, overlays: int
) -> None:
    made = vms.create("busy", *IDLE)
    if overlays:
        put_overlays(running, vms, made, overlays)
    made.start()
    before = allocated(running, made)
    made.exec("sh", "-c", "dd if=/dev/urandom of=/big bs=1M count=48 2> /dev/null; sync")
    full = allocated(running, made)
    assert full > before + 48 * MIB - MIB
    assert made.exec("sh", "-c", "rm /big; sync").code == 0
    eventually(lambda: allocated(running, made) < before + 4 * MIB, 10)


def test_zeros_take_no_room(running: EngineProcess, vms: Place) -> None:
    made = vms.start("busy", *IDLE)
    before = allocated(running, made)
    made.exec("sh", "-c", "dd if=/dev/zero of=/big bs=1M count=48 2> /dev/null; sync")
    assert allocated(running, made) < before + 8 * MIB


def checksum(instance: Instance) -> str:
    return instance.exec(
        "sh", "-c", "find / -xdev -name 'data*' | sort | xargs cat | md5sum"
    ).stdout


@pytest.mark.parametrize("live", [True, False], ids=["running", "stopped"])
def test_flattening_keeps_what_was_written(running: EngineProcess, vms: Place, live: bool) -> None:
    made = vms.create("busy", *IDLE)
    put_overlays(running, vms, made, 1)
    for number in range(3):
        made.start()
        made.exec("sh", "-c", f"dd if=/dev/urandom of=/data{number} bs=1M count=3 2> /dev/null")
        expected = checksum(made)
        if number == 2 and live:
            break
        made.stop()
        layers.grow(directory(running, made))
    assert len(files(made)) > 3
    running.api.call("POST", f"/proa/instances/{made.id}/flatten")
    assert [layer["Kind"] for layer in files(made)] == ["disk"]
    if live:
        made.exec("sh", "-c", "echo later > /later; sync")
        made.stop()
    made.start()
    assert checksum(made) == expected
    if live:
        assert made.exec("cat", "/later").stdout == "later\n"


def test_a_flattening_that_is_killed_loses_nothing(running: EngineProcess, vms: Place) -> None:
    dice = random.Random(SEED)
    made = vms.create("busy", *IDLE)
    put_overlays(running, vms, made, 1)
    made.start()
    made.exec("sh", "-c", "dd if=/dev/urandom of=/data bs=1M count=40 2> /dev/null; sync")
    expected = checksum(made)
    made.stop()
    layers.grow(directory(running, made))
    for live in (False, True):
        if live:
            made.start()
        asked = threading.Thread(target=flatten_quietly, args=(made,))
        asked.start()
        asked.join(dice.uniform(0.02, 0.15))
        running.kill()
        asked.join()
        running.start()
        if not live:
            made.start()
        assert checksum(made) == expected
        made.stop()
        known = {layer.path for layer in layers.load(directory(running, made))["disk"].layers}
        there = set((directory(running, made) / layers.DIRECTORY).glob("[0-9]*"))
        assert there <= known


def flatten_quietly(instance: Instance) -> None:
    with contextlib.suppress(ApiError, OSError):
        instance.api.call("POST", f"/proa/instances/{instance.id}/flatten")


def test_bytes_are_counted_once_and_as_du_does(running: EngineProcess, vms: Place) -> None:
    one, other = (vms.create("busy", *IDLE) for _ in range(2))
    put_overlays(running, vms, one, 1)
    layers.share(layers.load(directory(running, one)), directory(running, other), writable=True)
    layers.grow(directory(running, one))
    table = running.api.json("GET", "/proa/disks")
    inodes: dict[int, int] = {}
    for path in (running.root / "instances").rglob("*"):
        if path.name == layers.FIRST or (path.name.isdigit() and path.is_file()):
            facts = path.stat()
            inodes[facts.st_ino] = facts.st_blocks * 512
    ours = [item for item in table["Files"] if item["Kind"] in ("disk", "overlay")]
    assert sum(item["Size"] for item in ours) == sum(inodes.values())
    assert table["Total"] == sum(item["Size"] for item in table["Files"])
    names = {item.inspect()["Name"][1:] for item in (one, other)}
    shared = [item for item in ours if names <= set(item["Holders"])]
    assert {item["Format"] for item in shared} == {"raw", "qcow2"}
    assert table["Shared"] >= sum(item["Size"] for item in shared)
    rows = running.api.json("GET", "/system/df")["Containers"]
    sizes = {row["Id"]: row.get("SizeRw") for row in rows}
    assert sizes[one.id] == files(one)[0]["Size"]


def test_a_full_host_makes_the_guest_wait(running: EngineProcess, vms: Place) -> None:
    made = vms.create("busy", *IDLE)
    small = directory(running, made) / layers.DIRECTORY
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(small)], check=True)
    try:
        put_overlays(running, vms, made, 1)
        made.start()
        write = "dd if=/dev/urandom of=/data bs=1M count=40 conv=fsync 2> /dev/null; echo $?"
        asked = threading.Thread(target=made.exec, args=("sh", "-c", write + " > /code"))
        asked.start()
        eventually(lambda: state(made) == "full", 20)
        subprocess.run(["mount", "-o", "remount,size=96m", str(small)], check=True)
        made.api.call("POST", f"{made.path}/unpause")
        asked.join(20)
        assert made.exec("cat", "/code").stdout == "0\n"
        assert state(made) == "in use"
    finally:
        made.kill()
        made.wait()
        subprocess.run(["umount", "-l", str(small)], check=True)


def state(instance: Instance) -> str:
    return str(instance.api.json("GET", f"/proa/instances/{instance.id}/disks")[0]["State"])


def test_snapshots_that_are_killed_lose_nothing(running: EngineProcess, vms: Place) -> None:
    dice = random.Random(SEED)
    made = vms.start("busy", "sh", "-c", WRITER)
    eventually(lambda: told(made) > 3, 20)
    for number in range(3):
        asked = threading.Thread(target=snapshot_quietly, args=(made, f"s{number}"))
        asked.start()
        asked.join(dice.uniform(0.0, 0.06))
        running.kill()
        asked.join()
        before = told_in(running, made)
        running.start()
        eventually(partial(goes_on, made, before), 20)
    process = qemu(running, made)
    assert writable(process) == {layers.load(directory(running, made))["disk"].top.path}
    os.kill(process, signal.SIGKILL)
    made.wait()
    last = told(made)
    made.start().wait()
    assert int(made.logs().stdout.split()[-1]) >= last


def writable(process: int) -> set[Path]:
    """Files of instances that a process can write."""
    found: set[Path] = set()
    for link in Path(f"/proc/{process}/fd").iterdir():
        facts = (link.parent.parent / "fdinfo" / link.name).read_text().splitlines()
        flags = next(int(line.split()[1], 8) for line in facts if line.startswith("flags"))
        path = Path(os.readlink(link))
        if flags & os.O_ACCMODE != os.O_RDONLY and "instances" in path.parts:
            found.add(path)
    return found


def goes_on(instance: Instance, before: int) -> bool:
    return told(instance) > before


def told_in(running: EngineProcess, instance: Instance) -> int:
    """The same while no engine runs: how much of the log there is."""
    return (directory(running, instance) / "log").read_bytes().count(b"\n")


def snapshot_quietly(instance: Instance, name: str) -> None:
    with contextlib.suppress(ApiError, OSError):
        instance.api.call("POST", f"/proa/instances/{instance.id}/snapshots", name=name)


def test_the_command_tells_and_changes_chains(running: EngineProcess, vms: Place) -> None:
    made = vms.create("busy", "sh", "-c", "echo mine > /mine", name="chained")
    put_overlays(running, vms, made, 1)
    made.start().wait()
    told = running.proa("disk", "ls", "--format", "{{.Kind}} {{.Format}}", "chained")
    assert told.stdout.decode().splitlines() == ["overlay qcow2", "disk raw"]
    assert {"Kind": 1, "Path": "/mine"} in made.api.json("GET", f"{made.path}/changes")
    assert running.proa("commit", "chained", "of-a-chain").returncode == 0
    assert vms.run("of-a-chain", "cat", "/mine").stdout == "mine\n"
    assert running.proa("disk", "flatten", "chained").stdout == b"chained\n"
    told = running.proa("disk", "df", "chained")
    assert told.stdout.decode().splitlines()[1].split()[0] in ("disk", "image")
    assert running.proa("disk", "rebase", "chained", "/bin/sh").returncode != 0
    assert running.proa("disk", "rollback", "chained").stdout == b"chained\n"
    assert made.api.json("GET", f"/proa/instances/{made.id}/disks") == []
    refused = running.proa("run", "--vm", "--disk-cache", "fast", "busy", "true")
    assert b"fast" in refused.stderr
    assert refused.returncode != 0
