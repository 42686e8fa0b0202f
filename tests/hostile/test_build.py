"""Builds from hostile Containerfiles, contexts, images and steps: nothing gets out of the image."""

from __future__ import annotations

import gzip
import io
import os
import socket
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from proa.errors import BuildError
from proa.image.layer.stream import Bounds
from tests.support.building import Builds, running_builds, small, tarred
from tests.support.images import Layer

SECRET = b"correct-horse-battery"


@pytest.fixture(scope="module")
def builds() -> Iterator[Builds]:
    """A store of its own with the bases `busy` and `small`."""
    with running_builds() as made:
        made.load("small", small())
        yield made


@pytest.fixture
def canary() -> Iterator[Path]:
    """A directory of the host whose content nobody may change or read."""
    with tempfile.TemporaryDirectory(prefix="proa-canary-", dir="/tmp") as name:
        (Path(name) / "file").write_text("unread\n")
        yield Path(name)
        assert os.listdir(name) == ["file"]
        assert (Path(name) / "file").read_text() == "unread\n"


def linked(builds: Builds, canary: Path) -> None:
    """The base `linked`: `/l` and `/up` lead to the canary, if anybody follows them."""
    layer = small()
    layer.symlink("l", str(canary))
    layer.symlink("up", "../" * 30 + str(canary)[1:])
    builds.load("linked", layer)


# -- links ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["l", "up"])
def test_destinations_that_are_links(builds: Builds, canary: Path, name: str) -> None:
    """CVE-2018-15664, CVE-2026-55686: COPY, ADD, WORKDIR through links of the image."""
    linked(builds, canary)
    built = builds.build(
        f"FROM linked\nCOPY a /{name}/copied\nCOPY a /{name}/file\nCOPY d /{name}\n"
        f"ADD t.tar /{name}/\nUSER alice\nWORKDIR /{name}/work/dir",
        {"a": "x", "d/file2": "y", "t.tar": tarred({"unpacked": "z"})},
    )
    found = {path.removeprefix(str(canary)) for path in built.files if str(canary) in path}
    assert {"/copied", "/file", "/file2", "/unpacked", "/work/dir"} <= found


def test_sources_that_are_links(builds: Builds, canary: Path) -> None:
    """Links of a context or of a stage never name files of the host."""
    linked(builds, canary)
    files: dict[str, str | bytes] = {
        f"abs -> {canary}": "", f"up -> {'../' * 30}{canary}": "", "inside -> d": "", "d/f": "in",
    }  # fmt: skip
    for source in ("abs/file", "up/file", "abs", "../../../etc/hostname", "d/../../../etc/passwd"):
        with pytest.raises(BuildError, match="is not there"):
            builds.build(f"FROM scratch\nCOPY {source} /got", dict(files))
    for source in ("/l/file", "/up/file", "/../../etc/hostname"):
        with pytest.raises(BuildError, match="is not there"):
            builds.build(f"FROM small\nCOPY --from=linked {source} /got")
    built = builds.build("FROM scratch\nCOPY inside /got\nCOPY . /all", dict(files))
    assert built.content("/got/f") == "in"
    assert built.files["/all/abs"][4] == str(canary)


def test_bind_sources_that_are_links(builds: Builds, canary: Path) -> None:
    """CVE-2024-1753."""
    linked(builds, canary)
    files: dict[str, str | bytes] = {f"l -> {canary}": "", "root -> /": "", "d/f": ""}
    for mount in ("from=linked,source=/l", "from=linked,source=/up", "source=l", "source=root/etc"):
        with pytest.raises(BuildError):
            builds.build(f"FROM busy\nRUN --mount={mount},target=/m ls /m", dict(files))
    text = "FROM busy\nRUN --mount=source=root,target=/m ls /m > /seen"
    assert builds.build(text, dict(files)).content("/seen").split() == ["d", "l", "root"]


def test_a_step_cannot_plant_links_for_the_builder(builds: Builds, canary: Path) -> None:
    """What a step made is what the next instruction writes through."""
    built = builds.build(
        f"FROM busy\nRUN ln -s {canary} /t; rm /etc/group; ln -s {canary}/file /etc/group\n"
        "COPY x /t/x\nWORKDIR /t/y",
        {"x": "x"},
    )
    assert f"{canary}/x" in built.files and f"{canary}/y" in built.files
    with pytest.raises(BuildError, match="over the file"):
        builds.build(f"FROM busy\nRUN mkdir /d; ln -s {canary} /d/s\nCOPY d /d", {"d/s/f": ""})


