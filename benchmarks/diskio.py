"""A guest's disk through our stack and through a plain QEMU with the best options it has."""

from __future__ import annotations

import json
import os
import random
import shutil
import socket
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.first import make_host
from benchmarks.measure import Budget, Row
from proa import plan
from proa.agent import MAIN, Agent, Attach, Exit, Kind
from proa.agent import Launch as Flag
from proa.isolation.vm import Vms, layers, plans, qemu
from proa.isolation.vm.prepared import Prepared
from proa.isolation.vm.qmp import Qmp
from tests.system.test_vm_templates import Host

SOURCE = Path(__file__).with_name("diskio.c")
WORKS = ("seq-write", "seq-read", "rand-write", "rand-read", "rand-write-4", "rand-read-4")
KEYS = frozenset(f"disk-{work}" for work in WORKS)
OURS, CHAIN = "proa, an image's vm", "proa, an overlay over that"
TOOL, FILE = f"{plans.ROOT}/bin/diskio", f"{plans.ROOT}/measured"
WORK_SECONDS = 60.0
FACTOR = 1 / 0.9


@dataclass(frozen=True)
class Way:
    """How a plain QEMU reaches the file; `overlay` puts a qcow2 of QEMU's own over it."""

    name: str
    file: dict[str, object]
    iothread: bool = False
    overlay: bool = False


DIRECT = {"cache": {"direct": True, "no-flush": False}}
PLAIN = (
    Way("qemu, threads", {"aio": "threads"}),
    Way("qemu, io_uring", {"aio": "io_uring"}),
    Way("qemu, native, direct", {"aio": "native", **DIRECT}),
    Way("qemu, threads, iothread", {"aio": "threads"}, iothread=True),
)
OVER = (
    Way("qemu, threads, overlay", {"aio": "threads"}, overlay=True),
    Way("qemu, io_uring, overlay", {"aio": "io_uring"}, overlay=True),
    Way("qemu, native, overlay", {"aio": "native", **DIRECT}, overlay=True),
)


def rows(root: Path, rounds: int = 5) -> Iterator[Row]:
    """Every work as a row; in a round each way boots a guest and does all of them once."""
    host = make_host(root)
    tree, image = root / "tree", root / "image.erofs"
    command = ["cc", "-O2", "-static", "-pthread", "-o", str(tree / "bin/diskio"), str(SOURCE)]
    subprocess.run(command, check=True)
    image.unlink()
    subprocess.run(["mkfs.erofs", "--quiet", image, tree], check=True)
    vms = host.vms(spares=0, template=False)
    found: dict[str, Row] = {}
    for work in WORKS:
        budgets = [
            Budget(OURS, tuple(way.name for way in PLAIN), FACTOR),
            Budget(CHAIN, tuple(way.name for way in OVER), FACTOR),
        ]
        found[work] = Row(f"disk-{work}", f"a guest's disk, {work}", [], budgets, unit="us/op")
    try:
        _measure(host, vms, found, rounds)
    finally:
        vms.close()
        host.places.close()
        host.places.destroy()
    yield from found.values()


def _measure(host: Host, vms: Vms, found: dict[str, Row], rounds: int) -> None:
    ways: list[tuple[str, Callable[[], str]]] = [
        (OURS, lambda: _ours(host, vms, 0)), (CHAIN, lambda: _ours(host, vms, 1)),
        *((way.name, lambda way=way: _plain(host, vms, way)) for way in (*PLAIN, *OVER)),
    ]  # fmt: skip
    for _ in range(rounds):
        random.shuffle(ways)
        for name, once in ways:
            for line in once().splitlines():
                work, time = line.split()
                found[work].samples.setdefault(name, []).append(float(time))


