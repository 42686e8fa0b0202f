"""Images made into disks that boot in a plain QEMU, and disks of all kinds made into images."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from proa.client import Client
from tests.conftest import need
from tests.support import disks
from tests.support.engine import EngineProcess
from tests.support.images import Layer, archive, busy_layer, probe_image
from tests.support.paths import PROA

SCRIPT = "echo up $FROM_IMAGE as $(id -u) on $(hostname) $(ip -4 addr show eth0); exit 7"
KEY = "security.capability"
CAPABILITY = bytes.fromhex("0100000200200000000000000000000000000000")
Proa = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def proa(session_engine: EngineProcess) -> Proa:
    """Runs the command."""

    def call(*words: str | Path, code: int = 0) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [PROA, *words], env=session_engine.variables(), capture_output=True, text=True,
            timeout=240, check=False,
        )  # fmt: skip
        assert done.returncode == code, done.stderr
        return done

    return call


@dataclass(frozen=True)
class Booted:
    """Two machines that ran from disks made of images, and one of the disks."""

    bios: str
    uefi: str
    disk: Path


@pytest.fixture(scope="module")
def booted(
    proa: Proa, session_engine: EngineProcess, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Booted]:
    """A shell's image under BIOS with virtio, a static binary's under UEFI with SATA."""
    need(disks.UEFI.exists(), "ovmf", "no UEFI firmware for QEMU")
    directory = tmp_path_factory.mktemp("disks")
    layer = busy_layer()
    layer.add("srv/node", tarfile.CHRTYPE, 0o640, devmajor=1, devminor=3, uid=7, gid=70000)
    layer.add("srv/pipe", tarfile.FIFOTYPE, 0o600)
    attributes = {f"SCHILY.xattr.{KEY}": CAPABILITY.decode(), "SCHILY.xattr.user.note": "x"}
    layer.add("srv/able", tarfile.REGTYPE, 0o6755, pax_headers=attributes)
    layer.add("srv/able2", tarfile.LNKTYPE, 0o6755, linkname="srv/able")
    config = {"Cmd": ["sh", "-c", SCRIPT], "Env": ["PATH=/bin", "FROM_IMAGE=yes"], "User": "alice"}
    session_engine.api.load(archive("machine", layer.bytes(), **config))
    session_engine.api.load(probe_image("static", Cmd=["both", "outward", "inward"]))
    first, second = directory / "machine.qcow2", directory / "static.raw"
    proa("image", "to-disk", "machine", first, "--hostname", "hull", "--size", "500m")
    proa("image", "to-disk", "static", second)
    with ExitStack() as stack:
        bios = disks.boot(first, "qcow2", "-device", "virtio-blk-pci,drive=disk",
                          "-nic", "user,model=virtio-net-pci")  # fmt: skip
        stack.callback(bios.kill)
        uefi = disks.boot(second, "raw", "-M", "q35", "-bios", str(disks.UEFI), "-nic", "none",
                          "-device", "ide-hd,drive=disk")  # fmt: skip
        stack.callback(uefi.kill)
        yield Booted(disks.serial_console(bios), disks.serial_console(uefi), first)


def test_a_shell_runs_under_bios(booted: Booted) -> None:
    assert "up yes as 1000 on hull" in booted.bios
    assert "inet 10.0.2." in booted.bios  # QEMU's own network gives these
    assert "proa: the command ended with exit code 7" in booted.bios


def test_a_static_binary_alone_runs_under_uefi(booted: Booted) -> None:
    assert "outward" in booted.uefi
    assert "inward" in booted.uefi
    assert "proa: the command ended with exit code 0" in booted.uefi


def test_the_same_image_gives_the_same_table(proa: Proa, booted: Booted, tmp_path: Path) -> None:
    heads = []
    for name in ("one.raw", "two.raw"):
        proa("image", "to-disk", "machine", tmp_path / name, "-q")
        with (tmp_path / name).open("rb") as file:
            heads.append(file.read(66 << 20))  # boot code, table, core.img, the whole ESP
    assert heads[0] == heads[1]


def test_what_cannot_be_a_disk(proa: Proa, booted: Booted, tmp_path: Path) -> None:
    out = tmp_path / "disk.raw"
    for words, said in (
        (("machine", out, "--size", "70m"), "too small"),
        (("machine", out, "--format", "floppy"), "unknown format"),
        (("machine", out, "--cmdline", "x\n}"), "boot loader"),
        (("machine", out, "--init", "image"), "no init of its own"),
        (("machine", out, "--kernel", "/etc/passwd"), "not a bzImage"),
        (("no-such-image", out), "no such image"),
    ):
        assert said in proa("image", "to-disk", *words, code=125).stderr
        assert not list(tmp_path.iterdir())
    out.write_text("precious")
    assert "there already" in proa("image", "to-disk", "machine", out, code=125).stderr
    assert out.read_text() == "precious"


def test_links_of_an_image_lead_nowhere(
    proa: Proa, session_engine: EngineProcess, tmp_path: Path
) -> None:
    """Its kernel, modules and init are looked for within its own tree."""
    layer = Layer()
    layer.file("app", "#!")
    layer.directory("boot")
    layer.file("boot/vmlinuz-10", "no kernel" * 1000)
    layer.symlink("boot/vmlinuz-9", "/boot/../../../etc/shadow")
    layer.symlink("boot/vmlinuz-8", "/proc/self/mem")
    layer.add("boot/vmlinuz-7", tarfile.FIFOTYPE, 0o600)
    layer.directory("lib")
    layer.symlink("lib/modules", "/lib/modules")
    layer.directory("sbin")
    layer.symlink("sbin/init", "/bin/systemd")
    session_engine.api.load(archive("linked", layer.bytes(), Cmd=["/app"]))
    done = proa("image", "to-disk", "linked", tmp_path / "disk.qcow2")
    assert "init: '/app'" in done.stderr
    assert "Proa's (" in done.stderr


def test_there_and_back(session_engine: EngineProcess, booted: Booted, tmp_path: Path) -> None:
    disk = tmp_path / "disk.raw"
    with Client(f"unix://{session_engine.socket}") as client:
        client.to_disk("machine", disk, format="raw", size=400 << 20)
        made = client.from_disk(disk, "machine-back")
    assert made["names"] == ["machine-back:latest"]
    before = disks.tree_of(session_engine.api, "machine")
    after = disks.tree_of(session_engine.api, "machine-back")
    assert after.pop(".")[:4] == (b"5", 0o755, 0, 0)
    assert after == before


# -- disks of other makes --------------------------------------------------------------------------


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """A machine's root directory: software, state, a service."""
    root = tmp_path / "root"
    units = "usr/lib/systemd/system"
    for path, text in {
        "etc/os-release": 'PRETTY_NAME="Made up 1"\n', "etc/passwd": "root:x:0:0::/:/bin/sh\n",
        "etc/machine-id": "0123\n", "etc/ssh/ssh_host_rsa_key": "secret", "usr/bin/app": "app",
        "boot/vmlinuz-1": "k" * 5000, "boot/initrd.img-1": "i" * 3000, "boot/grub/grub.cfg": "g",
        "usr/lib/modules/1/kernel/a.ko": "m" * 700, "swapfile": "s" * 4096, "home/u/.profile": "p",
        "var/log/syslog": "l" * 999, "var/cache/apt/a.deb": "c" * 77, "bin/sh": "shell",
        f"{units}/nginx.service": "[Service]\nExecStart=/usr/sbin/nginx\n",
        "var/lib/dpkg/info/app.list": "/usr/bin/app\n", "var/lib/data": "kept",
    }.items():  # fmt: skip
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    wants = root / "etc/systemd/system/multi-user.target.wants"
    wants.mkdir(parents=True)
    (wants / "nginx.service").symlink_to("/usr/lib/systemd/system/nginx.service")
    os.link(root / "usr/bin/app", root / "usr/bin/app2")
    os.chmod(root / "usr/bin/app", 0o4711)
    os.setxattr(root / "usr/bin/app", KEY, CAPABILITY)
    os.setxattr(root / "etc/passwd", "user.note", b"kept")
    os.mknod(root / "etc/null", 0o020640, os.makedev(1, 3))
    os.chown(root / "var/lib/data", 1000, 70000)
    return root


