"""A QEMU gone mad or dead: the engine and the monitor are bounded, its neighbours do not notice."""

from __future__ import annotations

import contextlib
import errno
import glob
import json
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from proa.errors import IsolationError, Timeout
from proa.isolation.vm import settings
from proa.resources import Share
from tests.conftest import need
from tests.fuzz.guest import RESIDENT_MAXIMUM_KIB
from tests.support import hulls
from tests.support.instances import Instance, Place, eventually

ANSWERS_WITHOUT_END = """
import os
line = b'{"event":"NOISE","data":{"device":"' + b"x" * 200 + b'"}}\\n'
while True:
    os.write(100, line * 100)
"""
A_LINE_WITHOUT_END = """
import os
while True:
    os.write(100, b"[" * 65536)
"""
NO_FRAMES = """
import os
while True:
    os.write(101, b"\\xff" * 4096)
"""
WORDS_WITHOUT_END = """
import os
for _ in range(4000):
    os.write(2, b"x" * 8191 + b"\\n")
os.write(100, b"{}\\n")
import time
time.sleep(1000)
"""


@pytest.fixture(scope="module")
def yard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[hulls.Yard]:
    need(os.geteuid() == 0, "root", "hulls need root")
    with hulls.yard(tmp_path_factory.mktemp("yard")) as made:
        yield made


@pytest.fixture
def take(yard: hulls.Yard) -> Iterator[hulls.Take]:
    with contextlib.ExitStack() as ends:

        def launch(script: str) -> hulls.Taken:
            taken = yard.launch(script, yard.root / "disk")
            ends.callback(taken.end)
            return taken

        yield launch


@pytest.mark.parametrize("script", [ANSWERS_WITHOUT_END, A_LINE_WITHOUT_END])
def test_talk_without_end_on_the_control_channel(take: hulls.Take, script: str) -> None:
    qmp = take(script).berth.qmp
    with pytest.raises((Timeout, IsolationError)):
        qmp.execute("query-status", timeout_seconds=0.5)


def test_no_frames_on_the_channel_end_this_machine_only(take: hulls.Take) -> None:
    mad, other = take(NO_FRAMES), take("import time; time.sleep(1000)")
    assert eventually(lambda: mad.berth.place.agent.lost or gone(mad.berth.place.pid))
    assert not gone(other.berth.place.pid) and not other.berth.place.agent.lost


def test_words_without_end_fill_neither_disk_nor_memory(take: hulls.Take) -> None:
    mad = take(WORDS_WITHOUT_END)
    with mad.control as control:
        control.settimeout(30)
        assert control.recv(3) == b"{}\n"
    log = mad.berth.place.directory / "qemu.log"
    assert log.stat().st_size <= 1 << 20
    monitor = parent(mad.berth.place.pid)
    assert resident_kib(monitor) < RESIDENT_MAXIMUM_KIB


@pytest.mark.parametrize("crash", ["import ctypes; ctypes.string_at(0)", "import os; os.abort()"])
def test_a_crash_ends_the_crashed_alone(take: hulls.Take, crash: str) -> None:
    other = take("import time; time.sleep(1000)")
    mad = take(crash)
    assert eventually(lambda: mad.berth.place.agent.lost or gone(mad.berth.place.pid))
    assert not gone(other.berth.place.pid) and not other.berth.place.agent.lost


