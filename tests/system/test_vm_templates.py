"""Templates, spares and boots of real QEMU machines, without an engine around them."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from proa import plan
from proa.agent import MAIN, Attach, Dispatcher, Kind
from proa.errors import Timeout, Unsupported
from proa.isolation.base import Running
from proa.isolation.places import Places, Site
from proa.isolation.vm import Vms, accel, child, guest, qemu
from proa.resources import Launch
from proa.spec import Limits
from tests.conftest import need
from tests.support.images import BUSYBOX
from tests.support.paths import NATIVE

WAIT_SECONDS = 30.0
IMAGE_ID = "sha256:" + "0" * 64


@dataclass
class Rootfs:
    """A directory with one static program, as an image's disk."""

    path: Path
    image_id: str = IMAGE_ID
    layers: tuple[Path, ...] = ()
    upper: Path = Path("/nonexistent")

    def disk(self) -> Path:
        """The EROFS file."""
        return self.path


@dataclass
class Host:
    """Places and vms below one directory."""

    root: Path
    places: Places
    rootfs: Rootfs
    dispatcher: Dispatcher

    def vms(self, **settings: Any) -> Vms:
        """A vm isolation of its own on the shared files."""
        return Vms(self.root / "vm", self.places, settings)

    def launch(self, **facts: Any) -> Launch:
        """A launch of a new instance."""
        identity = secrets.token_hex(32)
        directory = self.root / "instances" / identity
        directory.mkdir(parents=True)
        return Launch(identity, directory, self.rootfs, **facts)


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """One directory for all of this file, since a kernel and a template take a while."""
    need(os.geteuid() == 0, "root", "machines need root")
    need(BUSYBOX.exists(), "busybox", "these tests need busybox-static")
    root = tmp_path_factory.mktemp("vms")
    root.chmod(0o755)
    tree = root / "tree"
    for name in ("bin", "etc", "proc", "sys", "dev", "root"):
        (tree / name).mkdir(parents=True)
    shutil.copy(BUSYBOX, tree / "bin/busybox")
    for name in ("sh", "true"):
        (tree / "bin" / name).symlink_to("busybox")
    disk = root / "image.erofs"
    subprocess.run(["mkfs.erofs", "--quiet", disk, tree], check=True)
    (root / "run").mkdir()
    dispatcher = Dispatcher()
    site = Site(root / "places", root / "run", f"proa-test-{os.getpid()}", NATIVE)
    places = Places(site, dispatcher, 0)
    yield Host(root, places, Rootfs(disk), dispatcher)
    places.close()


@contextmanager
def speaking(running: Running, script: str) -> Iterator[socket.socket]:
    """What a shell prints as the instance's main process, as it comes."""
    agent, sources = running.agent(), running.sources
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            flags = Attach.OUT | Attach.ERR
            agent.begin(Kind.ATTACH, MAIN, b"", flags, (theirs.fileno(),))
        command = plan.Exec(("/bin/sh", "-c", script))
        steps = (*sources.before, plan.Root(sources.root), *sources.after,
                 plan.Environment("PATH=/bin"), command)  # fmt: skip
        agent.launch(steps, sources.descriptors)
        ours.settimeout(WAIT_SECONDS)
        yield ours


def run(running: Running, script: str) -> str:
    """All that it prints, once it has ended."""
    ended = threading.Event()
    running.agent().on_exit = lambda exit: ended.set() if exit.id == MAIN else None
    with speaking(running, script) as output:
        text = b"".join(iter(lambda: output.recv(65536), b""))
    assert ended.wait(WAIT_SECONDS)
    return text.decode()


def run_and_end(vms: Vms, launch: Launch, script: str) -> tuple[str, str]:
    """How a new instance was started, and what it printed."""
    running = vms.start(launch)
    try:
        return running.facts["started_by"], run(running, script)
    finally:
        running.kill()


def template_files(host: Host) -> dict[Path, bytes]:
    """The templates' descriptions and states, by path."""
    found = (host.root / "vm/templates").glob("*/*")
    return {path: path.read_bytes() for path in found if path.name in ("state", "template.json")}


def test_a_clone_has_the_shape_and_the_identity_of_its_own(host: Host) -> None:
    vms = host.vms(image_templates=False)
    script = "busybox head -c 16 /dev/random | busybox md5sum; busybox cat /etc/machine-id"
    drawn = [run_and_end(vms, host.launch(), script) for _ in range(3)]
    assert {how for how, _ in drawn} == {"template"}
    assert len({line for _, text in drawn for line in text.split()} - {"-"}) == 6
    vms.close()


