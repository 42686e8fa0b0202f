"""Copying both ways, bind mounts, volumes of the host's files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support.http import ApiError
from tests.support.instances import Place


def test_copy_in_and_out_of_a_running_instance(place: Place) -> None:
    instance = place.start("busy", "sleep", "1000")
    data = os.urandom(300_000)
    instance.put("/tmp", {"blob": data, "sub/text": b"hello\n"})
    assert instance.exec("cat", "/tmp/sub/text").stdout == "hello\n"
    assert instance.get("/tmp/blob") == {"blob": data}
    assert instance.get("/tmp/sub") == {"sub/text": b"hello\n"}


def test_copy_before_the_start_and_after_the_end(place: Place) -> None:
    instance = place.create("busy", "sh", "-c", "cat /srv/given; echo made >/srv/made")
    instance.put("/srv", {"given": b"given\n"})
    instance.start().wait()
    assert instance.logs().stdout == "given\n"
    assert instance.get("/srv/made") == {"made": b"made\n"}


def test_copy_from_an_image_without_tools(place: Place) -> None:
    instance = place.create("probe", "exit", "0")
    assert instance.get("/probe")["probe"][:4] == b"\x7fELF"


def test_copy_keeps_mode_owner_and_links(place: Place) -> None:
    import io
    import tarfile

    instance = place.start("busy", "sleep", "1000")
    script = (
        "cd /tmp; mkdir d; echo x >d/f; chown 1000:50 d/f; chmod 4751 d/f; ln -s f d/l; ln d/f d/h"
    )
    assert instance.exec("sh", "-c", script).code == 0
    data = instance.api.call("GET", f"{instance.path}/archive", path="/tmp/d")
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        found = {member.name.rstrip("/"): member for member in archive}
        file, link = found["d/f"], found["d/l"]
        kinds = {found["d/f"].type, found["d/h"].type}
    assert (file.mode & 0o7777, file.uid, file.gid) == (0o4751, 1000, 50) or kinds == {b"0", b"1"}
    assert (link.type, link.linkname) == (tarfile.SYMTYPE, "f")
    instance.api.call("PUT", f"{instance.path}/archive", data, path="/srv")
    result = instance.exec("stat", "-c", "%a %u %g %h", "/srv/d/f")
    assert result.stdout.split() == ["4751", "1000", "50", "2"]


def test_stat_of_a_path(place: Place) -> None:
    import base64
    import json

    from tests.support.http import Request, send

    instance = place.start("busy", "sleep", "1000")
    response = send(
        instance.api.socket, Request("HEAD", f"{instance.path}/archive", {"path": "/bin/sh"})
    )
    stat = json.loads(base64.b64decode(response.headers["X-Docker-Container-Path-Stat"]))
    assert (stat["name"], stat["linkTarget"]) == ("sh", "busybox") or stat["linkTarget"]


@pytest.mark.parametrize("path", ["/no/such", "/etc/passwd/below"])
def test_copy_of_what_is_not_there(place: Place, path: str) -> None:
    instance = place.start("busy", "sleep", "1000")
    with pytest.raises(ApiError) as refusal:
        instance.get(path)
    assert refusal.value.status == 404


def test_a_bind_mount_is_the_same_directory(place: Place, tmp_path: Path) -> None:
    (tmp_path / "from-host").write_text("host\n")
    result = place.run(
        "busy",
        "sh",
        "-c",
        "cat /data/from-host; echo inside >/data/from-inside",
        host={"Binds": [f"{tmp_path}:/data"]},
    )
    assert result.stdout == "host\n"
    made = tmp_path / "from-inside"
    assert made.read_text() == "inside\n"
    assert (made.stat().st_uid, made.stat().st_gid) == (os.getuid(), os.getgid())


def test_changes_on_the_host_are_seen_while_running(place: Place, tmp_path: Path) -> None:
    instance = place.start("busy", "sleep", "1000", host={"Binds": [f"{tmp_path}:/data"]})
    (tmp_path / "later").write_text("later\n")
    assert instance.exec("cat", "/data/later").stdout == "later\n"
    instance.exec("sh", "-c", "chown 1000:1000 /data/later; mv /data/later /data/moved")
    assert (tmp_path / "moved").stat().st_uid == 1000


def test_a_read_only_bind_mount(place: Place, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("text\n")
    result = place.run(
        "busy",
        "sh",
        "-c",
        "cat /data/file; echo x >/data/file; rm /data/file",
        host={"Binds": [f"{tmp_path}:/data:ro"]},
    )
    assert result.stdout == "text\n"
    assert result.stderr.count("Read-only file system") == 2
    assert (tmp_path / "file").read_text() == "text\n"


def test_a_bind_mount_of_one_file(place: Place, tmp_path: Path) -> None:
    (tmp_path / "one").write_text("one\n")
    result = place.run(
        "busy", "cat", "/etc/new/one", host={"Binds": [f"{tmp_path}/one:/etc/new/one:ro"]}
    )
    assert result.stdout == "one\n"


def test_a_bind_source_that_is_missing_is_made_as_docker_does(place: Place, tmp_path: Path) -> None:
    place.run("busy", "sh", "-c", "echo x >/data/file", host={"Binds": [f"{tmp_path}/new:/data"]})
    assert (tmp_path / "new" / "file").read_text() == "x\n"


def test_a_mount_whose_source_is_missing_is_refused(place: Place, tmp_path: Path) -> None:
    mount = {"Type": "bind", "Source": f"{tmp_path}/missing", "Target": "/data"}
    with pytest.raises(ApiError) as refusal:
        place.start("busy", "true", host={"Mounts": [mount]})
    assert f"{tmp_path}/missing" in refusal.value.message
    assert not (tmp_path / "missing").exists()


def test_a_mount_over_a_symlink_of_the_image_stays_inside(place: Place, tmp_path: Path) -> None:
    from tests.support.images import archive, busy_layer

    layer = busy_layer()
    layer.symlink("data", str(tmp_path / "canary"))
    (tmp_path / "canary").mkdir()
    (tmp_path / "source").mkdir()
    place.api.load(archive("symlinked", layer.bytes()))
    place.run(
        "symlinked", "sh", "-c", "echo x >/data/file", host={"Binds": [f"{tmp_path}/source:/data"]}
    )
    assert list((tmp_path / "canary").iterdir()) == []


def test_a_file_system_survives_a_stop(place: Place) -> None:
    instance = place.start("busy", "sh", "-c", "cat /kept 2>/dev/null; echo kept >/kept")
    instance.wait()
    instance.start().wait()
    assert instance.logs().stdout == "kept\n"
