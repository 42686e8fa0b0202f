"""Shared folders in all three ways: a container's bind mount, 9p, virtiofs.

Most questions are asked by one run of tests/support/folder.c; what is not the same everywhere
stands in DIFFERENCES, and in docs/guides/shared-folders.md.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from proa.isolation.vm import folders
from tests.conftest import need
from tests.support.engine import EngineProcess, engine
from tests.support.images import BUSYBOX, busy_image
from tests.support.instances import Instance, Result, eventually

SOURCE = Path(__file__).parent.parent / "support" / "folder.c"
WAYS = ("bind", "9p", "virtiofs")
LINES = 300

SAME = """\
chown-directory ok, owner-root 100600 0:0 1, chown ok, chmod ok, owner-given 100751 1234:50 1,
owner-alice 100640 1000:1000 1, alice-reads-roots EACCES, alice-chowns EPERM,
alice-unlinks-sticky EPERM, setgid-inherits 100640 1000:50 1, setuid-bit 106755 1000:1000 1,
setuid-write ok, setuid-bit-after-write 100755 1000:1000 1,
rename-over-open ok, rename-old-still-reads old, rename-fstat ok, rename-new-reads new,
rename-write-after ok, rename-seen-by-name NEW, rename-directory ok, rename-open-below ok,
rename-to-full-directory ENOTEMPTY, rename-noreplace EEXIST, rename-exchange ok,
rmdir-full ENOTEMPTY, unlink-open ok, unlink-open-write ok, unlink-open-read Still,
unlink-open-fstat ok, unlink-open-truncate ok, hard-link ok, hard-link-same ok, symlink ok,
readlink first, symlink-dangling ENOENT, symlink-nofollow ELOOP, xattr-set ok, xattr-get red,
xattr-list user.colour, xattr-remove ok, xattr-trusted EPERM, acl ok,
flock-other-takes ok, flock-then EAGAIN, flock-waits ok, fcntl-other-takes ok, fcntl-then EAGAIN,
fcntl-owner ok, fcntl-waits ok, ofd-other-takes ok, ofd-then EAGAIN, ofd-waits ok, both-kinds ok,
mmap-grow ok, mmap-shared ok, mmap-two-processes ok, msync ok, mmap-then-read ok,
write-then-map ok, truncate-up ok, sparse-write ok, sparse-blocks few, seek-data ok, fallocate ok,
punch-hole ok, fsync ok, fdatasync ok, fsync-directory ok, o-direct ok, o-tmpfile ok, copy-range ok,
name-255 ok, name-256 ENAMETOOLONG, name-latin1 ok, name-newline ok, large-directory 500,
large-removed-while-read 500, large-rmdir ok, utimens ok,
times 1000000000.123456789 1500000000.987654321, time-write ok, time-moves ok,
mkfifo ok, mknod-device EPERM, socket-bind ok, socket-connect ok, statfs ok"""

DIFFERENCES: dict[str, dict[str, tuple[str, ...]]] = {
    "bind": {},
    "9p": {
        "rename-exchange": ("EINVAL",), "unlink-open-truncate": ("ENOENT",),
        "both-kinds": ("EAGAIN",), "seek-data": ("as-if-full",), "fallocate": ("EOPNOTSUPP",),
        "punch-hole": ("EOPNOTSUPP",), "o-tmpfile": ("EOPNOTSUPP",),
        "times": ("1000000000.000000000 1500000000.000000000",),
        # QEMU since the repair of CVE-2023-2861 opens no special file, not even to set its mode.
        "mkfifo": ("ENXIO", "ok"), "socket-bind": ("ENXIO", "ok"),
        "socket-connect": ("ENOENT", "ok"),
    },
    "virtiofs": {"o-tmpfile": ("EOPNOTSUPP", "ok"), "acl": ("ok", "EOPNOTSUPP")},
}  # fmt: skip


@dataclass
class Folder:
    """An instance with a directory of the host at /s, read-only at /ro, and one file at /file."""

    way: str
    host: Path
    tool: Path
    instance: Instance
    answers: dict[str, str] = field(default_factory=dict)

    def run(self, *words: str, user: str = "root") -> Result:
        """A command inside."""
        return self.instance.exec(*words, User=user)

    def ask(self, *words: str, stdin: bytes | None = None) -> str:
        """What the tool prints inside."""
        result = self.instance.exec("/s/tool", *words, stdin=stdin)
        assert result.code == 0, result.stderr
        return result.stdout.strip()

    def ask_here(self, *words: str) -> str:
        """What it prints on the host."""
        return subprocess.run(
            [self.tool, *words],
            check=True,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
        ).stdout.strip()


@pytest.fixture(scope="module")
def tool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The static program that asks."""
    compiler = shutil.which("cc")
    need(compiler, "cc", "no C compiler")
    path = tmp_path_factory.mktemp("tool") / "folder"
    subprocess.run([str(compiler), "-O1", "-static", "-o", path, SOURCE], check=True)
    return path


