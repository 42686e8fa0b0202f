"""Disks without a disk: tables, superblocks, fstab, formats, sorting, the ledger, guesses."""

from __future__ import annotations

import gzip
import io
import json
import lzma
import os
import struct
import subprocess
import uuid
from pathlib import Path

import pytest

from proa.engine import disk_import, disks
from proa.errors import Corrupt, Invalid, Unsupported
from proa.image.machine import formats, fstab, guess, kernel, partition, probe, program
from proa.image.machine.ledger import Ledger, unmerged
from proa.image.machine.sorting import judge
from proa.isolation.vm import bootable, extras, modules

MIB = 1 << 20


# -- partition tables ------------------------------------------------------------------------------


def test_the_table_is_what_sfdisk_reads(tmp_path: Path) -> None:
    rows = [
        partition.Partition("bios", partition.BIOS_BOOT, uuid.UUID(int=1), MIB, MIB),
        partition.Partition("root", partition.LINUX_ROOT, uuid.UUID(int=2), 2 * MIB, 10 * MIB),
    ]
    made = partition.table(uuid.UUID(int=3), rows, 16 * MIB)
    disk = tmp_path / "disk"
    disk.write_bytes(made.primary.ljust(16 * MIB - len(made.backup), b"\0") + made.backup)
    result = subprocess.run(["sfdisk", "--json", disk], capture_output=True, text=True, check=True)
    assert result.stderr == ""
    found = json.loads(result.stdout)["partitiontable"]
    assert found["id"] == str(uuid.UUID(int=3)).upper()
    shown = [(row["name"], row["start"], row["size"]) for row in found["partitions"]]
    assert shown == [("bios", 2048, 2048), ("root", 4096, 20480)]
    check = subprocess.run(["sfdisk", "-V", disk], capture_output=True, text=True, check=True)
    assert "No errors detected" in check.stdout
    assert probe.names_of_table(disk.read_bytes()[:MIB])[2] == (str(uuid.UUID(int=2)), "root")


@pytest.mark.parametrize("count, size, first", [(0xFFFFFFFF, 128, 2), (4, 1, 2), (4, 128, 1 << 60)])
def test_an_absurd_table_names_nothing_absurd(count: int, size: int, first: int) -> None:
    header = bytearray(512)
    header[:8] = b"EFI PART"
    struct.pack_into("<Q", header, 72, first)
    struct.pack_into("<II", header, 80, count, size)
    found = probe.names_of_table((bytes(512) + bytes(header)).ljust(MIB, b"\xff"))
    assert len(found) <= 128


# -- superblocks -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind, command",
    [
        ("ext4", ["mke2fs", "-q", "-F", "-t", "ext4", "-L", "name", "-U", "{}", "{disk}"]),
        ("ext4", ["mke2fs", "-q", "-F", "-t", "ext2", "-L", "name", "-U", "{}", "{disk}"]),
        ("xfs", ["mkfs.xfs", "-q", "-L", "name", "-m", "uuid={}", "{disk}"]),
        ("btrfs", ["mkfs.btrfs", "-q", "-L", "name", "-U", "{}", "{disk}"]),
        ("swap", ["mkswap", "-L", "name", "-U", "{}", "{disk}"]),
    ],
)
def test_superblocks_as_their_tools_write_them(
    kind: str, command: list[str], tmp_path: Path
) -> None:
    disk, identity = tmp_path / "disk", "0a1b2c3d-0000-4000-8000-000000000001"
    with disk.open("wb") as file:
        file.truncate(320 * MIB)
    words = [word.replace("{disk}", str(disk)).replace("{}", identity) for word in command]
    subprocess.run(words, check=True, capture_output=True)
    with disk.open("rb") as file:
        found = probe.volume(7, file.read(probe.HEAD_BYTES))
    assert (found.number, found.kind, found.uuid, found.label) == (7, kind, identity, "name")
    assert (found.used_bytes > 0) == (kind != "swap")