def test_what_was_written_is_there_after_a_restart(host: Host) -> None:
    vms = host.vms(image_templates=False)
    launch = host.launch()
    run_and_end(vms, launch, "echo kept > /root/file")
    again = Launch(launch.id, launch.directory, launch.rootfs)
    assert run_and_end(vms, again, "busybox cat /root/file") == ("template", "kept\n")
    vms.close()


def test_a_boot_looks_the_same(host: Host) -> None:
    vms = host.vms(template=False)
    script = "echo $$; busybox cat /sys/fs/cgroup/memory.max; busybox ls /sys/class/net"
    limits = Limits(memory_bytes=100 << 20)
    assert run_and_end(vms, host.launch(limits=limits), script) == ("boot", f"1\n{100 << 20}\nlo\n")
    vms.close()


@pytest.mark.parametrize("warm", [False, True])
def test_an_image_gets_a_template_and_spares(host: Host, warm: bool) -> None:
    vms = host.vms(spares=1, warm=warm)
    script = "echo a > /root/new; busybox ls /root; busybox head -c 9 /dev/urandom | busybox md5sum"
    seen: dict[str, list[str]] = {}
    for _ in range(40):
        how, text = run_and_end(vms, host.launch(remove=True), script)
        assert text.startswith("new\n")
        seen.setdefault(how, []).append(text)
        if len(seen.get("spare", [])) == 3:
            break
        threading.Event().wait(0.5)
    assert len(seen.get("spare", [])) == 3, seen.keys()
    drawn = [text for texts in seen.values() for text in texts]
    assert len(set(drawn)) == len(drawn)
    vms.close()
    assert not list((host.root / "places").iterdir())


def test_no_clone_changes_a_template(host: Host) -> None:
    vms = host.vms()
    run_and_end(vms, host.launch(), "true")
    before = template_files(host)
    memory = {p: p.stat().st_mtime_ns for p in (host.root / "vm/templates").glob("*/memory")}
    run_and_end(vms, host.launch(), "busybox dd if=/dev/zero of=/dev/shm/x bs=1M count=20")
    assert memory and all(p.stat().st_mtime_ns == when for p, when in memory.items())
    assert before.items() <= template_files(host).items()
    vms.close()


def test_a_damaged_template_is_made_again(host: Host) -> None:
    first = host.vms(image_templates=False)
    run_and_end(first, host.launch(), "true")
    first.close()
    for memory in (host.root / "vm/templates").glob("*/memory"):
        with memory.open("r+b") as file:
            file.seek(1 << 20)
            file.write(b"damage")
    second = host.vms(image_templates=False)
    assert run_and_end(second, host.launch(), "echo fine") == ("template", "fine\n")
    second.close()


def test_another_engine_takes_over(host: Host) -> None:
    vms = host.vms(image_templates=False)
    running = vms.start(host.launch())
    adopted = host.vms().adopt(running.saved)
    adopted.pause()
    adopted.resume()
    adopted.update(Limits(memory_bytes=200 << 20))
    assert adopted.inside().memory_limit == 200 << 20
    with pytest.raises(Unsupported, match="cannot grow"):
        adopted.update(Limits(memory_bytes=64 << 30))
    assert adopted.usage().memory_bytes > 0
    running.kill()
    adopted.kill()
    vms.close()


def test_a_guest_that_does_not_boot_is_given_up_in_time(host: Host, tmp_path: Path) -> None:
    kernel = guest.find(host.root / "vm/kernels")
    empty = tmp_path / "initramfs"
    empty.write_bytes(kernel.initramfs(b"no program"))
    firmware = child.Firmware(kernel, empty)
    machine = qemu.Machine(accel.PROBE_RAM_BYTES, network=False)
    with pytest.raises(Timeout), child.boot(machine, firmware, host.dispatcher, seconds=0.5):
        pass


def test_the_accelerator_is_tried_and_remembered(host: Host, tmp_path: Path) -> None:
    kernel = guest.find(host.root / "vm/kernels")
    first = tmp_path / "initramfs"
    first.write_bytes(kernel.initramfs(NATIVE.read_bytes()))
    cache, told = tmp_path / "accelerator.json", list[str]()
    firmware = child.Firmware(kernel, first)
    found = accel.choose(cache, lambda: firmware, host.dispatcher, progress=told.append)
    assert found.name == "kvm" or found.reason
    told.clear()
    assert accel.choose(cache, lambda: firmware, host.dispatcher, progress=told.append) == found
    assert not told