# -- cache mounts and secrets ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "option", ["id=../../../canary", "id=/etc", "source=../../..", "source=/..", "id=a\x01b"]
)
def test_cache_mounts_stay_in_the_store(builds: Builds, option: str) -> None:
    """CVE-2024-9675, CVE-2024-11218."""
    name = f"/c{option.encode().hex()}"
    built = builds.build(
        f"FROM busy\nRUN --mount=type=cache,target={name},{option} echo x > {name}/x; "
        f"ls -a {name} > /seen"
    )
    assert built.content("/seen").split() == [".", "..", "x"]
    mounts = builds.images.build_directory / "mounts"
    assert all(len(path.name) == 64 for path in mounts.iterdir())


def test_a_cache_source_swapped_for_a_link(builds: Builds, canary: Path) -> None:
    """CVE-2024-23651: what a step left in a cache is a link when the next one mounts below it."""
    cache = "RUN --mount=type=cache,id=swap,target=/c"
    builds.build(f"FROM busy\n{cache} ln -s {canary} /c/s; ln -s /.. /c/t; mkdir /c/d")
    for source in ("s", "t/etc", "d/../s"):
        with pytest.raises(BuildError, match="no directory"):
            builds.build(f"FROM busy\n{cache},source={source} ls /c; touch /c/x")
    assert builds.build(f"FROM busy\n{cache},source=d touch /c/x; ls /c").said() == "x\n"


def test_secrets_are_nowhere(builds: Builds) -> None:
    """Not in layers, configuration, history, cache, progress, nor on the disk afterwards."""
    text = (
        "FROM busy\nRUN --mount=type=secret,id=s,target=/deep/er/s cat /deep/er/s | md5sum\n"
        "RUN --mount=type=secret,id=s,env=TOKEN echo $TOKEN | md5sum > /sum\n"
        "RUN --mount=type=secret,id=s wc -c < /run/secrets/s; ! echo x > /run/secrets/s\n"
    )
    built = builds.build(text, secrets={"s": SECRET})
    assert "/deep" not in built.files and "/run" not in built.files
    assert str(len(SECRET)) in built.said()
    assert SECRET.decode() not in str(built.events)
    for path in builds.images.build_directory.parent.rglob("*"):
        if path.is_file() and not path.is_symlink():
            assert SECRET not in path.read_bytes(), path
    assert set(builds.build(text, secrets={"s": b"another"}).states()) == {"cached"}
    with pytest.raises(BuildError, match="the secret 'no' was not given"):
        builds.build("FROM busy\nRUN --mount=type=secret,id=no,required true")


# -- what images, contexts and archives are made of -----------------------------------------------


@pytest.mark.parametrize("kind", ["fifo", "device", "huge", "directory", "link", "garbage"])
def test_users_are_looked_up_safely(builds: Builds, canary: Path, kind: str) -> None:
    """CVE-2024-9676: /etc/passwd and /etc/group are whatever an image likes."""
    layer = Layer()
    layer.directory("etc")
    for path in ("etc/passwd", "etc/group"):
        if kind == "fifo":
            layer.add(path, tarfile.FIFOTYPE, 0o644)
        elif kind == "device":
            layer.add(path, tarfile.CHRTYPE, 0o644, devmajor=1, devminor=5)
        elif kind == "huge":
            layer.file(path, b"alice:x:1:1\n" + b"\0" * (11 << 20))
        elif kind == "directory":
            layer.directory(path)
        elif kind == "link":
            layer.symlink(path, str(canary / "file"))
        else:
            layer.file(path, b"\xff\nalice\nalice:::\nalice:x:9999999999999:-1::\n")
    builds.load(f"users-{kind}", layer)
    for line in ("COPY --chown=alice a /a", "COPY --chown=0:alice a /a"):
        with pytest.raises(BuildError):
            builds.build(f"FROM users-{kind}\n{line}", {"a": ""})
    assert "/w" in builds.build(f"FROM users-{kind}\nUSER alice\nWORKDIR /w").files


def test_a_context_of_fifos_devices_and_sockets(builds: Builds) -> None:
    """They are copied as what they are and never opened; overlayfs's own mark is refused."""
    context = builds.context({"d/f": "x"})
    os.mkfifo(context / "d/fifo")
    os.mknod(context / "d/zero", 0o20600, os.makedev(1, 5))
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(context / "d/socket"))
    built = builds.build("FROM scratch\nCOPY d /d", context)
    kinds = {path: facts[0] for path, facts in built.files.items()}
    assert kinds == {"/d": b"5", "/d/f": b"0", "/d/fifo": b"6", "/d/zero": b"3"}
    os.mknod(context / "d/mark", 0o20600, 0)
    for base in ("scratch", "small"):
        with pytest.raises(BuildError, match="overlayfs's mark"):
            builds.build(f"FROM {base}\nCOPY d /d", context)
    os.mkfifo(context / ".dockerignore")
    with pytest.raises(BuildError, match="no regular file"):
        builds.build("FROM scratch\nCOPY d/f /f", context)


