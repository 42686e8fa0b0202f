"""The boot loader: GRUB's images made by `grub-mkimage`, and where firmware finds them.

BIOS: `boot.img` in the first sector loads `core.img` from the BIOS boot partition; the two numbers
grub-bios-setup would write into them are written here.  UEFI: one file on the ESP.
"""

from __future__ import annotations

import shutil
import struct
from dataclasses import dataclass
from pathlib import Path

from proa.errors import Unsupported
from proa.image.machine.command import run
from proa.image.machine.partition import SECTOR

LIBRARY = Path("/usr/lib/grub")
BOOT_CODE = 440  # bytes of the first sector that are the boot loader's
_KERNEL_SECTOR = 0x5C  # in boot.img: where core.img begins (u64)
_DRIVE_CHECK = 0x66  # in boot.img: a jump that trusts only floppies' drive numbers
_BLOCK_LIST = SECTOR - 12  # in core.img's first sector: where its second one is (u64)
_COMMON = ("part_gpt", "fat", "search_fs_uuid", "normal", "configfile", "linux", "serial",
           "terminal", "echo", "test")  # fmt: skip
_BIOS = ("biosdisk", *_COMMON)
_UEFI = (*_COMMON, "all_video")
_EARLY = """search.fs_uuid {volume} root
set prefix=($root)/grub
configfile ($root)/grub/grub.cfg
"""
_CONFIGURATION = """# Made by Proa.  Kernel options may be changed here.
if serial --unit=0 --speed=115200; then
  terminal_input console serial
  terminal_output console serial
fi
set timeout=0
menuentry "{title}" {{
  linux /proa/vmlinuz {options}
  initrd /proa/initrd
}}
"""


@dataclass(frozen=True)
class Loader:
    """Boot code for the first sector, the BIOS boot partition's content, the file for UEFI."""

    sector: bytes
    core: bytes
    efi: bytes


def loader(volume: str, core_start: int, work: Path) -> Loader:
    """GRUB, looking for the file system `volume` (FAT's `XXXX-XXXX`); `core_start` in bytes."""
    early = work / "early.cfg"
    early.write_text(_EARLY.format(volume=volume))
    core = bytearray(_image("i386-pc", _BIOS, early, work / "core.img"))
    sector = bytearray((LIBRARY / "i386-pc" / "boot.img").read_bytes()[:BOOT_CODE])
    first = core_start // SECTOR
    struct.pack_into("<Q", sector, _KERNEL_SECTOR, first)
    sector[_DRIVE_CHECK : _DRIVE_CHECK + 2] = b"\x90\x90"
    struct.pack_into("<Q", core, _BLOCK_LIST, first + 1)
    efi = _image("x86_64-efi", _UEFI, early, work / "bootx64.efi")
    return Loader(bytes(sector), bytes(core), efi)


def configuration(title: str, options: str) -> str:
    """`grub.cfg` with one entry.  `options` has been checked by `options_of`."""
    plain = "".join(letter for letter in title if letter.isalnum() or letter in " .:/@_-")
    return _CONFIGURATION.format(title=plain, options=options)


def _image(platform: str, modules: tuple[str, ...], early: Path, made: Path) -> bytes:
    program = shutil.which("grub-mkimage") or shutil.which("grub2-mkimage")
    if program is None or not (LIBRARY / platform).is_dir():
        raise Unsupported(
            f"no boot loader to put on a disk: GRUB's '{platform}' is not installed",
            hint="install 'grub-pc-bin', 'grub-efi-amd64-bin' and 'grub-common'",
        )
    run([program, "-O", platform, "-p", "/grub", "-c", str(early), "-o", str(made), *modules])
    return made.read_bytes()
