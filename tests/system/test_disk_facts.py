"""A machine's disk before `proa advise`: read by a confined guest, never written or trusted."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from proa.advice.disk import machine
from proa.advice.disk.machine import Machine
from proa.advice.split.draft import draft
from proa.client.sdk import Client
from proa.compare import appfile
from proa.errors import Invalid, NotFound, Unsupported
from tests.support import case_disks, disks, monolith
from tests.support.cases import Case, Link, Tree
from tests.support.engine import EngineProcess
from tests.support.images import Layer, archive
from tests.support.labelled import disks as labelled

# What a stranger's disk may have, and what may not matter.
TRAPS: Tree = {
    "etc/loop.conf": Link("loop.conf"), "etc/out.conf": Link("/proc/kcore"),
    "etc/up.conf": Link("../../../../etc/shadow"), "etc/cron.weekly": Link("/dev"),
    "etc/modules-load.d/\x1b[2J\n.conf": "\x1b[31m\n", "etc/binary.conf": b"\0\1\2" * 99,
    "opt/shop/" + "d/" * 60 + "deep.py": "x", "etc/default/latin": b"A=\xff\xfe\n",
}  # fmt: skip


@pytest.fixture
def client(session_engine: EngineProcess) -> Client:
    """The SDK on the shared engine."""
    return Client(str(session_engine.socket))


def digest(path: Path) -> str:
    """What is in a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def alike(found: Machine, judged: Machine) -> None:
    """The same machine, but for what only a whole disk says."""
    assert found.services == judged.services
    same = ("name", "partitions", "virtual_bytes", "used_bytes", "problems")
    assert replace(found, **{key: getattr(judged, key) for key in same}) == judged


def test_a_guest_reads_what_debugfs_reads_and_the_disk_stays_as_it_was(
    session_engine: EngineProcess, tmp_path: Path
) -> None:
    case = replace(labelled.CASES[0], tree={**labelled.SHOP, **TRAPS})
    root = case_disks.make(case, tmp_path / "root.img", tmp_path)
    with (tmp_path / "root" / "etc" / "huge.conf").open("wb") as file:
        file.truncate(1 << 25)
    disks.ext4(root, tmp_path / "root", case_disks.SIZE_MIB, "-L", "root")
    judged = case_disks.by_debugfs(root, tmp_path)
    raw = disks.partitioned(tmp_path / "raw.img", [root])
    disk = tmp_path / "shop.qcow2"
    disks.run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, disk)
    before = digest(disk)
    done = session_engine.proa("advise", "--json", str(disk), "--split", str(tmp_path / "app.yaml"))
    assert done.returncode == 0, done.stderr
    (advice,) = json.loads(done.stdout)["Advice"]
    found = machine.load(advice["Machine"])
    alike(found, judged)
    assert digest(disk) == before
    assert advice["Form"] == "vm" and found.partitions == ("partition 1: ext4 'root'",)
    assert all(fact["Source"] for fact in advice["Facts"])
    again = session_engine.proa("advise", str(disk), "--split", str(tmp_path / "app.yaml"))
    assert again.returncode == 125 and b"is there already" in again.stderr
    names = {item.name for item in appfile.read([str(tmp_path / "app.yaml")], {}).services}
    assert {"nginx", "postgresql"} < names
    assert "hunter2" not in (tmp_path / "app.yaml").read_text()
    assert isinstance(yaml.safe_load((tmp_path / "app.yaml").read_text()), dict)


def test_another_system_held_by_an_image(
    session_engine: EngineProcess, client: Client, tmp_path: Path
) -> None:
    case = Case("bsd", "disk", "vm", "", "", config={"type": "a5"})
    path = case_disks.make(case, tmp_path / "bsd.img", tmp_path)
    layer = Layer()
    layer.file("disk/bsd.img", path.read_bytes())
    session_engine.api.load(archive("bsd-disk", layer.bytes()))
    found = machine.load(client.disk_facts("bsd-disk"))
    assert (found.system, found.services) == ("freebsd", ())
    assert "386BSD" in found.system_source or "disk label" in found.system_source


def test_several_roots(client: Client, tmp_path: Path) -> None:
    roots = []
    for name in ("one", "two"):
        place = tmp_path / name
        (place / "etc").mkdir(parents=True)
        (place / "etc" / "os-release").write_text(f"ID={name}\n")
        (place / "etc" / "passwd").write_text("root:x:0:0::/:/bin/sh\n")
        roots.append(disks.ext4(tmp_path / f"{name}.img", place, 8))
    disk = disks.partitioned(tmp_path / "disk.img", roots)
    with pytest.raises(Invalid, match="several partitions may be the root: 1, 2"):
        client.disk_facts(str(disk))


def test_the_monolith_is_taken_apart(
    session_engine: EngineProcess, client: Client, tmp_path: Path
) -> None:
    found = machine.load(client.disk_facts(str(monolith.disk(session_engine)), root=3))
    parts = {service.name: service for service in found.role("part")}
    assert set(parts) == {"nginx", "postgresql", "shop"} and not found.role("kernel")
    assert {
        name: [(str(port), port.local) for port in service.ports] for name, service in parts.items()
    } == {
        "nginx": [("80/tcp", False)], "postgresql": [("5432/tcp", True)],
        "shop": [("8000/tcp", True)],
    }  # fmt: skip
    uses = {name: [need.service for need in item.needs] for name, item in parts.items()}
    assert uses == {"nginx": ["shop"], "shop": ["postgresql"], "postgresql": []}
    assert found.init is not None and found.kernel is not None and found.packages > 150
    assert [item.value for item in parts["postgresql"].data] == ["/var/lib/postgresql/15/main"]
    path = tmp_path / "app.yaml"
    path.write_text(draft(found, "monolith.qcow2"))
    app = {service.name: service for service in appfile.read([str(path)], {}).services}
    assert (app["nginx"].image, app["postgresql"].image) == ("nginx:1.22", "postgres:15")
    assert app["shop"].environment == {"PGHOST": "postgresql"}
    assert app["shop"].command is not None and "0.0.0.0:8000" in app["shop"].command


def test_another_processor_is_told(session_engine: EngineProcess, tmp_path: Path) -> None:
    path = tmp_path / "app.yaml"
    path.write_text("services: {a: {image: none/such, platform: linux/s390x}}")
    done = session_engine.proa("advise", "--json", str(path))
    (advice,) = json.loads(done.stdout)["Advice"]
    found = {fact["Key"]: fact for fact in advice["Facts"]}
    assert found["os.foreign"]["Value"] is True
    assert found["os.foreign"]["Source"].startswith(f"{path}:1 services.a.platform; this host: ")


def test_what_is_no_disk_is_refused(client: Client, tmp_path: Path) -> None:
    backed = tmp_path / "backed.qcow2"
    disks.run("qemu-img", "create", "-f", "qcow2", "-b", "/etc/shadow", "-F", "raw", backed, "1M")
    other = tmp_path / "other.vdi"
    disks.run("qemu-img", "create", "-f", "vdi", other, "1M")
    (tmp_path / "small").write_bytes(b"x")
    with pytest.raises(Unsupported, match="backing file"):
        client.disk_facts(str(backed))
    for path in (other, tmp_path / "small"):
        with pytest.raises(Unsupported, match="cannot be looked at as it is"):
            client.disk_facts(str(path))
    with pytest.raises(Invalid, match="no regular file"):
        client.disk_facts(str(tmp_path))
    with pytest.raises(NotFound, match="cannot open the disk"):
        client.disk_facts(str(tmp_path / "gone"))
    with pytest.raises(NotFound):
        client.disk_facts("no/such:image")
