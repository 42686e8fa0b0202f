"""A Unix that is not Linux, on the hardware of its time: its console is used, it is ended.

The disk is the tester's: PROA_UNIX_DISK, or build/unix.img.  It boots by BIOS from an IDE disk on a
`pc` with VGA, and has a shell on the first serial port, without a login (MIT's xv6 is such a one,
its image with the file system in memory).
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.instances import Instance, Place, exactly
from tests.support.paths import ROOT

DISK = Path(os.environ.get("PROA_UNIX_DISK") or ROOT / "build" / "unix.img")
PROMPT = b"$ "
SECONDS = 60


@pytest.fixture
def machine(vm: Place) -> Instance:
    """The machine, not started."""
    if not DISK.is_file():
        pytest.skip(f"no disk of another Unix at '{DISK}' (PROA_UNIX_DISK names one)")
    hardware = {"Disk": str(DISK), "DiskBus": "ide", "Display": "std"}
    return vm.create("", Proa=hardware, host={"Memory": 256 << 20}, OpenStdin=True)


@pytest.fixture
def console(machine: Instance) -> Iterator[socket.socket]:
    """Its serial port; the machine runs and has shown its first prompt."""
    with machine.attach() as stream:
        stream.settimeout(SECONDS)
        machine.start()
        answer(stream)
        yield stream


def answer(console: socket.socket) -> str:
    """What comes until the next prompt."""
    said = b""
    while not said.endswith(PROMPT):
        head = exactly(console, 8)  # Docker's multiplexed stream: a frame's kind and length
        assert len(head) == 8, f"the console ended after {said!r}"
        said += exactly(console, int.from_bytes(head[4:], "big"))
    return said.removesuffix(PROMPT).decode(errors="replace").replace("\r", "")


def ask(console: socket.socket, command: str) -> list[str]:
    """Type a command; the lines it answers with, without the echo."""
    console.sendall(command.encode() + b"\n")
    return answer(console).splitlines()[1:]


def test_its_shell_is_used_by_the_console(machine: Instance, console: socket.socket) -> None:
    assert ask(console, "echo proa was here") == ["proa was here"]
    listing = ask(console, "ls")
    assert {"echo", "ls", "sh"} <= {line.split()[0] for line in listing}
    assert ask(console, "echo one two | wc")[0].split()[:3] == ["1", "2", "8"]
    facts = machine.inspect()["Proa"]
    assert (facts["Machine"], facts["DiskBus"], facts["Firmware"]) == ("pc", "ide", "bios")
    assert "proa was here" in machine.logs().stdout


def test_what_it_writes_is_its_own(machine: Instance, console: socket.socket) -> None:
    before = DISK.read_bytes()
    ask(console, "mkdir of-proa")
    machine.kill()
    assert machine.wait() == 137
    assert DISK.read_bytes() == before


def test_one_that_knows_no_power_button_is_stopped(
    machine: Instance, console: socket.socket
) -> None:
    machine.stop(1)
    assert machine.state()["ExitCode"] == 137
    assert not machine.state()["Running"]