SHARES = """
import json, os
def tried(work):
    try:
        work()
    except OSError as error:
        return error.errno
    return 0
def swap():
    os.mkdir("/shares/0/d")
    os.rename("/shares/0/d", "/shares/0/e")
    os.symlink("/", "/shares/0/out")
def limit():
    opened = []
    while True:
        opened.append(os.open("/shares/0/file", os.O_RDONLY))
found = {
    "work": tried(swap),
    "above": tried(lambda: os.open("/shares/0/../../../secret", os.O_RDONLY)),
    "through": tried(lambda: os.listdir("/shares/0/out/etc")),
    "moved out": tried(lambda: os.rename("/shares/0/e", "/tmp/e")),
    "moved over": tried(lambda: os.rename("/shares/0/file", "/shares/1/file")),
    "read-only": tried(lambda: os.open("/shares/1/new", os.O_CREAT | os.O_WRONLY)),
    "set-user": tried(lambda: os.chmod("/shares/0/file", 0o4755)),
    "device": tried(lambda: os.mknod("/shares/0/disk", 0o60600, os.makedev(8, 0))),
    "given away": tried(lambda: os.chown("/shares/0/file", 70000, 0)),
    "descriptors": tried(limit),
}
os.write(100, json.dumps(found).encode() + b"\\n")
import time
time.sleep(1000)
"""
REFUSED = {
    "above": errno.ENOENT, "through": errno.EACCES, "moved out": errno.EXDEV,
    "moved over": errno.EXDEV, "read-only": errno.EROFS, "device": errno.EPERM,
    "given away": errno.EINVAL, "descriptors": errno.EMFILE,
}  # fmt: skip


def test_shares_are_all_that_a_server_of_files_reaches(yard: hulls.Yard, tmp_path: Path) -> None:
    """QEMU's own 9p server in a stranger's hands: the folders, and no way out of them."""
    tmp_path.chmod(0o755)
    (tmp_path / "secret").write_text("not shared")
    for name in ("mine", "theirs"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text("shared")
    shares = (
        Share(tmp_path / "mine", "/a"),
        Share(tmp_path / "theirs", "/b", readonly=True),
    )
    taken = yard.launch(SHARES, yard.root / "disk", shares=shares)
    with taken.control as control:
        control.settimeout(30)
        found = json.loads(control.makefile().readline())
    taken.end()
    assert found.pop("work") == 0
    assert found.pop("set-user") in (0, errno.EPERM)
    assert found == REFUSED
    assert (tmp_path / "mine/e").is_dir() and (tmp_path / "theirs/file").read_text() == "shared"


def test_a_flood_at_a_paused_machine_is_dropped(vm: Place) -> None:
    """What nobody takes waits in a queue of bounded length; the rest is nobody's memory."""
    instance = vm.start("busy", "sleep", "1000")
    address = instance.inspect()["NetworkSettings"]["IPAddress"]
    instance.api.call("POST", f"{instance.path}/pause")
    before = resident_kib(instance.state()["Pid"])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as flood:
        for _ in range(20_000):
            with contextlib.suppress(OSError):
                flood.sendto(bytes(1400), (address, 9))
    assert resident_kib(instance.state()["Pid"]) - before < 8 << 10
    instance.api.call("POST", f"{instance.path}/unpause")
    assert instance.exec("echo", "alive").stdout == "alive\n"


def test_one_machine_dies_others_live(vm: Place) -> None:
    dying, living = (vm.start("busy", "sleep", "1000") for _ in range(2))
    os.kill(dying.state()["Pid"], signal.SIGKILL)
    assert dying.wait() == 137
    assert living.exec("echo", "alive").stdout == "alive\n"
    assert started_again(dying).exec("echo", "again").stdout == "again\n"


def started_again(instance: Instance) -> Instance:
    """Its disk survived its machine."""
    return instance.start()


def gone(pid: int) -> bool:
    """Whether a process has ended."""
    return not Path(f"/proc/{pid}").exists()


def parent(pid: int) -> int:
    """Its parent's pid."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def resident_kib(pid: int) -> int:
    """The most memory it ever had."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))


def test_memory_and_threads_without_end_are_its_own_loss(vm: Place) -> None:
    """The hull's cgroup has a bound: RAM, and room for QEMU itself."""
    instance = vm.start("busy", "sleep", "1000", host={"Memory": 64 << 20})
    place = instance.inspect()["Proa"]["Place"]
    [memory] = glob.glob(f"/sys/fs/cgroup/**/*{place}/memory.limit_in_bytes", recursive=True) or (
        glob.glob(f"/sys/fs/cgroup/**/*{place}/memory.max", recursive=True)
    )
    [pids] = glob.glob(f"/sys/fs/cgroup/**/*{place}/pids.max", recursive=True)
    assert int(Path(memory).read_text()) == (256 << 20) + settings.QEMU_ROOM_BYTES
    assert int(Path(pids).read_text()) == settings.QEMU_THREADS
