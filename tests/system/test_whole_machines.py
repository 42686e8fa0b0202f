"""Whole machines: disks and CDs that boot under the engine, seen from the console and the host."""

from __future__ import annotations

import http.client
import os
import pty
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import need
from tests.support import whole
from tests.support.engine import EngineProcess
from tests.support.http import ApiError
from tests.support.images import Layer, archive, busy_layer
from tests.support.instances import Api, Instance, eventually
from tests.support.paths import PROA
from tests.support.whole import Machines, said

Hardware = dict[str, Any]


@pytest.fixture
def machines(api: Api) -> Iterator[Machines]:
    """Makes whole machines."""
    made = Machines(api, [])
    yield made
    for instance in made.made:
        try:
            instance.remove()
        except ApiError as error:
            assert error.status == 404, error


@pytest.fixture(scope="module")
def medium(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CD and disk that boots, tells so, and powers off."""
    need(shutil.which("grub-mkrescue") and shutil.which("xorriso"), "xorriso", "no CDs can be made")
    return whole.boot_medium(tmp_path_factory.mktemp("medium"))


@pytest.fixture(scope="module")
def linux(session_engine: EngineProcess, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A disk of a Linux that tells what it sees."""
    layer = busy_layer()
    config = {"Cmd": ["sh", "-c", whole.SCRIPT], "Env": ["PATH=/bin"]}
    session_engine.api.load(archive("told", layer.bytes(), **config))
    path = tmp_path_factory.mktemp("linux") / "linux.qcow2"
    done = session_engine.proa("image", "to-disk", "-q", "told", str(path))
    assert done.returncode == 0, done.stderr
    return path


# -- what boots, and how ---------------------------------------------------------------------------


def test_a_paused_machine_is_removed_by_force(machines: Machines, api: Api, tmp_path: Path) -> None:
    disk = tmp_path / "disk.raw"
    disk.write_bytes(bytes(1 << 20))
    machine = machines.start({"Disk": str(disk)})
    api.call("POST", f"{machine.path}/pause")
    machine.remove()
    assert machine.id not in api.ids()


@pytest.mark.parametrize(
    ("hardware", "platform"),
    [
        ({"DiskBus": "virtio"}, "pc"),
        ({"DiskBus": "ide", "Nic": "rtl8139"}, "pc"),
        ({"DiskBus": "sata", "Machine": "pc", "Display": "std"}, "pc"),
        ({"DiskBus": "scsi", "Nic": "e1000"}, "pc"),
        ({"DiskBus": "nvme", "Firmware": "uefi"}, "efi"),
    ],
    ids=lambda value: "-".join(value.values()) if isinstance(value, dict) else value,
)
def test_it_boots_from_a_disk(
    session_engine: EngineProcess, machines: Machines, medium: Path, hardware: Hardware,
    platform: str,
) -> None:  # fmt: skip
    machine = machines.start({"Disk": str(medium), "Format": "raw", **hardware})
    assert machine.wait() == 0  # the guest turned itself off
    assert f"BOOTED by {platform}" in machine.logs().stdout
    told = machine.inspect()["Proa"]
    wanted = {"Firmware": "bios", "Nic": "virtio", **hardware, "Disk": str(medium)}
    assert {key: told[key] for key in wanted} == wanted
    kept = session_engine.root / "instances" / machine.id / "nvram"
    assert kept.exists() == (platform == "efi")


@pytest.mark.parametrize("format", ["qcow2", "vmdk", "vhdx", "vdi"])
def test_it_boots_from_every_format(
    machines: Machines, medium: Path, tmp_path: Path, format: str
) -> None:
    disk = tmp_path / f"disk.{format}"
    subprocess.run(["qemu-img", "convert", "-O", format, medium, disk], check=True)
    machine = machines.start({"Disk": str(disk)}, Memory=64 << 20)
    assert machine.wait() == 0
    assert "BOOTED by pc" in machine.logs().stdout
    assert machine.inspect()["Proa"]["DiskFormat"] == format


def test_a_new_disk_is_installed_on_from_a_cd(machines: Machines, medium: Path) -> None:
    machine = machines.start({"Cdroms": [str(medium)], "DiskBytes": 1 << 30})
    assert machine.wait() == 0
    text = machine.logs().stdout
    assert "BOOTED by pc" in text
    assert "(hd0)" in text  # the empty disk is there
    assert machine.inspect()["Proa"]["Disk"] == "empty"


def test_a_cd_goes_first_when_asked(machines: Machines, medium: Path, linux: Path) -> None:
    machine = machines.start({"Disk": str(linux), "Cdroms": [str(medium)], "Boot": "cdrom"})
    assert machine.wait() == 0
    assert "BOOTED by pc" in machine.logs().stdout
    assert "(hd0,gpt3)" in machine.logs().stdout


def test_an_image_that_holds_one_disk_is_a_machine(machines: Machines, medium: Path) -> None:
    layer = Layer()
    layer.file("disk/server.raw", medium.read_bytes())
    machines.api.load(archive("held", layer.bytes()))
    config = {"Isolation": "vm", "Memory": 256 << 20}
    machine = machines.create_body({"Image": "held", "HostConfig": config}).start()
    assert machine.wait() == 0
    assert "BOOTED by pc" in machine.logs().stdout
    assert machine.inspect()["Image"] == machine.inspect()["Proa"]["Disk"]


def test_unsigned_loaders_are_refused_by_secure_boot(machines: Machines, medium: Path) -> None:
    hardware = {"Disk": str(medium), "Format": "raw", "Firmware": "secureboot"}
    machine = machines.start(hardware)
    text = said(machine, "Access Denied")
    assert "BOOTED" not in text
    machine.kill()
    assert machine.wait() == 137


# -- a system that runs ----------------------------------------------------------------------------


def test_a_machine_lives_like_every_instance(
    session_engine: EngineProcess, machines: Machines, linux: Path, tmp_path: Path
) -> None:
    """Its network, console, the engine's death, reset, pause, stop and start: one boot for all."""
    need(shutil.which("swtpm"), "swtpm", "no software TPM")
    ports = {"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": ""}]}
    hardware = {"Disk": str(linux), "Nic": "e1000", "Tpm": True}
    machine = machines.start(hardware, PortBindings=ports)
    text = said(machine, "SERVING")
    settings = machine.inspect()["NetworkSettings"]
    assert "FIRMWARE bios" in text
    assert f"NIC e1000 {settings['MacAddress']}" in text
    assert f"inet {settings['IPAddress']}/{settings['IPPrefixLen']} " in text
    assert "TPM 2" in text
    assert page(machine) == b"a page of the machine\n"

    session_engine.kill()
    session_engine.start()
    assert machine.state()["Running"]
    assert page(machine) == b"a page of the machine\n"
    console = machine.attach()
    console.sendall(b"echo typed $((6 * 7))\n")
    said(machine, "typed 42")
    console.sendall(b"reboot -f\n")  # the machine goes on, and asks the new engine for its address
    eventually(lambda: machine.logs().stdout.count("SERVING") == 2, whole.BOOT_SECONDS)
    console.close()
    assert page(machine) == b"a page of the machine\n"
    done = session_engine.proa("exec", machine.id, "true")
    assert done.returncode == 126
    assert b"no agent" in done.stdout

    machine.api.call("POST", f"{machine.path}/pause")
    assert machine.state()["Paused"]
    machine.api.call("POST", f"{machine.path}/unpause")
    assert page(machine) == b"a page of the machine\n"
    machine.stop(60)
    assert machine.state()["ExitCode"] == 0
    assert "ASKED TO END" in machine.logs().stdout


