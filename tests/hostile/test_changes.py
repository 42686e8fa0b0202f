"""A guest that lies about what it changed: an error or a harmless file, never a path of ours."""

from __future__ import annotations

import os
import random
import socket
import stat
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, cast

import pytest

from proa.agent import Agent
from proa.engine import changes
from proa.errors import Cancelled, Corrupt, HostError, ProaError, Unsupported

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="owners and devices need root")

HEAD = struct.Struct("<8I2Q")
FILE, DIRECTORY, LINK = stat.S_IFREG | 0o644, stat.S_IFDIR | 0o755, stat.S_IFLNK | 0o777
HARD_LINK, XATTR, SPARSE = 1, 4, 16
PIECES = struct.pack("<4Q", 4096, 3, 1 << 20, 2)


def record(path: bytes, mode: int = FILE, content: bytes = b"", **fields: Any) -> bytes:
    """One record as a guest would send it; `fields` are lies."""
    link: bytes = fields.pop("link", b"")
    known = {
        "path_length": len(path), "link_length": len(link), "mode": mode, "uid": 0, "gid": 0,
        "major": 0, "minor": 0, "flags": 0, "size": len(content), "mtime": 5,
    } | fields  # fmt: skip
    return HEAD.pack(*known.values()) + path + link + content


END = HEAD.pack(*(0,) * 10)
ROOT = record(b".", DIRECTORY)


class Liar:
    """The agent of a guest: whatever is attached gets these bytes."""

    def __init__(self, data: bytes, *, hang: bool = False) -> None:
        self._data, self._hang = data, hang
        self._threads: list[threading.Thread] = []
        self.over = threading.Event()

    def attach(self, process: int, connection: int, flags: int) -> None:
        """Send everything, from a thread: what is sent may be more than a socket takes."""
        sock = socket.socket(fileno=os.dup(connection))

        def send() -> None:
            with sock, suppress(OSError):
                sock.sendall(self._data)
                if self._hang:
                    self.over.wait(30)

        self._threads.append(threading.Thread(target=send))
        self._threads[-1].start()

    def exec(self, process: int, steps: object, flags: int) -> None:
        """The builtin, pretended."""

    def join(self) -> None:
        """Until all is sent."""
        self.over.set()
        for thread in self._threads:
            thread.join()


@contextmanager
def bringing(data: bytes, tmp_path: Path) -> Iterator[Path]:
    """The directory a guest's records were brought to; checks the canary beside it."""
    canary, into = tmp_path / "canary", tmp_path / "into"
    canary.mkdir()
    (canary / "file").write_text("untouched\n")
    into.mkdir()
    liar = Liar(data)
    try:
        changes.bring(cast(Agent, liar), "/dev/vdb", into)
        yield into
    finally:
        liar.join()
        assert [path.name for path in canary.iterdir()] == ["file"]
        assert (canary / "file").read_text() == "untouched\n"
        assert sorted(path.name for path in tmp_path.iterdir()) == ["canary", "into"]


def test_an_honest_guest_is_believed(tmp_path: Path) -> None:
    data = ROOT + b"".join(
        (
            record(b"./d", FILE, b"y", link=b"trusted.overlay.opaque", flags=XATTR),
            record(b"./d", DIRECTORY | 0o1000, uid=7, gid=8),
            record(b"./d/f", FILE, b"v\0", link=b"user.x", flags=XATTR),
            record(b"./d/f", FILE | 0o4000, b"content", mtime=(1 << 64) - 10**9),
            record(b"./d/h", FILE, link=b"./d/f", flags=HARD_LINK),
            record(b"./s", FILE, PIECES + b"abcde", flags=SPARSE, major=2, size=1 << 24),
            record(b"./l", LINK, link=b"/etc/passwd"),
            record(b"./gone", stat.S_IFCHR),
        )
    )
    with bringing(data + END, tmp_path) as into:
        assert os.getxattr(into / "d", "trusted.overlay.opaque") == b"y"
        assert os.getxattr(into / "d/f", "user.x") == b"v\0"
        status = (into / "d/f").stat()
        assert (status.st_nlink, status.st_mtime_ns) == (2, -(10**9))
        assert stat.S_IMODE(status.st_mode) == 0o4644
        assert ((into / "d").stat().st_uid, (into / "d").stat().st_gid) == (7, 8)
        content = (into / "s").read_bytes()
        assert (
            len(content) == 1 << 24
            and content.strip(b"\0") == b"abc" + bytes((1 << 20) - 4099) + b"de"
        )
        assert (into / "s").stat().st_blocks * 512 <= 1 << 16
        assert os.readlink(into / "l") == "/etc/passwd"
        assert stat.S_ISCHR((into / "gone").lstat().st_mode)


ESCAPES = (
    record(b"../canary/file", FILE, b"overwritten"),
    record(b"./../canary/new", FILE, b"x"),
    record(b"./a/../../canary/new", FILE, b"x"),
    record(b"./l", LINK, link=b"../canary") + record(b"./l/new", FILE, b"x"),
    record(b"./h", FILE, link=b"../canary/file", flags=HARD_LINK),
    record(b"./l", LINK, link=b"../canary") + record(b"./h", FILE, link=b"./l/file", flags=1),
    record(b"./l", LINK, link=b"../canary")
    + record(b"./l", FILE, b"y", link=b"user.x", flags=XATTR)
    + record(b"./l", DIRECTORY | 0o777)
    + record(b"./l/new", FILE),
)


