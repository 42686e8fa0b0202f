"""How a build is told: on a pipe, on a terminal, in the classic builder's words."""

from __future__ import annotations

import io
from base64 import b64encode
from typing import Any

import pytest

from proa.api.docker.build import logins
from proa.api.docker.classic import HELD_BYTES, Classic
from proa.cli import build, buildshow
from proa.cli.options import parse
from proa.client.build import failure
from proa.engine.building import Output, Transfer, Vertex
from proa.errors import BuildError, Invalid, NotFound, ProaError


def vertex(number: int, name: str, state: str, seconds: float = 0, error: str = "") -> Any:
    told = {"number": number, "name": name, "state": state, "seconds": seconds, "error": error}
    return {"vertex": told}


def output(number: int, data: bytes, stream: int = 1) -> Any:
    return {"output": {"number": number, "stream": stream, "data": b64encode(data).decode()}}


EVENTS = [
    vertex(1, "[1/3] FROM a", "started"),
    {"transfer": {"number": 1, "id": "layer", "current": 5, "total": 10}},
    {"transfer": {"number": 1, "id": "layer", "current": 10, "total": 10}},
    vertex(1, "[1/3] FROM a", "cached"),
    vertex(2, "[2/3] RUN b", "started"),
    output(2, b"one\ntw"),
    output(2, b"error\n", 2),
    output(2, b"o\n\x1b[2Jred\r\nlast"),
    vertex(2, "[2/3] RUN b", "done", 1.25),
    vertex(3, "[3/3] RUN c", "started"),
    vertex(3, "[3/3] RUN c", "failed", 0.5, "exit code: 1"),
]


def test_lines_on_a_pipe() -> None:
    out = io.StringIO()
    with buildshow.Plain(out) as shown:
        for event in EVENTS:
            shown.event(event)
    lines = out.getvalue().splitlines()
    assert [line for line in lines if line[:2] != "#2" or "0." not in line] == [
        "#1 [1/3] FROM a",
        "#1 layer 10B done",
        "#1 CACHED",
        "#2 [2/3] RUN b",
        "#2 DONE 1.2s",
        "#3 [3/3] RUN c",
        "#3 ERROR: exit code: 1",
    ]
    said = [line.split(" ", 2)[2] for line in lines if line.startswith("#2 0.")]
    assert said == ["one", "error", "two", "\ufffd[2Jred", "last"]
    assert not shown.failed_aloud()


def test_drawn_in_place_on_a_terminal() -> None:
    out = io.StringIO()
    with buildshow.Live(out) as shown:
        for event in EVENTS[:6]:
            shown.event(event)
        shown._draw()
        assert " => => one" in out.getvalue()
        for event in EVENTS[6:]:
            shown.event(event)
    last = out.getvalue().rpartition("[+] Building")[2]
    assert "(3/3)" in last and "=> CACHED [1/3] FROM a" in last and "=> ERROR [3/3] RUN c" in last
    assert "=> => one" not in last and "\x1b[2J" not in out.getvalue()


def test_classic_words_one_step_after_the_other() -> None:
    said: list[str] = []
    classic = Classic(lambda message: said.append(message["stream"]))
    for event in (
        Vertex(1, "[x 1/2] RUN a", "started"),
        Vertex(2, "[y  1/12] RUN b", "started"),
        Output(2, 1, b"of b\n"),
        Output(1, 1, "of a ü".encode()[:-1]),
        Transfer(1, "layer", 1, 2),
        Vertex(2, "[y  1/12] RUN b", "done"),
        Output(1, 1, "ü".encode()[-1:] + b"\n"),
        Vertex(1, "[x 1/2] RUN a", "cached"),
        Vertex(3, "exporting to image", "started"),
        Vertex(3, "exporting to image", "done"),
    ):
        classic.told(event)
    assert "".join(said) == (
        "Step 1/2 : RUN a\nof a ü\n ---> Using cache\nStep 1/12 : RUN b\nof b\n"
    )


def test_what_waits_is_bounded() -> None:
    said: list[str] = []
    classic = Classic(lambda message: said.append(message["stream"]))
    classic.told(Vertex(1, "[x 1/2] RUN a", "started"))
    for _ in range(3):
        classic.told(Output(2, 1, b"x" * HELD_BYTES))
    assert len(said) >= 3


def test_quiet_says_nothing() -> None:
    said: list[Any] = []
    classic = Classic(said.append, quiet=True)
    classic.told(Vertex(1, "[1/1] RUN a", "started"))
    assert not said and classic.said


def test_logins_of_dockers_header() -> None:
    header = b64encode(
        b'{"https://index.docker.io/v1/": {"username": "u", "password": "p"}, "r:5": {}}'
    )
    assert set(logins(header.decode())) == {"docker.io", "r:5"}
    assert logins("") == {}
    for bad in ("{", b64encode(b"[1]").decode(), b64encode(b'{"a": 1}').decode()):
        with pytest.raises(Invalid):
            logins(bad)


def test_an_error_keeps_its_place() -> None:
    told = {"message": "m", "hint": "h", "code": "build-failed", "line": 3, "column": 2,
            "file": "F", "source": "\tx", "step_exit": 7}  # fmt: skip
    error = failure(told)
    assert isinstance(error, BuildError)
    assert (error.line, error.column, error.step_exit, error.hint) == (3, 2, 7, "h")
    assert build._place(error) == "F:3:2\n   3 | \tx\n     | \t^\n"
    assert build._place(BuildError("no place")) == ""


@pytest.mark.parametrize(
    "words",
    [["--build-arg"], ["--label=a"], ["--secret=src=x"], ["--secret=id=x,mode=1"],
     ["--secret=id=x,env=NO_SUCH_VARIABLE"], ["--build-context=a=/no/such"], ["--output=type=x"],
     ["--output=type=local"], ["--progress=loud"], ["-f", "/no/such"], ["--ssh=a=/etc/passwd"]],
)  # fmt: skip
def test_bad_command_lines(words: list[str], tmp_path: Any) -> None:
    """Refused before any engine is asked."""
    with pytest.raises((Invalid, NotFound)) as raised:
        values, arguments = parse("build", build.COMMANDS["build"], [*words, str(tmp_path)])
        build.build(values, arguments)
    assert isinstance(raised.value, ProaError)
