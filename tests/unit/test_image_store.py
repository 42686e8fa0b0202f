"""The store: names, archives in and out, garbage, crashes, disks."""

from __future__ import annotations

import bz2
import errno
import gzip
import hashlib
import io
import json
import lzma
import os
import random
import shutil
import stat
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

import proa
from proa.errors import Conflict, Corrupt, ImageNotFound, Invalid, NoSpace, ProaError
from proa.image.layer import stream
from proa.image.layer import unpack as layer
from proa.image.layer.stream import Bounds
from proa.image.store import Images
from tests.conftest import need
from tests.support.images import Layer, archive
from tests.support.instances import eventually

SOURCE = Path(proa.__file__).resolve().parent.parent


@pytest.fixture
def images(tmp_path: Path) -> Iterator[Images]:
    need(os.geteuid() == 0, "root", "unpacking layers needs root")
    yield Images(tmp_path / "images")
    assert list((tmp_path / "images" / "tmp").iterdir()) == []


def one_file(name: str = "file", content: str = "text\n") -> bytes:
    made = Layer()
    made.directory("dir", 0o750, uid=5, gid=6)
    made.file(f"dir/{name}", content)
    return made.bytes()


def load(images: Images, data: bytes) -> str:
    return images.load(io.BytesIO(data))[0].image.id


def stored(images: Images) -> set[str]:
    """Names of all blobs, layers and disks."""
    root = images._layout.root
    parts = (root / "blobs/sha256", root / "layers", root / "disks")
    return {path.name for part in parts for path in part.iterdir()}


# -- names --------------------------------------------------------------------------------------


def test_an_image_is_found_by_all_its_names(images: Images) -> None:
    identity = load(images, archive("docker.io/library/thing:1", one_file(), Cmd=["x"]))
    for name in ("thing:1", "docker.io/thing:1", identity, identity[7:], identity[7:14]):
        assert images.get(name).id == identity
    image = images.get("thing:1")
    assert image.names == ("thing:1",)
    assert image.config["config"] == image.defaults == {"Cmd": ["x"]}
    assert images.get(image.manifest_digest).id == identity
    assert images.get(f"thing@{image.manifest_digest}").id == identity
    for name in ("thing", "thin:1", "", "nothing!", f"other@{image.manifest_digest}", "f" * 64):
        with pytest.raises(ImageNotFound):
            images.get(name)


def test_an_ambiguous_prefix_is_refused(images: Images) -> None:
    for number in range(17):
        load(images, archive(f"n{number}", one_file(str(number))))
    with pytest.raises(Invalid, match="ambiguous"):
        for digit in "0123456789abcdef":
            with suppress(ImageNotFound):
                images.get(digit)


def test_tagging_moves_a_name_and_keeps_the_loser(images: Images) -> None:
    first = load(images, archive("first", one_file("1")))
    second = load(images, archive("second", one_file("2")))
    images.tag("first", "second")
    assert images.get("second").id == first
    assert images.get("first").names == ("first:latest", "second:latest")
    assert images.get(second).names == ()
    assert [item["RepoTags"] for item in images.list() if item["Id"] == second] == [[]]
    for bad in ("Bad Name", f"x@{first}", first, "sha256:1"):
        with pytest.raises(Invalid):
            images.tag("first", bad)


def test_the_same_image_loaded_twice_is_one(images: Images) -> None:
    data = archive("thing", one_file())
    load(images, data)
    before = stored(images)
    load(images, data)
    assert stored(images) == before
    assert len(images.list()) == 1


# -- removing -----------------------------------------------------------------------------------


def test_removal_untags_then_deletes_then_collects(images: Images) -> None:
    shared = one_file("shared")
    other = load(images, archive("other", shared))
    identity = load(images, archive("one", shared, one_file("own")))
    images.disk(images.get("one"))
    images.tag("one", "two")
    assert images.remove("one") == [("untagged", "one:latest")]
    with_both = stored(images)
    assert images.remove("two") == [("untagged", "two:latest"), ("deleted", identity)]
    assert stored(images) < with_both
    assert images.layers(images.get(other))[0].is_dir()
    assert images.remove(other[7:19])[-1] == ("deleted", other)
    assert stored(images) == set()


