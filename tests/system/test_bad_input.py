"""Bad input: one clear line, Docker's exit codes, and nothing half-made."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.engine import EngineProcess, leftovers
from tests.support.http import ApiError
from tests.support.images import Layer, archive, busy_layer, probe_image, probe_layer
from tests.support.instances import Api, Place, tar_of
from tests.support.paths import ROOT


def proa(running: EngineProcess, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The command line, as a user runs it."""
    return subprocess.run(
        [sys.executable, "-m", "proa", *arguments],
        env=running.variables(),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        stdin=subprocess.DEVNULL,
    )


def one_clear_line(result: subprocess.CompletedProcess[str], *words: str) -> None:
    """The error names the culprit and is one line, plus at most one hint."""
    lines = result.stderr.strip().splitlines()
    assert 1 <= len(lines) <= 2, result.stderr
    assert all(word in lines[0] for word in words), result.stderr
    assert "Traceback" not in result.stderr
    assert len(lines) == 1 or lines[1].lstrip().startswith("hint:")


@pytest.mark.parametrize("isolation", ["container", "vm"])
def test_exit_codes_of_the_command_line(session_engine: EngineProcess, isolation: str) -> None:
    before = session_engine.api.ids()
    run = ["run", "--rm", "--isolation", isolation]
    assert proa(session_engine, *run, "busy", "true").returncode == 0  # what is made once is there
    missing = proa(session_engine, *run, "--pull=never", "no-such-image", "true")
    assert missing.returncode == 125
    one_clear_line(missing, "no-such-image")
    unknown = proa(session_engine, *run, "busy", "no-such-command")
    assert unknown.returncode == 127
    one_clear_line(unknown, "no-such-command")
    text = proa(session_engine, *run, "busy", "/etc/not-a-program")
    assert text.returncode == 126
    one_clear_line(text, "/etc/not-a-program")
    assert proa(session_engine, *run, "busy", "sh", "-c", "exit 42").returncode == 42
    flag = proa(session_engine, "run", "--no-such-flag", "busy")
    assert flag.returncode == 125
    one_clear_line(flag, "--no-such-flag")
    assert session_engine.api.ids() == before


def test_a_name_in_use(session_engine: EngineProcess, container: Place) -> None:
    container.create("busy", "true", name="taken")
    result = proa(session_engine, "run", "--name", "taken", "busy", "true")
    assert result.returncode == 125
    one_clear_line(result, "taken")


def test_a_port_in_use(session_engine: EngineProcess) -> None:
    before = session_engine.api.ids()
    with socket.create_server(("0.0.0.0", 0)) as holder:
        port = holder.getsockname()[1]
        result = proa(session_engine, "run", "--rm", "-p", f"{port}:80", "busy", "true")
    assert result.returncode == 125
    one_clear_line(result, str(port))
    assert session_engine.api.ids() == before


def broken_archives() -> dict[str, bytes]:
    """Archives that must be refused, by what is wrong with them."""
    good = probe_image("broken")
    lying = archive("broken", probe_layer().bytes())
    manifest = {"Config": "../../etc/passwd", "RepoTags": ["broken:latest"], "Layers": []}
    no_layer = {"Config": "c.json", "RepoTags": ["broken:latest"], "Layers": ["x/layer.tar"]}
    config = {"rootfs": {"type": "layers", "diff_ids": ["sha256:" + "0" * 64]}, "config": {}}
    return {
        "empty": b"",
        "not a tar": b"\x7fELF" + os.urandom(4096),
        "cut short": good[: len(good) // 2],
        "digest differs": lying.replace(PROBE_MARK, PROBE_MARK[::-1], 1),
        "no manifest": tar_of({"file": b"x"}),
        "manifest is no json": tar_of({"manifest.json": b"{nope"}),
        "manifest of the wrong shape": tar_of({"manifest.json": b'{"a": [1, 2]}'}),
        "config outside": tar_of({"manifest.json": json.dumps([manifest]).encode()}),
        "layer missing": tar_of(
            {
                "manifest.json": json.dumps([no_layer]).encode(),
                "c.json": json.dumps(config).encode(),
            }
        ),
    }


PROBE_MARK = b"\x7fELF\x02\x01\x01"


@pytest.mark.parametrize("fault", list(broken_archives()) if os.geteuid() == 0 else [])
def test_a_broken_archive(api: Api, fault: str) -> None:
    images = api.json("GET", "/images/json")
    with pytest.raises(ApiError) as refusal:
        answer = api.load(broken_archives()[fault])
        raise_reported(answer)
    assert len(refusal.value.message.splitlines()) <= 2, "one line and a hint"
    assert api.json("GET", "/images/json") == images
    assert api.call("GET", "/_ping") == b"OK"


def raise_reported(answer: str) -> None:
    """A failure may also come as the stream's last message, as dockerd does."""
    for line in answer.splitlines():
        if line.strip().startswith("{") and "error" in (message := json.loads(line)):
            raise ApiError(200, message["error"])


def through_a_symlink(layer: Layer) -> None:
    layer.symlink("out", "/")
    layer.file("out/canary", "x")


def parent_replaced(layer: Layer) -> None:
    layer.directory("d")
    layer.symlink("d", "/")
    layer.file("d/canary", "x")


def hard_link_out(layer: Layer) -> None:
    layer.add("passwd", b"1", 0o644, linkname="../../../../../../etc/passwd")


ESCAPES: dict[str, Callable[[Layer], None]] = {
    "dot dot": lambda layer: layer.file("../../canary", "x"),
    "absolute": lambda layer: layer.file("//canary", "x"),
    "through a symlink": through_a_symlink,
    "hard link out": hard_link_out,
    "parent replaced": parent_replaced,
}


@pytest.mark.parametrize("attack", sorted(ESCAPES))
def test_a_layer_that_wants_out(api: Api, container: Place, attack: str) -> None:
    layer = busy_layer()
    ESCAPES[attack](layer)
    try:
        raise_reported(api.load(archive("escape", layer.bytes())))
        container.run("escape", "true")
        shown = container.run("escape", "cat", "/passwd").stdout
        assert shown != Path("/etc/passwd").read_text()
    except ApiError as refusal:
        assert refusal.status < 500 or refusal.status == 200, refusal
    assert not Path("/canary").exists()


@pytest.fixture
def small_disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineProcess]:
    """An engine whose whole root is a 48 MiB tmpfs."""
    root = tmp_path_factory.mktemp("s") / "root"
    root.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=48m", "tmpfs", str(root)], check=True)
    running = EngineProcess(root)
    try:
        yield running.start()
        running.remove_all()
    finally:
        running.stop()
        subprocess.run(["umount", str(root)], check=True)
    assert not leftovers(root)