def taken(proa: Proa, disk: Path, name: str, *words: str) -> dict[str, Any]:
    """Import a disk; its ledger."""
    ledger = disk.with_suffix(".json")
    proa("image", "from-disk", disk, "-t", name, "--ledger", ledger, *words)
    found: dict[str, Any] = json.loads(ledger.read_text())
    return found


def stored(root: Path) -> int:
    """Bytes stored of the files below, each once; du(1) counts directories and whole blocks too."""
    seen = {(f.lstat().st_dev, f.lstat().st_ino): min(f.lstat().st_size, f.lstat().st_blocks * 512)
            for f in root.rglob("*") if f.is_file() and not f.is_symlink()}  # fmt: skip
    return sum(seen.values())


def test_ext4_is_sorted_and_counted(
    proa: Proa, session_engine: EngineProcess, machine: Path, tmp_path: Path
) -> None:
    with (machine / "holes").open("wb") as file:
        file.truncate(48 << 20)
        file.seek(30 << 20)
        file.write(b"d" * 4096)
    size = stored(machine)
    disk = disks.partitioned(
        tmp_path / "disk.raw", [disks.ext4(tmp_path / "part", machine, 64)], "dos"
    )
    text = tmp_path / "Containerfile"
    ledger = taken(proa, disk, "made-up", "--containerfile", str(text))
    found = disks.tree_of(session_engine.api, "made-up")
    assert found["usr/bin/app"][1] == 0o4711
    key, value = found["usr/bin/app"][9][0]
    assert (key, value.encode("utf-8", "surrogateescape")) == (f"SCHILY.xattr.{KEY}", CAPABILITY)
    assert found["etc/passwd"][-1] == (("SCHILY.xattr.user.note", "kept"),)
    assert found["etc/null"][:2] == (b"3", 0o640)
    assert found["etc/null"][6:8] == (1, 3)
    assert found["var/lib/data"][2:4] == (1000, 70000)
    assert found["usr/bin/app"] == found["usr/bin/app2"]
    assert found["usr/bin/app"][10:] == ("usr/bin/app", "usr/bin/app2")
    assert found["holes"][4] == hashlib.sha256((machine / "holes").read_bytes()).hexdigest()
    for gone in ("etc/machine-id", "boot/vmlinuz-1", "swapfile", "var/log/syslog"):
        assert gone not in found
        assert gone in ledger["left_out_paths"]
    assert ledger["file_bytes"] == size
    assert sum(ledger["kept"].values()) + sum(ledger["left_out"].values()) == size
    assert ledger["used_bytes"] == size + ledger["other_bytes"] > size
    assert ledger["packages"] == {"app": 3}
    proposal = text.read_text().splitlines()
    assert proposal[-2:] == ["EXPOSE 80", 'CMD ["nginx", "-g", "daemon off;"]']
    config = session_engine.api.json("GET", "/images/made-up/json")["Config"]
    assert config["Cmd"] == ["nginx", "-g", "daemon off;"]
    assert list(config["ExposedPorts"]) == ["80/tcp"]


