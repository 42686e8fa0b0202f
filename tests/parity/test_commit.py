"""commit, diff and export: an instance's changes, the same whatever isolates it."""

from __future__ import annotations

import functools
import io
import json
import struct
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from proa.client import Client
from tests.support.engine import EngineProcess
from tests.support.http import ApiError
from tests.support.images import Layer, archive, busy_layer
from tests.support.instances import Api, Instance, Place, eventually

CAPABILITY = struct.pack("<IIIII", 0x02000001, 0x2000, 0, 0, 0)  # cap_net_raw+ep
SCRIPT = f"""
set -e
echo new >/made; ln /made /made2; ln -s /made /link; chmod 4755 /made
chown -h 1000:50 /link
mkfifo /srv/pipe; mkdir -p /a/b/c; echo deep >/a/b/c/f
echo more >>/data/changed; rm /data/gone; rm -r /data/tree; chmod 711 /data
rm -r /swap/dir; echo file >/swap/dir; rm /swap/file; mkdir /swap/file; echo in >/swap/file/x
rm -r /full; mkdir /full; echo only >/full/new
mv /data/moved /data/renamed; rm /data/stays; echo again >/data/stays
chmod 600 /dev-null /data/capable
/probe setxattr /data/capable2 security.capability {CAPABILITY.hex()}
/probe setxattr /made user.note 6869
touch /volume/x /tmp/mount/y
echo ready; exec sleep 1000
"""
CHANGES = [
    ("A", "/a"), ("A", "/a/b"), ("A", "/a/b/c"), ("A", "/a/b/c/f"),
    ("C", "/data"), ("C", "/data/capable"), ("C", "/data/capable2"), ("C", "/data/changed"),
    ("D", "/data/gone"), ("D", "/data/moved"), ("A", "/data/renamed"),
    ("A", "/data/renamed/inner"), ("C", "/data/stays"), ("D", "/data/tree"),
    ("C", "/dev-null"), ("C", "/full"), ("A", "/full/new"), ("D", "/full/old"),
    ("A", "/link"), ("A", "/made"), ("A", "/made2"), ("C", "/srv"), ("A", "/srv/pipe"),
    ("C", "/swap"), ("C", "/swap/dir"), ("C", "/swap/file"), ("A", "/swap/file/x"),
    ("C", "/tmp"), ("A", "/tmp/mount"), ("A", "/volume"),
]  # fmt: skip
Facts = dict[str, tuple[Any, ...]]


def crafted() -> bytes:
    """Busybox and what `SCRIPT` changes, in two layers; the upper one hides some."""
    base, top = busy_layer(), Layer()
    for path in ("data", "data/tree", "data/moved", "swap", "swap/dir", "full"):
        base.directory(path)
    for path in ("changed", "gone", "tree/leaf", "moved/inner", "stays", "capable2", "hidden"):
        base.file(f"data/{path}", f"{path}\n")
    base.file("swap/file", "file\n")
    base.file("swap/dir/leaf", "leaf\n")
    base.file("full/old", "old\n")
    base.add("dev-null", tarfile.CHRTYPE, 0o666, devmajor=1, devminor=3)
    member = tarfile.TarInfo("data/capable")
    member.mode, member.pax_headers = 0o755, {
        "SCHILY.xattr.security.capability": CAPABILITY.decode("latin-1").encode().decode(),
        "SCHILY.xattr.user.kept": "yes",
    }  # fmt: skip
    base.tar.addfile(member)
    top.file("data/.wh.hidden", "")
    return archive("crafted", base.bytes(), top.bytes(), Env=["PATH=/bin"], Cmd=["sh"])


@pytest.fixture(scope="module")
def changed(session_engine: EngineProcess) -> Iterator[dict[str, Instance]]:
    """One instance per isolation in which the script has run, and is asleep."""
    api = session_engine.api
    api.load(crafted())
    places = [Place(api, kind) for kind in ("container", "vm")]
    made: dict[str, Instance] = {}
    for place in places:
        instance = place.start(
            "crafted", "sh", "-c", SCRIPT, Volumes={"/volume": {}},
            host={"Tmpfs": {"/tmp/mount": ""}}, Labels={"made": "here"}, User="root",
        )  # fmt: skip
        made[place.isolation] = instance
    for instance in made.values():
        eventually(functools.partial(is_ready, instance), 30, "the script did not end")
    yield made
    for place in places:
        place.close()


def is_ready(instance: Instance) -> bool:
    return "ready" in instance.logs().stdout


