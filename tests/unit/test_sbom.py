"""Bills: what is read from an image's files, also when somebody made them to do harm."""

from __future__ import annotations

import json
import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proa.errors import Corrupt
from proa.image.sbom import bill, cyclonedx, databases, languages, reading, spdx
from proa.image.sbom.component import DEB, GO, NPM, PYTHON, RPM, Component, Facts
from proa.image.sbom.facts import os_release
from tests.support.bills import cyclonedx_purls, spdx_packages

SYSTEM = {"ID": "debian", "VERSION_ID": "12"}


@pytest.fixture
def root(tmp_path: Path) -> Iterator[tuple[Path, int]]:
    """A root file system and its descriptor, with something outside that must not be read."""
    (tmp_path / "canary").write_text("Package: canary\nVersion: 1\n")
    path = tmp_path / "root"
    path.mkdir()
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    yield path, fd
    os.close(fd)


def put(root: Path, name: str, data: bytes | str, mode: int = 0o644) -> Path:
    """A file with its directories."""
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    path.chmod(mode)
    return path


def test_dpkg_tells_what_is_installed(root: tuple[Path, int]) -> None:
    put(root[0], "var/lib/dpkg/status", """\
Package: nginx
Status: install ok installed
Version: 1.22.1-9+deb12u1
Architecture: amd64
Source: nginx (1.22.1-9)
Maintainer: Somebody <x@example.invalid>
Description: web server
 Package: not-this
Version: 9

Package: removed
Status: deinstall ok config-files
Version: 1

Package: half
Status: install ok not-installed

Package: empty-status
Status:
Version: 2
""")  # fmt: skip
    put(root[0], "var/lib/dpkg/status.d/base", "Package: base\nVersion: 3\n")
    put(root[0], "var/lib/dpkg/status.d/base.md5sums", "Package: no\n")
    found = {item.name: item for item in databases.dpkg(root[1])}
    assert set(found) == {"nginx", "empty-status", "base"}
    assert found["nginx"].source == "nginx" and found["nginx"].version == "1.22.1-9+deb12u1"


def test_licences_of_debian_packages(root: tuple[Path, int]) -> None:
    put(root[0], "var/lib/dpkg/status", "Package: a\nVersion: 1\n\nPackage: ../b\nVersion: 1\n")
    put(root[0], "usr/share/doc/a/copyright", """\
Format: https://example.invalid/copyright-format/1.0/

Files: *
License: GPL-2+ or Artistic
 text

Files: debian/*
License: Expat

License: GPL-2+
 text
""")  # fmt: skip
    put(root[0], "usr/share/b/copyright", "Format: x\n\nLicense: stolen\n")
    found = {item.name: item.license for item in databases.dpkg(root[1])}
    assert found == {"a": "(GPL-2.0-or-later OR Artistic) AND GPL-2.0-or-later AND MIT", "../b": ""}


def test_apk(root: tuple[Path, int]) -> None:
    text = "C:Q1\nP:musl\nV:1.2.4-r2\nA:x86_64\nL:MIT\no:musl\nF:lib\n\nP:busybox\nV:1.36\n"
    put(root[0], "lib/apk/db/installed", text)
    found = list(databases.apk(root[1]))
    assert [(item.name, item.version, item.license) for item in found] == [
        ("musl", "1.2.4-r2", "MIT"), ("busybox", "1.36", ""),
    ]  # fmt: skip


@pytest.mark.parametrize("kind", ["symlink", "fifo", "socket", "directory", "device", "loop"])
def test_a_database_that_is_no_file_is_not_read(root: tuple[Path, int], kind: str) -> None:
    path = root[0] / "var/lib/dpkg/status"
    path.parent.mkdir(parents=True)
    if kind == "symlink":
        path.symlink_to("../../../../canary")
    elif kind == "loop":
        path.symlink_to("status")
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(str(path))
    elif kind == "directory":
        path.mkdir()
    elif os.geteuid() == 0:
        os.mknod(path, 0o20666, os.makedev(1, 5))  # /dev/zero never ends
    assert list(databases.dpkg(root[1])) == []


def test_a_database_without_end_is_refused(root: tuple[Path, int]) -> None:
    path = put(root[0], "var/lib/dpkg/status", "")
    with path.open("r+b") as file:
        file.truncate(databases.MAXIMUM_DATABASE + 2)
    with pytest.raises(Corrupt, match="is larger than"):
        list(databases.dpkg(root[1]))


def walked(root: int) -> set[tuple[str, str, str]]:
    """Kind, name and version of all that languages left."""
    found = (item for file in reading.walk(root, frozenset()) for item in languages.of(file))
    return {(item.kind, item.name, item.version) for item in found}


def test_languages(root: tuple[Path, int]) -> None:
    put(root[0], "usr/lib/python3/dist-packages/Foo_Bar-1.dist-info/METADATA",
        "Metadata-Version: 2.1\nName: Foo_Bar\nVersion: 1\nLicense: MIT\n\nName: no\n")  # fmt: skip
    put(root[0], "opt/x.egg-info/PKG-INFO", "Name: egg\nVersion: 2\n")
    put(root[0], "app/node_modules/left-pad/package.json", '{"name":"left-pad","version":"1.3.0"}')
    put(root[0], "app/node_modules/@a/b/package.json", '{"name":"@a/b","version":"2.0.0"}')
    put(root[0], "app/package.json", '{"name":"application","version":"9"}')
    put(
        root[0], "usr/bin/program", go_program("mod\tx.example/a\tv1.0.0\th1:\ndep\ty\tv2\n"), 0o755
    )
    assert walked(root[1]) == {
        (PYTHON, "Foo_Bar", "1"), (PYTHON, "egg", "2"), (NPM, "left-pad", "1.3.0"),
        (NPM, "@a/b", "2.0.0"), (GO, "x.example/a", "v1.0.0"), (GO, "y", "v2"),
    }  # fmt: skip