def test_xfs_with_further_partitions(
    proa: Proa, session_engine: EngineProcess, machine: Path, tmp_path: Path
) -> None:
    (machine / "etc/fstab").write_text(
        "LABEL=root / xfs defaults 0 1\nLABEL=VAR /var ext4 defaults 0 2\n"
        "UUID=0A1B-2C3D /boot/efi vfat umask=0077 0 1\nUUID=none /srv ext4\n"
    )
    var = tmp_path / "var"
    (var / "lib").mkdir(parents=True)
    (var / "lib/other").write_text("on its own partition")
    (machine / "boot/efi").mkdir()
    prototype = tmp_path / "prototype"
    prototype.write_text(_prototype(machine))
    root, esp = disks.blank(tmp_path / "p2", 320), disks.blank(tmp_path / "p1", 40)
    disks.run("mkfs.xfs", "-q", "-L", "root", "-p", prototype, root)
    disks.run("mkfs.vfat", "-i", "0A1B2C3D", esp)
    more = disks.ext4(tmp_path / "p3", var, 32, "-L", "VAR")
    disk = disks.partitioned(tmp_path / "disk.raw", [esp, root, more])
    done = proa("image", "from-disk", disk, "-t", "of-xfs")
    assert "root: partition 2 (xfs), /var on 3, /boot/efi on 1" in done.stderr, done.stderr
    assert "'UUID=none' for '/srv' is not on this disk" in done.stderr
    found = disks.tree_of(session_engine.api, "of-xfs")
    assert "var/lib/other" in found
    assert "var/lib/data" not in found  # hidden by the mount, as on the machine
    assert "usr/bin/app" in found