@pytest.mark.parametrize("number", range(len(ESCAPES)))
def test_no_name_leads_out(tmp_path: Path, number: int) -> None:
    with suppress(Corrupt), bringing(ROOT + ESCAPES[number] + END, tmp_path):
        pass


def test_an_absolute_name_is_one_below(tmp_path: Path) -> None:
    name = os.fsencode(tmp_path / "canary" / "file")
    with bringing(ROOT + record(name, FILE, b"x") + END, tmp_path) as into:
        assert (into / os.fsdecode(name).lstrip("/")).read_bytes() == b"x"


LIES: tuple[tuple[bytes, type[ProaError]], ...] = (
    (b"", Corrupt),
    (ROOT, Corrupt),
    (ROOT[:20], Corrupt),
    (ROOT + record(b"./f", FILE, b"short", size=1000), Corrupt),
    (ROOT + record(b"./f", FILE, size=1 << 60), Corrupt),
    (ROOT + record(b"./f", FILE, size=(1 << 64) - 1), Corrupt),
    (ROOT + record(b"./f", path_length=1 << 31), Corrupt),
    (ROOT + record(b"./f", link_length=5000), Corrupt),
    (ROOT + record(b"./f", 0), Corrupt),
    (ROOT + record(b"./f", stat.S_IFSOCK), Corrupt),
    (ROOT + record(b"./d", DIRECTORY, b"content"), Corrupt),
    (ROOT + record(b"./f", FILE, link=b"user.x", flags=XATTR, size=1 << 40), Corrupt),
    (ROOT + record(b"./f", FILE, b"x" * 65536, link=b"user.x", flags=XATTR) * 5, Corrupt),
    (ROOT + b"".join(record(b"./f", FILE, b"y" * 60000, link=b"user.%d" % n, flags=XATTR)
                     for n in range(9)), Corrupt),
    (ROOT + record(b"./f", uid=0xFFFFFFFF) + END, Corrupt),
    (ROOT + record(b"./a\0b") + END, Corrupt),
    (ROOT + record(b"./h", FILE, link=b"./missing", flags=HARD_LINK) + END, Corrupt),
    (record(b".", FILE, b"no directory") + END, Corrupt),
    (ROOT + record(b"./.wh.etc") + END, Unsupported),
    (ROOT + record(b"", size=5), HostError),
    (ROOT + record(b"./f", flags=SPARSE, major=1 << 31), Corrupt),
    (ROOT + record(b"./f", FILE, PIECES, flags=SPARSE, major=2, size=8) + END, Corrupt),
    (ROOT + record(b"./f", FILE, PIECES[::-1], flags=SPARSE, major=2, size=1 << 50) + END, Corrupt),
    (ROOT + record(b"./d", DIRECTORY, PIECES, flags=SPARSE, major=2, size=0) + END, Corrupt),
    (ROOT + record(b"./f", flags=SPARSE, major=0, size=1 << 45) + END, Corrupt),
)  # fmt: skip


@pytest.mark.parametrize("number", range(len(LIES)))
def test_a_lie_is_a_typed_error(tmp_path: Path, number: int) -> None:
    data, kind = LIES[number]
    with pytest.raises(kind), bringing(data, tmp_path):
        pass


def test_marks_of_overlayfs_are_no_guests_business(tmp_path: Path) -> None:
    """A redirect or metacopy mark would show another file of the image under this name."""
    marks = b"".join(
        record(b"./f", FILE, b"/etc/shadow", link=name, flags=XATTR)
        for name in (b"trusted.overlay.redirect", b"trusted.overlay.metacopy", b"trusted.x")
    )
    with bringing(ROOT + marks + record(b"./f") + END, tmp_path) as into:
        assert os.listxattr(into / "f") == []


def test_noise_is_an_error_or_a_tree(tmp_path: Path) -> None:
    chance = random.Random(7)
    honest = ROOT + record(b"./d", DIRECTORY) + record(b"./d/f", FILE, b"content" * 9) + END
    for number in range(200):
        data = bytearray(honest)
        for _ in range(chance.randrange(1, 5)):
            data[chance.randrange(len(data))] = chance.randrange(256)
        (tmp_path / str(number)).mkdir()
        with suppress(ProaError), bringing(bytes(data), tmp_path / str(number)):
            pass


def test_a_guest_that_never_ends_is_left(tmp_path: Path) -> None:
    (tmp_path / "into").mkdir()
    cancel = threading.Event()
    liar = Liar(ROOT, hang=True)
    timer = threading.Timer(0.2, cancel.set)
    timer.start()
    with pytest.raises(Cancelled):
        changes.bring(cast(Agent, liar), "/dev/vdb", tmp_path / "into", cancel)
    liar.join()
    timer.join()
