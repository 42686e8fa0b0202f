"""What the engine tells of memory, sizes and cold files is what other tools find."""

from __future__ import annotations

import os
import re
import subprocess
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from proa.client.sdk import Client
from proa.errors import NotFound
from tests.support.engine import EngineProcess, engine_tag
from tests.support.images import Layer, archive
from tests.support.instances import Instance, Json, Place

MIB = 1 << 20
HELD_MIB = 24
SLEEP = ("sleep", "100000")


def memory(instance: Instance) -> Json:
    """Where its memory is."""
    return dict(instance.api.json("GET", f"/proa/instances/{instance.id}/memory"))


def part(found: Json, name: str) -> int:
    """Bytes of one part, 0 when it is not there."""
    return sum(int(row["Bytes"]) for row in found["Parts"] if row["Name"] == name)


def processes(session: EngineProcess, place: str) -> list[int]:
    """All the host's processes of an instance: its cgroup's, and the monitor above them."""
    for path in Path("/sys/fs/cgroup").rglob(f"proa-{engine_tag(session.root)}/{place}"):
        if pids := [int(pid) for pid in (path / "cgroup.procs").read_text().split()]:
            above = Path(f"/proc/{pids[0]}/stat").read_text().rpartition(")")[2].split()[1]
            return [*pids, int(above)]
    raise AssertionError(f"no cgroup of place '{place}'")


def test_memory_is_what_smem_finds(
    place: Place, session_engine: EngineProcess, require_program: Callable[[str], str]
) -> None:
    smem = require_program("smem")
    instance = place.start("busy", *SLEEP)
    pids = processes(session_engine, str(instance.inspect()["Proa"]["Place"]))
    said = subprocess.run([smem, "-H", "-c", "pid pss"], capture_output=True, text=True, check=True)
    pairs = (line.split() for line in said.stdout.splitlines())
    rows = {int(pid): int(pss) for pid, pss in pairs}
    found = memory(instance)
    assert found["Processes"] == len(pids)
    beyond = ("page tables", "kernel", "files in memory")  # of no process
    mapped = found["PssBytes"] - sum(part(found, name) for name in beyond)
    assert mapped == pytest.approx(sum(rows[pid] for pid in pids) * 1024, rel=0.05, abs=200_000)
    assert found["PssBytes"] == found["PrivateBytes"] + found["SharedBytes"]
    assert found["PssBytes"] == sum(row["Bytes"] for row in found["Parts"])
    assert found["CpuNs"] > 0


def test_what_a_program_fills_is_found_in_the_right_part(place: Place) -> None:
    instance = place.start("busy", "sh", "-c", "echo; exec sleep 100000")
    before = memory(instance)
    fill = f"head -c {HELD_MIB * MIB} /dev/urandom >/dev/shm/x"
    assert instance.exec("sh", "-c", fill).code == 0
    after = memory(instance)
    where = {"container": "files in memory", "vm": "guest RAM, its own"}[place.isolation]
    grown = part(after, where) - part(before, where)
    assert HELD_MIB * MIB <= grown <= (HELD_MIB + 12) * MIB  # a guest's kernel takes some, too
    assert after["PrivateBytes"] - before["PrivateBytes"] >= HELD_MIB * MIB


def test_clones_share_what_they_have_not_written(vm: Place) -> None:
    first = vm.start("busy", *SLEEP, Proa={"Start": "template"})
    alone = memory(first)
    second = vm.start("busy", *SLEEP, Proa={"Start": "template"})
    ours, theirs = memory(first), memory(second)
    name = "guest RAM of the template"
    assert part(ours, name) > 0 and part(theirs, name) > 0
    assert part(ours, name) + part(theirs, name) < 1.6 * part(alone, name) or (
        part(alone, name) < 1.2 * part(ours, name)  # others shared it already
    )
    whole = next(row for row in ours["Beside"] if row["Name"] == "template, all of it")
    assert whole["Bytes"] > part(ours, name) and whole["Shared"]


