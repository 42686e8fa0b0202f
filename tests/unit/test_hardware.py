"""What machine is asked for, and what the engine makes of what was left open."""

from __future__ import annotations

import dataclasses
import subprocess
from pathlib import Path
from typing import Any

import pytest

from proa.engine import hardware, request
from proa.engine.instance import load_spec
from proa.errors import Invalid
from proa.isolation.vm.settings import MIB, Settings
from proa.isolation.vm.whole import disks
from proa.isolation.vm.whole.board import Board, decide
from proa.spec import Hardware, Limits


def test_every_field_has_its_key() -> None:
    body: dict[str, Any] = {}
    values: dict[str, Any] = {}
    for field in dataclasses.fields(Hardware):
        value: Any = {bool: True, int: 1024, tuple: ("/cd",)}.get(type(field.default), "")
        if value == "":
            value = hardware.CHOICES.get(field.name, ("Nehalem" if field.name == "cpu" else "/a",))[
                0
            ]
        values[field.name] = value
        body[hardware.key(field.name)] = list(value) if isinstance(value, tuple) else value
    assert hardware.parse({"Proa": body}) == Hardware(**values)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"Disc": "/a"}, "unknown field 'Proa.Disc'"),
        ({"Disk": 5}, "must be a string"),
        ({"Disk": "a.raw"}, "absolute"),
        ({"Cdroms": ["a.iso"]}, "absolute"),
        ({"Cdroms": ["/a"] * 5}, "too many"),
        ({"DiskBytes": 1000}, "not made"),
        ({"DiskBytes": -512}, "not made"),
        ({"DiskBytes": 1 << 60}, "not made"),
        ({"Machine": "pdp11"}, "unknown machine 'pdp11'"),
        ({"DiskBus": "mfm"}, "unknown disk bus 'mfm'"),
        ({"Start": "slowly"}, "unknown start 'slowly'"),
        ({"Kernel": "vmlinuz"}, "absolute"),
        ({"Cpu": "max,-avx"}, "no processor model"),
        ({"CloudInit": "x" * ((1 << 20) + 1)}, "1 MiB"),
    ],
)
def test_what_is_not_understood(body: dict[str, Any], said: str) -> None:
    with pytest.raises(Invalid, match=said):
        hardware.parse({"Proa": body})


def test_what_an_image_cannot_have() -> None:
    hardware.check_image(Hardware(platform="linux/arm64"), machine=False)
    hardware.check_image(Hardware(shares="9p", firmware="auto"), machine=True)
    for wanted, machine in (
        (Hardware(start="boot"), False), (Hardware(kernel="/vmlinuz"), False),
        (Hardware(tpm=True), True), (Hardware(nic="e1000"), True), (Hardware(cache="none"), False),
    ):  # fmt: skip
        with pytest.raises(Invalid):
            hardware.check_image(wanted, machine=machine)


def test_a_disk_boots_what_is_on_it() -> None:
    hardware.check_whole(Hardware(disk="/a.raw", start="boot"))
    for wanted in (Hardware(start="template"), Hardware(kernel="/vmlinuz"), Hardware(cpu="max")):
        with pytest.raises(Invalid, match="is for a vm of an image"):
            hardware.check_whole(wanted)


def test_a_machine_takes_no_process() -> None:
    machine = Hardware(disk="/a.raw")
    spec = request.merge({"HostConfig": {"Isolation": "vm"}}, {}, "0" * 64, machine)
    assert spec.process.arguments == ("boot", "/a.raw")
    assert spec.process.stdin
    assert spec.stop_timeout_seconds == request.MACHINE_GRACE_SECONDS
    for body in ({"Cmd": ["ls"]}, {"Env": ["A=1"]}, {"HostConfig": {"CapAdd": ["ALL"]}}):
        with pytest.raises(Invalid, match="not for a machine"):
            request.merge(body, {}, "0" * 64, machine)


def test_records_of_engines_without_hardware_are_read() -> None:
    data = dataclasses.asdict(request.merge({"Cmd": ["ls"], "Image": "a"}, {}, "0" * 64))
    assert load_spec(data).hardware == Hardware()
    for name in ("start", "kernel"):  # which came later
        del data["hardware"][name]
    assert load_spec(data).hardware == Hardware()
    del data["hardware"]
    assert load_spec(data).hardware == Hardware()


def board(wanted: Hardware, limits: Limits = Limits(), boots_by: str = "bios") -> Board:
    """The machine of this."""
    return decide(wanted, limits, Settings(), boots_by)


def test_the_engine_chooses_what_is_left_open() -> None:
    assert (board(Hardware()).machine, board(Hardware()).firmware) == ("q35", "bios")
    assert board(Hardware(), boots_by="uefi").firmware == "uefi"
    assert board(Hardware(firmware="bios"), boots_by="uefi").firmware == "bios"
    assert board(Hardware(disk_bus="ide")).machine == "pc"
    assert board(Hardware()).ram_bytes == Settings().memory_mib * MIB
    assert board(Hardware(), Limits(300 * MIB + 1, 0.5)).ram_bytes == 301 * MIB
    assert board(Hardware(), Limits(cpus=0.5)).vcpus == 1


@pytest.mark.parametrize(
    "wanted",
    [
        Hardware(machine="q35", disk_bus="ide"),
        Hardware(machine="pc", firmware="secureboot"),
        Hardware(machine="pc", cdroms=("/a",) * 4),
        Hardware(machine="microvm"),
    ],
)
def test_what_does_not_go_together(wanted: Hardware) -> None:
    with pytest.raises(Invalid):
        board(wanted)


@pytest.mark.parametrize("format", ["raw", "qcow2"])
@pytest.mark.parametrize(
    ("label", "code", "firmware"),
    [
        ("gpt", b"", "uefi"),
        ("gpt", b"\xeb", "bios"),
        ("dos", b"", "uefi"),
        ("dos", b"\x90", "bios"),
    ],
)
def test_the_firmware_a_disk_is_made_for(
    tmp_path: Path, format: str, label: str, code: bytes, firmware: str
) -> None:
    disk = tmp_path / "disk"
    with disk.open("wb") as file:
        file.truncate(64 << 20)
    kind = "U" if label == "gpt" else "ef"
    script = f"label: {label}\nsize=8MiB, type={kind}\n"
    subprocess.run(["sfdisk", "-q", disk], input=script, text=True, check=True)
    with disk.open("r+b") as file:
        file.write(code)
    if format == "qcow2":
        made = tmp_path / "disk.qcow2"
        subprocess.run(["qemu-img", "convert", "-O", "qcow2", disk, made], check=True)
        disk = made
    (tmp_path / "instance").mkdir()
    chain = disks.prepare(tmp_path / "instance", disk, format, 0)
    assert disks.boots_by(chain) == firmware
