"""What files and runs say of the hosts an image needs; the judges are binutils."""

from __future__ import annotations

import io
import random
import re
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from proa.advice import elf
from proa.compare import portability
from proa.compare.options import Options as ComparisonOptions
from proa.compare.portability import kernel_use, programs, trials
from proa.compare.portability.watching import Call, Seen
from proa.errors import Invalid

PROGRAMS = [Path(path) for path in ("/bin/ls", "/bin/sh", "/lib64/ld-linux-x86-64.so.2")]
LEVELS = {"x86-64-baseline": "x86-64"}


@pytest.mark.parametrize("path", PROGRAMS, ids=str)
def test_what_readelf_says(path: Path, require_program: Callable[[str], str]) -> None:
    said = subprocess.run(
        [require_program("readelf"), "-hn", path], capture_output=True, text=True, check=True
    ).stdout
    program = elf.read(path.read_bytes()[: elf.HEAD_BYTES])
    assert program is not None
    kernel = re.search(r"OS: Linux, ABI: ([\d.]+)", said)
    assert program.kernel == (tuple(map(int, kernel[1].split("."))) if kernel else ())
    needed = re.search(r"x86 ISA needed: (.*)", said)
    last = needed[1].split(", ")[-1] if needed else ""
    assert program.level == LEVELS.get(last, last)
    assert (program.architecture == "amd64") == ("X86-64" in said)


def made(machine: int, notes: bytes, kind: int = 3) -> bytes:
    """A 64-bit program of a header and one segment of notes."""
    head = bytearray(64)
    head[:6] = b"\x7fELF\x02\x01"
    for at, size, value in ((16, 2, kind), (18, 2, machine), (32, 8, 64), (54, 2, 56), (56, 2, 1)):
        head[at : at + size] = value.to_bytes(size, "little")
    numbers = ((4, 4), (4, 4), (120, 8), (0, 8), (0, 8), (len(notes), 8), (0, 8), (8, 8))
    return bytes(head) + b"".join(n.to_bytes(size, "little") for n, size in numbers) + notes


def note(kind: int, *words: int) -> bytes:
    """A note of GNU's."""
    sizes = (4, 4 * len(words), kind)
    return b"".join(n.to_bytes(4, "little") for n in sizes) + b"GNU\0" + words_of(*words)


def words_of(*words: int) -> bytes:
    """32-bit words."""
    return b"".join(word.to_bytes(4, "little") for word in words)


NEWER = note(elf.NT_ABI_TAG, 0, 5, 4, 0)
AVX2 = note(elf.NT_PROPERTY, elf.X86_ISA_NEEDED, 4, 0b111, 0)


def test_demands() -> None:
    assert elf.read(made(62, NEWER + AVX2)) == elf.Program("amd64", "", (5, 4, 0), "x86-64-v3")
    assert elf.read(made(183, NEWER)) == elf.Program("arm64", "", (5, 4, 0))
    freebsd = note(elf.NT_ABI_TAG, 3, 5, 4, 0)
    assert elf.read(made(62, freebsd)) == elf.Program("amd64", system="freebsd")
    assert elf.read(made(62, NEWER, kind=4)) is None, "a core file is no program"


def test_broken_files_say_nothing_false() -> None:
    whole, chance = made(62, NEWER + AVX2), random.Random(32)
    for _ in range(3000):
        broken = bytearray(whole[: chance.randrange(len(whole) + 1)])
        for _ in range(chance.randrange(8)):
            if broken:
                broken[chance.randrange(len(broken))] = chance.randrange(256)
        found = elf.read(bytes(broken))
        assert found is None or found.level in ("", *elf.LEVELS)