def go_program(modules: str) -> bytes:
    """A file as large as a Go program, with what one says of itself."""
    text = b"s" * 16 + modules.encode() + b"e" * 16
    version = b"go1.22.0"
    info = b"\xff Go buildinf:\x08\x02".ljust(32, b"\0")
    info += bytes([len(version)]) + version + bytes([len(text)]) + text
    names = b"\0.go.buildinfo\0"
    at = 64 + 3 * 64
    sections = [
        bytes(64),
        struct.pack("<IIQQQQIIQQ", 1, 1, 0, 0, at, len(info), 0, 0, 0, 0),
        struct.pack("<IIQQQQIIQQ", 0, 3, 0, 0, at + len(info), len(names), 0, 0, 0, 0),
    ]
    head = struct.pack(
        "<4sBB10xHHIQQQIHHHHHH", b"\x7fELF", 2, 1, 2, 62, 1, 0, 0, 64, 0, 64, 0, 0, 64, 3, 2
    )
    return (head + b"".join(sections) + info + names).ljust(300_000, b"\0")


def test_what_replaces_a_go_module_counts() -> None:
    text = "path\tcmd\nmod\ta\t(devel)\t\ndep\tb\tv1\n=>\tc\tv2\th1:\ndep\td\tv3\n"
    assert [(item.name, item.version) for item in languages.go(text)] == [
        ("a", ""), ("c", "v2"), ("d", "v3"),
    ]  # fmt: skip


def test_broken_programs_say_nothing(root: tuple[Path, int]) -> None:
    whole = go_program("mod\ta\tv1\n")
    for number, at in enumerate((4, 40, 58, 60, 62, 64 + 64 + 24, 64 + 64 + 32)):
        broken = whole[:at] + b"\xff" * 8 + whole[at + 8 :]
        put(root[0], f"bin/{number}", broken, 0o755)
    put(root[0], "bin/short", whole[:300].ljust(300_000, b"\xff"), 0o755)
    assert len(walked(root[1])) <= 1


def test_walking_follows_no_link_and_stops_deep_down(root: tuple[Path, int]) -> None:
    (root[0] / "up").symlink_to("..")
    (root[0] / "self").symlink_to(".")
    path = root[0]
    for _ in range(200):
        path = path / "d"
    path.mkdir(parents=True)
    put(root[0], "a/b", "x")
    assert [found.path for found in reading.walk(root[1], frozenset())] == [b"a/b"]


@given(st.binary(max_size=300))
def test_parsers_take_anything(data: bytes) -> None:
    list(databases.stanzas(data))
    list(languages.python(data))
    list(languages.npm(data))
    list(languages.go(data.decode(errors="replace")))
    os_release(data.decode(errors="replace"))
    try:
        languages.inline_text(b"\xff Go buildinf:\x08\x02".ljust(32, b"\0") + data)
    except ValueError as error:
        assert "malformed" in str(error)


KEYS = st.sampled_from(["packages", "components", "externalRefs", "licenses", "name"])
DOCUMENTS = st.recursive(
    st.none() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner),
)


@given(DOCUMENTS)
def test_foreign_bills_are_read_or_refused(document: object) -> None:
    for name in bill.FORMATS:
        try:
            bill.rows(json.dumps(document).encode(), name)
        except Corrupt as error:
            assert name in error.message


@pytest.mark.parametrize(
    ("component", "purl"),
    [
        (Component(DEB, "g++", "1:2~3", "amd64"),
         "pkg:deb/debian/g%2B%2B@1:2~3?arch=amd64&distro=debian-12"),
        (Component(RPM, "a", "2:1.0-3", "noarch"),
         "pkg:rpm/debian/a@1.0-3?arch=noarch&distro=debian-12&epoch=2"),
        (Component(PYTHON, "Foo_Bar", "1"), "pkg:pypi/foo-bar@1"),
        (Component(NPM, "@a/b", "1"), "pkg:npm/%40a/b@1"),
        (Component(GO, "x.example/y", "v1"), "pkg:golang/x.example/y@v1"),
    ],
)  # fmt: skip
def test_package_urls(component: Component, purl: str) -> None:
    assert component.purl(SYSTEM) == purl


def test_a_hostile_component_makes_a_valid_bill() -> None:
    components = (
        Component(DEB, "a b/../?#&", "1 (x)", "a&b=c", "MIT AND (", "<script>"),
        Component(PYTHON, "ünï", "", license="GPL-2.0-only OR MIT"),
        Component(NPM, "%00", "@", license="x" * 400),
        Component(GO, "-", "v0"),
    )
    facts = Facts("x:1", "sha256:" + "a" * 64, "2024-01-01T00:00:00Z", {}, components, ("rpm: no",))
    assert spdx_packages(spdx.write(facts)).keys() >= {item.name for item in components}
    text = cyclonedx.write(facts)
    assert len(cyclonedx_purls(text.decode())) == len(components)
    assert len(bill.rows(text, "cyclonedx")) == len(components)
    assert len(bill.rows(spdx.write(facts), "spdx")) == len(components)
    assert spdx.write(facts) == spdx.write(facts)
    assert cyclonedx.write(facts) == text
