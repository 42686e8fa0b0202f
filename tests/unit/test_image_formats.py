"""Layouts in and out: indexes of platforms, artifacts, names, and every byte as it came."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from proa.errors import Corrupt, Invalid, Unsupported
from proa.image import platforms
from proa.image.catalog import Image
from proa.image.store import Images
from tests.conftest import need
from tests.support import layout
from tests.support.images import Layer, archive
from tests.support.layout import Maker

NAME = "registry.example/team/app:1"


@pytest.fixture
def images(tmp_path: Path) -> Iterator[Images]:
    need(os.geteuid() == 0, "root", "unpacking layers needs root")
    yield Images(tmp_path / "images")
    assert list((tmp_path / "images" / "tmp").iterdir()) == []


def tar(content: str) -> bytes:
    made = Layer()
    made.file("file", content)
    return made.bytes()


def load(images: Images, data: bytes) -> Image:
    return images.load(io.BytesIO(data))[0].image


def saved(images: Images, *names: str, kind: str = "oci-archive") -> bytes:
    buffer = io.BytesIO()
    images.save(names, buffer, kind)
    return buffer.getvalue()


def many_platforms() -> tuple[Maker, dict[str, str]]:
    """An index of two platforms and an attestation, an SBOM of it, a signature of the SBOM."""
    made = Maker()
    here = made.image(tar("here"), tar("more"), architecture=platforms.here().architecture)
    other = made.image(tar("other"), architecture="s390x")
    note = made.image(
        tar("{}"), architecture="unknown", annotations={"vnd.docker.reference.type": "x"}
    )
    index = made.index(other, here, note, annotations={"io.containerd.image.name": NAME})
    bill = made.artifact(index, "application/x.bill", b"of materials")
    signature = made.artifact(bill, "application/x.signature", b"signed")
    own = made.artifact(here, "application/x.own", b"of one platform")
    stray = made.artifact(other, "application/x.stray", b"about what is not kept")
    made.listed += [signature, index, own, bill, stray]
    digests = {"here": here["digest"], "index": index["digest"], "other": other["digest"]}
    return made, digests | {"bill": bill["digest"], "signature": signature["digest"],
                            "own": own["digest"], "stray": stray["digest"]}  # fmt: skip


def test_an_index_is_kept_as_it_came(images: Images) -> None:
    made, digest = many_platforms()
    image = load(images, made.tar())
    assert image.manifest_digest == digest["here"]
    assert image.names == (NAME,)
    assert image.digests == (f"registry.example/team/app@{digest['index']}",)
    assert images.get(image.digests[0]) == image
    images.collect()
    assert images.document(digest["index"]) == made.blobs[digest["index"]]
    assert not images.blob(digest["other"]).exists()
    assert (images.layers(image)[-1] / "file").read_text() == "here"


def test_artifacts_come_and_go_with_their_image(images: Images) -> None:
    made, digest = many_platforms()
    image = load(images, made.tar())
    found = {item.digest: item.artifact_type for item in images.referrers(image)}
    assert found == {
        digest["bill"]: "application/x.bill", digest["own"]: "application/x.own",
    }  # fmt: skip
    images.collect()
    assert images.document(digest["signature"]) == made.blobs[digest["signature"]]
    assert not images.blob(digest["stray"]).exists()
    assert images.remove(NAME)[-1] == ("deleted", image.id)
    assert list(images.blob(digest["here"]).parent.iterdir()) == []


@pytest.mark.parametrize("kind", ["oci-archive", "docker-archive"])
def test_everything_survives_a_round_trip(images: Images, tmp_path: Path, kind: str) -> None:
    made, digest = many_platforms()
    first = load(images, made.tar())
    data = saved(images, NAME, kind=kind)
    files = layout.unpacked(data)
    layout.check(files)
    assert ("manifest.json" in files) == (kind == "docker-archive")
    other = Images(tmp_path / "other")
    second = load(other, data)
    assert second == first
    for name in ("here", "index", "bill", "signature", "own"):
        assert other.document(digest[name]) == made.blobs[digest[name]]
    assert {item.digest for item in other.referrers(second)} == {digest["bill"], digest["own"]}
    assert saved(other, NAME, kind=kind) == data
    other.settle()


def test_an_index_that_does_not_list_the_image_names_nothing(images: Images) -> None:
    """Nobody says that his image is what another's digest means."""
    made = Maker()
    mine = made.image(tar("mine"))
    theirs = made.index(made.image(tar("theirs")))
    made.listed.append({
        **mine, "annotations": {
            "io.proa.index": theirs["digest"], "io.containerd.image.name": NAME,
        },
    })  # fmt: skip
    image = load(images, made.tar())
    assert image.digests == ()
    images.collect()
    assert not images.blob(theirs["digest"]).exists()


def test_what_assemblies_make_is_a_valid_layout(images: Images) -> None:
    base = load(images, archive("base", tar("1"), Cmd=["x"]))
    with images.assembly() as assembly:
        top = assembly.layer_from_tar(io.BytesIO(tar("2")))
        made = assembly.image(
            {**base.config, "history": [{"created_by": "a"}, {"created_by": "b"}]},
            [*assembly.layers_of(base), top], [NAME], {"org.opencontainers.image.title": "x"},
        )  # fmt: skip
        assembly.attach(made, "application/spdx+json", b"{}", "application/spdx+json")
    files = layout.unpacked(saved(images, NAME, "base"))
    layout.check(files)
    listed = json.loads(files["index.json"])["manifests"]
    assert [item.get("artifactType", "") for item in listed] == ["", "", "application/spdx+json"]


def test_unknown_formats_and_platforms_are_refused(images: Images) -> None:
    load(images, archive("base", tar("1")))
    with pytest.raises(Invalid, match="unknown format 'zip'"):
        saved(images, "base", kind="zip")
    made = Maker()
    made.listed.append(made.index(*(made.image(tar(a), architecture=a) for a in ("s390x", "mips"))))
    with pytest.raises(Unsupported, match="no image for"):
        load(images, made.tar())


def test_cycles_and_depth_end(images: Images) -> None:
    """A digest cannot be in what it is of; but a descriptor can lie, and indexes can be nested."""
    made = Maker()
    inner = made.index(made.image(tar("x")))
    for _ in range(20):
        inner = made.index(inner)
    made.listed.append(inner)
    with pytest.raises(Corrupt, match="too deeply"):
        load(images, made.tar())
    liar = Maker()
    loop = liar.index({"mediaType": layout.INDEX, "digest": "sha256:" + "a" * 64, "size": 9})
    liar.blobs["sha256:" + "a" * 64] = liar.blobs[loop["digest"]]
    liar.listed.append(loop)
    with pytest.raises(Corrupt):
        load(images, liar.tar())


def test_an_index_of_ten_thousand(images: Images) -> None:
    made = Maker()
    here = made.image(tar("x"), architecture=platforms.here().architecture)
    gone = {"mediaType": layout.MANIFEST, "size": 5, "platform": {"os": "linux"}}
    others = [{**gone, "digest": f"sha256:{number:064x}"} for number in range(10_000)]
    made.listed.append(made.index(*others, here))
    assert load(images, made.tar()).manifest_digest == here["digest"]
    flood = Maker()
    flood.listed += others
    with pytest.raises(Corrupt):
        load(images, flood.tar())
