"""A disk with nothing but GRUB's command line: a text screen and a keyboard, a second after its
machine's start; made of Debian's modules, by nobody here."""

from __future__ import annotations

import subprocess
from pathlib import Path

MODULES = Path("/usr/lib/grub/i386-pc")
SIZE_BYTES = 1 << 20


def disk(path: Path) -> Path:
    """A raw disk: the boot sector, which loads what follows it (grub-mkimage(1))."""
    core = path.with_suffix(".core")
    words = ["biosdisk", "minicmd", "normal", "echo", "halt"]
    subprocess.run(
        ["grub-mkimage", "-O", "i386-pc", "-o", core, "-p", "/", *words], check=True, timeout=30
    )
    content = (MODULES / "boot.img").read_bytes() + core.read_bytes()
    path.write_bytes(content.ljust(SIZE_BYTES, b"\0"))
    return path
