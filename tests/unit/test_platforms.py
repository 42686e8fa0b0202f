"""Processors, the machines of each, the accelerator's ladder, what QEMU is asked.  Mostly pure."""

from __future__ import annotations

import gzip
import json
import shutil
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from proa import plan
from proa.errors import Corrupt, Invalid, Unsupported
from proa.host import kernel
from proa.isolation import processors
from proa.isolation.container import emulation
from proa.isolation.vm import abilities, accel, architectures, guest, qemu
from proa.isolation.vm.accel import Accelerator
from proa.isolation.vm.layers import Opened
from proa.isolation.vm.settings import Settings
from proa.isolation.vm.whole import board
from proa.spec import Hardware, Limits
from tests.conftest import need
from tests.support.paths import NATIVE

KVM = Accelerator("kvm")
TCG = Accelerator("tcg", "cannot open '/dev/kvm': no such file or directory")
FILES = qemu.Files(3, 4, 5, Opened.single(6))


def elf(machine: int, kind: int = 2) -> bytes:
    return b"\x7fELF\x02\x01\x01\x03" + bytes(8) + struct.pack("<HH", kind, machine)


# -- processors ---------------------------------------------------------------------------------


def test_a_program_tells_its_processor() -> None:
    assert processors.of_program(elf(183)) == "arm64"
    assert processors.of_program(elf(62, kind=3)) == "amd64"  # position-independent
    assert processors.of_program(b"\x7fELF\x02\x02\x01" + bytes(9) + b"\0\2\0\x16") == "s390x"
    for strange in (b"", b"#!/bin/sh\n", elf(183)[:10], elf(1), elf(183, kind=4)):
        assert processors.of_program(strange) == ""


def test_every_processor_is_told_from_every_other() -> None:
    for item in processors.KNOWN.values():
        assert processors.of_program(item.magic()) == item.name
        assert len(item.magic()) == len(item.mask()) == 20


def test_programs_with_an_interpreter_are_not_static() -> None:
    assert not processors.is_static(Path("/bin/sh").read_bytes()[:4096])
    for strange in (
        b"",
        b"\x7fELF",
        b"\x7fELF\x02\x01" + bytes(20),
        b"\x7fELF\x09\x09" + bytes(90),
    ):
        assert not processors.is_static(strange)


def test_images_that_do_not_say_are_the_hosts() -> None:
    assert not processors.is_foreign("")
    assert not processors.is_foreign(processors.host())
    assert processors.is_foreign("s390x")


def test_a_processor_nobody_emulates_is_refused() -> None:
    with pytest.raises(Unsupported, match="'pdp11' do not run on this host"):
        emulation.find("pdp11")


def test_without_an_emulator_there_is_a_hint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(emulation, "PROGRAMS", tmp_path)
    with pytest.raises(Unsupported, match="no emulator") as refusal:
        emulation.find("riscv64")
    assert "qemu-user-static" in refusal.value.hint


def test_an_emulator_that_needs_libraries_is_no_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(emulation, "PROGRAMS", tmp_path)
    shutil.copy("/bin/sh", tmp_path / "qemu-riscv64-static")
    with pytest.raises(Unsupported):
        emulation.find("riscv64")


@pytest.mark.parametrize(
    ("handler", "works"),
    [
        ("enabled\ninterpreter /usr/libexec/qemu\nflags: POCF\n", True),
        ("enabled\ninterpreter /usr/libexec/qemu\nflags: OC\n", False),  # not in our root
        ("disabled\ninterpreter /usr/libexec/qemu\nflags: F\n", False),
        ("", False),
    ],
)
def test_an_older_kernel_needs_the_hosts_handler(
    handler: str, works: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(emulation, "HANDLERS", str(tmp_path))
    monkeypatch.setattr(kernel, "version", lambda: (6, 1))
    monkeypatch.setattr(emulation, "PROGRAMS", tmp_path)
    if handler:
        (tmp_path / "qemu-s390x").write_text(handler)
    if not works:
        with pytest.raises(Unsupported):
            emulation.find("s390x")
        return
    found = emulation.find("s390x")
    assert found.program is None
    assert found.steps("fd:1") == ()
    assert "handler" in found.described


def test_the_handler_is_registered_for_the_container_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernel, "version", lambda: (6, 7))
    monkeypatch.setattr(emulation, "PROGRAMS", tmp_path)
    shutil.copy(NATIVE, tmp_path / "qemu-s390x-static")  # static, as the emulator
    attach, _, register, lock = emulation.find("s390x").steps("fd:3")
    assert isinstance(attach, plan.Attach) and attach.source == "fd:3"
    assert isinstance(register, plan.Write) and isinstance(lock, plan.ReadOnly)
    assert register.content.endswith(":/qemu-s390x-static:POCF")
    assert register.content.startswith(":proa-s390x:M::\\x7f\\x45\\x4c\\x46\\x02\\x02")
    assert len(register.content) < 256  # what the kernel takes of a name, a magic, a mask, a path


# -- the ladder ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("policy", "wanted", "best", "chosen"),
    [
        ("auto", "", KVM, "kvm"), ("auto", "", TCG, "tcg"), ("auto", "auto", KVM, "kvm"),
        ("auto", "tcg", KVM, "tcg"), ("auto", "kvm", KVM, "kvm"), ("kvm", "", KVM, "kvm"),
        ("kvm", "auto", KVM, "kvm"), ("tcg", "", KVM, "tcg"), ("tcg", "tcg", TCG, "tcg"),
    ],
)  # fmt: skip
def test_the_accelerator_of_an_instance(
    policy: str, wanted: str, best: Accelerator, chosen: str
) -> None:
    found = accel.decide(policy, wanted, best)
    assert found.name == chosen
    assert bool(found.reason) == (chosen == "tcg")


