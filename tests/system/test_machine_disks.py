"""Disks of whole machines: overlays over somebody's disk, moved to another, made images."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from proa.isolation.vm import layers
from tests.conftest import need
from tests.support import grubs
from tests.support.engine import EngineProcess, engine
from tests.support.http import ApiError
from tests.support.images import busy_image
from tests.support.instances import Instance, Place, eventually

MIB = 1 << 20
SIZE = 64 * MIB
FILLER = """
dd if=/dev/urandom of=/big bs=1M count=32 2> /dev/null; sync; echo it is full
read word; rm /big /etc/group; echo x > /written; echo x >> /etc/passwd; sync
fstrim / && echo it is trimmed
read word
"""


@pytest.fixture(scope="module")
def running() -> Iterator[EngineProcess]:
    need(shutil.which("qemu-img"), "qemu", "no 'qemu-img'")
    need(grubs.MODULES.is_dir(), "grub", "no GRUB for a PC's BIOS")
    with engine() as made:
        yield made


@pytest.fixture
def vms(running: EngineProcess) -> Iterator[Place]:
    made = Place(running.api, "vm")
    yield made
    made.close()


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A disk that boots, with something on it."""
    path = grubs.disk(tmp_path / "base.raw")
    with path.open("r+b") as file:
        file.truncate(SIZE)
        file.seek(8 * MIB)
        file.write(os.urandom(4 * MIB))
    return path


def machine(vms: Place, disk: Path) -> Instance:
    return vms.create("", Proa={"Disk": str(disk), "Firmware": "bios"})


def chain(running: EngineProcess, instance: Instance) -> layers.Chain:
    return layers.load(running.root / "instances" / instance.id)[layers.FIRST]


def written(running: EngineProcess, instance: Instance) -> Instance:
    """A machine that ran once, and has something of its own on its disk."""
    instance.start().kill()
    instance.wait()
    words = ["-c", "write -P 7 9M 64k", "-c", "write -P 8 40M 1M", "-c", "write -z 10M 64k"]
    subprocess.run(
        ["qemu-io", *words, "--image-opts", options(chain(running, instance))],
        check=True, capture_output=True,
    )  # fmt: skip
    return instance


def options(found: layers.Chain) -> str:
    """A chain in the words of `--image-opts`."""
    parts: list[str] = []
    prefix = ""
    for layer in found.layers:
        parts += [f"{prefix}driver={layer.format}", f"{prefix}file.filename={layer.path}"]
        prefix += "backing."
    return ",".join(parts)


def content(found: layers.Chain, path: Path) -> bytes:
    command = ["qemu-img", "convert", "--image-opts", options(found), "-O", "raw", str(path)]
    subprocess.run(command, check=True, capture_output=True)
    return path.read_bytes()


def test_a_machine_is_put_over_another_base(
    running: EngineProcess, vms: Place, base: Path, tmp_path: Path
) -> None:
    made = written(running, machine(vms, base))
    before = content(chain(running, made), tmp_path / "before")
    other = tmp_path / "other.qcow2"
    subprocess.run(["qemu-img", "convert", "-O", "qcow2", "-c", str(base), str(other)], check=True)
    subprocess.run(["qemu-io", "-f", "qcow2", "-c", "write -P 3 20M 1M", str(other)], check=True)
    path = f"/proa/instances/{made.id}/rebase"
    running.api.call("POST", path, {"Base": str(other)})
    after = chain(running, made)
    assert [layer.path for layer in after.layers[1:]] == [other]
    assert content(after, tmp_path / "after") == before
    assert after.top.path.stat().st_blocks * 512 < 3 * MIB
    base.unlink()
    made.start()
    with pytest.raises(ApiError, match="running and cannot be rebased"):
        running.api.call("POST", path, {"Base": str(other)})
    moved = other.rename(tmp_path / "moved.qcow2")
    made.kill()
    made.wait()
    with pytest.raises(ApiError, match="not the base that was"):
        running.api.call("POST", path, {"Base": str(tmp_path / "before"), "Moved": True})
    running.api.call("POST", path, {"Base": str(moved), "Moved": True})
    assert content(chain(running, made), tmp_path / "after") == before


