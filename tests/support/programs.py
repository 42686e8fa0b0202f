"""Programs for labelled cases: real files of this host, and headers made by hand for others."""

from __future__ import annotations

import struct
from functools import cache
from pathlib import Path

from tests.support.cases import File, Link, Tree
from tests.support.images import BUSYBOX
from tests.support.paths import PROBE


@cache
def static() -> File:
    """A static ELF program of this host."""
    return File(PROBE.read_bytes())


@cache
def dynamic() -> File:
    """One that needs glibc."""
    return File(Path("/bin/true").read_bytes())


@cache
def shell() -> Tree:
    """A shell and a few tools."""
    return {"bin/busybox": File(BUSYBOX.read_bytes()), "bin/sh": Link("busybox")}


def elf(machine: int = 62, system: int = 0, interpreter: str = "") -> File:
    """An ELF program's header (machine 62 is amd64, 183 arm64; system 9 is FreeBSD)."""
    text = interpreter.encode() + b"\0"
    head = b"\x7fELF\x02\x01\x01" + bytes([system]) + bytes(8)
    head += struct.pack("<HHIQQQIHHHHHH", 2, machine, 1, 0, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    head += struct.pack("<IIQQQQQQ", 3, 4, 120, 120, 120, len(text), len(text), 1)
    return File(head + text + bytes(64))


def needing(kernel: tuple[int, int, int]) -> File:
    """A static program with a `.note.ABI-tag`: the oldest kernel it can do with."""
    note = struct.pack("<III4sIIII", 4, 16, 1, b"GNU\0", 0, *kernel)
    head = b"\x7fELF\x02\x01\x01\0" + bytes(8)
    head += struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, 0, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    head += struct.pack("<IIQQQQQQ", 4, 4, 120, 120, 120, len(note), len(note), 4)
    return File(head + note + bytes(64))


def windows() -> File:
    """The beginning of a Windows program."""
    return File(b"MZ" + bytes(58) + struct.pack("<I", 64) + b"PE\0\0" + struct.pack("<H", 0x8664))


def release(name: str, version: str) -> Tree:
    """An os-release."""
    return {"etc/os-release": f'ID={name}\nVERSION_ID="{version}"\n'}


def units(*names: str) -> Tree:
    """Enabled systemd services."""
    wants = "etc/systemd/system/multi-user.target.wants"
    lib = "lib/systemd/system"
    unit = "[Service]\nExecStart=/usr/sbin/{0}\n[Install]\nWantedBy=multi-user.target\n"
    return {f"{wants}/{name}.service": Link(f"/{lib}/{name}.service") for name in names} | {
        f"{lib}/{name}.service": unit.format(name) for name in names
    }


def systemd(*services: str) -> Tree:
    """A system that systemd starts, with these services enabled."""
    return {
        **shell(), "lib/systemd/systemd": dynamic(), "sbin/init": Link("/lib/systemd/systemd"),
        **units(*services),
    }  # fmt: skip


def supervised(*services: str) -> Tree:
    """A supervisord with these programs."""
    text = "[supervisord]\nnodaemon=true\n"
    text += "".join(f"[program:{name}]\ncommand=/usr/sbin/{name}\n" for name in services)
    return {
        **shell(),
        "usr/bin/supervisord": "#!/bin/sh\n",
        "etc/supervisor/supervisord.conf": text,
    }
