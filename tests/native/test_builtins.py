"""The builtins: trees of files out of a place and into it, and what else is asked of one."""

from __future__ import annotations

import errno
import os
import stat
import struct
import time
from dataclasses import dataclass, replace

import pytest

from proa import plan
from tests.native.box import CONFINED, Box, Done

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="places need root")

HEADER = struct.Struct("<8I2Q")
HARDLINK, MISSING = 1, 2


@dataclass(frozen=True)
class Record:
    """One file as it travels."""

    path: str
    mode: int = stat.S_IFREG | 0o644
    content: bytes = b""
    link: str = ""
    uid: int = 0
    gid: int = 0
    device: tuple[int, int] = (0, 0)
    flags: int = 0
    mtime_ns: int = 0

    def encode(self) -> bytes:
        path, link = os.fsencode(self.path), os.fsencode(self.link)
        sizes = (len(path), len(link), self.mode, self.uid, self.gid, *self.device, self.flags)
        return HEADER.pack(*sizes, len(self.content), self.mtime_ns) + path + link + self.content


END = HEADER.pack(*(0,) * 10)


def decode(data: bytes) -> tuple[list[Record], int]:
    """The records, and the errno of the last one."""
    records: list[Record] = []
    while True:
        path, link, mode, uid, gid, major, minor, flags, size, mtime = HEADER.unpack_from(data)
        data = data[HEADER.size :]
        if path == 0:
            assert data == b""
            return records, size
        names = os.fsdecode(data[:path]), os.fsdecode(data[path : path + link])
        content = data[path + link : path + link + size]
        assert len(content) == size
        data = data[path + link + size :]
        device = (major, minor)
        records.append(Record(names[0], mode, content, names[1], uid, gid, device, flags, mtime))


def run(box: Box, *argv: str, stdin: bytes | None = None) -> tuple[Done, bytes]:
    if not box.pid:
        box.idle()
    return box.exec(*CONFINED, plan.Builtin(argv), stdin=stdin)


def records(box: Box, *argv: str) -> dict[str, Record]:
    done, data = run(box, *argv)
    found, error = decode(data)
    assert (done.code, error) == (0, 0), done
    return {record.path: record for record in found}


def put(box: Box, path: str, *sent: Record, end: bytes = END) -> Done:
    return run(box, "tree-in", path, stdin=b"".join(r.encode() for r in sent) + end)[0]


# -- out ------------------------------------------------------------------------------------------


def make_tree(box: Box) -> None:
    box.file("/d/sub/big", b"x" * 200_000, 0o4755)
    box.file("/d/empty")
    os.chown(box.root / "d/empty", 7, 8)
    os.utime(box.root / "d/empty", ns=(5, 1_234_567_890_123_456_789))
    (box.root / "d/link").symlink_to("../../outside")
    os.link(box.root / "d/empty", box.root / "d/sub/same")
    os.mkfifo(box.root / "d/fifo", 0o640)


def test_tree_out(box: Box) -> None:
    make_tree(box)
    found = records(box, "tree-out", "/d")
    assert set(found) == {"d", "d/sub", "d/sub/big", "d/empty", "d/link", "d/sub/same", "d/fifo"}
    assert found["d/sub/big"].content == b"x" * 200_000
    assert found["d/sub/big"].mode == stat.S_IFREG | 0o4755
    assert found["d/link"].link == "../../outside"
    assert stat.S_ISFIFO(found["d/fifo"].mode)
    pair = [found["d/empty"], found["d/sub/same"]]
    assert sorted(record.flags for record in pair) == [0, HARDLINK]
    assert all((r.uid, r.gid, r.mtime_ns) == (7, 8, 1_234_567_890_123_456_789) for r in pair)
    assert next(r for r in pair if r.flags).link == next(r for r in pair if not r.flags).path


def test_tree_out_of_one_file_and_of_a_link(box: Box) -> None:
    make_tree(box)
    assert list(records(box, "tree-out", "/d/empty")) == ["empty"]
    assert records(box, "tree-out", "/d/link/")["link"].link == "../../outside"


def test_tree_out_of_the_root_leaves_the_kernels_out(box: Box) -> None:
    found = records(box, "tree-out", "/")
    assert {".", "./probe", "./proc", "./sys", "./dev"} <= set(found)
    assert not [path for path in found if path.startswith(("./proc/", "./sys/", "./dev/pts/"))]


def test_what_is_missing(box: Box) -> None:
    for builtin in ("tree-out", "stat"):
        done, data = run(box, builtin, "/no/such")
        assert done.code == 1
        assert decode(data) == ([], errno.ENOENT)


def test_stat(box: Box) -> None:
    make_tree(box)
    assert records(box, "stat", "/d/link")["link"].link == "../../outside"
    assert stat.S_ISDIR(records(box, "stat", "/d")["d"].mode)
    assert list(records(box, "stat", "/d")) == ["d"]


# -- in -------------------------------------------------------------------------------------------