def diff(instance: Instance) -> list[tuple[str, str]]:
    found = instance.api.json("GET", f"{instance.path}/changes")
    return [("CAD"[item["Kind"]], item["Path"]) for item in found or []]


def commit(instance: Instance, **query: Any) -> str:
    return str(instance.api.json("POST", "/commit", container=instance.id, **query)["Id"])


def members(data: bytes) -> Facts:
    """What a tar holds: everything but times."""
    found: Facts = {}
    with tarfile.open(fileobj=io.BytesIO(data)) as opened:
        for member in opened:
            content = opened.extractfile(member) if member.isreg() else None
            found[member.name] = (
                member.type, member.mode, member.uid, member.gid, member.linkname,
                member.devmajor, member.devminor, content.read() if content else b"",
                {k: v for k, v in member.pax_headers.items() if k.startswith("SCHILY")},
            )  # fmt: skip
    return found


def top_layer(api: Api, image: str) -> Facts:
    """The last layer of an image, by way of `save`."""
    with tarfile.open(fileobj=io.BytesIO(api.call("GET", f"/images/{image}/get"))) as saved:
        manifest = json.load(saved.extractfile("manifest.json") or io.BytesIO())
        layer = saved.extractfile(manifest[0]["Layers"][-1])
        assert layer is not None
        return members(layer.read())


@pytest.mark.parametrize("isolation", ["container", "vm"])
def test_diff_tells_every_change_once(changed: dict[str, Instance], isolation: str) -> None:
    assert diff(changed[isolation]) == sorted(CHANGES, key=lambda change: change[1])


@pytest.mark.parametrize("isolation", ["container", "vm"])
def test_an_unchanged_instance_has_no_changes(api: Api, isolation: str) -> None:
    place = Place(api, isolation)
    try:
        instance = place.create("busy", "true")
        assert diff(instance) == []
        instance.start().wait()
        assert diff(instance) == []
    finally:
        place.close()


def test_the_layer_of_a_commit_is_the_same(changed: dict[str, Instance]) -> None:
    layers = []
    for isolation, instance in changed.items():
        image = commit(instance, repo=f"committed-{isolation}", tag="1")
        layers.append(top_layer(instance.api, image))
    assert layers[0] == layers[1]
    layer = layers[0]
    assert {"data/.wh.gone", "data/.wh.tree", "data/.wh.moved", "full/.wh..wh..opq"} <= set(layer)
    assert layer["made2"][0] == tarfile.LNKTYPE or layer["made"][0] == tarfile.LNKTYPE
    assert layer["data/capable2"][8].keys() == {"SCHILY.xattr.security.capability"}
    assert "SCHILY.xattr.user.kept" in layer["data/capable"][8]
    assert layer["dev-null"][:2] + layer["dev-null"][5:7] == (tarfile.CHRTYPE, 0o600, 1, 3)
    assert layer["link"][2:5] == (1000, 50, "/made")
    assert not [name for name in layer if name.startswith(("dev/", "proc/", "sys/", "volume/"))]
    assert "etc" not in layer and "tmp/mount/y" not in layer


@pytest.mark.parametrize("isolation", ["container", "vm"])
def test_a_committed_image_runs_in_either(
    changed: dict[str, Instance], place: Place, isolation: str
) -> None:
    name = f"runs-{isolation}"
    commit(changed[isolation], repo=name, changes="ENV ADDED=yes", author="A", comment="why")
    script = (
        "cat /made /swap/dir /swap/file/x /data/renamed/inner /full/*; ls /data; echo $ADDED;"
        "stat -c '%a %u %g %h' /made; stat -c '%a %u %g' /data /data/capable;"
        "ls -A /full /a/b; test -p /srv/pipe"
    )
    result = place.run(name, "sh", "-c", script)
    assert (result.code, result.stderr) == (0, "")
    assert (
        result.stdout.split()
        == (
            "new file in moved/inner only capable capable2 changed renamed stays yes "
            "4755 0 0 2 711 0 0 600 0 0 /a/b: c /full: new"
        ).split()
    )
    details = place.api.json("GET", f"/images/{name}/json")
    assert (details["Author"], details["Comment"]) == ("A", "why")
    assert {"PATH=/bin", "ADDED=yes"} <= set(details["Config"]["Env"])
    assert details["Config"]["Labels"] == {"made": "here"}
    assert details["Config"]["Volumes"] == {"/volume": {}}
    assert details["Config"]["Cmd"] == ["sh", "-c", SCRIPT]


