"""Disks made on the spot, machines that boot them, and the trees of images to compare."""

from __future__ import annotations

import hashlib
import io
import json
import os
import stat
import subprocess
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from proa.image.machine import extents
from tests.support.instances import Api

MIB = 1 << 20
BOOT_SECONDS = 240  # what a machine without KVM may take while others work
UEFI = Path("/usr/share/OVMF/OVMF_CODE.fd")


def blank(path: Path, size_mib: int) -> Path:
    """An empty sparse file."""
    with path.open("wb") as file:
        file.truncate(size_mib * MIB)
    return path


def run(*command: str | os.PathLike[str]) -> None:
    """A tool that must succeed."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}: {done.stderr or done.stdout}"


def ext4(path: Path, tree: Path, size_mib: int, *options: str) -> Path:
    """An ext4 with a directory's files."""
    run("mke2fs", "-q", "-t", "ext4", *options, "-d", tree, blank(path, size_mib))
    return path


def partitioned(path: Path, parts: Sequence[Path], label: str = "gpt") -> Path:
    """A disk with these file systems as its partitions."""
    sizes = [part.stat().st_size // MIB for part in parts]
    blank(path, sum(sizes) + 4)
    script = f"label: {label}\n" + "".join(f"size={size}MiB\n" for size in sizes)
    done = subprocess.run(["sfdisk", "-q", path], input=script, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    start = MIB
    with path.open("r+b") as disk:
        for part, size in zip(parts, sizes, strict=True):
            found = extents.of(part)
            data = extents.pieces(part, found)
            for offset, length in found:
                disk.seek(start + offset)
                while length:
                    piece = next(data)
                    length -= disk.write(piece)
            start += size * MIB
    return path


def boot(disk: Path, kind: str, *options: str) -> subprocess.Popen[str]:
    """A plain machine that boots a disk; what is written to it is thrown away."""
    command = [
        "qemu-system-x86_64", "-m", "512", "-display", "none", "-serial", "stdio",
        "-monitor", "none", "-no-reboot", "-snapshot",
        "-drive", f"file={disk},format={kind},if=none,id=disk", *options,
    ]  # fmt: skip
    return subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, errors="replace",
    )  # fmt: skip


def serial_console(machine: subprocess.Popen[str]) -> str:
    """All a machine says until it turns itself off."""
    try:
        text, _ = machine.communicate(timeout=BOOT_SECONDS)
    except subprocess.TimeoutExpired:
        machine.kill()
        text, _ = machine.communicate()
        raise AssertionError(f"the machine did not turn itself off:\n{text[-3000:]}") from None
    assert machine.returncode == 0, text[-3000:]
    return text


def tree_of(api: Api, name: str) -> dict[str, tuple[Any, ...]]:
    """What is in the layers of an image, by path: everything but times of directories."""
    found: dict[str, tuple[Any, ...]] = {}
    with tarfile.open(fileobj=io.BytesIO(api.call("GET", "/images/get", names=name))) as outer:
        listing = outer.extractfile("manifest.json")
        assert listing is not None
        for path in json.load(listing)[0]["Layers"]:
            layer = outer.extractfile(path)
            assert layer is not None
            with tarfile.open(fileobj=layer) as inner:
                for member in inner:
                    found[member.name.removeprefix("./").rstrip("/") or "."] = _facts(inner, member)
    return _together(found)


def _together(found: dict[str, tuple[Any, ...]]) -> dict[str, tuple[Any, ...]]:
    """Names of one file have the same facts, whichever came first, and know of each other."""
    groups: dict[str, list[str]] = {}
    for path, facts in found.items():
        if facts[0] == tarfile.LNKTYPE:
            groups.setdefault(facts[5].removeprefix("./"), []).append(path)
    for first, others in groups.items():
        names = sorted((first, *others))
        for path in names:
            found[path] = (*found[first][:10], *names)
    return found


def _facts(layer: tarfile.TarFile, member: tarfile.TarInfo) -> tuple[Any, ...]:
    file = layer.extractfile(member) if member.isreg() else None
    content = hashlib.sha256(file.read()).hexdigest() if file else ""
    attributes = {k: v for k, v in member.pax_headers.items() if k.startswith("SCHILY.xattr.")}
    time = 0 if member.isdir() else int(member.mtime)
    return (
        member.type, stat.S_IMODE(member.mode), member.uid, member.gid, content, member.linkname,
        member.devmajor, member.devminor, time, tuple(sorted(attributes.items())),
    )  # fmt: skip
