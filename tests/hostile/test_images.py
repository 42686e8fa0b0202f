"""Images made to get out: each tries to touch a canary directory of the host."""

from __future__ import annotations

import http.client
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.http import ApiError
from tests.support.images import Layer, archive, busy_layer, probe_layer
from tests.support.instances import Place

CHARACTER, BLOCK, FIFO = b"3", b"4", b"6"


@pytest.fixture
def canary(tmp_path: Path) -> Path:
    """A directory with one file, which nobody but us may touch."""
    directory = tmp_path / "canary"
    directory.mkdir()
    (directory / "file").write_text("unread\n")
    return directory


def intact(canary: Path) -> bool:
    """Whether the canary is as it was made."""
    entries = [path.name for path in canary.iterdir()]
    return entries == ["file"] and (canary / "file").read_text() == "unread\n"


def load(place: Place, layer: Layer, **config: object) -> str:
    """Load the crafted image; its name."""
    place.api.load(archive("crafted", layer.bytes(), **({"Env": ["PATH=/bin"]} | config)))
    return "crafted"


def without(directory: str) -> Layer:
    """Busybox's files without one of the top directories, so that a link can take its place."""
    full = busy_layer()
    full.tar.close()
    full.buffer.seek(0)
    import tarfile

    kept = Layer()
    with tarfile.open(fileobj=full.buffer) as source:
        for member in source:
            if member.name.split("/")[0] != directory:
                kept.tar.addfile(member, source.extractfile(member) if member.isfile() else None)
    return kept


@pytest.mark.parametrize("directory", ["proc", "sys", "dev", "etc", "tmp"])
def test_a_top_directory_is_a_symlink(place: Place, canary: Path, directory: str) -> None:
    """CVE-2019-19921, CVE-2026-41579: nothing is mounted or made where the link points."""
    layer = without(directory)
    layer.symlink(directory, str(canary))
    image = load(place, layer)
    try:
        result = place.run(image, "sh", "-c", f"cat {canary}/file /{directory}/file; true")
        assert "unread" not in result.stdout
    except ApiError as refusal:
        assert "\n" not in refusal.message
    assert intact(canary)


@pytest.mark.parametrize("name", ["null", "console", "shm", "pts", "ptmx"])
def test_a_device_of_the_image_is_a_symlink(place: Place, canary: Path, name: str) -> None:
    """CVE-2025-31133, CVE-2025-52565: masking and terminals do not follow the image's /dev."""
    layer = busy_layer()
    layer.symlink(f"dev/{name}", str(canary / "file"))
    script = "cat /proc/kcore | head -c 10; echo x >/dev/null; cat /dev/null"
    result = place.run(load(place, layer), "sh", "-c", script, Tty=name in {"console", "pts"})
    assert "unread" not in result.stdout
    assert intact(canary)


@pytest.mark.parametrize("kind", [CHARACTER, BLOCK])
def test_a_device_node_of_the_image_does_not_open(container: Place, kind: bytes) -> None:
    layer = busy_layer()
    major, minor = (1, 1) if kind == CHARACTER else (254, 0)
    try:
        layer.add("node", kind, 0o666, devmajor=major, devminor=minor)
        result = container.run(load(container, layer), "head", "-c", "1", "/node")
    except ApiError as refusal:
        assert refusal.status < 500
        return
    assert result.code != 0
    assert result.stdout == ""


def test_the_working_directory_goes_through_a_symlink(place: Place, canary: Path) -> None:
    """CVE-2026-55686: the directory is made inside or not at all."""
    layer = busy_layer()
    layer.symlink("link", str(canary))
    try:
        place.run(load(place, layer), "pwd", WorkingDir="/link/made")
    except ApiError as refusal:
        assert refusal.status < 500
    assert intact(canary)


@pytest.mark.parametrize("number", range(3, 12))
def test_a_working_directory_through_a_descriptor(container: Place, number: int) -> None:
    """CVE-2024-21626: no inherited descriptor leads out."""
    try:
        result = container.run("busy", "sh", "-c", "pwd; ls ../../../../../work",
                               WorkingDir=f"/proc/self/fd/{number}")  # fmt: skip
    except ApiError:
        return
    assert result.code != 0


