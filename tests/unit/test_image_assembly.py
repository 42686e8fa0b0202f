"""Images put together from layers: names, the collector, artifacts, killed processes."""

from __future__ import annotations

import gzip
import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import proa
from proa.errors import Corrupt, Invalid
from proa.image import manifest
from proa.image.store import Images
from tests.conftest import need
from tests.support.images import Layer, archive

SOURCE = Path(proa.__file__).resolve().parent.parent
DOCUMENT = {"architecture": "amd64", "os": "linux", "config": {"Cmd": ["x"]}}


@pytest.fixture
def images(tmp_path: Path) -> Iterator[Images]:
    need(os.geteuid() == 0, "root", "layers need root")
    yield Images(tmp_path / "images")
    assert list((tmp_path / "images" / "tmp").iterdir()) == []


def tar(**files: str) -> bytes:
    made = Layer()
    for name, content in files.items():
        made.file(name, content)
    return made.bytes()


def changes(workspace: Path) -> Path:
    """An upper directory as overlayfs leaves one."""
    upper = workspace / "upper"
    (upper / "etc").mkdir(parents=True)
    (upper / "etc/new").write_text("new\n")
    os.link(upper / "etc/new", upper / "etc/same")
    os.mknod(upper / "gone", 0o20000, 0)
    os.setxattr(upper / "etc", "trusted.overlay.opaque", b"y")
    os.setxattr(upper / "etc", "trusted.overlay.impure", b"y")
    os.setxattr(upper / "etc/new", "trusted.overlay.origin", b"\0\xfb")
    (upper / "link").symlink_to("/etc/new")
    return upper


def test_a_layer_of_an_upper_directory(images: Images) -> None:
    with images.workspace() as workspace, images.assembly() as assembly:
        upper = changes(workspace)
        made = assembly.layer_from_upper(upper, epoch_seconds=1000)
        assert not upper.exists()
        assert images.layer(made.diff_id) == made
        blob = images.blob(made.descriptor.digest).read_bytes()
        assert manifest.digest_of(blob) == made.diff_id == made.descriptor.digest
        with tarfile.open(fileobj=io.BytesIO(blob)) as packed:
            names = {member.name.rstrip("/"): member for member in packed}
        assert {"etc", "etc/.wh..wh..opq", "etc/new", "etc/same", ".wh.gone", "link"} <= set(names)
        assert all(member.mtime <= 1000 for member in names.values())
        assert os.listxattr(made.root / "etc") == ["trusted.overlay.opaque"]
        assert os.listxattr(made.root / "etc/new") == []
        assert (made.root / "etc/new").stat().st_mtime == 1000
        assert (made.root / "link").lstat().st_mtime == 1000
        image = assembly.image(DOCUMENT, [made], ["thing"])
        assert image.size_bytes == 4
    assert images.disk(images.get("thing")).stat().st_size


def test_the_same_changes_give_the_same_image(images: Images) -> None:
    with images.workspace() as workspace, images.assembly() as assembly:
        first = assembly.layer_from_upper(changes(workspace), epoch_seconds=1000)
        second = assembly.layer_from_upper(changes(workspace), epoch_seconds=1000)
        assert first == second
        one = assembly.image(DOCUMENT, [first], ["one"], {"note": "x"})
        two = assembly.image(DOCUMENT, [second], ["two"], {"note": "x"})
        assert one.id == two.id and one.manifest_digest == two.manifest_digest
    assert images.get("one").names == ("one:latest", "two:latest")


def test_changes_that_need_the_layers_below_are_refused(images: Images) -> None:
    with images.workspace() as workspace, images.assembly() as assembly:
        upper = changes(workspace)
        os.setxattr(upper / "etc", "trusted.overlay.redirect", b"/old")
        with pytest.raises(Corrupt, match="not whole"):
            assembly.layer_from_upper(upper)


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_a_layer_of_a_tar_and_an_image_over_another(images: Images, pack: object) -> None:
    base = images.load(io.BytesIO(archive("base", tar(a="1"), tar(b="2"))))[0].image
    data = gzip.compress(tar(c="3")) if pack is gzip.compress else tar(c="3")
    with images.assembly() as assembly:
        below = assembly.layers_of(base)
        assert [layer.diff_id for layer in below] == list(base.diff_ids)
        top = assembly.layer_from_tar(io.BytesIO(data))
        assert top.descriptor.size == len(data)
        assert top.descriptor.media_type.endswith("gzip" if data[:1] == b"\x1f" else "tar")
        image = assembly.image({**base.config, "config": {"Cmd": ["c"]}}, [*below, top], ["new:1"])
    assert image == images.get("new:1")
    assert image.diff_ids == (*base.diff_ids, top.diff_id)
    assert image.defaults == {"Cmd": ["c"]}
    assert [path.parent.name for path in images.layers(image)] == [
        digest[7:] for digest in reversed(image.diff_ids)
    ]
    document = json.loads(images.document(image.manifest_digest))
    assert document["layers"][-1]["digest"] == top.descriptor.digest


