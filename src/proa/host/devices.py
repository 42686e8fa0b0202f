"""Which device nodes the processes of a cgroup may open: a program of the kernel's BPF machine.

A mount's `nodev` keeps an image's device nodes shut, but a place whose root was given CAP_SYS_ADMIN
can take that flag off; this it cannot.  Works wherever there is a v2 tree, hybrid hosts included.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterable
from pathlib import Path

from proa.host import kernel

_BPF = {"x86_64": 321, "aarch64": 280, "riscv64": 280}
_LOAD, _ATTACH, _QUERY = 5, 8, 16
_TYPE_CGROUP_DEVICE, _ATTACH_DEVICE, _ALLOW_MULTI = 15, 6, 2
_CHARACTER = 2

ANY = -1
ALLOWED = (  # character devices, major and minor
    (1, 3), (1, 5), (1, 7), (1, 8), (1, 9),  # null zero full random urandom
    (5, 0), (5, 1), (5, 2), (136, ANY),  # tty console ptmx and the terminals
    (10, 200), (10, 229), (10, 232), (10, 238), (10, 241),  # tun fuse kvm vhost-net vhost-vsock
)  # fmt: skip


def restrict(cgroup: Path) -> None:
    """Let processes in and below a v2 cgroup open ALLOWED only; once is enough.  Raises OSError."""
    fd = os.open(cgroup, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if _attached(fd):
            return
        program = _load(program_of(ALLOWED))
        try:
            _bpf(_ATTACH, struct.pack("=IIII", fd, program, _ATTACH_DEVICE, _ALLOW_MULTI))
        finally:
            os.close(program)
    finally:
        os.close(fd)


def _attached(cgroup_fd: int) -> int:
    """How many device programs the cgroup has itself."""
    query = _bpf(_QUERY, struct.pack("=IIIIQII", cgroup_fd, _ATTACH_DEVICE, 0, 0, 0, 0, 0))
    return int(struct.unpack_from("=I", query, 24)[0])


def _load(code: bytes) -> int:
    instructions, license = ctypes.create_string_buffer(code), ctypes.create_string_buffer(b"GPL")
    attributes = ctypes.create_string_buffer(
        struct.pack(
            "=IIQQ", _TYPE_CGROUP_DEVICE, len(code) // 8,
            ctypes.addressof(instructions), ctypes.addressof(license),
        ),
        48,
    )  # fmt: skip
    return kernel.syscall(_number(), _LOAD, attributes, len(attributes))


def _bpf(command: int, attributes: bytes) -> bytes:
    """A call whose attributes the kernel may fill in; what they are afterwards."""
    buffer = ctypes.create_string_buffer(attributes, len(attributes))
    kernel.syscall(_number(), command, buffer, len(attributes))
    return buffer.raw


def _number() -> int:
    return _BPF.get(os.uname().machine, 280)


def program_of(allowed: Iterable[tuple[int, int]]) -> bytes:
    """The program: 1 for an allowed character device, 0 for everything else.

    Its argument points at access type (the low half is the kind of device), major and minor.
    """
    load, mask, if_not, if_equal, move, leave = 0x61, 0x57, 0x55, 0x15, 0xB7, 0x95

    def step(
        code: int, register: int, value: int = 0, *, source: int = 0, offset: int = 0
    ) -> bytes:
        return struct.pack("=BBhi", code, source << 4 | register, offset, value)

    allow = step(move, 0, 1) + step(leave, 0)
    steps = [step(load, register, source=1, offset=4 * (register - 2)) for register in (2, 3, 4)]
    steps.append(step(mask, 2, 0xFFFF))
    steps.append(step(if_equal, 2, _CHARACTER, offset=2) + step(move, 0, 0) + step(leave, 0))
    for major, minor in allowed:
        minor_check = b"" if minor == ANY else step(if_not, 4, minor, offset=2)
        skipped = (len(minor_check) + len(allow)) // 8
        steps.append(step(if_not, 3, major, offset=skipped) + minor_check + allow)
    return b"".join(steps) + step(move, 0, 0) + step(leave, 0)