def test_nobody_runs_nobody_has_memory(container: Place) -> None:
    from tests.support.http import ApiError

    with pytest.raises(ApiError, match="not running"):
        memory(container.create("busy", "true"))


# -- sizes ----------------------------------------------------------------------------------------


def packaged() -> list[bytes]:
    """Two layers: packages with their files by dpkg's lists; one file replaced, one removed."""
    low, high = Layer(), Layer()
    for name in ("var", "var/lib", "var/lib/dpkg", "var/lib/dpkg/info", "usr", "usr/bin", "opt"):
        low.directory(name)
    low.file("usr/bin/one", os.urandom(300_000))
    low.file("usr/bin/two", os.urandom(500_000))
    low.file("usr/bin/gone", os.urandom(200_000))
    low.file("opt/own", os.urandom(100_000))
    lists = {"alpha": "/.\n/bin/one\n", "beta:amd64": "/usr/bin/two\n/usr/bin/gone\n"}
    for name, text in lists.items():
        low.file(f"var/lib/dpkg/info/{name}.list", text)
    high.directory("usr")
    high.directory("usr/bin")
    high.file("usr/bin/.wh.gone", "")
    high.file("usr/bin/two", os.urandom(400_000))
    return [low.bytes(), high.bytes()]


def du(path: Path) -> int:
    """What du says."""
    done = subprocess.run(["du", "-sB1", path], capture_output=True, text=True, check=True)
    return int(done.stdout.split()[0])


def layer(session: EngineProcess, diff_id: str) -> Path:
    """Where an unpacked layer is."""
    return session.root / "images/layers" / diff_id.removeprefix("sha256:")


def test_sizes_and_ledger_are_what_du_finds(session_engine: EngineProcess) -> None:
    low, high = packaged()
    session_engine.api.load(archive("packaged", low, high))
    session_engine.api.load(archive("cousin", low))
    with Client(f"unix://{session_engine.socket}") as client:
        found = client.sizes("packaged")
        measured = client.sizes("packaged", compress=True)
    assert found.unpacked_bytes == sum(
        du(layer(session_engine, item.diff_id)) for item in found.layers
    )
    assert [item.shared for item in found.layers] == [True, False]
    assert found.shared_bytes == found.layers[0].unpacked_bytes
    assert found.unique_bytes == found.layers[1].unpacked_bytes
    assert found.compressed_bytes == len(low) + len(high)  # it was loaded as it is
    assert all(item.plain for item in found.layers)
    sent = (len(zlib.compress(data)) for data in (low, high))
    assert measured.compressed_bytes == pytest.approx(sum(sent), rel=0.05)
    rows = {row.name: row.bytes for row in found.ledger}
    assert sum(rows.values()) == found.unpacked_bytes

    def blocks(size: int) -> int:
        return -(-size // 4096) * 4096

    assert rows["alpha"] == blocks(300_000)
    assert rows["beta"] == blocks(400_000)
    assert rows["hidden in lower layers"] >= blocks(500_000) + blocks(200_000)
    assert blocks(100_000) <= rows["others"] <= blocks(100_000) + 5 * 4096


def test_a_vm_adds_to_the_disk_what_du_finds(vm: Place, session_engine: EngineProcess) -> None:
    instance = vm.start("busy", *SLEEP)
    root = session_engine.root
    with Client(f"unix://{session_engine.socket}") as client:
        found = {part.name: part for part in client.sizes("busy").vm}
    kernels = [du(path) for path in root.glob("vm/kernels/*/vmlinux")]
    assert found["kernel"].bytes in kernels and found["kernel"].shared
    assert found["initramfs"].bytes == sum(du(path) for path in root.glob("vm/initramfs-*"))
    image = instance.inspect()["Image"].removeprefix("sha256:")
    assert found["image as a disk"].bytes == du(root / f"images/disks/{image}.erofs")
    templates = {
        sum(du(file) for name in ("memory", "state", "seed") if (file := path / name).exists())
        for path in root.glob("vm/templates/*/")
    }
    assert found["template"].bytes in templates and found["template"].shared
    empty = du(root / f"instances/{instance.id}/disk")
    assert found["empty writable disk"].bytes == pytest.approx(empty, abs=1 * MIB)


def test_a_disk_is_sized_by_its_file(session_engine: EngineProcess, tmp_path: Path) -> None:
    disk = tmp_path / "a disk.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", disk, "3G"], check=True)
    with Client(f"unix://{session_engine.socket}") as client:
        found = client.sizes(str(disk))
        cooled = {part.name: part for part in client.cool(str(disk)).parts}
        with pytest.raises(NotFound, match="no such file"):
            client.sizes(str(tmp_path / "nowhere"))
    assert found.virtual_bytes == 3 << 30
    assert found.unpacked_bytes == du(disk) == sum(row.bytes for row in found.ledger)
    assert cooled["disk"].before > 0 and cooled["disk"].after == 0