Member = tuple[str, bytes, dict[str, object]]


def crafted(*members: Member) -> bytes:
    """A tar of members with any attributes; `data` is content."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as made:
        for name, kind, attributes in members:
            member = tarfile.TarInfo(name)
            data = attributes.get("data", b"")
            assert isinstance(data, bytes)
            member.type, member.size = kind, len(data)
            for key, value in attributes.items():
                setattr(member, key, value) if key != "data" else None
            made.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


@pytest.mark.parametrize("base", ["small", "scratch"])
def test_archives_that_lead_out(builds: Builds, canary: Path, base: str) -> None:
    """Links in an archive lead nowhere but below where it is unpacked."""
    overlay = "SCHILY.xattr.trusted.overlay"
    attributes = {f"{overlay}.opaque": "y", f"{overlay}.redirect": "/etc"}
    data = crafted(
        ("l", tarfile.SYMTYPE, {"linkname": str(canary)}),
        ("l/file", tarfile.REGTYPE, {"data": b"changed"}),
        ("up", tarfile.SYMTYPE, {"linkname": "../" * 30 + str(canary)}),
        ("up/new", tarfile.REGTYPE, {"data": b"new"}),
        ("opaque", tarfile.DIRTYPE, {"pax_headers": attributes}),
    )
    built = builds.build(f"FROM {base}\nADD a /x/", {"a": data})
    assert built.content(f"/x{canary}/file") == "changed"
    assert built.content(f"/x{canary}/new") == "new"
    assert built.files["/x/opaque"][5] == ()


REFUSED: list[tuple[Member, str]] = [
    (("../../x", tarfile.REGTYPE, {}), "leads out"),
    (("a/../../x", tarfile.REGTYPE, {}), "leads out"),
    (("h", tarfile.LNKTYPE, {"linkname": "../../../etc/passwd"}), "leads out"),
    (("h", tarfile.LNKTYPE, {"linkname": "etc/shadow"}), "cannot unpack"),
    (("c", tarfile.CHRTYPE, {"devmajor": 0, "devminor": 0}), "cannot unpack"),
    (("o", tarfile.REGTYPE, {"uid": 1 << 33}), "impossible owner"),
    ((".wh.etc", tarfile.REGTYPE, {}), "cannot have a file of the name"),
]


@pytest.mark.parametrize(("member", "said"), REFUSED)
def test_archives_that_are_refused(builds: Builds, member: Member, said: str) -> None:
    with pytest.raises(BuildError, match=said):
        builds.build("FROM small\nADD a /x/", {"a": crafted(member)})
    assert builds.clean()


def test_an_archive_that_is_a_bomb(builds: Builds, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(builds.images, "bounds", Bounds(1 << 20, 50))
    data = gzip.compress(crafted(("f", tarfile.REGTYPE, {"data": b"\0" * (64 << 20)})))
    with pytest.raises(BuildError, match="unfolds to more"):
        builds.build("FROM scratch\nADD a /x/", {"a": data})
    assert builds.clean()


def test_names_and_values_with_anything_in_them(builds: Builds) -> None:
    """CVE-2026-23953: no newline or quote in a value becomes something else's setting."""
    value = "a\nB=evil\n\"'\\ ${x}"
    built = builds.build(
        "FROM busy\nARG V\nENV K=$V\nRUN cat /proc/self/environ > /seen\nLABEL l=$V",
        arguments={"V": value},
    )
    seen = built.content("/seen").split("\0")
    assert f"K={value}" in seen and not any(item.startswith("B=") for item in seen)
    assert f"K={value}" in built.held.config["Env"]
    assert built.held.config["Labels"] == {"l": value}
    weird: dict[str, str | bytes] = {"d/new\nline": "1", "d/sp ace": "2", "d/\udcff": "3"}
    again = builds.build('FROM scratch\nCOPY d /d\nCOPY ["d/sp ace", "/s p"]', weird)
    assert {"/d/new\nline", "/d/sp ace", "/s p"} <= set(again.files)


def test_a_deep_tree(builds: Builds) -> None:
    """Deeper than Python recurses."""
    context = builds.context({})
    fd = os.open(context, os.O_RDONLY)
    for _ in range(1500):
        os.mkdir("d", dir_fd=fd)
        below = os.open("d", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(os.open("f", os.O_CREAT | os.O_WRONLY, dir_fd=fd))
    os.close(fd)
    built = builds.build("FROM small\nCOPY d /", context)
    assert max(built.files, key=len).count("/d") == 1499
