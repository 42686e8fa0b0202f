"""Machines by need: another processor's own firmware, the accelerator that was asked for."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import need
from tests.support.engine import engine
from tests.support.http import ApiError
from tests.support.images import probe_image
from tests.support.instances import Place

SCRIPT = b"echo -on\r\nver\r\necho proa was here\r\nreset -s\r\n"  # of the UEFI shell


def test_a_whole_machine_of_arm64_starts_its_own_firmware(
    vm: Place, tmp_path: Path, require_program: Callable[[str], str]
) -> None:
    """The firmware finds no system on the disk, and runs the disk's script in its shell."""
    need(shutil.which("qemu-system-aarch64"), "arm64", "'qemu-system-arm' is not installed")
    need(Path("/usr/share/AAVMF").exists(), "arm64", "'qemu-efi-aarch64' is not installed")
    disk = tmp_path / "disk.img"
    disk.write_bytes(bytes(4 << 20))
    subprocess.run([require_program("mkfs.vfat"), disk], check=True, capture_output=True)
    script = tmp_path / "startup.nsh"
    script.write_bytes(SCRIPT)
    subprocess.run([require_program("mcopy"), "-i", disk, script, "::/"], check=True)
    hardware = {"Disk": str(disk), "Platform": "linux/arm64"}
    machine = vm.start("", Proa=hardware, host={"Memory": 256 << 20})
    assert machine.wait() == 0
    said = machine.logs().stdout
    assert "proa was here" in said
    assert "UEFI" in said
    facts = machine.inspect()["Proa"]
    assert (facts["Machine"], facts["Firmware"], facts["Platform"]) == (
        "virt",
        "uefi",
        "linux/arm64",
    )
    assert "aarch64" in facts["EmulatedBy"]


def test_an_accelerator_is_had_or_refused(vm: Place) -> None:
    forced = vm.start("probe", "sleep", "1000", Proa={"Accelerator": "tcg"}).inspect()["Proa"]
    assert (forced["Accelerator"], forced["AcceleratorReason"]) == ("tcg", "asked for")
    best = vm.start("probe", "sleep", "1000").inspect()["Proa"]
    demanded = vm.create("probe", "sleep", "1000", Proa={"Accelerator": "kvm"})
    if best["Accelerator"] == "kvm":
        assert demanded.start().inspect()["Proa"]["Accelerator"] == "kvm"
    else:
        assert best["AcceleratorReason"]
        with pytest.raises(ApiError, match="kvm was demanded and does not work here"):
            demanded.start()
    for other in ("pc", "microvm", "virt"):  # decision 019
        with pytest.raises(ApiError, match=f"an image's vm is no '{other}'"):
            vm.start("probe", "sleep", "1000", Proa={"Machine": other})


def test_the_owners_policy_binds(tmp_path: Path) -> None:
    """Without booting anything: what policy forbids is refused before."""
    configuration = tmp_path / "proa.toml"
    configuration.write_text('[vm]\naccelerator = "tcg"\n')
    with engine(PROA_CONFIG=str(configuration)) as running:
        running.api.load(probe_image())
        place = Place(running.api, "vm")
        demanded = place.create("probe", "uname", Proa={"Accelerator": "kvm"})
        with pytest.raises(ApiError, match="this engine's policy is 'tcg'"):
            demanded.start()
        place.close()
