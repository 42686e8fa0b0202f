"""COPY, ADD, WORKDIR and the cache on real files; nothing is run."""

from __future__ import annotations

import bz2
import gzip
import http.server
import lzma
import os
import shutil
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from proa.errors import BuildError, Cancelled
from proa.image.build.cachemounts import CacheMount
from proa.image.build.place import Target
from proa.image.store import Images
from tests.conftest import need
from tests.support.building import Builds, small, tarred
from tests.support.instances import eventually


@pytest.fixture
def builds(tmp_path: Path) -> Iterator[Builds]:
    """A store with the base `small`; at the end nothing may be at work in it."""
    need(os.geteuid() == 0, "root", "owners and overlays need root")
    made = Builds(Images(tmp_path / "images"), tmp_path)
    made.load("small", small())
    yield made
    assert made.clean()


def test_owners_by_name_and_number(builds: Builds) -> None:
    built = builds.build(
        "FROM small\nCOPY --chown=alice a /new/a\nCOPY --chown=alice:staff a /b\n"
        "COPY --chown=7:8 a /c\nCOPY --chown=9 a /d\nCOPY a /e",
        {"a": "x"},
    )
    found = [built.owner(path) for path in ("/new", "/new/a", "/b", "/c", "/d", "/e")]
    assert found == [(1000, 1001), (1000, 1001), (1000, 50), (7, 8), (9, 9), (0, 0)]


def test_hard_links_attributes_modes_and_times_are_kept(builds: Builds) -> None:
    context = builds.context({"d/a": "x"})
    os.link(context / "d/a", context / "d/b")
    os.setxattr(context / "d/a", "user.note", b"kept")
    (context / "d/a").chmod(0o2751)
    os.utime(context / "d/a", (5, 5))
    built = builds.build("FROM scratch\nCOPY d /d", context)
    assert built.mode("/d/a") == 0o2751
    assert built.files["/d/a"] == built.files["/d/b"]
    layer = builds.images.layers(built.image)[0]
    first, second = (os.stat(layer / "d" / name) for name in "ab")
    assert (first.st_ino, first.st_mtime, first.st_uid) == (second.st_ino, 5, 0)
    assert os.getxattr(layer / "d/a", "user.note") == b"kept"


def test_destinations_resolve_inside_the_image(builds: Builds) -> None:
    built = builds.build(
        "FROM small\nCOPY a /link/a\nCOPY a /dangling\nCOPY a /out/a\nCOPY a /link\nCOPY a b/../c/",
        {"a": "x"},
    )
    there = ("/real/a", "/made/by/copy", "/escaped/a", "/c/a")
    assert [path in built.files for path in there] == [True] * 4
    assert built.files["/link"][4] == "/real"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("COPY missing /a", "'missing' is not there"),
        ("COPY ignored /a", "'ignored' is not there"),
        ("COPY a /srv/file/b", "is not a directory"),
        ("COPY d /srv/file", "not a directory|over the file"),
        ("COPY --chown=nobody a /a", "unknown user 'nobody'"),
        ("COPY --chown=alice:nobody a /a", "unknown group 'nobody'"),
        ("COPY --chown=4294967295 a /a", "impossible id"),
        ("COPY --chmod=u=q a /a", "invalid mode"),
        ("COPY --parents d/missing /a", "is not there"),
        ("COPY l/../../../etc/hostname /a", "is not there"),
    ],
)
def test_what_cannot_be_copied_is_said_with_its_line(builds: Builds, line: str, said: str) -> None:
    files = {"a": "x", "d/x": "y", "ignored": "", "l -> d": "", ".dockerignore": "ignored\n"}
    with pytest.raises(BuildError, match=said) as caught:
        builds.build(f"FROM small\n{line}", dict(files))
    assert (caught.value.line, caught.value.source) == (2, line)


def test_parents_and_excludes(builds: Builds) -> None:
    files = {"a/b/c.txt": "1", "a/b/c.bin": "2", "a/x/y/z.txt": "3", "e/keep": "4", "e/drop": "5"}
    built = builds.build(
        "FROM scratch\nCOPY --parents a/*/c.txt a/x/y /p/\nCOPY --parents a/./b/c.bin /q/\n"
        "COPY --exclude=drop e /e",
        dict(files),
    )
    found = {path for path, facts in built.files.items() if facts[0] == b"0"}
    assert found == {"/p/a/b/c.txt", "/p/a/x/y/z.txt", "/q/b/c.bin", "/e/keep"}