def free_bytes(path: Path) -> int:
    """Room left on the disk."""
    facts = os.statvfs(path)
    return facts.f_bavail * facts.f_frsize


def test_an_image_that_does_not_fit(small_disk: EngineProcess) -> None:
    small_disk.api.load(archive("fits", busy_layer().bytes(), Cmd=["sh"]))
    before = free_bytes(small_disk.root)
    big = Layer()
    big.file("blob", os.urandom(60 << 20))
    with pytest.raises(ApiError) as refusal:
        raise_reported(small_disk.api.load(archive("big", big.bytes())))
    assert "no space" in refusal.value.message or "full" in refusal.value.message
    assert before - free_bytes(small_disk.root) < 1 << 20, "what was half-made is gone"
    images = small_disk.api.json("GET", "/images/json")
    assert [name for image in images for name in image["RepoTags"]] == ["fits:latest"]
    assert Place(small_disk.api, "container").run("fits", "echo", "alive").stdout == "alive\n"


def test_a_full_disk(small_disk: EngineProcess) -> None:
    """Filled from inside: the filler sees it, the engine says it, and removal makes room again."""
    small_disk.api.load(archive("fits", busy_layer().bytes(), Cmd=["sh"]))
    place = Place(small_disk.api, "container")
    filled = place.run("fits", "sh", "-c", "dd if=/dev/zero of=/fill bs=1M 2>&1; echo after")
    assert "No space left" in filled.stdout
    with pytest.raises(ApiError) as refusal:
        for n in range(200):
            place.run("fits", "sh", "-c", "echo x >/f", name=f"n{n}", Labels={"pad": "x" * 20000})
    assert refusal.value.status in {500, 507}
    assert len(refusal.value.message.splitlines()) <= 2
    assert small_disk.api.call("GET", "/_ping") == b"OK"
    for instance in place.made:
        if instance.id in small_disk.api.ids():
            instance.remove()
    assert place.run("fits", "echo", "recovered").stdout == "recovered\n"


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b'"x"', b'{"Image": 7}', b'{"Image": "busy", "Cmd": "\\u0000"}',
     b'{"Image": "busy", "HostConfig": {"Memory": -5}}',
     b'{"Image": "busy", "HostConfig": {"Isolation": "submarine"}}',
     b'{"Image": "busy", "HostConfig": {"Binds": ["/a:relative"]}}',
     b'{"Image": "busy", "HostConfig": {"PortBindings": {"99999/tcp": []}}}'],
)  # fmt: skip
def test_malformed_create_requests(api: Api, body: bytes) -> None:
    before = api.ids()
    with pytest.raises(ApiError) as refusal:
        api.call("POST", "/containers/create", body)
    assert 400 <= refusal.value.status < 500, refusal.value
    assert api.ids() == before


def test_malformed_http_leaves_the_engine_alive(api: Api) -> None:
    for junk in (
        b"\r\n\r\n",
        b"GET\r\n\r\n",
        os.urandom(2000),
        b"GET / HTTP/1.1\r\n" + b"A" * 100_000,
        b"POST /v1.41/containers/create HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"POST /v1.41/containers/create HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    ):
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(5)
            sock.connect(str(api.socket))
            try:
                sock.sendall(junk)
                sock.recv(1000)
            except OSError:
                pass
    assert api.call("GET", "/_ping") == b"OK"


def test_environment_does_not_leak_between_creates(container: Place) -> None:
    container.create("busy", "env", Env=["LEAK=1"])
    assert "LEAK" not in container.run("busy", "env").stdout