def test_several_names_need_force_when_removed_by_id(images: Images) -> None:
    identity = load(images, archive("one", one_file()))
    images.tag("one", "two")
    with pytest.raises(Conflict, match="several names"):
        images.remove(identity)
    assert images.remove(identity, force=True)[-1] == ("deleted", identity)


def test_an_image_in_use_stays(images: Images) -> None:
    identity = load(images, archive("one", one_file()))
    images.in_use = lambda image_id: ["worker"] if image_id == identity else []
    with pytest.raises(Conflict, match="in use by instance 'worker'"):
        images.remove("one")
    assert images.remove("one", force=True) == [("untagged", "one:latest")]
    assert images.layers(images.get(identity))[0].is_dir()
    images.in_use = lambda image_id: []
    assert images.remove(identity) == [("deleted", identity)]


# -- archives in and out ------------------------------------------------------------------------


def test_saving_and_loading_keeps_every_digest(images: Images, tmp_path: Path) -> None:
    load(images, archive("a:1", one_file("a"), one_file("b")))
    load(images, archive("b:2", one_file("a")))
    images.tag("a:1", "registry.example:5000/x/y:z")
    first, second = io.BytesIO(), io.BytesIO()
    images.save(["a:1", "b:2", "registry.example:5000/x/y:z"], first)
    other = Images(tmp_path / "other")
    loaded = other.load(io.BytesIO(first.getvalue()))
    assert {name for item in loaded for name in item.names} == {
        "a:1", "b:2", "registry.example:5000/x/y:z",
    }  # fmt: skip
    for name in ("a:1", "b:2"):
        assert other.get(name) == images.get(name)
    other.save(["a:1", "b:2", "registry.example:5000/x/y:z"], second)
    assert first.getvalue() == second.getvalue()


def test_saving_by_id_saves_no_name(images: Images) -> None:
    identity = load(images, archive("a:1", one_file()))
    for name in (identity, identity[7:], identity[7:17]):
        out = io.BytesIO()
        images.save([name], out)
        assert images.load(io.BytesIO(out.getvalue()))[0].names == ()
    assert images.get(identity).names == ("a:1",)


def test_a_saved_archive_is_what_docker_load_always_took(images: Images) -> None:
    identity = load(images, archive("a:1", one_file()))
    out = io.BytesIO()
    images.save(["a:1"], out)
    with tarfile.open(fileobj=io.BytesIO(out.getvalue())) as saved:
        described = json.load(saved.extractfile("manifest.json"))[0]  # type: ignore[arg-type]
        config = saved.extractfile(described["Config"]).read()  # type: ignore[union-attr]
        assert f"sha256:{hashlib.sha256(config).hexdigest()}" == identity
        assert described["RepoTags"] == ["a:1"]
        names = saved.getnames()
    assert {"oci-layout", "index.json", *described["Layers"]} <= set(names)


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
def test_compressed_archives_and_layers(images: Images, pack: Any) -> None:
    plain = one_file()
    data = archive("a", plain)
    expected = load(images, data)
    diff_id = f"sha256:{hashlib.sha256(plain).hexdigest()}"
    inner = archive("b", pack(plain))
    with pytest.raises(Corrupt, match="was promised"):
        load(images, inner)  # its configuration speaks of the packed digest
    assert load(images, pack(data)) == expected
    packed = oci_archive("c", [pack(plain)], [diff_id])
    if pack is gzip.compress:
        image = images.get(load(images, packed))
        assert image.diff_ids == (diff_id,)
        assert (images.layers(image)[0] / "dir/file").read_text() == "text\n"


