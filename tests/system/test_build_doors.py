"""Builds by the front doors: the docker client's classic build, `proa build`, the SDK."""

from __future__ import annotations

import gzip
import http.server
import io
import json
import os
import socket
import subprocess
import tarfile
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from proa.client import Client
from proa.errors import BuildError
from tests.support.engine import EngineProcess
from tests.support.http import ApiError, Request, UnixConnection, send
from tests.support.instances import eventually

Build = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module", autouse=True)
def names_go(session_engine: EngineProcess) -> Iterator[None]:
    """The names given here are gone for the tests that follow."""
    yield
    session_engine.proa("rmi", "-f", "doors:1", "doors:2", "own:1", "own:2", "own:3", "own:4")


@pytest.fixture
def context(tmp_path: Path) -> Path:
    """A directory with two stages, a file that counts and one that does not."""
    directory = tmp_path / "context"
    directory.mkdir()
    (directory / "Dockerfile").write_text(
        "FROM busy AS one\nARG X=1\nCOPY . /all/\nRUN echo $X > /x && ls /all >&2\n"
        "FROM busy\nCOPY --from=one /x /all/f /\nLABEL a=b\n"
    )
    (directory / ".dockerignore").write_text("*\n!f\n")
    (directory / "f").write_text("content\n")
    (directory / "secret").write_text("never\n")
    return directory


@pytest.fixture
def docker(
    session_engine: EngineProcess, require_program: Callable[[str], str], tmp_path: Path
) -> Build:
    """`docker build` as it was before BuildKit."""
    host = ["--config", str(tmp_path / "config"), "-H", f"unix://{session_engine.socket}"]
    command = [require_program("docker"), *host, "build"]

    def run(*words: str, input: str | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*command, *words], capture_output=True, text=True, timeout=120, input=input,
            env={**os.environ, "DOCKER_BUILDKIT": "0"},
        )  # fmt: skip

    return run