def test_tree_goes_in_as_it_came_out(box: Box) -> None:
    make_tree(box)
    (box.root / "copy").mkdir()
    data = run(box, "tree-out", "/d")[1]
    done, answer = run(box, "tree-in", "/copy", stdin=data)
    assert (done.code, decode(answer)) == (0, ([], 0)), done
    before, after = records(box, "tree-out", "/d"), records(box, "tree-out", "/copy/d")
    for path, record in before.items():
        if stat.S_ISDIR(record.mode):
            record, found = replace(record, mtime_ns=0), replace(after[path], mtime_ns=0)
            assert found == record
        else:
            assert after[path] == record
    owner = (box.root / "copy/d/empty").stat()
    assert (owner.st_uid, owner.st_gid) == (7, 8)


def test_tree_in_replaces(box: Box) -> None:
    box.file("/x/file", "old and longer")
    (box.root / "x/link").symlink_to("/etc")
    directory = Record("dir", stat.S_IFDIR | 0o700, mtime_ns=10**18)
    sent = [directory, Record("dir/deep/f", content=b"1"), Record("file", content=b"new"),
            Record("link", content=b"no link"), directory]  # fmt: skip
    assert put(box, "/x", *sent).code == 0
    assert (box.root / "x/file").read_bytes() == b"new"
    assert not (box.root / "x/link").is_symlink()
    facts = (box.root / "x/dir").stat()
    assert (facts.st_mode & 0o7777, facts.st_mtime_ns) == (0o700, 10**18)
    assert (box.root / "x/dir/deep/f").read_bytes() == b"1"


@pytest.mark.parametrize(
    "record",
    [
        Record("../escape"), Record("/escape"), Record("a/../../escape"), Record("a//b"),
        Record("."), Record("a/."), Record("out/escape", content=b"x"), Record("in/escape"),
        Record("hard", flags=HARDLINK, link="../outside/secret"),
        Record("hard", flags=HARDLINK, link="out/secret"), Record("x", mode=0),
        Record("x", mode=stat.S_IFSOCK | 0o600), Record("a" * 5000), Record("l", link="b" * 5000),
        Record("d", stat.S_IFDIR | 0o755, content=b"directories have none"),
    ],
)  # fmt: skip
def test_hostile_records(box: Box, record: Record) -> None:
    box.file("/outside/secret", "s")
    box.file("/x/real/f")
    (box.root / "x/out").symlink_to("/outside")
    (box.root / "x/in").symlink_to("real")
    done = put(box, "/x", record)
    assert done.code == 1 and done.err
    assert sorted(os.listdir(box.root / "outside")) == ["secret"]
    assert os.listdir(box.root / "x/real") == ["f"]
    assert not (box.root / "escape").exists()


@pytest.mark.parametrize("end", [b"", b"abc", Record("f", content=b"12345").encode()[:-2],
                                 HEADER.pack(*(0,) * 8, errno.EIO, 0)])  # fmt: skip
def test_broken_streams(box: Box, end: bytes) -> None:
    (box.root / "x").mkdir()
    assert put(box, "/x", Record("ok", content=b"1"), end=end).code == 1


def test_tree_in_needs_a_directory(box: Box) -> None:
    assert put(box, "/nowhere", Record("f")).code == 1
    assert put(box, "/probe", Record("f")).code == 1


# -- the others -----------------------------------------------------------------------------------


def test_read(box: Box) -> None:
    box.file("/a", b"1\n2")
    os.mkfifo(box.root / "fifo")
    done, data = run(box, "read", "/a", "/missing", "/fifo", "/proc/uptime")
    found, error = decode(data)
    assert (done.code, error) == (0, 0)
    assert [r.path for r in found] == ["/a", "/missing", "/fifo", "/proc/uptime"]
    assert found[0].content == b"1\n2"
    assert [r.flags for r in found] == [0, MISSING, MISSING, 0]
    assert len(found[3].content.split()) == 2


def test_procs(box: Box) -> None:
    box.launch(plan.User("1000"), plan.Exec(("/probe", "children", "2", "a\nb")))
    wanted = 3
    for _ in range(100):
        done, _ = box.exec(*CONFINED, plan.Builtin(("procs",)))
        if len(done.out.splitlines()) == wanted:
            break
        time.sleep(0.01)
    lines = [line.split("\t") for line in done.out.splitlines()]
    assert len(lines) == wanted, done
    for facts, command in lines:
        fields = facts.split(" ")
        assert len(fields) == 10
        assert fields[1:3] == ["0" if fields[0] == "1" else "1", "1000"]
        assert command == "/probe children 2 a?b"


def test_pause_reaps_and_ends(box: Box) -> None:
    box.idle()
    done, _ = box.exec(*CONFINED, plan.Exec(("/probe", "fork-zombies", "5")))
    assert done.out == "0\n"
    box.engine.send(6, argument=15)
    assert box.engine.expect(69).exit == (0, 0)


def test_builtins_keep_no_more_than_asked(box: Box) -> None:
    box.idle()
    done, _ = box.exec(plan.Capabilities("1"), plan.Builtin(("read", "/proc/self/status")))
    status = dict(line.split(":\t", 1) for line in done.out.splitlines() if ":\t" in line)
    assert int(status["CapPrm"], 16) == int(status["CapEff"], 16) == 1


def test_unknown_builtins(box: Box) -> None:
    done, _ = run(box, "nonsense")
    assert done.code == 127 and "nonsense" in done.err
    assert run(box, "tree-out")[0].code == 127