def test_what_is_wrong_leaves_nothing_named(images: Images) -> None:
    with images.assembly() as assembly:
        layer = assembly.layer_from_tar(io.BytesIO(tar(a="1")))
        with pytest.raises(Invalid):
            assembly.image(DOCUMENT, [layer], ["Bad Name"])
        with pytest.raises(Corrupt):
            assembly.image({**DOCUMENT, "config": {"Cmd": 1}}, [layer], ["thing"])
        with pytest.raises(Corrupt):
            assembly.layer_from_tar(io.BytesIO(tar(a="1")[:512]))
    assert images.all() == ()


# -- the collector ------------------------------------------------------------------------------


def test_the_collector_waits_for_the_assembly_and_asks_the_keepers(images: Images) -> None:
    with images.assembly() as assembly:
        kept = assembly.layer_from_tar(io.BytesIO(gzip.compress(tar(a="1"))))
        dropped = assembly.layer_from_tar(io.BytesIO(tar(b="1")))
        images.collect()
        assert images.layer(kept.diff_id) and images.layer(dropped.diff_id)
    images.keepers.append(lambda: {kept.diff_id})
    images.collect()
    assert images.layer(kept.diff_id) == kept
    assert images.layer(dropped.diff_id) is None
    images.keepers.clear()
    images.collect()
    assert images.layer(kept.diff_id) is None
    assert list((images.blob(kept.diff_id).parent).iterdir()) == []


def test_removing_the_base_of_an_assembly_leaves_its_layers(images: Images) -> None:
    base = images.load(io.BytesIO(archive("base", tar(a="1"))))[0].image
    with images.assembly() as assembly:
        layers = assembly.layers_of(base)
        images.remove("base")
        image = assembly.image(DOCUMENT, layers, ["mine"])
    images.collect()
    assert (images.layers(image)[0] / "a").read_text() == "1"


WORK = """
import io, sys
from pathlib import Path
from proa.image.store import Images
images = Images(Path(sys.argv[1]))
with images.assembly() as assembly:
    layer = assembly.layer_from_tar(io.BytesIO(sys.stdin.buffer.read()))
    print(layer.diff_id, flush=True)
    import signal; signal.pause()
"""


def test_the_layers_of_another_process_until_it_is_killed(images: Images, tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", WORK, str(tmp_path / "images")], env={"PYTHONPATH": str(SOURCE)},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    ) as child:  # fmt: skip
        assert child.stdin is not None and child.stdout is not None
        child.stdin.write(tar(a="1"))
        child.stdin.close()
        diff_id = child.stdout.readline().decode().strip()
        images.collect()
        assert images.layer(diff_id) is not None
        child.send_signal(signal.SIGKILL)
    again = Images(tmp_path / "images")
    assert again.layer(diff_id) is None
    assert list(again.blob(diff_id).parent.iterdir()) == []


def test_collectors_and_makers_at_once(images: Images, tmp_path: Path) -> None:
    """Each thread opens the store for itself, as processes do."""
    failures: list[BaseException] = []

    def work(number: int) -> None:
        try:
            store = Images(tmp_path / "images")
            for turn in range(6):
                shared = archive(f"loaded{number}", tar(a="1"), tar(b=str(turn % 2)))
                loaded = store.load(io.BytesIO(shared))[0].image
                with store.assembly() as assembly:
                    top = assembly.layer_from_tar(io.BytesIO(tar(c=str(turn % 3))))
                    store.collect()
                    below = assembly.layers_of(loaded)
                    made = assembly.image(DOCUMENT, [*below, top], [f"made{number}"])
                assert (store.layers(made)[0] / "c").read_text() == str(turn % 3)
                if turn < 5:
                    store.remove(f"made{number}")
            store.settle()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=[number]) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    images.collect()
    for number in range(3):
        image = images.get(f"made{number}")
        assert [(path / "a").exists() for path in images.layers(image)] == [False, False, True]
        assert all(images.layer(diff_id) for diff_id in image.diff_ids)


# -- artifacts ----------------------------------------------------------------------------------


def test_an_artifact_lives_and_dies_with_its_image(images: Images) -> None:
    image = images.load(io.BytesIO(archive("thing", tar(a="1"))))[0].image
    with images.assembly() as assembly:
        digest = assembly.attach(image, "application/x.sbom", b"{}", "text/json", {"k": "v"})
        assert (
            assembly.attach(image, "application/x.sbom", b"{}", "text/json", {"k": "v"}) == digest
        )
    images.collect()
    (found,) = images.referrers(image)
    assert (found.digest, found.artifact_type) == (digest, "application/x.sbom")
    assert found.annotations == {"k": "v"}
    assert images.referrers(image, "other") == []
    document = json.loads(images.document(digest))
    assert document["subject"]["digest"] == image.manifest_digest
    assert images.document(document["layers"][0]["digest"]) == b"{}"
    assert [item["Id"] for item in images.list()] == [image.id]
    images.remove("thing")
    assert list(images.blob(digest).parent.iterdir()) == []
    assert (
        json.loads((images.blob(digest).parents[2] / "index.json").read_bytes())["manifests"] == []
    )