def test_fat_and_nothing(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    with disk.open("wb") as file:
        file.truncate(64 * MIB)
    subprocess.run(
        ["mkfs.vfat", "-n", "NAME", "-i", "0A1B2C3D", disk], check=True, capture_output=True
    )
    with disk.open("rb") as file:
        found = probe.volume(1, file.read(MIB))
    assert (found.kind, found.uuid, found.label) == ("vfat", "0A1B-2C3D", "NAME")
    assert probe.volume(1, bytes(MIB)).kind == ""
    assert probe.volume(1, b"").kind == ""


# -- fstab -----------------------------------------------------------------------------------------

VOLUMES = [
    probe.Volume(1, "vfat", "0A1B-2C3D", "ESP"),
    probe.Volume(2, "ext4", "aaaa", "var", part_uuid="bbbb"),
    probe.Volume(3, "btrfs", "cccc", "data"),
]


@pytest.mark.parametrize(
    "line, number",
    [
        ("UUID=aaaa /var ext4 defaults 0 2", 2),
        ('LABEL="var" /var ext4', 2),
        ("PARTUUID=BBBB /var ext4", 2),
        ("/dev/sda2 /var ext4", 2),
        ("/dev/nvme0n1p2 /var ext4", 2),
        ("/dev/disk/by-uuid/aaaa /var ext4", 2),
        ("UUID=0A1B-2C3D /boot/efi vfat", 1),
    ],
)
def test_lines_that_are_followed(line: str, number: int) -> None:
    table = fstab.read(f"# a comment\nUUID=zzzz / ext4\n{line}\n", VOLUMES)
    assert [mount.volume.number for mount in table.mounts] == [number]
    assert not table.problems


@pytest.mark.parametrize(
    "line",
    [
        "UUID=aaaa /proc ext4", "UUID=aaaa /dev/shm ext4", "UUID=aaaa /../../etc ext4",
        "UUID=aaaa relative ext4", "UUID=aaaa none swap", "tmpfs /tmp tmpfs", "short",
        "UUID=aaaa /a;b ext4", "LABEL= /var ext4 x",
    ],
)  # fmt: skip
def test_lines_that_are_not(line: str) -> None:
    assert fstab.read(line, VOLUMES).mounts == ()


def test_parents_come_first_and_subvolumes_are_plain() -> None:
    text = (
        "UUID=aaaa /var/lib ext4\nUUID=cccc /var btrfs rw,subvol=@var,x\n"
        "UUID=cccc /home btrfs subvol=../../x\nUUID=dddd /srv xfs\n"
    )
    table = fstab.read(text, VOLUMES)
    assert [(m.target, m.subvolume) for m in table.mounts] == [
        ("/home", ""), ("/var", "@var"), ("/var/lib", ""),
    ]  # fmt: skip
    assert table.problems == ("'UUID=dddd' for '/srv' is not on this disk",)


# -- formats ---------------------------------------------------------------------------------------


def qcow2(*, backing: int = 0, features: int = 0, crypt: int = 0) -> bytes:
    head = bytearray(512)
    struct.pack_into(">4sIQ", head, 0, b"QFI\xfb", 3, backing)
    struct.pack_into(">I", head, 32, crypt)
    struct.pack_into(">Q", head, 72, features)
    return bytes(head)


def test_formats_by_their_first_bytes() -> None:
    assert formats.detect(qcow2()) == "qcow2"
    assert formats.detect(b"vhdxfile".ljust(512, b"\0")) == "vhdx"
    assert formats.detect(bytes(512)) == "raw"
    assert formats.detect(b"") == "raw"


@pytest.mark.parametrize(
    "head",
    [
        qcow2(backing=512), qcow2(features=4), qcow2(crypt=1), b"COWD" + bytes(508),
        b"# Disk DescriptorFile\nversion=1\n", b"KDMV" + bytes(508), b"conectix", b"QED\0",
    ],
)  # fmt: skip
def test_disks_that_would_read_other_files_are_refused(head: bytes) -> None:
    with pytest.raises(Unsupported):
        formats.detect(head)


def test_damaged_heads() -> None:
    for head in (qcow2()[:50], qcow2(features=2), b"KDMV"):
        with pytest.raises(Corrupt):
            formats.detect(head)


# -- receiving -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "head",
    [
        b"", b"{}", b"[]", b'{"size": 1, "parts": []}', b'{"size": 1e30, "parts": []}',
        b'{"size": 4096, "parts": [[0, 5000]]}', b'{"size": 4096, "parts": [[-1, 10]]}',
        b'{"size": 4096, "parts": [[512, 512], [0, 512]]}', b'{"size": 4096, "parts": [[0, 512]]}',
        b'{"size": 99999999999999999, "parts": []}', b'{"size": 4096, "parts": [[0, -5]]}',
    ],
)  # fmt: skip
def test_a_disk_that_does_not_arrive(head: bytes, tmp_path: Path) -> None:
    with pytest.raises(Invalid):
        disk_import.receive(io.BytesIO(head + b"\nshort"), tmp_path / "disk")