@pytest.mark.parametrize("target", ["/proc/self/attr", "/proc", "/../../canary", "/sys"])
def test_an_image_volume_at_a_bad_place(container: Place, canary: Path, target: str) -> None:
    """CVE-2019-16884, CVE-2022-23648."""
    image = load(container, busy_layer(), Volumes={target: {}})
    try:
        result = container.run(image, "grep", "-c", "^proc /proc proc ", "/proc/mounts")
        assert int(result.stdout or 0) >= 1
    except ApiError as refusal:
        assert refusal.status < 500
    assert intact(canary)


def fifo(layer: Layer, path: str) -> None:
    layer.add(path, FIFO, 0o644)


def huge(layer: Layer, path: str) -> None:
    layer.file(path, b"x:x:1:1::/:/\n" * 400_000)


def loop(layer: Layer, path: str) -> None:
    layer.symlink(path, path.rsplit("/", 1)[1])


@pytest.mark.parametrize("make", [fifo, huge, loop])
def test_a_passwd_that_is_no_file_of_users(
    place: Place, make: Callable[[Layer, str], None]
) -> None:
    """CVE-2024-9676: bounded time, a refusal at worst."""
    layer = probe_layer()
    layer.directory("etc")
    make(layer, "etc/passwd")
    began = time.monotonic()
    image = load(place, layer, Entrypoint=["/probe"])
    try:
        place.run(image, "exit", "0", User="alice")
    except ApiError as refusal:
        assert "\n" not in refusal.message
    assert time.monotonic() - began < 20


def test_copying_does_not_follow_links_out(place: Place, canary: Path) -> None:
    """CVE-2018-15664, CVE-2019-10152: a link swapped while copying shows nothing of the host."""
    script = (
        f"mkdir /real; echo inner >/real/file; while :; do ln -sfn {canary} /swap; "
        "ln -sfn /real /swap; done"
    )
    instance = place.start("busy", "sh", "-c", script)
    for _ in range(15):
        try:
            assert b"unread" not in b"".join(instance.get("/swap/file").values())
        except ApiError as refusal:
            assert refusal.status == 404
        except http.client.IncompleteRead:
            pass  # the file went away under the copy: it ends early, and says so
        try:
            instance.put("/swap", {"dropped": b"x"})
        except ApiError as refusal:
            assert refusal.status < 500
    assert intact(canary)


def test_top_does_not_run_the_images_ps(place: Place) -> None:
    """CVE-2022-1227."""
    layer = without("nothing")
    layer.directory("usr/local")
    layer.file("bin2/ps", "#!/bin/sh\ntouch /ran\n", 0o755)
    instance = place.start(load(place, layer, Env=["PATH=/bin2:/bin"]), "sleep", "1000")
    place.api.json("GET", f"{instance.path}/top")
    assert instance.exec("ls", "/ran").code != 0


def test_compressed_uploads_are_not_unpacked_by_the_image(place: Place) -> None:
    """CVE-2026-41567."""
    import gzip

    from tests.support.instances import tar_of

    layer = busy_layer()
    layer.file("bin3/gzip", "#!/bin/sh\ntouch /ran\n", 0o755)
    instance = place.start(load(place, layer, Env=["PATH=/bin3:/bin"]), "sleep", "1000")
    data = gzip.compress(tar_of({"file": b"text\n"}))
    instance.api.call("PUT", f"{instance.path}/archive", data, path="/srv")
    assert instance.exec("cat", "/srv/file").stdout == "text\n"
    assert instance.exec("ls", "/ran").code != 0


def test_an_image_without_layers(place: Place) -> None:
    """CVE-2026-24054: refused, or an empty root; never the host's."""
    place.api.load(archive("hollow", Cmd=["/bin/sh"]))
    with pytest.raises(ApiError) as refusal:
        place.start("hollow")
    assert "/bin/sh" in refusal.value.message