def page(machine: Instance) -> bytes:
    """The page it serves, through its published port."""
    port = machine.inspect()["NetworkSettings"]["Ports"]["80/tcp"][0]["HostPort"]
    with closing(http.client.HTTPConnection("127.0.0.1", int(port), timeout=30)) as connection:
        connection.request("GET", "/")
        return connection.getresponse().read()


def test_what_it_wrote_is_kept_and_the_base_is_not_touched(
    session_engine: EngineProcess, machines: Machines, linux: Path
) -> None:
    before = linux.read_bytes()
    machine = machines.start({"Disk": str(linux), "DiskBytes": 2 << 30}, Memory=256 << 20)
    said(machine, "SERVING")
    console = Console(session_engine, machine)
    console.type("echo kept >/left; cat /sys/block/vda/size; sync; exit 3\n")
    console.until("proa: the command ended with exit code 3")
    assert str((2 << 30) // 512) in console.text
    console.end()
    assert machine.wait() == 0
    machine.start()
    said(machine, "Power down\r\n")
    console = Console(session_engine, machine)
    eventually(lambda: machine.logs().stdout.count("SERVING") == 2, whole.BOOT_SECONDS)
    console.type("echo found $(cat /left)\n")
    console.until("found kept")
    console.leave()
    machine.kill()
    assert machine.wait() == 137
    assert linux.read_bytes() == before
    with linux.open("ab") as file:
        file.write(bytes(512))
    with pytest.raises(ApiError, match="was changed"):
        machine.start()
    os.truncate(linux, len(before))


class Console:
    """`proa console` on a terminal."""

    def __init__(self, engine: EngineProcess, machine: Instance) -> None:
        self.master, slave = pty.openpty()
        self.process = subprocess.Popen(
            [PROA, "console", machine.id], env=engine.variables(), stdin=slave, stdout=slave,
            stderr=slave, start_new_session=True,
        )  # fmt: skip
        os.close(slave)
        self.text = ""
        self.until("leave it with ctrl-p,ctrl-q")

    def type(self, text: str) -> None:
        """Press keys."""
        os.write(self.master, text.encode())

    def until(self, text: str) -> None:
        """Read until this has been shown."""
        end = time.monotonic() + whole.BOOT_SECONDS
        while text not in self.text:
            ready, _, _ = select.select([self.master], [], [], end - time.monotonic())
            assert ready, f"no '{text}' in {self.text[-2000:]!r}"
            self.text += os.read(self.master, 65536).decode(errors="replace")

    def leave(self) -> None:
        """By the keys."""
        self.type("\x10\x11")
        self.until("left the console")
        self.end()

    def end(self) -> None:
        """It has ended by itself."""
        assert self.process.wait(30) == 0
        os.close(self.master)


# -- what is refused -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("hardware", "said"),
    [
        ({"Disk": "server.qcow2"}, "absolute"),
        ({"Disk": "/no/such/disk"}, "no such file"),
        ({"Disk": "/etc"}, "no regular file"),
        ({"Disk": "{raw}", "Format": "vmdk"}, "looks like raw"),
        ({"Disk": "{raw}", "Speed": "fast"}, "unknown field 'Proa.Speed'"),
        ({"Disk": "{raw}", "Firmware": "openfirmware"}, "unknown firmware"),
        ({"Disk": "{raw}", "Tpm": "yes"}, "true or false"),
        ({"Disk": "{backed}"}, "backing file"),
        ({"Disk": "{spread}"}, "spread over other files"),
    ],
)
def test_what_is_no_machine_is_refused(
    machines: Machines, tmp_path: Path, hardware: Hardware, said: str
) -> None:
    paths = {name: tmp_path / name for name in ("raw", "backed", "spread")}
    paths["raw"].write_bytes(bytes(1 << 20))
    paths["spread"].write_text('# Disk DescriptorFile\nRW 100 FLAT "/etc/shadow" 0\n')
    backed = ["qemu-img", "create", "-q", "-f", "qcow2", "-u", "-F", "raw"]
    subprocess.run([*backed, "-b", "/etc/shadow", paths["backed"], "1m"], check=True)
    disk = hardware["Disk"].format(**paths)
    with pytest.raises(ApiError, match=said):
        machines.create({**hardware, "Disk": disk})