def tar(members: dict[str, bytes | str], mode: str = "w") -> bytes:
    """A tar of files, and of symbolic links where the content is a text."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode=mode) as archive:  # type: ignore[call-overload]
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            if isinstance(content, str):
                member.type, member.linkname = tarfile.SYMTYPE, content
                archive.addfile(member)
            else:
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    return packed.getvalue()


def posted(engine: EngineProcess, body: bytes, **query: Any) -> tuple[int, list[dict[str, Any]]]:
    """POST /build: status and messages."""
    try:
        answer = send(engine.socket, Request("POST", "/build", query=query, body=body))
    except ApiError as error:
        return error.status, [{"error": str(error)}]
    lines = [json.loads(line) for line in answer.read().splitlines() if line.strip()]
    return answer.status, lines


def said(messages: list[dict[str, Any]]) -> str:
    """All that a stream of messages says."""
    return "".join(str(one.get("stream") or one.get("error") or "") for one in messages)


# -- the docker client ----------------------------------------------------------------------------


def test_docker_build(docker: Build, context: Path, session_engine: EngineProcess) -> None:
    ids = context.parent / "id"
    words = ("-t", "doors:1", "-t", "doors:2", "--build-arg", "X=arg", "--label", "c=d")
    built = docker(*words, "--iidfile", str(ids), str(context))
    assert built.returncode == 0, built.stderr
    assert "Step 1/3 : FROM busy\n" in built.stdout
    assert "Step 3/3 : RUN echo $X > /x && ls /all >&2\nf\n" in built.stdout
    identity = ids.read_text()
    assert f"Successfully built {identity.removeprefix('sha256:')[:12]}\n" in built.stdout
    assert built.stdout.endswith("Successfully tagged doors:1\nSuccessfully tagged doors:2\n")
    image = session_engine.api.json("GET", "/images/doors:2/json")
    assert image["Id"] == identity
    assert image["Config"]["Labels"] == {"a": "b", "c": "d"}
    shown = session_engine.proa("run", "--rm", "doors:1", "cat", "/x", "/f")
    assert shown.stdout == b"arg\ncontent\n"

    again = docker("-q", "--build-arg", "X=arg", "--label", "c=d", str(context))
    assert again.stdout.strip() == identity
    cached = docker("--build-arg", "X=arg", str(context))
    assert cached.stdout.count(" ---> Using cache\n") >= 4


def test_what_docker_build_is_told_of_failures(docker: Build) -> None:
    failed = docker("-", input="FROM busy\nRUN echo before; exit 7\n")
    assert failed.returncode == 7
    assert "before\n" in failed.stdout
    assert "Dockerfile:2: " in failed.stderr and "exit code: 7" in failed.stderr
    wrong = docker("-", input="FROM busy\n\nRNU x\n")
    assert wrong.returncode == 1
    assert "Dockerfile:3: unknown instruction 'RNU'\ndid you mean 'RUN'?" in wrong.stderr


def test_a_client_that_leaves_ends_its_build(
    session_engine: EngineProcess, require_program: Callable[[str], str], tmp_path: Path
) -> None:
    command = [require_program("docker"), "-H", f"unix://{session_engine.socket}", "build", "-"]
    child = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        env={**os.environ, "DOCKER_BUILDKIT": "0"},
    )  # fmt: skip
    assert child.stdin and child.stdout
    child.stdin.write(b"FROM busy\nRUN echo here; exec sleep 98765\n")
    child.stdin.close()
    while (line := child.stdout.readline()) != b"here\n":
        assert line
    eventually(_sleeps, 20, "the step does not run")
    child.kill()
    child.wait()
    child.stdout.close()
    eventually(lambda: not _sleeps(), 20, "the step goes on")


def _sleeps() -> list[str]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if path.read_bytes() == b"sleep\x0098765\0":
                found.append(path.parent.name)
        except OSError:
            continue
    return found


# -- what is sent ---------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:xz", "w:bz2"])
def test_contexts_of_every_compression(session_engine: EngineProcess, mode: str) -> None:
    body = tar({"Containerfile": b"FROM busy\nCOPY f /\n", "f": b"x"}, mode)
    status, messages = posted(session_engine, body)
    assert status == 200 and "Successfully built" in said(messages)


HOSTILE = [
    ({"../escaped": b"x"}, {}, "'../escaped' leads out"),
    ({"Dockerfile": "/etc/passwd"}, {}, "Cannot locate"),
    ({"l": "/etc", "Dockerfile": b"FROM busy\nCOPY l/passwd /\n"}, {}, "passwd"),
    ({"Dockerfile": b"FROM busy\nCOPY ../../etc/passwd /x\n"}, {}, "passwd"),
    ({"Dockerfile": b"FROM busy"}, {"dockerfile": "../../../../etc/passwd"}, "Cannot locate"),
    ({"Dockerfile": b"FROM busy", ".wh.x": b""}, {}, "'.wh.x'"),
    ({"Dockerfile": b"# syntax=evil/x\nFROM busy"}, {}, "another frontend"),
    ({"Dockerfile": b"FROM busy"}, {"t": "UPPER"}, "UPPER"),
    ({"Dockerfile": b"FROM busy"}, {"target": "nope"}, "nope"),
    ({"Dockerfile": b"FROM busy"}, {"buildargs": "{"}, "buildargs"),
    ({"Dockerfile": b"FROM busy"}, {"buildargs": '{"a": 1}'}, "buildargs"),
    ({"Dockerfile": b"FROM busy"}, {"labels": "[]"}, "labels"),
    ({"Dockerfile": b"FROM busy"}, {"networkmode": "container:x"}, "container:x"),
    ({"Dockerfile": b"FROM busy"}, {"version": "2"}, "BuildKit"),
    ({"Dockerfile": b"FROM busy"}, {"securityopt": '["seccomp=unconfined"]'}, "security"),
    ({"Dockerfile": b"FROM busy"}, {"remote": "file:///etc/passwd"}, "file:///etc/passwd"),
    ({"Dockerfile": b"FROM busy\nRUN true"}, {"isolation": "nothing"}, "nothing"),
]


@pytest.mark.parametrize(("members", "query", "message"), HOSTILE)
def test_hostile_requests_are_refused(
    session_engine: EngineProcess,
    members: dict[str, bytes | str],
    query: dict[str, str],
    message: str,
) -> None:
    status, messages = posted(session_engine, tar(members), **query)
    told = said(messages)
    assert message in told
    assert "Successfully" not in told and "root:x:0" not in told
    assert 400 <= status <= 501 or "errorDetail" in messages[-1]
    assert not list(session_engine.root.rglob("escaped"))


@pytest.mark.parametrize(
    "body", [b"", b"no tar at all" * 100, gzip.compress(bytes(300 << 20)), tar({"f": b"x"})[:600]]
)
def test_bodies_that_are_no_context(session_engine: EngineProcess, body: bytes) -> None:
    status, messages = posted(session_engine, body)
    assert 400 <= status < 500, messages
    assert session_engine.answers()


def test_logins_must_be_what_docker_sends(session_engine: EngineProcess) -> None:
    connection = UnixConnection(session_engine.socket)
    body = tar({"Dockerfile": b"FROM busy"})
    connection.request("POST", "/build", body, {"X-Registry-Config": "{"})
    assert connection.getresponse().status == 400
    connection.close()


# -- proa build -----------------------------------------------------------------------------------


def test_proa_build(session_engine: EngineProcess, context: Path) -> None:
    built = session_engine.proa("build", "-t", "own:1", "--build-arg=X=y", str(context))
    assert built.returncode == 0, built.stderr
    shown = built.stderr.decode()
    assert "[one 2/3] COPY . /all/\n" in shown
    assert any(line.split(" ")[1] in ("DONE", "CACHED") for line in shown.splitlines())
    identity = built.stdout.decode().strip()
    assert session_engine.api.json("GET", "/images/own:1/json")["Id"] == identity
    quiet = session_engine.proa("build", "-q", "--build-arg=X=y", str(context))
    assert (quiet.stdout.decode().strip(), quiet.stderr) == (identity, b"")
    raw = session_engine.proa("build", "--progress=rawjson", "--build-arg=X=y", str(context))
    events = [json.loads(line) for line in raw.stderr.splitlines()]
    assert events[-1]["image"]["id"] == identity
    assert {"started", "cached"} <= {e["vertex"]["state"] for e in events if "vertex" in e}


def test_errors_have_a_caret(session_engine: EngineProcess, tmp_path: Path) -> None:
    (tmp_path / "Containerfile").write_text("FROM busy\nRUN true\n\tCOPY --chwon=1 a b\n")
    failed = session_engine.proa("build", str(tmp_path))
    assert failed.returncode == 1
    assert failed.stderr.decode() == (
        "Containerfile:3:7\n   3 | \tCOPY --chwon=1 a b\n     | \t     ^\n"
        "proa: unknown flag '--chwon' for COPY\nhint: did you mean 'chown'?\n"
    )


def test_secrets_and_named_contexts(session_engine: EngineProcess, tmp_path: Path) -> None:
    (tmp_path / "s").write_text("of a file")
    (tmp_path / "s2").write_text("of a variable")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "g").write_text("elsewhere\n")
    text = (
        "FROM busy\nRUN --mount=type=secret,id=a,required --mount=type=secret,id=b,env=B "
        'cat /run/secrets/a; echo " and $B"\nCOPY --from=more g /g\n'
    )
    built = session_engine.proa(
        "build", "--secret", f"id=a,src={tmp_path / 's'}", f"--secret=id=b,src={tmp_path / 's2'}",
        "--build-context", f"more={tmp_path / 'other'}", "-t", "own:2", "-", input=text.encode(),
    )  # fmt: skip
    assert built.returncode == 0, built.stderr
    assert "of a file and of a variable" in built.stderr.decode()
    listed = session_engine.proa("run", "--rm", "own:2", "sh", "-c", "cat /g; ls -A /run")
    assert listed.stdout.startswith(b"elsewhere\n") and b"secrets" not in listed.stdout
    missing = session_engine.proa("build", "-", input=text.encode())
    assert missing.returncode != 0


def test_outputs(session_engine: EngineProcess, tmp_path: Path) -> None:
    text = b"FROM scratch\nCOPY <<E /a/b\nhello\nE\n"
    where = {kind: tmp_path / kind for kind in ("oci", "docker", "tar", "local")}
    words = [f"--output=type={kind},dest={path}" for kind, path in where.items()]
    built = session_engine.proa("build", "-t", "own:3", *words, "-", input=text)
    assert built.returncode == 0, built.stderr
    for kind, member in (("oci", "oci-layout"), ("docker", "manifest.json"), ("tar", "a/b")):
        with tarfile.open(where[kind]) as archive:
            assert member in [name.removeprefix("./") for name in archive.getnames()]
    assert (where["local"] / "a" / "b").read_text() == "hello\n"
    assert not any(
        "own:3" in item["Image"]
        for item in session_engine.api.json("GET", "/containers/json?all=1")
    )


def test_contexts_on_standard_input(session_engine: EngineProcess) -> None:
    body = tar({"d/My.file": b"FROM busy\nCOPY f /f\n", "f": b"x"}, "w:gz")
    built = session_engine.proa("build", "-q", "-f", "d/My.file", "-", input=body)
    assert built.returncode == 0, built.stderr
    failed = session_engine.proa("build", "-q", "-", input=body)
    assert failed.returncode != 0 and b"Cannot locate" in failed.stderr


@pytest.fixture
def site(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A web site on loopback, and its directory."""
    root = tmp_path / "site"
    root.mkdir()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(root)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", root
    server.shutdown()
    server.server_close()
    thread.join()