def test_a_disk_arrives_with_its_holes(tmp_path: Path) -> None:
    body = b'{"size": 1048576, "parts": [[4096, 3], [8192, 2]]}\nabcde'
    assert disk_import.receive(io.BytesIO(body), tmp_path / "disk") == MIB
    data = (tmp_path / "disk").read_bytes()
    assert (data[4096:4099], data[8192:8194], len(data)) == (b"abc", b"de", MIB)
    assert (tmp_path / "disk").stat().st_blocks * 512 < MIB


# -- sorting and counting --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path, category",
    [
        ("boot/vmlinuz-6.1", "kernel and modules"),
        ("usr/lib/modules/6.1/x.ko", "kernel and modules"),
        ("boot/initrd.img-6.1", "initramfs"), ("boot/grub/grub.cfg", "boot loader"),
        ("boot/efi/EFI/debian/grubx64.efi", "boot loader"), ("swapfile", "swap"),
        ("etc/machine-id", "machine state"), ("etc/ssh/ssh_host_rsa_key", "machine state"),
        ("etc/fstab", "machine state"), ("var/log/nginx/access.log", "logs"),
        ("var/lib/apt/lists/x", "package lists"), ("var/cache/apt/x.deb", "caches"),
        ("run/x", "run time"), ("lost+found", "run time"), ("var/lost+found", "run time"),
        ("lib/firmware/a.bin", "firmware"), ("usr/.wh.x", "names that layers use themselves"),
    ],
)  # fmt: skip
def test_left_out(path: str, category: str) -> None:
    verdict = judge(path, directory=False)
    assert (verdict.kept, verdict.category) == (False, category)


@pytest.mark.parametrize(
    "path, category",
    [
        ("etc/passwd", ""), ("usr/bin/swapon", ""), ("home/a/boot/vmlinuz-1", "home"), ("boot", ""),
        ("var/lib/postgresql/15/x", "databases"), ("usr/lib/modules-load.d/x", ""),
        ("var/lib/dpkg/status", "package database"), ("opt/run/x", ""), ("srv/tmp/x", ""),
    ],
)  # fmt: skip
def test_kept(path: str, category: str) -> None:
    verdict = judge(path, directory=False)
    assert (verdict.kept, verdict.category) == (True, category)


def test_directories_of_logs_stay() -> None:
    assert judge("var/log/nginx", directory=True).kept
    assert not judge("lib/modules/6.1", directory=True).kept


def test_the_ledger_adds_up() -> None:
    ledger = Ledger(io.StringIO())
    files = {"usr/bin/a": 10, "usr/bin/b\nc": 20, "etc/x": 5, "swapfile": 100, "home/u/f": 7}
    for path, size in files.items():
        ledger.add(path, size, judge(path, directory=False))
    ledger.settle({"bin/a": "first", "usr/bin/b\nc": "second"})
    document = ledger.document(200)
    assert document["kept"] == {"packages": 30, "home": 7, "files of no package": 5}
    assert document["packages"] == {"second": 20, "first": 10}
    assert document["left_out"] == {"swap": 100}
    assert document["file_bytes"] == sum(files.values())
    assert document["file_bytes"] + document["other_bytes"] == 200


def test_a_package_may_know_a_file_by_its_second_name() -> None:
    ledger = Ledger(io.StringIO())
    ledger.add("usr/bin/z", 10, judge("usr/bin/z", directory=False))
    ledger.alias("usr/bin/z", "usr/bin/a")
    ledger.settle({"bin/a": "owner"})
    assert ledger.packages == {"owner": 10}


def test_paths_of_a_merged_usr() -> None:
    assert unmerged("usr/bin/a") == "bin/a"
    assert unmerged("lib/a/b") == "usr/lib/a/b"
    assert unmerged("etc/a") == "etc/a"


# -- guesses ---------------------------------------------------------------------------------------


def test_a_known_service_wins() -> None:
    units = {"app.service": "[Service]\nExecStart=-/opt/app --port 1\n", "nginx.service": ""}
    found = guess.guess(units, ["ssh.service", "app.service", "nginx.service"], "/bin/sh")
    assert found.command == ("nginx", "-g", "daemon off;")
    assert found.ports == ("80",)
    text = guess.containerfile(found, "a disk\nRUN evil", ["swap"])
    lines = text.splitlines()
    assert lines[-1] == 'CMD ["nginx", "-g", "daemon off;"]'
    assert "EXPOSE 80" in lines
    assert "RUN evil" not in lines
    assert all(line.split()[0] in ("#", "FROM", "ADD", "EXPOSE", "CMD") for line in lines)