def test_a_base_that_was_changed_is_not_gone_on_with(
    running: EngineProcess, vms: Place, base: Path
) -> None:
    made = written(running, machine(vms, base))
    with base.open("r+b") as file:
        file.write(b"x")
    with pytest.raises(ApiError, match="was changed after"):
        made.start()
    running.api.call("POST", f"/proa/instances/{made.id}/rollback")
    made.start()


def test_an_overlay_with_a_strangers_header_is_not_opened(
    running: EngineProcess, vms: Place, base: Path, tmp_path: Path
) -> None:
    made = written(running, machine(vms, base))
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret" * 1000)
    top = chain(running, made).top.path
    subprocess.run(
        ["qemu-img", "create", "-q", "-f", "qcow2", "-b", str(secret), "-F", "raw", str(top)],
        check=True,
    )
    with pytest.raises(ApiError, match="not what was written"):
        made.start()


@pytest.mark.parametrize("live", [True, False], ids=["running", "stopped"])
def test_a_machine_becomes_an_image_with_a_disk(
    running: EngineProcess, vms: Place, base: Path, tmp_path: Path, live: bool
) -> None:
    made = written(running, machine(vms, base))
    before = content(chain(running, made), tmp_path / "before")
    if live:
        made.start()
    name = f"machine-{live}".lower()
    running.api.call("POST", "/commit", container=made.id, repo=name)
    copy = vms.create(name)
    copy.start().kill()
    copy.wait()
    bottom = chain(running, copy).layers[-1]
    assert bottom.format == "qcow2"
    assert content(layers.Chain((bottom,)), tmp_path / "after") == before
    assert [layer["Kind"] for layer in files(copy)] == ["overlay", "base"]


def files(instance: Instance) -> list[dict[str, object]]:
    (disk,) = instance.api.json("GET", f"/proa/instances/{instance.id}/disks")
    found: list[dict[str, object]] = disk["Files"]
    return found


def test_a_running_machine_gets_a_disk_of_its_own(
    running: EngineProcess, vms: Place, base: Path, tmp_path: Path
) -> None:
    made = written(running, machine(vms, base))
    before = content(chain(running, made), tmp_path / "before")
    made.start()
    running.api.call("POST", f"/proa/instances/{made.id}/flatten")
    assert [layer["Format"] for layer in files(made)] == ["raw"]
    made.kill()
    made.wait()
    assert content(chain(running, made), tmp_path / "after") == before
    base.unlink()
    made.start()


def test_what_a_machine_trims_comes_back_and_what_it_changed_is_told(
    running: EngineProcess, vms: Place, tmp_path: Path
) -> None:
    running.api.load(busy_image())
    filler = vms.create("busy", "sh", "-c", FILLER)
    running.api.call("POST", "/commit", container=filler.id, repo="filler")
    path = tmp_path / "filler.qcow2"
    done = running.proa(
        "image", "to-disk", "--size", "256m", "--init", "program", "filler", str(path)
    )
    assert done.returncode == 0, done.stderr.decode()
    made = vms.create("", Proa={"Disk": str(path)}, OpenStdin=True)
    console = made.attach()
    made.start()
    eventually(lambda: "it is full" in made.logs().stdout, 60)
    full = own(made)
    assert full > 32 * MIB
    console.sendall(b"go\n")
    eventually(lambda: "it is trimmed" in made.logs().stdout, 60)
    assert own(made) < full - 24 * MIB
    made.kill()
    made.wait()
    told = made.api.json("GET", f"{made.path}/changes")
    assert {"Kind": 1, "Path": "/written"} in told
    assert {"Kind": 2, "Path": "/etc/group"} in told
    assert {"Kind": 0, "Path": "/etc/passwd"} in told
    assert "/bin/busybox" not in {change["Path"] for change in told}


def own(instance: Instance) -> int:
    return int(str(files(instance)[0]["Size"]))