def create(running: EngineProcess, way: str, host: Path, **limits: int) -> Instance:
    """An instance that shares `host` in one of the WAYS."""
    binds = [f"{host}/rw:/s", f"{host}/ro:/ro:ro", f"{host}/file:/file"]
    body = {
        "Image": "busy", "Cmd": ["sleep", "1000"],
        "HostConfig": {
            "Isolation": "container" if way == "bind" else "vm", "Binds": binds, **limits
        },
    }  # fmt: skip
    if way != "bind":
        body["Proa"] = {"Shares": way}
    return Instance(running.api, running.api.json("POST", "/containers/create", body)["Id"])


def furnish(host: Path, tool: Path) -> None:
    """What the shares hold at first."""
    for path in (host, host / "rw", host / "ro", host / "rw/work"):
        path.mkdir(exist_ok=True)
        path.chmod(0o755)
    shutil.copy(tool, host / "rw/tool")
    (host / "ro/text").write_text("read me\n")
    (host / "file").write_text("one file\n")
    (host / "outside").write_text("of the host\n")


@pytest.fixture(scope="module", params=WAYS)
def folder(
    request: pytest.FixtureRequest,
    session_engine: EngineProcess,
    tool: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Folder]:
    """One instance a way, which has answered every question that needs no second party."""
    need(BUSYBOX.exists(), "busybox", "these tests need busybox-static")
    host = tmp_path_factory.mktemp("shared")
    furnish(host, tool)
    made = Folder(request.param, host, tool, create(session_engine, request.param, host).start())
    said = made.ask("/s/work").splitlines()
    made.answers = {line.partition(" ")[0]: line.partition(" ")[2] for line in said}
    yield made
    made.instance.remove()


def test_the_way_is_told(folder: Folder) -> None:
    told = folder.instance.inspect()["Proa"].get("Shares", "bind")
    assert told == folder.way


def test_everything_a_process_asks_alone(folder: Folder) -> None:
    expected = dict(item.split(" ", 1) for item in SAME.replace("\n", " ").split(", "))
    allowed: dict[str, tuple[str, ...]] = {name: (answer,) for name, answer in expected.items()}
    allowed |= DIFFERENCES[folder.way]
    allowed.pop("chown-beyond", None)
    wrong = {
        name: (folder.answers.get(name), wanted)
        for name, wanted in allowed.items()
        if folder.answers.get(name) not in wanted
    }
    assert not wrong
    assert set(folder.answers) - set(allowed) == {"chown-beyond"}


def test_the_host_sees_the_same_owners_and_modes(folder: Folder) -> None:
    work = folder.host / "rw/work"
    facts = {name: os.lstat(work / name) for name in ("secret", "given", "open/alice")}
    seen = {name: (oct(f.st_mode), f.st_uid, f.st_gid) for name, f in facts.items()}
    assert seen == {
        "secret": ("0o100600", 0, 0),
        "given": ("0o100751", 1234, 50),
        "open/alice": ("0o100755", 1000, 1000),
    }
    assert b"caf\xe9" in os.listdir(os.fsencode(work))