PACKERS = {
    "plain": lambda data: data, "gzip": gzip.compress, "bzip2": bz2.compress, "xz": lzma.compress,
}  # fmt: skip


@pytest.mark.parametrize("kind", PACKERS)
def test_archives_are_unpacked_by_what_they_are(builds: Builds, kind: str) -> None:
    data = PACKERS[kind](tarred({"d/f": "inside", "srv/file": "new"}))
    built = builds.build(
        "FROM small\nADD a.jpg /\nADD --chown=1:2 a.jpg /own/\nCOPY a.jpg /copied\n"
        "ADD --unpack=false a.jpg /added",
        {"a.jpg": data},
    )
    assert (built.content("/d/f"), built.content("/srv/file")) == ("inside", "new")
    assert (built.owner("/d/f"), built.owner("/own/d/f")) == ((5, 6), (1, 2))
    assert built.files["/copied"][4] == built.files["/added"][4] == data


def test_what_only_looks_like_an_archive_is_copied(builds: Builds) -> None:
    text = gzip.compress(b"no tar")
    built = builds.build("FROM scratch\nADD a.tar.gz b.tar /", {"a.tar.gz": text, "b.tar": "text"})
    assert (built.files["/a.tar.gz"][4], built.content("/b.tar")) == (text, "text")


def test_working_directories_are_made_inside_by_their_user(builds: Builds) -> None:
    built = builds.build(
        "FROM small\nUSER alice\nWORKDIR /link/w\nWORKDIR x\nUSER 0\nWORKDIR /out/y\nCOPY a .",
        {"a": "x"},
    )
    assert built.owner("/real/w/x") == (1000, 1001)
    assert built.content("/escaped/y/a") == "x"
    assert built.held.config["WorkingDir"] == "/out/y"
    with pytest.raises(BuildError, match="is not a directory"):
        builds.build("FROM small\nWORKDIR /srv/file/w")


# -- fetched --------------------------------------------------------------------------------------