def _prototype(root: Path) -> str:
    """What `mkfs.xfs -p` reads: see mkfs.xfs(8)."""
    lines = ["/", "0 0", "d--755 0 0"]

    def describe(directory: Path) -> None:
        for path in sorted(directory.iterdir()):
            mode = f"{path.lstat().st_mode & 0o777:03o}"
            if path.is_symlink():
                lines.append(f"{path.name} l--777 0 0 {path.readlink()}")
            elif path.is_dir():
                lines.append(f"{path.name} d--{mode} 0 0")
                describe(path)
                lines.append("$")
            elif path.is_file():
                lines.append(f"{path.name} ---{mode} 0 0 {path}")

    describe(root)
    return "\n".join([*lines, "$", ""])


def test_btrfs_on_a_whole_disk_in_another_format(
    proa: Proa, session_engine: EngineProcess, machine: Path, tmp_path: Path
) -> None:
    whole = disks.blank(tmp_path / "whole.raw", 128)
    disks.run("mkfs.btrfs", "-q", "--rootdir", machine, whole)
    disk = tmp_path / "disk.vmdk"
    disks.run("qemu-img", "convert", "-f", "raw", "-O", "vmdk", whole, disk)
    ledger = taken(proa, disk, "of-btrfs")
    assert ledger["file_bytes"] == stored(machine)
    found = disks.tree_of(session_engine.api, "of-btrfs")
    assert found["usr/bin/app"][1] == 0o4711
    assert found["etc/null"][0] == b"3"  # mkfs.btrfs forgets which device


# -- hostile disks ---------------------------------------------------------------------------------


def test_a_disk_reads_no_file_of_the_host(proa: Proa, tmp_path: Path) -> None:
    backed, outside = tmp_path / "backed.qcow2", tmp_path / "outside.qcow2"
    disks.run("qemu-img", "create", "-f", "qcow2", "-b", "/etc/shadow", "-F", "raw", backed, "1M")
    data = f"data_file={tmp_path / 'data'},data_file_raw=on"
    disks.run("qemu-img", "create", "-f", "qcow2", "-o", data, outside, "1M")
    flat = tmp_path / "flat.vmdk"
    flat.write_text('# Disk DescriptorFile\nRW 2048 FLAT "/etc/shadow" 0\n'.ljust(512))
    for disk, said in ((backed, "backing file"), (outside, "another file"), (flat, "spread over")):
        assert said in proa("image", "from-disk", disk, code=125).stderr


def test_a_damaged_disk_with_an_odd_table(proa: Proa, machine: Path, tmp_path: Path) -> None:
    """Only a guest's kernel meets it, and says no or reads what there is."""
    (machine / "etc/fstab").symlink_to("/proc/kcore")
    good = disks.ext4(tmp_path / "good", machine, 32)
    bad = tmp_path / "bad"
    data = bytearray(good.read_bytes())
    data[1024 + 4 : 1024 + 24] = b"\xff" * 20  # block counts and the first data block
    data[4096:8192] = os.urandom(4096)
    bad.write_bytes(data)
    disk = disks.partitioned(tmp_path / "disk.raw", [bad, good], "dos")
    with disk.open("r+b") as file:
        file.seek(446 + 2 * 16)
        file.write(bytes([0, 0, 0, 0, 5, 0, 0, 0]) + b"\xff" * 8)  # extended, beyond all ends
        file.write(bytes([0, 0, 0, 0, 0x83, 0, 0, 0]) + (1).to_bytes(4, "little") + b"\xff" * 4)
    done = proa("image", "from-disk", disk, "-t", "odd")
    assert "root: partition 2 (ext4)" in done.stderr
    refused = proa("image", "from-disk", disk, "--root", "1", code=125).stderr
    assert "damaged" in refused or "no root file system" in refused


def test_disks_of_nothing(proa: Proa, tmp_path: Path) -> None:
    volumes = disks.blank(tmp_path / "lvm.raw", 4)
    with volumes.open("r+b") as file:
        file.seek(512)
        file.write(b"LABELONE")
    assert "LVM is not read" in proa("image", "from-disk", volumes, code=125).stderr
    empty = disks.blank(tmp_path / "empty.raw", 4)
    assert "no root file system" in proa("image", "from-disk", empty, code=125).stderr