def test_a_guest_reads_where_a_disks_bytes_went(
    session_engine: EngineProcess, tmp_path: Path
) -> None:
    tree, disk = tmp_path / "tree", tmp_path / "disk.raw"
    for name, size in (("usr/bin/one", 3 * MIB), ("srv/two", MIB), ("etc/os-release", 10)):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_bytes(os.urandom(size))
    lists = tree / "var/lib/dpkg/info/alpha.list"
    lists.parent.mkdir(parents=True)
    lists.write_text("/bin/one\n")
    made = ["mke2fs", "-q", "-t", "ext4", "-d", str(tree), str(disk), "32M"]
    subprocess.run(made, check=True)
    before = disk.read_bytes()
    with Client(f"unix://{session_engine.socket}") as client:
        found = {row.name: row.bytes for row in client.sizes(str(disk), inside=True).ledger}
    assert found["alpha"] == 3 * MIB and MIB <= found["others"] < MIB + 1000
    said = subprocess.run(["dumpe2fs", "-h", str(disk)], capture_output=True, text=True, check=True)
    facts = dict(line.split(":", 1) for line in said.stdout.splitlines() if ":" in line)
    used = int(facts["Block count"]) - int(facts["Free blocks"])
    assert sum(found.values()) == used * int(facts["Block size"])
    assert disk.read_bytes() == before


# -- cold -----------------------------------------------------------------------------------------


def test_what_was_cooled_is_not_in_the_page_cache(
    session_engine: EngineProcess, container: Place, require_program: Callable[[str], str]
) -> None:
    fincore = require_program("fincore")
    session_engine.api.load(archive("cold", *packaged()))
    container.run("busy", "true")

    def resident(paths: list[Path]) -> int:
        command = [fincore, "--bytes", "--noheadings", "-o", "RES", *map(str, paths)]
        said = subprocess.run(command, capture_output=True, text=True, check=True)
        return sum(map(int, said.stdout.split()))

    with Client(f"unix://{session_engine.socket}") as client:
        layers = [layer(session_engine, item.diff_id) for item in client.sizes("cold").layers]
        files = [path for top in layers for path in (top / "root").rglob("*") if path.is_file()]
        for path in files:
            path.read_bytes()
        before = resident(files)
        found = {part.name: part for part in client.cool("cold").parts}
    assert before >= 1_000_000
    assert found["layers"].before == before and found["layers"].after == 0
    assert resident(files) == 0
    assert found["layers"].files == len([path for path in files if path.stat().st_size])
    assert found["programs"].bytes > 0


# -- the host, and starts -------------------------------------------------------------------------