@pytest.mark.parametrize(
    ("policy", "wanted", "best", "words"),
    [
        ("auto", "kvm", TCG, "kvm was demanded and does not work here: cannot open"),
        ("kvm", "", TCG, "kvm was demanded"),
        ("kvm", "tcg", KVM, "this engine's policy is 'kvm'"),
        ("tcg", "kvm", KVM, "this engine's policy is 'tcg'"),
    ],
)
def test_nothing_falls_back_silently(
    policy: str, wanted: str, best: Accelerator, words: str
) -> None:
    with pytest.raises(Unsupported, match=words) as refusal:
        accel.decide(policy, wanted, best)
    assert refusal.value.hint


def test_a_nested_host_is_recognised() -> None:
    assert accel.is_nested("processor : 0\nflags\t\t: fpu vme hypervisor lm\n")
    assert not accel.is_nested("processor : 0\nflags\t\t: fpu vme lm\n")
    assert not accel.is_nested("processor : 0\nFeatures : fp asimd\n")


# -- machines -----------------------------------------------------------------------------------


def words(machine: qemu.Machine) -> str:
    return " ".join(qemu.arguments(machine, FILES, qemu.Clone()))


def test_each_processor_has_its_machine() -> None:
    here = words(qemu.Machine(256 << 20, architecture="amd64"))
    there = words(qemu.Machine(256 << 20, architecture="arm64"))
    assert here.startswith("/usr/bin/qemu-system-x86_64 ") and "-M q35," in here
    assert there.startswith("/usr/bin/qemu-system-aarch64 ") and "-M virt," in there
    assert "smm" not in there and "gic-version" not in here


def test_machines_of_other_processors_have_other_templates() -> None:
    one = qemu.Machine(256 << 20, architecture="amd64")
    other = replace(one, architecture="arm64")
    assert one.key() != other.key()
    assert "tsc" not in other.command_line()


def test_only_options_that_are_known_are_given() -> None:
    machine = qemu.Machine(256 << 20, architecture="amd64", options="usb=off")
    assert "-M q35,memory-backend=ram,usb=off " in words(machine)


def test_whole_machines_of_arm64() -> None:
    made = board.decide(Hardware(disk="/d", platform="linux/arm64"), Limits(), Settings(), "bios")
    assert (made.machine, made.firmware, made.architecture) == ("virt", "uefi", "arm64")
    assert board.architecture(Hardware(platform="linux/aarch64")) == "arm64"
    assert board.architecture(Hardware(machine="virt")) == "arm64"
    for wrong in (
        Hardware(platform="linux/arm64", machine="q35"),
        Hardware(platform="linux/amd64", machine="virt"),
        Hardware(platform="linux/arm64", firmware="bios"),
        Hardware(platform="linux/arm64", disk_bus="ide"),
    ):
        with pytest.raises(Invalid):
            board.decide(wrong, Limits(), Settings(), "bios")


@pytest.mark.parametrize("unpack", [lambda data: data, lambda data: zboot(gzip.compress(data)),
                                    gzip.compress])  # fmt: skip
def test_kernels_of_arm64_are_taken_as_they_come(unpack: Callable[[bytes], bytes]) -> None:
    image = (b"MZ" + bytes(54) + b"ARM\x64").ljust(4096, b"k")
    assert guest.decompress(unpack(image)) == image


def zboot(payload: bytes) -> bytes:
    head = b"MZ\0\0zimg" + struct.pack("<II", 64, len(payload)) + bytes(8) + b"gzip"
    return head.ljust(64, b"\0") + payload


def test_a_cut_off_kernel_of_arm64_is_refused() -> None:
    image = (b"MZ" + bytes(54) + b"ARM\x64").ljust(4096, b"k")
    for cut in (zboot(gzip.compress(image))[:90], zboot(b"nothing known"), b"MZ\0\0zimg"):
        with pytest.raises((Unsupported, Corrupt)):
            guest.decompress(cut)


# -- what QEMU says -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["amd64", "arm64"])
def test_qemu_is_asked_once(name: str, tmp_path: Path) -> None:
    architecture = architectures.ALL[name]
    need(architecture.program.exists(), name, f"no '{architecture.program}'")
    found = abilities.of(architecture, tmp_path)
    assert found.missing() == []
    assert architecture.machine in found.machines
    assert "tcg" in found.accelerators
    assert found.sandbox
    assert found.known(("dump-guest-core=off", "no-such-option=on")) == ("dump-guest-core=off",)
    path = tmp_path / f"qemu-{name}.json"
    kept = json.loads(path.read_text())
    kept["abilities"]["version"] = "kept"
    path.write_text(json.dumps(kept))
    assert abilities.of(architecture, tmp_path).version == "kept"
    path.write_text(json.dumps(kept | {"key": "another program"}))
    assert abilities.of(architecture, tmp_path) == found
    path.write_text('{"key": 1')
    assert abilities.of(architecture, tmp_path) == found


def test_what_a_qemu_lacks_is_named() -> None:
    none = frozenset[str]()
    able = abilities.Abilities("1.0", none, none, none, none, none, none, none, none, none, False)
    assert "migration capability 'x-ignore-shared'" in able.missing()
    assert "device 'virtio-blk-pci'" in able.missing()