def test_contexts_at_a_url(session_engine: EngineProcess, site: tuple[str, Path]) -> None:
    address, root = site
    (root / "c.tgz").write_bytes(tar({"Dockerfile": b"FROM busy\nCOPY f /f\n", "f": b"x"}, "w:gz"))
    (root / "Only").write_bytes(b"FROM busy\nRUN true\n")
    for name in ("c.tgz", "Only"):
        built = session_engine.proa("build", "-q", f"{address}/{name}")
        assert built.returncode == 0, built.stderr
        status, messages = posted(session_engine, b"", remote=f"{address}/{name}")
        assert status == 200 and "Successfully built" in said(messages)
    failed = session_engine.proa("build", "-q", f"{address}/none")
    assert failed.returncode != 0 and b"File not found" in failed.stderr


# -- the SDK and the API's order ------------------------------------------------------------------


def test_the_sdk(session_engine: EngineProcess, context: Path) -> None:
    heard: list[dict[str, Any]] = []
    with Client(f"unix://{session_engine.socket}") as client:
        identity = client.build(context, heard.append, names=["own:4"], arguments={"X": "sdk"})
        assert session_engine.api.json("GET", "/images/own:4/json")["Id"] == identity
        assert heard[-1]["image"]["names"]
        (context / "Dockerfile").write_text("FROM busy\nEXPOSE x\n")
        with pytest.raises(BuildError) as raised:
            client.build(context)
    error = raised.value
    assert (error.file, error.line, error.column, error.source) == ("Dockerfile", 2, 8, "EXPOSE x")


@pytest.mark.parametrize(
    "order",
    [b"", b"[]\n", b"{", b'{"what": 1}\n', b'{"context": "relative"}\n', b'{"names": [1]}\n',
     b'{"secrets": {"a": "!"}}\n', b'{"epoch_seconds": -1}\n', b'{"arguments": {"a": 1}}\n',
     b'{"names": ["UPPER"]}\n', b"[" * 100_000 + b"\n"],
)  # fmt: skip
def test_orders_that_are_none(session_engine: EngineProcess, order: bytes) -> None:
    with pytest.raises(ApiError) as raised:
        send(session_engine.socket, Request("POST", "/proa/build", body=order))
    assert raised.value.status == 400


def test_an_upload_that_breaks_off_leaves_nothing(session_engine: EngineProcess) -> None:
    head = (
        b"POST /build HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-tar\r\n"
        b"Content-Length: 100000000\r\n\r\n"
    )
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(session_engine.socket))
        client.sendall(head + tar({"half-sent": bytes(20 << 20)})[: 10 << 20])
        eventually(lambda: list(session_engine.root.rglob("half-sent")))
    eventually(lambda: not list(session_engine.root.rglob("half-sent")))
