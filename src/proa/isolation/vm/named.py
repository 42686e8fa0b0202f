"""Kernels somebody named by the path of a vmlinuz, for single vms.

One is prepared below `named/KEY/`, `kernels/` and the initramfs as the engine's own have them; the
key changes with the file, so that what was made of one content never serves another.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from pathlib import Path

from proa.errors import Corrupt, Invalid, NotFound, Unsupported
from proa.host import files
from proa.isolation.vm import guest
from proa.isolation.vm.architectures import Architecture

DIRECTORY = "named"
IMAGE_MAXIMUM_BYTES = 512 << 20
KEPT = 12  # each takes about 100 MB
HEAD_BYTES = 64
RELEASE_WITHIN, RELEASE_MAXIMUM = 1 << 16, 128
WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+~-]*")
ELF_MACHINES = {62: "amd64", 183: "arm64"}
TREE = "its modules are expected in ../lib/modules/RELEASE beside it, or in /lib/modules"


def key(path: str) -> str:
    """The kernel's release, and what tells this file as it is now from others.

    Raises NotFound, Invalid.
    """
    try:
        facts = os.stat(path)
        named = _release(Path(path)) if stat.S_ISREG(facts.st_mode) else ""
    except OSError as error:
        said = (error.strerror or "").lower()
        raise NotFound(f"cannot open the kernel '{path}': {said}") from None
    if not stat.S_ISREG(facts.st_mode) or facts.st_size > IMAGE_MAXIMUM_BYTES:
        raise Invalid(f"'{path}' is no kernel")
    parts = (path, facts.st_size, facts.st_mtime_ns, facts.st_ino)
    return f"{named}-{hashlib.sha256(repr(parts).encode()).hexdigest()[:32]}"


def release(key: str) -> str:
    """The release in a key."""
    return key.rpartition("-")[0]


def home(root: Path, key: str) -> Path:
    """Where all of a kernel is, or would be."""
    return root / DIRECTORY / key


def ready(
    root: Path, key: str, path: str, architecture: Architecture, progress: guest.Progress
) -> None:
    """Have a kernel prepared; the caller holds the lock.  Raises Unsupported, Corrupt."""
    directory = home(root, key)
    try:
        kernel = find(root, key)
    except Unsupported:
        progress(f"preparing the kernel '{path}'")
        try:
            kernel = guest.named(directory / "kernels", path, release(key))
        except OSError as error:
            raise Corrupt(f"cannot read the kernel '{path}': {error.strerror}") from error
        except Unsupported as error:
            raise Unsupported(
                f"'{path}' cannot be a vm's kernel: {error.message}", hint=TREE
            ) from None
        _prune(directory)
    os.utime(directory)
    with kernel.image.open("rb") as file:
        found = _processor(file.read(HEAD_BYTES))
    if found != architecture.name:
        raise Unsupported(
            f"the kernel '{path}' is for '{found}', this vm is '{architecture.name}'",
            hint="name one for the image's processor",
        )


def _release(path: Path) -> str:
    """What a kernel calls itself (x86 boot protocol, `kernel_version`), else its file's name."""
    by_name = (path.name.partition("-")[2] or path.name)[:RELEASE_MAXIMUM]
    with path.open("rb") as file:
        head = file.read(RELEASE_WITHIN)
    if head[0x202:0x206] != b"HdrS":
        return by_name
    start = int.from_bytes(head[0x20E:0x210], "little") + 0x200
    said = head[start : start + RELEASE_MAXIMUM].partition(b"\0")[0].partition(b" ")[0]
    found = said.decode("ascii", "replace")
    return found if WORD.fullmatch(found) else by_name


def _processor(head: bytes) -> str:
    """An unpacked kernel's processor, in the words of images."""
    if head[guest.ARM64_AT : guest.ARM64_AT + 4] == guest.ARM64:
        return "arm64"
    machine = int.from_bytes(head[18:20], "little")  # elf.h: e_machine
    return ELF_MACHINES.get(machine, f"ELF machine {machine}")


def find(root: Path, key: str) -> guest.Kernel:
    """A kernel that was prepared.  Raises Unsupported."""
    found = guest.only(home(root, key) / "kernels")
    if found is None:
        raise Unsupported("the kernel this vm was started with is not kept any more")
    return found


def _prune(newest: Path) -> None:
    """Remove those used longest ago, beyond the maximum; a running vm has read its own."""
    others = sorted(newest.parent.iterdir(), key=lambda path: path.stat().st_mtime)
    for path in others[:-KEPT]:
        if path != newest:
            files.remove_tree(path)