def test_the_host_is_what_its_own_tools_say(session_engine: EngineProcess) -> None:
    with Client(f"unix://{session_engine.socket}") as client:
        found = client.host()
    assert all(isinstance(value, str) for value in found.values())
    assert found["kernel"] == os.uname().release
    assert found["processors"] == str(os.cpu_count())
    asked = ["findmnt", "-no", "FSTYPE", "-T", str(session_engine.root)]
    kind = subprocess.run(asked, capture_output=True, text=True, check=True)
    assert found["store_file_system"] == kind.stdout.strip()
    assert found["accelerator"] in ("kvm", "tcg") or "first vm" in found["accelerator"]


def milestones(instance: Instance) -> dict[str, int]:
    """Of its last start."""
    found = instance.api.json("GET", f"/proa/instances/{instance.id}/trace")["Milestones"]
    return {row["Milestone"]: row["Nanoseconds"] for row in found}


def test_milestones_come_in_their_order(place: Place) -> None:
    found = milestones(place.start("busy", *SLEEP))
    assert list(found) == ["request", "place", "init", "exec"]
    assert list(found.values()) == sorted(found.values())


@pytest.fixture(scope="module")
def named(session_engine: EngineProcess, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A vmlinuz with its modules beside it, made of the engine's own kernel."""
    kept = next(session_engine.root.glob("vm/kernels/*/more/vmlinuz")).parents[1]
    root = tmp_path_factory.mktemp("kernel")
    modules = root / "lib/modules" / kept.name / "kernel"
    modules.mkdir(parents=True)
    (root / "boot").mkdir()
    for path in (*kept.glob("modules/*.ko"), *kept.glob("more/*.ko")):
        (modules / path.name).write_bytes(path.read_bytes())
    image = root / "boot" / "kernel"  # its name tells nothing
    image.write_bytes((kept / "more/vmlinuz").read_bytes())
    return image


def proa(instance: Instance) -> dict[str, Any]:
    """What inspect says beyond Docker."""
    return dict(instance.inspect()["Proa"])


def test_a_vm_boots_the_kernel_it_was_given(
    vm: Place, named: Path, session_engine: EngineProcess
) -> None:
    vm.run("busy", "true")
    wanted = {"Start": "boot", "Kernel": str(named)}
    booted = vm.start("busy", *SLEEP, Proa=wanted)
    found = proa(booted)
    assert found["StartedBy"] == found["Start"] == "boot"
    assert found["KernelOrigin"] == f"named: {named}"
    assert found["Kernel"] == booted.exec("uname", "-r").stdout.strip()
    clone = vm.start("busy", *SLEEP, Proa={"Start": "template", "Kernel": str(named)})
    usual = vm.start("busy", *SLEEP, Proa={"Start": "template"})
    assert proa(clone)["StartedBy"] == "template" and "named" not in proa(usual)["KernelOrigin"]
    copied = session_engine.proa("fork", clone.id)
    assert copied.returncode == 0, copied.stderr
    fork = Instance(vm.api, copied.stdout.decode().split()[0])
    assert proa(fork)["KernelOrigin"] == f"named: {named}"
    fork.remove()
    refused = session_engine.proa("fork", booted.id)
    assert b"booted by itself" in refused.stderr


def test_a_start_that_cannot_be_had_is_refused(session_engine: EngineProcess, named: Path) -> None:
    large = ("--start", "template", "-m", "3g")
    nowhere = named.with_name("nowhere")
    text = named.with_name("text")
    text.write_text("not a kernel")
    for words, said in (
        (("--vm", *large), "a start from a template was demanded"),
        (("--start", "boot"), "'Start' is for a vm"),
        (("--vm", "--kernel", str(nowhere)), "no such file"),
        (("--vm", "--kernel", str(text)), "cannot be a vm's kernel"),
        (("--vm", "--kernel", "/"), "is no regular file"),
    ):
        done = session_engine.proa("run", "--rm", *words, "busy", "true")
        assert done.returncode == 125, (words, done.stderr)
        assert re.search(said, done.stderr.decode()), (words, done.stderr)
