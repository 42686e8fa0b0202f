"""Archives and layouts, ours and theirs: what each tool writes, the other reads, byte for byte."""

from __future__ import annotations

import io
import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from proa.image.store import Images
from tests.conftest import need
from tests.support import layout
from tests.support.engine import EngineProcess
from tests.support.images import Layer, archive
from tests.support.layout import Maker

Find = Callable[[str], str]


@pytest.fixture
def images(tmp_path: Path) -> Iterator[Images]:
    need(os.geteuid() == 0, "root", "unpacking layers needs root")
    images = Images(tmp_path / "images")
    images.load(io.BytesIO(archive("thing:1", awkward(), hiding(), Cmd=["x"], Env=["A=b"])))
    yield images
    images.settle()


def awkward() -> bytes:
    """What tools disagree about."""
    made = Layer()
    made.directory("d", 0o1777, uid=5, gid=6)
    made.file("d/tool", "x", 0o4755)
    made.add("d/same", b"1", 0o4755, linkname="d/tool")
    made.symlink("link", "../../etc/passwd")
    made.add("pipe", b"6", 0o640)
    made.directory("old")
    made.file("old/file", "gone")
    made.file("name with spaces and ü", "")
    return made.bytes()


def hiding() -> bytes:
    made = Layer()
    made.file("d/.wh.same", "")
    made.directory("old")
    made.file("old/.wh..wh..opq", "")
    made.file("old/new", "here")
    return made.bytes()


def save(images: Images, path: Path, kind: str) -> Path:
    with path.open("wb") as file:
        images.save(["thing:1"], file, kind)
    return path


def run(*words: object) -> bytes:
    done = subprocess.run([*map(str, words)], capture_output=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


@pytest.mark.parametrize("kind", ["docker-archive", "oci-archive"])
def test_skopeo_reads_what_we_save(
    images: Images, tmp_path: Path, require_program: Find, kind: str
) -> None:
    skopeo = require_program("skopeo")
    source = f"{kind}:{save(images, tmp_path / 'saved.tar', kind)}"
    copied = tmp_path / "copied"
    exact = ["--preserve-digests"] if kind == "oci-archive" else []
    run(skopeo, "--insecure-policy", "copy", "--quiet", *exact, source, f"oci:{copied}:thing")
    image = images.get("thing:1")
    files = {
        str(path.relative_to(copied)): path.read_bytes()
        for path in copied.rglob("*")
        if path.is_file()
    }
    layout.check(files)
    (listed,) = json.loads(files["index.json"])["manifests"]
    parts = json.loads(files[f"blobs/sha256/{listed['digest'][7:]}"])
    config = json.loads(files[f"blobs/sha256/{parts['config']['digest'][7:]}"])
    assert config["rootfs"] == image.config["rootfs"]
    assert config["config"] == image.defaults
    if kind == "oci-archive":
        assert listed["digest"] == image.manifest_digest


def test_umoci_unpacks_what_we_save(images: Images, tmp_path: Path, require_program: Find) -> None:
    umoci = require_program("umoci")
    saved = save(images, tmp_path / "saved.tar", "oci-archive")
    folder = tmp_path / "layout"
    for name, data in layout.unpacked(saved.read_bytes()).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    run(umoci, "unpack", "--image", f"{folder}:1", tmp_path / "bundle")
    root = tmp_path / "bundle/rootfs"
    found = {str(path.relative_to(root)): path.lstat() for path in root.rglob("*")}
    expected = {"d", "d/tool", "link", "pipe", "old", "old/new", "name with spaces and ü"}
    assert set(found) == expected
    assert (found["d"].st_mode, found["d"].st_uid, found["d"].st_gid) == (0o41777, 5, 6)
    assert found["d/tool"].st_mode == 0o104755


@pytest.mark.parametrize("kind", ["docker-archive", "oci-archive", "oci"])
def test_we_load_what_skopeo_writes(
    images: Images, tmp_path: Path, require_program: Find, kind: str, session_engine: EngineProcess
) -> None:
    skopeo = require_program("skopeo")
    source = f"oci-archive:{save(images, tmp_path / 'saved.tar', 'oci-archive')}"
    name = f"skopeo-{kind}:7"
    target = tmp_path / "copied"
    run(skopeo, "--insecure-policy", "copy", "--quiet", source, f"{kind}:{target}:{name}")
    done = session_engine.proa("load", "-i", str(target))
    assert done.returncode == 0, done.stderr
    found = json.loads(session_engine.proa("inspect", images.get("thing:1").id).stdout)[0]
    assert found["Config"]["Env"] == ["A=b"]
    assert session_engine.proa("rmi", "--force", found["Id"]).returncode == 0


def test_directories_go_out_and_come_in(
    tmp_path: Path, require_program: Find, session_engine: EngineProcess
) -> None:
    made = Maker()
    image = made.image(awkward(), annotations={"io.containerd.image.name": "directory:1"})
    made.listed += [image, made.artifact(image, "application/x.bill", b"bill")]
    proa = session_engine.proa
    loaded = proa("load", "-i", str(made.write(tmp_path / "first")))
    assert loaded.stdout == b"Loaded image: directory:1\n"
    saved = proa("save", "--format", "oci-dir", "-o", str(tmp_path / "second"), "directory:1")
    assert saved.returncode == 0, saved.stderr
    for digest, data in made.blobs.items():
        assert (tmp_path / "second/blobs/sha256" / digest[7:]).read_bytes() == data
    raw = run(require_program("skopeo"), "inspect", "--raw", f"oci:{tmp_path / 'second'}:1")
    assert raw == made.blobs[image["digest"]]
    again = proa("save", "--format", "oci-dir", "-o", str(tmp_path / "second"), "directory:1")
    assert again.returncode == 125 and b"exists" in again.stderr
    assert proa("load", "-i", str(tmp_path)).returncode == 125
    assert proa("rmi", "directory:1").returncode == 0
