"""UEFI firmware of the host's distribution, and each machine's own variables."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from proa.errors import HostError, Unsupported
from proa.host import files
from proa.isolation.vm.whole.board import ARM64, SECURE_BOOT, UEFI

NVRAM = "nvram"  # in the instance's directory
HINT = "install 'ovmf'"


@dataclass(frozen=True)
class Firmware:
    """A firmware's code and the variables a new machine begins with."""

    code: Path
    variables: Path


_OVMF = Path("/usr/share/OVMF")
KNOWN: dict[str, tuple[Firmware, ...]] = {
    UEFI: (
        Firmware(_OVMF / "OVMF_CODE_4M.fd", _OVMF / "OVMF_VARS_4M.fd"),
        Firmware(_OVMF / "OVMF_CODE.fd", _OVMF / "OVMF_VARS.fd"),
    ),
    SECURE_BOOT: (  # the variables hold Microsoft's keys, and the switch is on
        Firmware(_OVMF / "OVMF_CODE_4M.secboot.fd", _OVMF / "OVMF_VARS_4M.ms.fd"),
        Firmware(_OVMF / "OVMF_CODE.secboot.fd", _OVMF / "OVMF_VARS.ms.fd"),
    ),
}
_EDK2_ARM64 = Path("/usr/share/AAVMF")
_AAVMF = tuple(
    Firmware(_EDK2_ARM64 / code, _EDK2_ARM64 / "AAVMF_VARS.fd")
    for code in ("AAVMF_CODE.no-secboot.fd", "AAVMF_CODE.fd")
)


def find(kind: str, architecture: str = "amd64") -> Firmware:
    """The host's firmware of a kind.  Raises Unsupported."""
    arm64 = architecture == ARM64
    for known in _AAVMF if arm64 else KNOWN[kind]:
        if known.code.is_file() and known.variables.is_file():
            return known
    raise Unsupported(
        f"this host has no firmware '{kind}' for '{architecture}'",
        hint="install 'qemu-efi-aarch64'" if arm64 else HINT,
    )


def nvram(directory: Path, found: Firmware) -> int:
    """The machine's variables, open: those it has, else a copy of the firmware's."""
    path = directory / NVRAM
    try:
        if not path.exists():
            files.atomic_write(path, found.variables.read_bytes())
        return os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError as error:
        raise HostError(f"cannot make '{path}': {error.strerror}") from error
