"""Disks and CDs for whole machines, small enough to boot in seconds, and what machines say."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.instances import Api, Instance, eventually

BOOT_SECONDS = 120  # without KVM, while others work
MENU = """
serial --unit=0 --speed=115200
terminal_output serial
terminal_input serial
echo "BOOTED by $grub_platform"
ls
halt
"""

# Tells what it sees, serves a page, and runs what is typed on its console.
SCRIPT = """
[ -d /sys/firmware/efi ] && echo FIRMWARE uefi || echo FIRMWARE bios
dmesg | grep -i 'secure boot'
echo DISKS $(ls /sys/block)
cd /sys/class/net/eth0; echo NIC $(basename $(readlink device/driver)) $(cat address); cd /
echo ADDRESS $(ip -4 addr show eth0 | grep inet)
echo TPM $(cat /sys/class/tpm/tpm0/tpm_version_major 2>/dev/null || echo none)
echo RAM $(grep MemTotal /proc/meminfo) CPUS $(nproc)
trap "echo ASKED TO END; exit 5" TERM
mkdir -p /www; echo a page of the machine >/www/index.html
httpd -f -p 80 -h /www & echo SERVING
while read line; do eval "$line"; done
wait
"""


def boot_medium(directory: Path) -> Path:
    """A CD that is a disk, too; boots under BIOS and UEFI, says so, and turns the machine off."""
    tree = directory / "medium"
    (tree / "boot" / "grub").mkdir(parents=True)
    (tree / "boot" / "grub" / "grub.cfg").write_text(MENU)
    path = directory / "medium.iso"
    made = subprocess.run(
        ["grub-mkrescue", "-o", path, tree], capture_output=True, text=True, check=False
    )
    assert made.returncode == 0, made.stderr
    return path


@dataclass
class Machines:
    """Makes whole machines and removes them at the end."""

    api: Api
    made: list[Instance]

    def create(self, hardware: dict[str, Any], **host: Any) -> Instance:
        """Create one of a `Proa` object; keys of Docker's HostConfig follow."""
        config = {"Isolation": "vm", "Memory": 256 << 20} | host
        return self.create_body({"HostConfig": config, "Proa": hardware})

    def create_body(self, body: dict[str, Any]) -> Instance:
        """Create one of a whole request."""
        made = self.api.json("POST", "/containers/create", body)
        self.made.append(Instance(self.api, made["Id"]))
        return self.made[-1]

    def start(self, hardware: dict[str, Any], **host: Any) -> Instance:
        """Create and start."""
        return self.create(hardware, **host).start()


def said(machine: Instance, text: str) -> str:
    """Its console, once `text` has come."""
    eventually(lambda: text in machine.logs().stdout, BOOT_SECONDS, f"no '{text}' on the console")
    return machine.logs().stdout.replace("\r", "")