def test_a_unit_of_its_own_and_none() -> None:
    unit = "[Service]\nType=forking\nExecStart=/opt/app -d 'a b'\n"
    found = guess.guess({"app.service": unit}, ["app.service"], "/bin/sh")
    assert found.command == ("/opt/app", "-d", "a b")
    assert "forks" in found.notes[-1]
    assert guess.guess({}, ["getty@tty1.service"], "/bin/sh").command == ("/bin/sh",)
    odd = "[Service]\nExecStart=/opt/app 'unfinished\n"
    assert guess.guess({"app.service": odd}, ["app.service"], "").command == ()


# -- first file systems ----------------------------------------------------------------------------


def module(name: str, *needs: str) -> bytes:
    return b"\x7fELF" + name.encode() + b"\0depends=" + ",".join(needs).encode() + b"\0"


def test_drivers_may_refuse_but_for_the_roots(tmp_path: Path) -> None:
    contents = {"ext4": module("ext4", "jbd2"), "jbd2": module("jbd2"), "ahci": module("ahci")}
    files = {}
    for name, data in contents.items():
        path = files[f"{name}.ko.xz"] = tmp_path / f"{name}.ko.xz"
        path.write_bytes(lzma.compress(data))
    drivers = bootable.theirs(files, frozenset())
    assert [name for name, _ in drivers.loaded] == ["jbd2", "ext4", "ahci"]
    assert dict(drivers.loaded) == contents
    packed = bootable.first_files(b"init", drivers, {"machine": b"run x\n"})
    archive = gzip.decompress(packed)
    assert b"-/lib/jbd2.ko\n/lib/ext4.ko\n-/lib/ahci.ko\n" in archive
    assert b"run x\n" in archive
    assert packed == bootable.first_files(b"init", drivers, {"machine": b"run x\n"})


def test_kernels_without_modules_and_without_ext4(tmp_path: Path) -> None:
    assert bootable.theirs({}, frozenset()).loaded == []
    assert bootable.theirs({}, frozenset({"ext4"})).loaded == []
    with pytest.raises(Unsupported):
        bootable.theirs({"ahci.ko": tmp_path}, frozenset())


def test_a_module_that_unfolds_without_end_is_cut(tmp_path: Path) -> None:
    path = tmp_path / "a.ko.xz"
    path.write_bytes(lzma.compress(bytes(modules.MAXIMUM_BYTES + (1 << 20)), preset=0))
    assert len(modules.read(path)) <= modules.MAXIMUM_BYTES


def test_extras_are_kept_by_purpose(tmp_path: Path) -> None:
    xfs, crc = tmp_path / "xfs.ko", tmp_path / "libcrc32c.ko"
    xfs.write_bytes(module("xfs", "libcrc32c"))
    crc.write_bytes(module("libcrc32c"))
    image = tmp_path / "vmlinuz"
    image.write_bytes(b"kernel")
    tree = modules.Tree({"xfs": xfs, "libcrc32c": crc}, frozenset())
    kernel_directory = tmp_path / "kernel"
    kernel_directory.mkdir()
    assert not extras.there(kernel_directory)
    extras.keep(tree, image, kernel_directory / extras.DIRECTORY)
    assert extras.there(kernel_directory)
    assert extras.names(kernel_directory, "xfs") == ["libcrc32c", "xfs"]
    assert extras.load(kernel_directory, "btrfs") == []
    assert extras.image(kernel_directory) == b"kernel"
    with pytest.raises(Corrupt):
        extras.names(kernel_directory, "zfs")


# -- kernels and programs --------------------------------------------------------------------------


def test_what_is_no_kernel() -> None:
    for data in (b"", b"\x7fELF" + bytes(4096), bytes(4096)):
        with pytest.raises(Corrupt):
            kernel.release_of(data)


@pytest.mark.parametrize(
    "wanted",
    [
        disks.Wanted(format="vmdk"), disks.Wanted(hostname="a b"), disks.Wanted(size_bytes=-1),
        disks.Wanted(options="x\n}\nmenuentry"), disks.Wanted(options="$(x)"),
        disks.Wanted(hostname="-x"), disks.Wanted(size_bytes=1 << 60),
    ],
)  # fmt: skip
def test_wishes_that_are_refused(wanted: disks.Wanted) -> None:
    with pytest.raises(Invalid):
        wanted.check()


def test_an_image_of_nothing_to_run() -> None:
    root = os.open("/proc/self/fdinfo", os.O_RDONLY)
    try:
        with pytest.raises(Invalid):
            program.of(root, {}, "")
        assert program.of(root, {"Cmd": ["/x"]}, "").how == "run"
    finally:
        os.close(root)