def _ours(host: Host, vms: Vms, overlays: int) -> str:
    launch = host.launch()
    if overlays:
        os.close(vms._ready().seed.create(launch.directory / layers.FIRST))
        layers.grow(launch.directory)
    running = vms.start(launch)
    try:
        agent, sources = running.agent(), running.sources
        ours, theirs = socket.socketpair()
        with ours:
            with theirs:
                agent.begin(Kind.ATTACH, MAIN, b"", Attach.OUT, (theirs.fileno(),))
            agent.launch((*sources.before, plan.Exec((TOOL, FILE))), sources.descriptors)
            ours.settimeout(WORK_SECONDS)
            return b"".join(iter(lambda: ours.recv(65536), b"")).decode()
    finally:
        running.kill()
        shutil.rmtree(launch.directory)


def _plain(host: Host, vms: Vms, way: Way) -> str:
    """The same guest by a QEMU that nothing confines, its answer on a disk of its own."""
    with tempfile.TemporaryDirectory(dir=host.root) as folder:
        answer = Path(folder) / "answer"
        answer.write_bytes(bytes(1 << 20))
        os.close(vms._ready().seed.create(Path(folder) / "disk"))
        control, control_end = socket.socketpair()
        channel, channel_end = socket.socketpair()
        ends = (control_end.fileno(), channel_end.fileno())
        argv = _argv(vms._ready(), way, ends, (Path(folder), host.rootfs.path))
        process = subprocess.Popen(argv, pass_fds=ends)
        try:
            control_end.close()
            channel_end.close()
            Qmp(control).execute("qmp_capabilities")
            agent = Agent(channel)
            host.dispatcher.add(agent)
            agent.wait_hello(WORK_SECONDS)
            agent.setup(plans.template_setup())
            agent.place(plans.place(network=False))
            _work(agent)
            return answer.read_bytes().rstrip(b"\0").decode()
        finally:
            process.kill()
            process.wait()


def _work(agent: Agent) -> None:
    ended = threading.Event()
    codes: list[int] = []

    def on_exit(exit: Exit) -> None:
        codes.append(exit.code)
        ended.set()

    agent.on_exit = on_exit
    command = plan.Exec((TOOL, FILE, f"{plans.DEVICES}/vdc"))
    agent.exec(77, (*plans.mounts(), command), Flag.JOIN)
    if not ended.wait(WORK_SECONDS) or codes != [0]:
        raise RuntimeError(f"the guest's work ended with {codes}")


def _argv(ready: Prepared, way: Way, ends: tuple[int, int], paths: tuple[Path, Path]) -> list[str]:
    folder, image = paths
    machine = qemu.Machine(1 << 30, 1, False, ready.best.name, ready.tsc_khz)
    blank = qemu.Files(ends[0], ends[1], 0, layers.Opened.single(0))
    words = list(qemu.arguments(machine, blank, ready.firmware.boot()))
    at = words.index("-add-fd")  # the image's and the instance's disks, one after the other
    end = max(i for i, word in enumerate(words) if "virtio-blk-pci" in word) + 1
    disk: dict[str, object] = {
        "driver": "raw", "node-name": "d",
        "file": {"driver": "file", "filename": str(folder / "disk"), **way.file},
    }  # fmt: skip
    if way.overlay:
        over = folder / "over"
        options = "extended_l2=on,cluster_size=128k"
        size = str((folder / "disk").stat().st_size)
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-o", options, over, size],
                       check=True)  # fmt: skip
        disk = {
            "driver": "qcow2", "node-name": "d", "backing": {**disk, "node-name": "b"},
            "file": {"driver": "file", "filename": str(over), **way.file},
        }  # fmt: skip
    thread = ["-object", "iothread,id=io"] if way.iothread else []
    ours = [
        *thread, "-drive", f"if=none,id=i,format=raw,readonly=on,file={image}",
        "-device", "virtio-blk-pci,drive=i", "-blockdev", json.dumps(disk),
        "-device", "virtio-blk-pci,drive=d" + (",iothread=io" if thread else ""),
        "-drive", f"if=none,id=a,format=raw,file={folder / 'answer'}",
        "-device", "virtio-blk-pci,drive=a",
    ]  # fmt: skip
    return words[:at] + ours + words[end:]