class _Served(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path.startswith("/moved"):
            self.send_response(302)
            self.send_header("Location", "file:///etc/passwd")
            self.end_headers()
            return
        self.send_response(200)
        self.send_header("Content-Length", "9" if "short" in self.path else "4")
        self.send_header("Last-Modified", "Thu, 01 Jan 1970 00:00:09 GMT")
        self.end_headers()
        self.wfile.write(b"data")

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


@pytest.fixture
def url() -> Iterator[str]:
    """A server of one file."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Served) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


DATA = "sha256:3a6eb0790f39ac87c94f3856b2dd2c5d110e6811602261a9a923d3bb23adc8b7"


def test_files_are_fetched(builds: Builds, url: str) -> None:
    built = builds.build(
        f"FROM scratch\nADD --checksum={DATA} {url}/d/file.txt?x=1 /got/\nADD {url} /nameless"
    )
    assert (built.content("/got/file.txt"), built.mode("/got/file.txt")) == ("data", 0o600)
    layer = builds.images.layers(built.image)[1]
    assert os.stat(layer / "got/file.txt").st_mtime == 9
    again = builds.build(f"FROM scratch\nADD --checksum={DATA} {url}/d/file.txt?x=1 /got/")
    assert again.states() == ["cached"]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (f"ADD --checksum=sha256:{'0' * 64} URL/f /f", "was promised"),
        ("ADD --checksum=md5:1 URL/f /f", "invalid checksum"),
        ("ADD URL/short /f", "ended after|IncompleteRead"),
        ("ADD URL/moved /f", "cannot fetch"),
        ("ADD http://127.0.0.1:1/f /f", "cannot fetch"),
        ("COPY URL/f /f", "COPY cannot fetch"),
        (f"ADD --checksum={DATA} a b /f/", "--checksum is for one"),
    ],
)
def test_what_cannot_be_fetched(builds: Builds, url: str, line: str, said: str) -> None:
    with pytest.raises(BuildError, match=said):
        builds.build("FROM scratch\n" + line.replace("URL", url), {"a": "", "b": ""})


def answers(port: int) -> bool:
    """Whether somebody listens on loopback."""
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def test_a_revision_of_a_repository(builds: Builds, tmp_path: Path) -> None:
    git = shutil.which("git")
    need(git, "git", "'git' is not installed")
    work = tmp_path / "served" / "r.git"
    (work / "sub").mkdir(parents=True)
    (work / "sub/f").write_text("first")
    (work / "link").symlink_to("/etc/passwd")
    said = ("-c", "user.name=n", "-c", "user.email=e@example.test", "-C", str(work))
    for command in (
        ("init", "-q", "-b", "main"),
        ("add", "."),
        ("commit", "-qm", "x"),
        ("tag", "v1"),
    ):
        subprocess.run([str(git), *said, *command], check=True)
    commit = subprocess.check_output([str(git), *said, "rev-parse", "HEAD"], text=True).strip()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    serve = [str(git), "daemon", "--export-all", f"--base-path={work.parent}", "--reuseaddr",
               "--listen=127.0.0.1", f"--port={port}"]  # fmt: skip
    daemon = subprocess.Popen(serve, stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        eventually(lambda: answers(port))
        url = f"git://127.0.0.1:{port}/r.git"
        built = builds.build(
            f"FROM scratch\nADD {url} /all\nADD {url}#v1:sub /sub\n"
            f"ADD --keep-git-dir --checksum={commit} {url}#main /kept"
        )
        assert built.content("/all/sub/f") == built.content("/sub/f") == "first"
        assert "/kept/.git/HEAD" in built.files and "/all/.git" not in built.files
        wrong = ("#nothing /x", "#v1:link /x", "#--upload-pack=x /x", "#v1:sub/none /x")
        for line in (*(f"{url}{end}" for end in wrong), f"--checksum={'0' * 40} {url} /x"):
            with pytest.raises(BuildError):
                builds.build(f"FROM scratch\nADD {line}")
        inside = builds.build(f"FROM scratch\nADD {url}#v1:../../.. /x")
        assert inside.content("/x/sub/f") == "first"
    finally:
        os.killpg(daemon.pid, signal.SIGTERM)
        daemon.wait()


# -- the cache ------------------------------------------------------------------------------------

FILE = "FROM small\nARG X=1\nCOPY --chmod=644 d /d\nWORKDIR /w$X\nCOPY --from=small /srv /s"
SAME = ["cached"] * 4


def test_nothing_changed(builds: Builds) -> None:
    files = {"d/a": "x", "d/l -> a": ""}
    first = builds.build(FILE, dict(files))
    assert first.states() == ["cached", "done", "done", "done"]
    again = builds.build(FILE, dict(files))  # another directory, other inodes, other times
    assert again.states() == SAME
    assert again.image.manifest_digest == first.image.manifest_digest


def test_a_touched_file_is_no_change(builds: Builds) -> None:
    context = builds.context({"d/a": "x"})
    first = builds.build(FILE, context)
    os.utime(context / "d/a", (1, 1))
    again = builds.build(FILE, context)
    assert (again.states(), again.image.id) == (SAME, first.image.id)


def _content(path: Path) -> None:
    path.write_text("y")


def _mode(path: Path) -> None:
    path.chmod(0o600)


def _attribute(path: Path) -> None:
    os.setxattr(path, "user.a", b"b")


def _name(path: Path) -> None:
    path.rename(path.with_name("c"))


def _link(path: Path) -> None:
    (path.parent / "l").unlink()
    (path.parent / "l").symlink_to("b")


def _another(path: Path) -> None:
    (path.parent / "new").touch()


def _kind(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _joined(path: Path) -> None:
    (path.parent / "twin").unlink()
    os.link(path, path.parent / "twin")


@pytest.mark.parametrize(
    "change", [_content, _mode, _attribute, _name, _link, _another, _kind, _joined]
)
def test_a_changed_file_is_copied_anew(builds: Builds, change: object) -> None:
    context = builds.context({"d/a": "x", "d/twin": "x", "d/l -> a": ""})
    text = FILE.replace("--chmod=644 ", "")
    builds.build(text, context)
    change(context / "d/a")  # type: ignore[operator]
    assert builds.build(text, context).states()[1] == "done"


@pytest.mark.parametrize(
    ("text", "options", "states"),
    [
        (FILE, {"arguments": {"X": "2"}}, ["cached", "cached", "done", "done"]),
        (FILE, {"epoch_seconds": 5}, ["cached", "done", "done", "done"]),
        (FILE, {"use_cache": False}, ["cached", "done", "done", "done"]),
        (FILE.replace("=644", "=640"), {}, ["cached", "done", "done", "done"]),
        (FILE.replace("FROM small\n", "FROM small\nENV UNUSED=1\nLABEL a=b\n"), {}, SAME),
        (FILE.replace("COPY --from=small /srv", "COPY --from=small /real"), {},
         ["cached", "cached", "cached", "done"]),
    ],
)  # fmt: skip
def test_what_else_counts(
    builds: Builds, text: str, options: dict[str, object], states: list[str]
) -> None:
    builds.build(FILE, {"d/a": "x"})
    assert builds.build(text, {"d/a": "x"}, **options).states() == states


def test_another_base_counts_whatever_its_name(builds: Builds) -> None:
    builds.build(FILE, {"d/a": "x"})
    other = small()
    other.file("etc/more", "")
    builds.load("small", other, Env=["A=b"])
    assert builds.build(FILE, {"d/a": "x"}).states() == ["cached", "done", "done", "done"]


def test_what_a_stage_gives_counts_not_how(builds: Builds) -> None:
    text = "FROM small AS a\nCOPY {} /x/a\nFROM small\nCOPY --from=a /x /y"
    builds.build(text.format("one"), {"one": "1", "two": "1"})
    context = builds.context({"one": "1", "two": "1"})
    os.utime(context / "two", (3, 3))
    again = builds.build(text.format("two"), context)
    assert sorted(again.states()) == ["cached", "cached", "cached", "done"]
    assert again.content("/y/a") == "1"


def test_a_loaded_image_is_no_cache(builds: Builds) -> None:
    """CVE-2024-24557: an image that claims to be a step's result is not believed."""
    lying = small()
    lying.file("d/a", "evil")
    builds.load("liar", lying)
    assert builds.build(FILE, {"d/a": "x"}).content("/d/a") == "x"


def test_layers_live_with_their_records(builds: Builds) -> None:
    builds.build(FILE, {"d/a": "x"})
    builds.images.remove("built")
    Images(builds.images.build_directory.parent)  # opening a store collects
    assert builds.build(FILE, {"d/a": "x"}).states() == SAME
    builds.images.remove("built")
    cache = builds.images.build_cache
    cache.forget([record.key for record in cache.all()])
    builds.images.collect()
    assert builds.build(FILE, {"d/a": "x"}).states() == ["cached", "done", "done", "done"]


def test_a_damaged_cache_is_begun_anew(builds: Builds) -> None:
    builds.build(FILE, {"d/a": "x"})
    path = builds.images.build_directory / "cache.db"
    for suffix in ("-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    path.write_bytes(b"no database" * 1000)
    other = Builds(Images(builds.images.build_directory.parent), builds.base)
    assert other.build(FILE, {"d/a": "x"}).states()[1:] == ["done"] * 3


def test_many_builds_at_once_make_a_layer_once(builds: Builds) -> None:
    context = builds.context({f"d/{number}": str(number) for number in range(50)})
    results: list[list[str]] = []

    def one() -> None:
        mine = Builds(builds.images, builds.base)
        results.append(mine.build(FILE, context).states())

    threads = [threading.Thread(target=one) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    done = [states.count("done") for states in results]
    assert (len(done), sum(done)) == (4, 3)


def test_cache_mounts_are_counted_and_pruned(builds: Builds) -> None:
    mounts, wanted = builds.images.cache_mounts, CacheMount("npm", uid=5)

    def fill(target: Target) -> None:
        os.close(target.new_file(b"seed"))

    with mounts.use(wanted, fill, lambda: None) as path:
        (path / "f").write_bytes(b"x" * 100_000)
        assert (path / "seed").exists() and path.stat().st_uid == 5
        assert [(one.id, one.busy) for one in mounts.all()] == [("npm", True)]
        assert mounts.prune() == 0
    (found,) = mounts.all()
    assert not found.busy and found.size_bytes > 100_000
    with mounts.use(wanted, fill, lambda: None) as path:
        assert (path / "f").exists()
    assert mounts.prune() > 100_000 and mounts.all() == []


def test_a_locked_cache_is_waited_for(builds: Builds) -> None:
    def wait() -> None:
        raise Cancelled("enough")

    with ExitStack() as both:
        for id, sharing in (("l", "locked"), ("p", "private"), ("p", "private"), ("s", "shared")):
            mount = CacheMount(id, sharing)
            both.enter_context(builds.images.cache_mounts.use(mount, lambda target: None, wait))
        assert len(builds.images.cache_mounts.all()) == 4
        for id in ("l", "s"):
            mount = CacheMount(id, "locked")
            with pytest.raises(Cancelled):
                both.enter_context(builds.images.cache_mounts.use(mount, lambda target: None, wait))


# -- the whole ------------------------------------------------------------------------------------


def test_the_same_digest_wherever_it_is_built(builds: Builds, tmp_path: Path) -> None:
    text = "FROM small\nWORKDIR /w\nCOPY . .\nCOPY --from=small /srv /s\nCMD x"
    digests = set()
    for name in ("one", "two"):
        other = Builds(Images(tmp_path / name), tmp_path)
        other.load("small", small())
        built = other.build(text, {"a": "x", "d/b": "y"}, epoch_seconds=1_000_000)
        digests.add(built.image.manifest_digest)
        assert built.image.created == "1970-01-12T13:46:40Z"
    assert len(digests) == 1


def test_squashed_layers_hide_what_they_hid(builds: Builds) -> None:
    built = builds.build(
        "FROM small\nCOPY d /d\nCOPY a /d/a\nCOPY --from=small /srv /d/srv", {"d/x": "1", "a": "2"},
        squash=True,
    )  # fmt: skip
    plain = builds.build(
        "FROM small\nCOPY d /d\nCOPY a /d/a\nCOPY --from=small /srv /d/srv", {"d/x": "1", "a": "2"}
    )
    assert (built.held.layers, plain.held.layers) == (2, 4)
    assert built.files == plain.files


def test_labels_annotations_platform_and_names(builds: Builds) -> None:
    built = builds.build(
        "FROM scratch\nLABEL a=1 b=2\nCOPY a /", {"a": ""}, labels={"b": "3"},
        annotations={"org.example": "x"}, platform="linux/arm64",
    )  # fmt: skip
    assert built.held.config["Labels"] == {"a": "1", "b": "3"}
    assert built.image.config["architecture"] == "arm64"
    assert built.image.names == ("built:latest",)
    assert b'"org.example":"x"' in builds.images.document(built.image.manifest_digest)


def test_a_trigger_is_carried_out_and_not_handed_on(builds: Builds) -> None:
    builds.load("trigger", small(), OnBuild=["COPY a /triggered", "ENV T=1"])
    built = builds.build("FROM trigger\nCOPY --from=small /srv/file /$T", {"a": "x"})
    assert (built.content("/triggered"), "/1" in built.files) == ("x", True)
    assert "OnBuild" not in built.held.config


def test_a_named_context_stands_for_an_image_and_for_files(builds: Builds) -> None:
    other = builds.context({"f": "named", ".dockerignore": "hidden", "hidden": ""})
    built = builds.build(
        "FROM base\nCOPY --from=extra . /e/", contexts={"base": str(other), "extra": str(other)}
    )
    assert built.content("/f") == built.content("/e/f") == "named"
    assert not {"/hidden", "/e/hidden"} & set(built.files)


def test_a_failing_stage_stops_the_others_and_leaves_nothing(builds: Builds) -> None:
    text = "FROM small AS a\nRUN false\nFROM small AS b\nCOPY a /a\nFROM small\n"
    with pytest.raises(BuildError, match="exit code: 99") as caught:
        builds.build(text + "COPY --from=a / /\nCOPY --from=b / /", {"a": ""})
    assert (caught.value.line, caught.value.step_exit) == (2, 99)
    assert "nobody runs steps here" in caught.value.hint


def test_a_cancelled_build_leaves_nothing(builds: Builds) -> None:
    cancel = threading.Event()
    cancel.set()
    with pytest.raises(Cancelled):
        builds.build(FILE, {"d/a": "x"}, cancel=cancel)
