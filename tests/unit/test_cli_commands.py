"""Whole command lines against canned answers: exit codes, what is sent, what is printed."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from proa import errors
from proa.cli import main
from proa.client import Client, faults
from tests.unit.canned_http import CannedEngine, Reply, Seen

ROOT = Path(__file__).resolve().parents[2]
ID = "ab" * 32
Responder = Callable[[Callable[[Seen], Reply]], CannedEngine]


@pytest.fixture
def responder(tmp_path: Path) -> Iterator[Responder]:
    made: list[CannedEngine] = []

    def make(handler: Callable[[Seen], Reply]) -> CannedEngine:
        made.append(CannedEngine(tmp_path / "s", handler))
        return made[-1]

    yield make
    for one in made:
        one.close()


def proa(
    path: Path, *words: str, input: bytes | None = None, **variables: str
) -> subprocess.CompletedProcess[bytes]:
    environment = {**os.environ, "PROA_HOST": f"unix://{path}", **variables}
    return subprocess.run(
        [sys.executable, "-IS", str(ROOT / "src/proa/__main__.py"), *words],
        env=environment,
        capture_output=True,
        timeout=30,
        input=input or b"",
    )


def frame(stream: int, data: bytes) -> bytes:
    return bytes([stream, 0, 0, 0]) + len(data).to_bytes(4, "big") + data


def engine_that_runs(code: int, output: bytes = b"") -> Callable[[Seen], Reply]:
    def answer(seen: Seen) -> Reply:
        if "/create" in seen.target:
            return Reply({"Id": ID, "Warnings": ["careful"]}, 201)
        if "/attach" in seen.target:
            return Reply(stream=output)
        if "/wait" in seen.target:
            return Reply({"StatusCode": code})
        return Reply(status=204)

    return answer


@pytest.mark.parametrize("code", [0, 1, 125, 126, 127, 137, 255])
def test_run_ends_with_the_code_of_the_process(responder: Responder, code: int) -> None:
    output = frame(1, b"out\n") + frame(2, b"err\n")
    canned = responder(engine_that_runs(code, output))
    result = proa(canned.path, "run", "--rm", "--name", "a b", "image", "x", "--rm")
    assert result.returncode == code
    assert result.stdout == b"out\n"
    assert result.stderr == b"warning: careful\nerr\n"
    create = next(seen for seen in canned.seen if "/create" in seen.target)
    assert create.target == "/containers/create?name=a%20b"
    assert create.json["Cmd"] == ["x", "--rm"] and create.json["HostConfig"]["AutoRemove"] is True
    assert canned.targets()[-1] == f"POST /containers/{ID}/start"
    assert f"POST /containers/{ID}/wait?condition=removed" in canned.targets()


def test_attach_and_wait_are_answered_before_the_start(responder: Responder) -> None:
    canned = responder(engine_that_runs(0))
    assert proa(canned.path, "run", "image").returncode == 0
    order = [target.split("?")[0].rsplit("/", 1)[1] for target in canned.targets()]
    assert (
        order[0] == "create" and order[-1] == "start" and sorted(order[1:3]) == ["attach", "wait"]
    )
    assert "stdin=0" in next(target for target in canned.targets() if "/attach" in target)


def test_detached_run_prints_the_id(responder: Responder) -> None:
    canned = responder(engine_that_runs(0))
    result = proa(canned.path, "run", "-d", "image")
    assert (result.returncode, result.stdout.decode()) == (0, f"{ID}\n")
    assert len(canned.seen) == 2


@pytest.mark.parametrize(("given", "code"), [(127, 127), (126, 126), (125, 125)])
def test_a_command_that_cannot_start(responder: Responder, given: int, code: int) -> None:
    def answer(seen: Seen) -> Reply:
        if seen.target.endswith("/start"):
            body = {"message": "no 'x'\nlook twice", "code": "launch-failed", "exitCode": given}
            return Reply(body, 400)
        return engine_that_runs(0)(seen)

    canned = responder(answer)
    result = proa(canned.path, "run", "--rm", "image", "x")
    assert result.returncode == code
    assert result.stderr.endswith(b"proa: no 'x'\nhint: look twice\n")
    assert canned.targets()[-1] == f"DELETE /containers/{ID}?force=1&v=1"


def test_an_unknown_option_is_one_line_and_a_hint(tmp_path: Path) -> None:
    result = proa(tmp_path / "none", "run", "--nope", "image")
    assert result.returncode == 125
    assert result.stderr == b"proa: unknown option '--nope'\nhint: see `proa run --help`\n"


def test_no_engine_at_a_foreign_socket(tmp_path: Path) -> None:
    result = proa(tmp_path / "none", "ps")
    assert result.returncode == 125
    lines = result.stderr.decode().splitlines()
    assert len(lines) == 2 and lines[0].startswith("proa: no engine answers at '")


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"HTTP/1.1 200",
        b"HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n[",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n[",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n[",
        b"SSH-2.0-x\r\n\r\n",
    ],
)
def test_an_engine_that_dies_in_mid_answer(responder: Responder, raw: bytes) -> None:
    canned = responder(lambda seen: Reply(raw=raw))
    result = proa(canned.path, "ps")
    lines = result.stderr.decode().splitlines()
    assert result.returncode == 125 and result.stdout == b""
    assert lines[0].startswith("proa: ") and len(lines) <= 2 and "unexpected" not in lines[0]


def test_several_arguments_go_on_after_an_error(responder: Responder) -> None:
    def answer(seen: Seen) -> Reply:
        if "/bad" in seen.target:
            return Reply({"message": "no such instance 'bad'", "code": "not-found"}, 404)
        return Reply(status=304 if "/same" in seen.target else 204)

    canned = responder(answer)
    result = proa(canned.path, "start", "one", "bad", "same", "two")
    assert result.returncode == 125
    assert result.stdout == b"one\nsame\ntwo\n"
    assert result.stderr == b"proa: no such instance 'bad'\n"


def test_names_cannot_change_the_request(responder: Responder) -> None:
    canned = responder(lambda seen: Reply(status=204))
    assert proa(canned.path, "rm", "a/b?force=1#x").returncode == 0
    assert canned.targets() == ["DELETE /containers/a%2Fb%3Fforce%3D1%23x?force=0&v=0"]
    assert proa(canned.path, "rm", "..").returncode == 125


def test_load_streams_standard_input(responder: Responder) -> None:
    canned = responder(lambda seen: Reply({"stream": "Loaded image: x:latest\n"}))
    result = proa(canned.path, "load", input=b"tar" * 100_000)
    assert result.stdout == b"Loaded image: x:latest\n"
    assert canned.seen[0].body == b"tar" * 100_000


def test_an_error_in_the_progress_is_an_error(responder: Responder) -> None:
    detail = {"message": "layer 'x' differs", "code": "corrupt"}
    canned = responder(lambda seen: Reply({"error": "layer 'x' differs", "errorDetail": detail}))
    result = proa(canned.path, "load", input=b"x")
    assert (result.returncode, result.stderr) == (125, b"proa: layer 'x' differs\n")


def test_a_saved_file_is_whole_or_not_there(responder: Responder, tmp_path: Path) -> None:
    canned = responder(lambda seen: Reply({"message": "no"}, 404))
    output = tmp_path / "out.tar"
    assert proa(canned.path, "save", "-o", str(output), "x").returncode == 125
    assert not output.exists()


def test_exec_gives_the_code_of_its_process(responder: Responder) -> None:
    def answer(seen: Seen) -> Reply:
        if seen.target.endswith("/start"):
            return Reply(stream=frame(1, b"hi\n"))
        return Reply({"ExitCode": 7} if seen.method == "GET" else {"Id": "e1"})

    canned = responder(answer)
    result = proa(canned.path, "exec", "-u", "root", "web", "sh", "-c", "exit 7")
    assert (result.returncode, result.stdout) == (7, b"hi\n")
    assert canned.seen[0].json["Cmd"] == ["sh", "-c", "exit 7"]


def test_a_closed_pipe_is_quiet(responder: Responder) -> None:
    canned = responder(engine_that_runs(0, frame(1, b"x" * 1_000_000)))
    command = f"{sys.executable} -IS {ROOT}/src/proa/__main__.py run image | head -c 1 >/dev/null"
    result = subprocess.run(
        ["sh", "-c", command],
        env={**os.environ, "PROA_HOST": f"unix://{canned.path}"},
        capture_output=True,
        timeout=30,
    )
    assert result.stderr == b"warning: careful\n"


def test_debug_shows_where(tmp_path: Path) -> None:
    result = proa(tmp_path / "none", "ps", PROA_DEBUG="1")
    assert b"Traceback" in result.stderr


def test_the_fast_path_stays_fast(responder: Responder) -> None:
    canned = responder(engine_that_runs(0))
    program = (
        "import sys; sys.path.insert(0, sys.argv[1]); from proa.cli.main import run\n"
        "assert run(['run', '--rm', 'image', 'true']) == 0\n"
        "heavy = {'re', 'enum', 'json', 'typing', 'dataclasses', 'socket', 'argparse', 'pathlib',"
        " 'subprocess', 'http.client', 'threading', 'signal', 'struct', 'termios'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    environment = {**os.environ, "PROA_HOST": f"unix://{canned.path}"}
    command = [sys.executable, "-IS", "-c", program, str(ROOT / "src")]
    subprocess.run(command, env=environment, check=True, timeout=30)


def test_errors_come_back_as_their_classes() -> None:
    for kind in vars(errors).values():
        if isinstance(kind, type) and issubclass(kind, errors.ProaError):
            body = f'{{"message": "m", "code": "{kind.code}"}}'.encode()
            assert type(faults.from_answer(500, body)) is kind
    assert isinstance(faults.from_answer(404, b"page not found"), errors.NotFound)
    assert faults.from_answer(500, b"").message.startswith("the engine answered 500")


def test_the_sdk_runs_and_removes(responder: Responder) -> None:
    canned = responder(engine_that_runs(3, frame(1, b"o") + frame(2, b"e")))
    with Client(f"unix://{canned.path}") as client:
        result = client.run("image", ["x"], isolation="vm", input=b"in", ports={80: 0})
    assert (result.exit_code, result.stdout, result.stderr) == (3, b"o", b"e")
    assert canned.seen[0].json["HostConfig"]["Isolation"] == "vm"
    assert canned.targets()[-1].startswith("DELETE")


@pytest.mark.parametrize("noun", sorted(main.NOUNS))
def test_a_noun_tells_its_commands(noun: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run([noun, "--help"]) == 0
    shown = capsys.readouterr().out
    listed = {line.split()[0] for line in shown.splitlines()[2:]}
    assert listed == set(main.NOUNS[noun])


def test_every_command_is_in_the_overview(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["--help"]) == 0
    shown = capsys.readouterr().out
    for names in main.MODULES.values():
        for name in names:
            noun, _, verb = name.partition("-")
            assert f"  {name} " in shown or f"  {noun} {verb} " in shown