def test_ids_beyond_the_instances_own_are_refused(folder: Folder) -> None:
    assert folder.answers["chown-beyond"] in ("EINVAL", "EPERM", "EOVERFLOW")


def test_appending_from_both_sides_loses_nothing(folder: Folder) -> None:
    path = folder.host / "rw/appended"
    here = threading.Thread(target=folder.ask_here, args=("append", str(path), "host", str(LINES)))
    here.start()
    folder.ask("append", "/s/appended", "guest", str(LINES))
    here.join()
    expected = {f"{side} {n}" for side in ("host", "guest") for n in range(LINES)}
    lines = path.read_text().splitlines()
    assert (len(lines), set(lines)) == (2 * LINES, expected)


def test_a_lock_of_the_host_is_seen_by_containers_only(folder: Folder) -> None:
    words = [str(folder.host / "rw" / name) for name in ("flocked", "fcntled")]
    holder = subprocess.Popen(
        [folder.tool, "lock", *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"locked\n"
    seen = folder.ask("try", "/s/flocked", "/s/fcntled")
    holder.communicate(b"\n")
    assert seen == ("taken taken" if folder.way == "bind" else "free free")


def test_changes_of_the_host_are_seen_when_asked_for(folder: Folder) -> None:
    path = folder.host / "rw/changing"
    seconds = 5.0 if folder.way == "virtiofs" and folders.find().rust else 0.0
    for text in ("first", "second and longer", "3"):
        path.write_text(text)
        eventually(lambda: folder.run("cat", "/s/changing").stdout == path.read_text(), seconds)
        assert folder.run("stat", "-c", "%s", "/s/changing").stdout.strip() == str(len(text))
    path.unlink()
    eventually(lambda: folder.run("cat", "/s/changing").code != 0, seconds)


def test_changes_of_the_instance_are_seen_by_the_host(folder: Folder) -> None:
    folder.run("sh", "-c", "echo inside >/s/made; mkdir /s/below; mv /s/made /s/below/moved")
    assert (folder.host / "rw/below/moved").read_text() == "inside\n"
    assert not (folder.host / "rw/made").exists()


def test_inotify_tells_changes_made_inside(folder: Folder) -> None:
    script = "/s/tool watch /s >/tmp/out & while ! grep -q ready /tmp/out; do :; done"
    said = folder.run("sh", "-c", f"{script}; touch /s/news; wait; cat /tmp/out").stdout
    assert said.split() == ["ready", "news"]


def test_inotify_tells_changes_of_the_host_to_containers_only(folder: Folder) -> None:
    (folder.host / "rw/watched").mkdir()
    identity = folder.instance.exec_create("/s/tool", "watch", "/s/watched")
    with folder.instance.exec_start(identity) as stream:
        said = b""
        while b"ready" not in said and (piece := stream.recv(4096)):
            said += piece
        (folder.host / "rw/watched/by-host").write_text("")
        said += b"".join(iter(lambda: stream.recv(4096), b""))
    assert (b"by-host" if folder.way == "bind" else b"nothing") in said


def test_under_load_a_renamed_file_is_whole_on_both_sides(folder: Folder) -> None:
    busy = folder.host / "rw/busy"
    (busy / "host").mkdir(parents=True)
    writer = """
        for w in 1 2 3 4; do (
            for n in $(seq 20); do
                yes $w-$n | head -n 3000 >/s/busy/.$w-$n; mv /s/busy/.$w-$n /s/busy/$w-$n
            done) & done
        seen=0
        while [ $seen -lt 40 ]; do
            seen=0
            for f in /s/busy/host/*; do
                [ "$(uniq -c $f | tr -s ' ')" = " 5000 ${f##*/}" ] && seen=$((seen + 1))
            done
        done
        wait; echo $seen"""
    done: list[Result] = []
    inside = threading.Thread(target=lambda: done.append(folder.run("sh", "-c", writer)))
    inside.start()
    for number in range(40):
        (busy / ".new").write_text(f"host-{number}\n" * 5000)
        (busy / ".new").rename(busy / f"host/host-{number}")
    seen: set[str] = set()
    more = True
    while more:
        more = inside.is_alive()
        for path in busy.glob("[1-4]-*"):
            assert path.read_text() == f"{path.name}\n" * 3000
            seen.add(path.name)
    assert len(seen) == 80
    inside.join()
    assert [(result.code, result.stdout) for result in done] == [(0, "40\n")]


def test_a_read_only_share_cannot_be_written(folder: Folder) -> None:
    assert folder.run("cat", "/ro/text").stdout == "read me\n"
    for script in ("echo x >/ro/text", "rm /ro/text", "chmod 777 /ro/text", "mkdir /ro/new"):
        result = folder.run("sh", "-c", script)
        assert (result.code != 0, "Read-only" in result.stderr) == (True, True), script
    assert os.listdir(folder.host / "ro") == ["text"]
    assert (folder.host / "ro/text").read_text() == "read me\n"


def test_one_file_is_shared_by_itself(folder: Folder) -> None:
    assert folder.run("cat", "/file").stdout == "one file\n"
    assert folder.run("sh", "-c", "echo more >>/file").code == 0
    assert (folder.host / "file").read_text() == "one file\nmore\n"
    assert folder.run("mv", "/file", "/tmp/moved").code != 0
    (folder.host / "next").write_text("replaced\n")
    (folder.host / "next").rename(folder.host / "file")  # the shared one is still the old one
    assert folder.run("cat", "/file").stdout == "one file\nmore\n"


@pytest.mark.parametrize(
    "target", ["{host}/outside", "../outside", "../../../../../../{host}/outside"]
)
def test_a_link_leads_nowhere_on_the_host(folder: Folder, target: str) -> None:
    link = folder.host / "rw/escape"
    link.unlink(missing_ok=True)
    link.symlink_to(target.format(host=folder.host))
    result = folder.run("cat", "/s/escape")
    assert (result.code, result.stdout) == (1, "")
    folder.run("sh", "-c", "echo written >/s/escape")  # at most into the instance's own root
    assert (folder.host / "outside").read_text() == "of the host\n"


def test_a_device_of_the_host_cannot_be_opened(folder: Folder) -> None:
    path = folder.host / "rw/device"
    if not path.exists():
        os.mknod(path, 0o600 | 0o20000, os.makedev(1, 5))
    result = folder.run("head", "-c", "1", "/s/device")
    assert (result.code, "Permission denied" in result.stderr) == (1, True)


def test_a_setuid_program_gives_nothing(folder: Folder) -> None:
    path = folder.host / "rw/busybox"
    shutil.copy(BUSYBOX, path)
    path.chmod(0o4755)
    assert folder.run("/s/busybox", "id", "-u", user="alice").stdout == "1000\n"


def test_virtiofs_outlives_the_engine_and_sees_memory_that_is_added(
    tool: Path, tmp_path: Path
) -> None:
    furnish(tmp_path, tool)
    tmp_path.chmod(0o755)
    with engine() as own:
        own.api.load(busy_image())
        instance = create(own, "virtiofs", tmp_path, Memory=128 << 20).start()
        own.kill()
        own.start()
        instance.api.call("POST", f"{instance.path}/update", {"Memory": 400 << 20})
        data = os.urandom(16 << 20)  # the guest's kernel keeps files in the memory added last
        (tmp_path / "rw/later").write_bytes(data)
        said = instance.exec("md5sum", "/s/later").stdout
        assert said.split()[0] == hashlib.md5(data).hexdigest()
        added = {"Type": "bind", "Source": f"{tmp_path}/ro", "Target": "/added"}
        instance.api.call("POST", f"/proa/instances/{instance.id}/mounts", added)
        assert instance.exec("cat", "/added/text").stdout == "read me\n"
        instance.api.call("DELETE", f"/proa/instances/{instance.id}/mounts", of="/added")
        assert instance.exec("ls", "/added") == Result(0, "", "")
        beside = instance.inspect()["Proa"]["Place"]
        instance.remove()
        eventually(lambda: not (own.root / "places" / beside).exists())
