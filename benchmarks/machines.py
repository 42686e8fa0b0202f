"""A whole Debian from power-on to its login, through the engine and under plain QEMU."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.measure import Budget, Contestant, Row
from benchmarks.rows import Field
from tests.support import monolith
from tests.support.instances import Instance

KEYS = frozenset({"machine-boot"})
RAM_MIB = 1024
LOGIN = b"login:"
PIECE = 1 << 16
NOISE = 0.05  # two of the same differ by as much


@contextlib.contextmanager
def rows(field_: Field, folder: Path) -> Iterator[list[Row]]:
    """Both with the same disk, RAM, processors, devices and accelerator, each from fresh."""
    disk = monolith.disk(field_.engine)
    kvm = _accelerator(field_, disk) == "kvm"
    yield [
        Row(
            "machine-boot",
            "a Debian with systemd boots to its login",
            [
                Contestant("proa", lambda: _ours(field_, disk)),
                Contestant("plain qemu", lambda: _plain(disk, kvm=kvm)),
            ],
            [Budget("proa", ("plain qemu",), 1 + NOISE)],
            most_rounds=3,
        )
    ]


def _machine(field_: Field, disk: Path) -> Instance:
    body = {
        "Tty": True,  # so that the console comes as it is
        "HostConfig": {"Isolation": "vm", "Memory": RAM_MIB << 20},
        "Proa": {"Disk": str(disk), "CloudInit": "none"},
    }
    api = field_.engine.api
    return Instance(api, api.json("POST", "/containers/create", body)["Id"])


def _accelerator(field_: Field, disk: Path) -> str:
    machine = _machine(field_, disk).start()
    try:
        return str(machine.inspect()["Proa"]["Accelerator"])
    finally:
        machine.remove()


def _ours(field_: Field, disk: Path) -> None:
    machine = _machine(field_, disk)
    try:
        with machine.attach(stdin=0) as console:
            console.settimeout(None)
            machine.start()
            _until_login(lambda: console.recv(PIECE))
    finally:
        machine.remove()


def _plain(disk: Path, *, kvm: bool) -> None:
    accelerator = ("-accel", "kvm", "-cpu", "host") if kvm else ("-accel", "tcg", "-cpu", "max")
    command = [
        "qemu-system-x86_64", *accelerator, "-M", "q35", "-m", str(RAM_MIB), "-nodefaults",
        "-display", "none", "-serial", "stdio", "-snapshot",
        "-drive", f"file={disk},format=qcow2,if=none,id=disk,discard=unmap",
        "-device", "virtio-blk-pci,drive=disk", "-device", "virtio-rng-pci",
        "-nic", "user,model=virtio-net-pci",
    ]  # fmt: skip
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as machine:
        try:
            assert machine.stdout is not None
            console = machine.stdout.fileno()
            _until_login(lambda: os.read(console, PIECE))
        finally:
            machine.kill()


def _until_login(read: Callable[[], bytes]) -> None:
    seen = b""
    while LOGIN not in seen:
        piece = read()
        if not piece:
            raise RuntimeError(f"the machine ended without a login: {seen[-500:]!r}")
        seen = seen[-len(LOGIN) :] + piece