def test_an_export_has_all_files_and_nothing_mounted(changed: dict[str, Instance]) -> None:
    exports = [members(one.api.call("GET", f"{one.path}/export")) for one in changed.values()]
    assert exports[0] == exports[1]
    found = exports[0]
    assert found["made"][7] == b"new\n" or found["made2"][7] == b"new\n"
    assert {"bin/busybox", "data/stays", "volume", "tmp/mount", "dev", "full/new"} <= set(found)
    gone = {"data/gone", "data/hidden", "full/old", "dev/null", "proc/self", "volume/x"}
    assert not gone & set(found)
    assert not [name for name in found if ".wh." in name]


def test_a_stopped_instance_tells_the_same(place: Place) -> None:
    instance = place.start("busy", "sh", "-c", "echo x >/kept; rm /etc/group; sleep 1000")
    eventually(lambda: instance.exec("test", "-e", "/kept").code == 0)
    while_running = diff(instance), members(instance.api.call("GET", f"{instance.path}/export"))
    instance.kill()
    instance.wait()
    stopped = diff(instance), members(instance.api.call("GET", f"{instance.path}/export"))
    assert while_running == stopped
    assert stopped[0] == [("C", "/etc"), ("D", "/etc/group"), ("A", "/kept")]
    name = commit(instance)
    assert place.run(name, "sh", "-c", "cat /kept; ls /etc").stdout.split()[0] == "x"


def test_commit_refuses_what_it_cannot_do(place: Place) -> None:
    instance = place.create("busy", "true")
    with pytest.raises(ApiError, match="unknown change"):
        commit(instance, changes="FROM scratch")
    with pytest.raises(ApiError) as caught:
        instance.api.json("POST", "/commit", container="nobody")
    assert caught.value.status == 404


def test_a_busy_instance_goes_on_after_its_commit(place: Place) -> None:
    instance = place.start("busy", "sh", "-c", "while :; do echo x >>/grows; sleep 0.01; done")
    eventually(lambda: instance.exec("test", "-s", "/grows").code == 0)
    image = commit(instance)
    kept = len(top_layer(place.api, image)["grows"][7])
    assert kept > 0 and instance.state()["Status"] == "running"
    eventually(lambda: len(instance.get("/grows")["grows"]) > kept, 10, "it stands still")


def test_a_paused_instance(place: Place) -> None:
    instance = place.start("busy", "sh", "-c", "echo x >/made; sleep 1000")
    eventually(lambda: instance.exec("test", "-s", "/made").code == 0)
    place.api.call("POST", f"{instance.path}/pause")
    if place.isolation == "vm":  # nothing in it runs, so nothing can tell
        with pytest.raises(ApiError, match="paused vm does not answer"):
            commit(instance)
    else:
        assert top_layer(place.api, commit(instance))["made"][7] == b"x\n"
    assert instance.state()["Paused"] is True


def test_by_command_and_by_sdk(place: Place, session_engine: EngineProcess, tmp_path: Path) -> None:
    instance = place.start("busy", "sh", "-c", "echo x >/made; rm /etc/group; sleep 1000")
    eventually(lambda: instance.exec("test", "-s", "/made").code == 0)
    told = session_engine.proa("diff", instance.id)
    assert told.stdout.decode().splitlines() == ["C /etc", "D /etc/group", "A /made"]
    name = f"by-command-{place.isolation}:1"
    edit = 'ENTRYPOINT ["cat", "/made"]'
    made = session_engine.proa("commit", "-m", "why", "--change", edit, instance.id, name)
    assert (made.returncode, made.stderr) == (0, b"")
    assert made.stdout.decode().strip() == place.api.json("GET", f"/images/{name}/json")["Id"]
    assert place.run(name).stdout == "x\n"
    exported = session_engine.proa("export", instance.id)
    assert members(exported.stdout)["made"][7] == b"x\n"
    session_engine.proa("export", "-o", str(tmp_path / "all.tar"), instance.id)
    assert (tmp_path / "all.tar").read_bytes() == exported.stdout
    with Client(f"unix://{session_engine.socket}") as client:
        found = client.get(instance.id)
        assert found.changes() == [("C", "/etc"), ("D", "/etc/group"), ("A", "/made")]
        assert b"".join(found.export()) == exported.stdout
        image = found.commit("by-sdk", pause=False)
        assert image == place.api.json("GET", "/images/by-sdk/json")["Id"]