def test_an_image_needs_what_its_neediest_program_does() -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, data in (
            ("bin/old", made(62, note(elf.NT_ABI_TAG, 0, 3, 2, 0))),
            ("bin/new", made(62, NEWER)),
            ("lib/glibc-hwcaps/x86-64-v3/lib.so", made(62, AVX2)),
            ("lib/modules/6.1.0/kernel/a.ko.xz", b"\x7fELF"),
            ("bin/script", b"#!/bin/sh\n"),
            ("bin/arm", made(183, b"")),
        ):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    data = buffer.getvalue()
    found = programs.survey(data[at : at + 100] for at in range(0, len(data), 100))
    assert (found.kernel, found.kernel_of, found.stating) == ((5, 4, 0), "bin/new", 2)
    assert (found.level, found.variants) == ("", {"x86-64-v3"}), "it is taken where it fits only"
    assert found.architectures == {"amd64": 3, "arm64": 1}
    assert found.modules == {"6.1.0"}


def seen(**told: object) -> Seen:
    """A run that ended well."""
    usual: dict[str, object] = {
        "end": "exit", "code": 0, "kernel": "6.1.0", "said": "", "listening": False, "seconds": 1.0,
        "processes": 1, "foreign": 0, "namespaces": 0, "calls": {}, "paths": frozenset(),
        "file_systems": frozenset(), "families": frozenset(), "facts": {},
    }  # fmt: skip
    return Seen(**(usual | told))  # type: ignore[arg-type]


def test_what_works() -> None:
    server = seen(end="time", listening=True)
    assert trials.works(seen(), seen())
    assert trials.works(seen(code=1), seen(code=1)), "it says no everywhere"
    assert not trials.works(seen(code=1), seen())
    assert not trials.works(seen(end="signal", code=4), seen(end="signal", code=4))
    assert not trials.works(seen(code=127), seen(code=127))
    assert trials.works(server, server)
    assert not trials.works(seen(end="time"), server), "it runs and serves nobody"


def test_what_is_told() -> None:
    calls = {"cachestat": Call(1, frozenset({"ENOSYS"}))}
    assert trials.told(seen(code=2, said="no")) == "exit code 2; 'no'"
    assert trials.told(seen(end="signal", code=4)) == "ended by signal 4"
    assert trials.told(seen(end="time", calls=calls)) == (
        "it still runs after 1 s; not there: cachestat"
    )


def test_use_of_the_kernel() -> None:
    calls = {name: Call(1, frozenset()) for name in ("read", "io_uring_setup", "462")}
    run = seen(
        calls=calls,
        namespaces=0x10000000,
        families=frozenset({2, 16}),
        paths=frozenset({"/dev/null", "/dev/fuse", "/sys/fs/cgroup/cpu.max"}),
        file_systems=frozenset({"tmpfs"}),
    )
    assert kernel_use.features(run) == [
        "io_uring", "new namespaces (user)", "netlink sockets", "file systems (tmpfs)", "cgroups",
        "devices (/dev/fuse)",
    ]  # fmt: skip
    assert kernel_use.newest(run) == ("mseal", (6, 10))
    assert kernel_use.newest(seen(calls={"read": Call(1, frozenset())})) is None


def test_kernels_are_found(tmp_path: Path) -> None:
    for name in ("a/boot/vmlinuz-1", "b/boot/vmlinuz-2", "b/boot/config-2"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    one, two = tmp_path / "a/boot/vmlinuz-1", tmp_path / "b/boot/vmlinuz-2"
    assert trials.kernels([str(tmp_path)]) == [one, two]
    assert trials.kernels([str(two), str(tmp_path / "a")]) == [two, one]
    with pytest.raises(Invalid, match="no kernel at"):
        trials.kernels([str(tmp_path / "c")])
    assert portability.kernels_for("disk", None) == ()
    with pytest.raises(Invalid, match="boots the kernel it holds"):
        portability.kernels_for("disk", (str(tmp_path),))


def test_kernels_are_looked_for_before_anything_is_measured(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="no kernel at"):
        ComparisonOptions("image", kernels=(str(tmp_path),)).check()