def oci_archive(name: str, layers: list[bytes], diff_ids: list[str], **changed: Any) -> bytes:
    """An OCI layout in a tar."""
    out = Layer()

    def blob(data: bytes, media_type: str) -> dict[str, Any]:
        digest = hashlib.sha256(data).hexdigest()
        out.file(f"blobs/sha256/{digest}", data)
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(data)}

    kind = "application/vnd.oci.image."
    config = {"os": "linux", "architecture": "amd64",
              "rootfs": {"type": "layers", "diff_ids": diff_ids}}  # fmt: skip
    manifest = {
        "schemaVersion": 2,
        "config": blob(json.dumps(config).encode(), kind + "config.v1+json"),
        "layers": [blob(data, kind + "layer.v1.tar+gzip") for data in layers],
    }
    manifest |= changed.get("manifest", {})
    described = blob(json.dumps(manifest).encode(), kind + "manifest.v1+json")
    described |= {"annotations": {"org.opencontainers.image.ref.name": f"{name}:latest"}}
    described |= changed.get("descriptor", {})
    index = {"schemaVersion": 2, "manifests": [described]} | changed.get("index", {})
    out.file("oci-layout", '{"imageLayoutVersion":"1.0.0"}')
    out.file("index.json", json.dumps(index))
    return out.bytes()


def test_zstd_layers(images: Images) -> None:
    program = shutil.which("zstd")
    need(program, "zstd", "'zstd' is not installed")
    plain = one_file()
    packed = subprocess.run([str(program), "-c"], input=plain, check=True, capture_output=True)
    diff_id = f"sha256:{hashlib.sha256(plain).hexdigest()}"
    image = images.get(load(images, oci_archive("z", [packed.stdout], [diff_id])))
    assert (images.layers(image)[0] / "dir/file").read_text() == "text\n"
    with pytest.raises(Corrupt):
        load(images, oci_archive("y", [packed.stdout[:-8]], [diff_id]))


def test_archives_of_docker_before_manifests(images: Images) -> None:
    out = Layer()
    base, top = one_file("a"), one_file("b")
    out.file("repositories", json.dumps({"old/thing": {"1": "top"}}))
    out.file("base/json", json.dumps({"id": "base"}))
    out.file("base/layer.tar", base)
    out.file("top/json", json.dumps({"id": "top", "parent": "base", "config": {"Cmd": ["x"]}}))
    out.file("top/layer.tar", top)
    load(images, out.bytes())
    image = images.get("old/thing:1")
    assert image.defaults == {"Cmd": ["x"]}
    assert len(images.layers(image)) == 2


def test_import_makes_an_image_of_a_tree(images: Images) -> None:
    image = images.import_(
        io.BytesIO(gzip.compress(one_file())), "new", ["CMD run"], {"message": "note"}
    )
    assert image.names == ("new:latest",)
    assert image.defaults["Cmd"] == ["/bin/sh", "-c", "run"]
    assert images.history("new")[0]["Comment"] == "note"
    assert images.inspect("new")["RootFS"]["Layers"] == list(image.diff_ids)
    assert images.list()[0]["Size"] == image.size_bytes == len("text\n")


@pytest.mark.parametrize("data", [b"", b"no tar at all" * 100, one_file()[:700]])
def test_import_of_what_is_no_tree_leaves_nothing(images: Images, data: bytes) -> None:
    with pytest.raises(Corrupt):
        images.import_(io.BytesIO(data), "new")
    assert stored(images) == set()


def test_skopeos_archive(images: Images, tmp_path: Path) -> None:
    program = shutil.which("skopeo")
    if program is None:
        pytest.skip("'skopeo' is not installed")
    identity = load(images, archive("a:1", one_file()))
    saved, copied = tmp_path / "saved.tar", tmp_path / "copied.tar"
    with saved.open("wb") as file:
        images.save(["a:1"], file)
    for source in (f"oci-archive:{saved}", f"docker-archive:{saved}"):
        copied.unlink(missing_ok=True)
        target = f"docker-archive:{copied}:copy:1"
        command = [program, "--insecure-policy", "copy", source, target]
        subprocess.run(command, check=True, capture_output=True)
        with copied.open("rb") as file:
            assert images.load(file)[0].names == ("copy:1",)
        assert images.get("copy:1").diff_ids == images.get(identity).diff_ids


# -- using --------------------------------------------------------------------------------------


def test_layers_are_topmost_first_and_each_once(images: Images) -> None:
    low, high = one_file("low"), one_file("high")
    image = images.get(load(images, archive("a", low, high, low)))
    roots = images.layers(image)
    assert [sorted(os.listdir(root / "dir")) for root in roots] == [["low"], ["high"]]