def test_what_a_process_has_is_no_machines(machines: Machines, api: Api, tmp_path: Path) -> None:
    disk = tmp_path / "disk.raw"
    disk.write_bytes(bytes(1 << 20))
    with pytest.raises(ApiError, match=r"HostConfig\.CapAdd"):
        machines.create({"Disk": str(disk)}, CapAdd=["SYS_ADMIN"])
    with pytest.raises(ApiError, match="as a vm only"):
        machines.create({"Disk": str(disk)}, Isolation="container")
    with pytest.raises(ApiError, match="a disk only grows"):
        machines.start({"Disk": str(disk), "DiskBytes": 1 << 19})
    machine = machines.start({"Disk": str(disk)})
    assert machine.state()["Running"]  # it says that there is nothing to boot
    machine.kill()


def test_a_hostile_image_cannot_name_a_disk_of_the_host(api: Api) -> None:
    for name, path, target in (
        ("linked", "disk", "/etc"), ("linked-file", "disk/passwd", "/etc/passwd"),
    ):  # fmt: skip
        layer = Layer()
        layer.symlink(path, target)
        api.load(archive(name, layer.bytes()))
        body = {"Image": name, "HostConfig": {"Isolation": "vm"}}
        with pytest.raises(ApiError, match="no command specified"):
            api.json("POST", "/containers/create", body)