def test_an_image_without_layers_has_an_empty_root(images: Images) -> None:
    """CVE-2026-24054."""
    image = images.get(load(images, archive("hollow")))
    (root,) = images.layers(image)
    assert os.listdir(root) == []
    assert images.disk(image).stat().st_size > 0


def test_the_writable_layer_has_the_images_root(images: Images, tmp_path: Path) -> None:
    made = Layer()
    made.directory("./", 0o1750, uid=7, gid=8)
    image = images.get(load(images, archive("a", made.bytes())))
    for _ in range(2):
        rootfs = images.writable(image, tmp_path / "instance")
        status = os.stat(rootfs.upper / "upper")
        assert (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid) == (0o1750, 7, 8)
        assert (rootfs.upper / "work").is_dir()
    assert rootfs.image_id == image.id
    assert rootfs.disk() == images.disk(image)


def test_missing_layers_are_unpacked_again(images: Images) -> None:
    image = images.get(load(images, archive("a", one_file())))
    images.settle()
    shutil.rmtree(images.layers(image)[0].parent)
    threads = [threading.Thread(target=images.prepare, args=[image]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (images.layers(image)[0] / "dir/file").read_text() == "text\n"


@pytest.mark.parametrize(
    "facts", [{"size_bytes": 5, "hides": False, "boot": "an earlier one"}, {"unknown": 1}, [], None]
)
def test_a_layer_that_a_power_cut_may_have_hit_is_unpacked_again(
    images: Images, facts: object
) -> None:
    image = images.get(load(images, archive("a", one_file())))
    images.settle()
    directory = images.layers(image)[0].parent
    assert json.loads((directory / "layer.json").read_text())["boot"] == ""
    (directory / "root/dir/file").write_bytes(bytes(5))
    (directory / "layer.json").write_text("{" if facts is None else json.dumps(facts))
    again = Images(images._layout.root)
    assert again.layer(image.diff_ids[0]) is None
    assert (again.layers(image)[0] / "dir/file").read_text() == "text\n"
    found = again.layer(image.diff_ids[0])
    assert found is not None and found.descriptor.digest == image.manifest.layers[0].digest
    again.settle()


def test_what_is_named_is_on_the_disk_and_known_to_be(images: Images) -> None:
    image = images.get(load(images, archive("a", one_file("1"), one_file("2"))))
    notes = [path.parent / "layer.json" for path in images.layers(image)]
    assert eventually(lambda: all(json.loads(note.read_text())["boot"] == "" for note in notes))


def test_a_disk_is_the_merge_of_the_layers(images: Images, tmp_path: Path) -> None:
    need(shutil.which("mkfs.erofs"), "erofs", "'mkfs.erofs' is not installed")
    low, high = Layer(), Layer()
    for name in ("kept", "gone", "hidden/old"):
        low.file(name, name)
    low.file(".wh.nothing", "")
    high.file(".wh.gone", "")
    high.file("hidden/.wh..wh..opq", "")
    high.file("hidden/new", "new")
    bare = images.get(load(images, archive("bare", low.bytes())))
    both = images.get(load(images, archive("both", low.bytes(), high.bytes())))
    assert listing(images.disk(bare), tmp_path) == {"kept", "gone", "hidden", "hidden/old"}
    assert listing(images.disk(both), tmp_path) == {"kept", "hidden", "hidden/new"}
    before = images.disk(both).stat()
    assert images.disk(both).stat() == before


def listing(disk: Path, tmp_path: Path) -> set[str]:
    """Paths inside an EROFS file."""
    target = tmp_path / "mounted"
    target.mkdir(exist_ok=True)
    script = 'mount -t erofs -o loop "$1" "$2" && cd "$2" && find . -mindepth 1 -printf "%P\\n"'
    command = ["unshare", "--mount", "sh", "-c", script, "sh", str(disk), str(target)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return set(done.stdout.split())


# -- crashes, other processes, full disks -------------------------------------------------------


def test_what_a_killed_process_left_is_swept(tmp_path: Path) -> None:
    need(os.geteuid() == 0, "root", "unpacking layers needs root")
    first = Images(tmp_path)
    load(first, archive("a", one_file()))
    (tmp_path / "tmp/left/deep/er").mkdir(parents=True)
    (tmp_path / ".index.json.0123").write_text("half")
    with first._layout.workspace() as busy:
        Images(tmp_path)
        assert busy.exists()
    assert os.listdir(tmp_path / "tmp") == []
    assert not (tmp_path / ".index.json.0123").exists()
    assert stat.S_IMODE((tmp_path / "layers").stat().st_mode) == 0o700


LOAD_FOREVER = """
import io, sys
from pathlib import Path
from proa.image.store import Images
data = Path(sys.argv[2]).read_bytes()
images = Images(Path(sys.argv[1]))
print(flush=True)
while True:
    images.load(io.BytesIO(data))
    images.disk(images.get("a"))
    images.remove("a")
"""


def test_a_process_killed_anywhere_leaves_a_sound_store(tmp_path: Path) -> None:
    need(os.geteuid() == 0, "root", "unpacking layers needs root")
    data, root = tmp_path / "a.tar", tmp_path / "images"
    data.write_bytes(archive("a", one_file("1"), one_file("2")))
    chance = random.Random(5)
    for _ in range(6):
        command = [sys.executable, "-c", LOAD_FOREVER, str(root), str(data)]
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, env=os.environ | {"PYTHONPATH": str(SOURCE)}
        ) as child:
            assert child.stdout is not None
            assert child.stdout.readline() == b"\n"
            time.sleep(chance.random() * 0.08)
            child.kill()
        images = Images(root)
        # A helper of the killed process may hold its workspace until it has begun to execute.
        assert eventually(lambda: not os.listdir(root / "tmp") or not Images(root))
        for line in images.list():
            image = images.get(line["Id"])
            assert [os.listdir(path / "dir") for path in images.layers(image)] == [["2"], ["1"]]
            images.remove(image.id)
        assert stored(images) == set()


def test_changes_of_another_process_are_seen(images: Images) -> None:
    other = Images(images._layout.root)
    load(images, archive("a", one_file()))
    assert other.get("a").names == ("a:latest",)
    other.tag("a", "b")
    assert images.get("b").names == ("a:latest", "b:latest")
    other.remove("a")
    with pytest.raises(ImageNotFound):
        images.get("a")


def test_a_full_disk_leaves_nothing(images: Images, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(fd: int, data: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    for module in (stream, layer):
        with monkeypatch.context() as patched:
            patched.setattr(module, "write_all", full)
            if module is stream:
                patched.setattr("proa.image.staging.write_all", full)
            with pytest.raises(NoSpace):
                load(images, archive("a", one_file()))
        assert stored(images) == set()
        assert images.list() == []


def test_a_damaged_image_is_said_and_does_not_hide_others(images: Images) -> None:
    load(images, archive("good", one_file("1")))
    bad = images.get(load(images, archive("bad", one_file("2"))))
    blob = images._layout.blob(bad.id)
    blob.write_bytes(b"{}")
    fresh = Images(images._layout.root)
    assert [item["RepoTags"] for item in fresh.list()] == [["good:latest"]]
    with pytest.raises(Corrupt, match="was promised"):
        fresh.get("bad")
    fresh.remove("bad")
    with pytest.raises(ImageNotFound):
        fresh.get("bad")


def test_many_threads_load_and_remove(images: Images) -> None:
    failures: list[Exception] = []

    def work(number: int) -> None:
        try:
            for turn in range(3):
                load(images, archive(f"n{number}", one_file("same"), one_file(f"{number}{turn}")))
                images.layers(images.get(f"n{number}"))
                images.remove(f"n{number}")
        except (ProaError, OSError) as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=[number]) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    images.collect()
    for line in images.list():
        images.remove(line["Id"], force=True)
    assert stored(images) == set()


def test_finding_is_quick(images: Images) -> None:
    load(images, archive("a", one_file()))
    images.get("a")
    began = time.perf_counter()
    for _ in range(200):
        images.get("a")
    assert (time.perf_counter() - began) / 200 < 0.0003


def test_the_bounds_are_not_for_real_layers() -> None:
    assert Bounds().ratio >= 100
