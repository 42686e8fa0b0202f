"""Containerfiles as data, and every way to be wrong with the place where it is."""

from __future__ import annotations

import pytest

from proa.errors import BuildError
from proa.image.build import containerfile, mounts, script, values
from proa.image.build.instructions import Health, Heredoc, Instruction, Mount


def one(text: str) -> Instruction:
    """The one instruction after FROM."""
    (found,) = containerfile.parse(f"FROM a\n{text}".encode()).stages[0].instructions
    return found


@pytest.mark.parametrize(
    ("text", "form", "arguments"),
    [
        ("RUN echo  a   b", "shell", ("echo  a   b",)),
        ("run\techo", "shell", ("echo",)),
        ("RUN a \\\n  b", "shell", ("a   b",)),
        ("RUN a \\\n# comment\n\n  b", "shell", ("a   b",)),
        ("RUN a \\ \t\nb", "shell", ("a b",)),
        ("RUN a \\\\\nRUN".removesuffix("\nRUN"), "shell", ("a \\\\",)),
        ("RUN a # no comment", "shell", ("a # no comment",)),
        ('RUN ["a", "b c"]', "exec", ("a", "b c")),
        ("RUN ['a']", "shell", ("['a']",)),
        ('RUN ["a"', "shell", ('["a"',)),
        ('RUN ["a"] b', "shell", ('["a"] b',)),
        ("RUN [NaN]", "shell", ("[NaN]",)),
        ('CMD ["\\u00e9", "\\ud800"]', "exec", ("é", "\ufffd")),
        ("CMD []", "exec", ()),
        ("ENTRYPOINT a $x", "shell", ("a $x",)),
        ("COPY a\tb  c/", "words", ("a", "b", "c/")),
        ('COPY ["a b", "c"]', "exec", ("a b", "c")),
        ("EXPOSE 80 81/udp", "words", ("80", "81/udp")),
        ('VOLUME ["/a b"]', "exec", ("/a b",)),
        ("WORKDIR /a b", "text", ("/a b",)),
        ("USER  1:2 ", "text", ("1:2",)),
        ("MAINTAINER A <b@c>", "text", ("A <b@c>",)),
        ("HEALTHCHECK none", "none", ("none",)),
        ("HEALTHCHECK CMD a b", "shell", ("a b",)),
        ('HEALTHCHECK cmd ["a"]', "exec", ("a",)),
        ("ONBUILD  RUN a  b", "trigger", ("RUN a  b",)),
        ("ONBUILD COPY <<E /x\ny\nE", "trigger", ("COPY <<E /x\ny\nE",)),
        ("COPY -- --a b", "words", ("--a", "b")),
    ],
)
def test_forms(text: str, form: str, arguments: tuple[str, ...]) -> None:
    found = one(text)
    assert (found.form, found.arguments) == (form, arguments)
    assert found.location.end_line == 1 + len(text.split("\n"))


@pytest.mark.parametrize(
    ("text", "pairs"),
    [
        ("ENV a=b", (("a", "b"),)),
        ("ENV a=b c='d e' \"f g\"=h", (("a", "b"), ("c", "'d e'"), ('"f g"', "h"))),
        ("ENV a=b\\ c d=", (("a", "b\\ c"), ("d", ""))),
        ("ENV a  b = c", (("a", "b = c"),)),
        ("LABEL a=b=c", (("a", "b=c"),)),
        ("ARG a b=c d=", (("a", None), ("b", "c"), ("d", ""))),
    ],
)
def test_pairs(text: str, pairs: tuple[tuple[str, str | None], ...]) -> None:
    assert one(text).pairs == pairs


def test_flags_lose_quotes_and_know_their_places() -> None:
    found = one("COPY --from=b --exclude='a b' \\\n  --exclude=\"c\" --link x y")
    assert [(flag.name, flag.value, flag.place) for flag in found.flags] == [
        ("from", "b", (2, 6)),
        ("exclude", "a b", (2, 15)),
        ("exclude", "c", (3, 3)),
        ("link", None, (3, 17)),
    ]
    assert found.flag_values("exclude") == ("a b", "c")
    assert found.switch("link") is True and found.switch("parents") is None
    assert found.places == ((3, 24), (3, 26))


def test_heredocs() -> None:
    found = one("COPY <<EOF <<-'raw-name' file 3<<\"C\" /to/\na $b\nEOF\n\t\tc\n\traw-name\nd\nC")
    assert found.arguments == ("file", "/to/")
    assert found.heredocs == (
        Heredoc("EOF", "a $b\n"),
        Heredoc("raw-name", "c\n", expand=False, chomp=True),
        Heredoc("C", "d\n", expand=False, descriptor=3),
    )
    assert found.location.end_line == 8


@pytest.mark.parametrize(
    ("text", "command"),
    [
        ("RUN a", script.Command(("/bin/sh", "-c", "a"))),
        ('RUN ["a"]', script.Command(("a",))),
        ("RUN <<E\na\nE", script.Command(("/bin/sh", "-c", "a\n"))),
        ("RUN <<-E\n\ta\n\tE", script.Command(("/bin/sh", "-c", "a\n"))),
        (
            "RUN <<E\n#!/bin/x\nE",
            script.Command(("/bin/sh", "-c", "/dev/pipes/E"), ("E", "#!/bin/x\n")),
        ),
        (
            "RUN cat <<E - <<F\na\nE\nb\nF",
            script.Command(("/bin/sh", "-c", "cat <<E - <<F\na\nE\nb\nF")),
        ),
        ("RUN echo '<<E'", script.Command(("/bin/sh", "-c", "echo '<<E'"))),
    ],
)  # fmt: skip
def test_what_runs(text: str, command: script.Command) -> None:
    assert script.command(one(text)) == command


def test_directives_and_bytes() -> None:
    parsed = containerfile.parse(
        b"\xef\xbb\xbf# syntax = docker/dockerfile:1.7-labs\r\n# escape=`\r\nARG x=1 y\r\n"
        b"from --platform=linux/arm64 a As B\r\nRUN c:\\d `\r\n e\r\n# \xff comment\r\nFROM b\r\n"
    )
    assert parsed.directives.escape == "`"
    assert [one.pairs for one in parsed.meta_arguments] == [(("x", "1"), ("y", None))]
    first, second = parsed.stages
    assert (first.name, first.base, first.platform, first.line) == ("b", "a", "linux/arm64", 4)
    assert first.instructions[0].arguments == ("c:\\d  e",)
    assert (second.name, second.base, second.line) == ("", "b", 8)


def test_a_directive_behind_a_comment_is_a_comment() -> None:
    assert containerfile.parse(b"# a\n# escape=`\nFROM a").directives.escape == "\\"
    assert containerfile.parse(b"\n# escape=`\nFROM a").directives.escape == "\\"


WRONG = [
    ("", "no instructions", 1, 1),
    ("# c\n", "no instructions", 1, 1),
    ("ARG a", "no FROM", 1, 1),
    ("RUN a\nFROM b", "before the first FROM", 1, 1),
    ("FROM a\n  RNU b", "unknown instruction 'RNU' (did you mean 'RUN'?)", 2, 3),
    ("FROM a\n\\\n\n", "unknown instruction ''", 2, 1),
    ("FROM", "FROM requires", 1, 1),
    ("FROM a b", "one or three", 1, 8),
    ("FROM a AS 1x", "bad stage name '1x'", 1, 11),
    ("FROM a AS x\nFROM b AS X", "'x' is used twice (line 1 has it first)", 2, 11),
    ("FROM --paltform=x a", "unknown flag '--paltform' for FROM (did you mean 'platform'?)", 1, 6),
    ("FROM a\nRUN", "RUN requires at least one argument", 2, 1),
    ("FROM a\nCOPY x", "COPY requires at least two arguments", 2, 1),
    ("FROM a\nCOPY a <<E\nE", "destination", 2, 8),
    ("FROM a\nCOPY a \\\n  --from=x\nCOPY --from=1 a b", "stage 1 is not before", 4, 6),
    ("FROM a AS x\nCOPY --from=y a b\nFROM b AS y", "stage 'y' is not before", 2, 6),
    ("FROM a AS x\nCOPY --from=x a b", "stage 'x' is not before", 2, 6),
    ("FROM a AS x\nRUN --mount=from=x,target=/ a", "stage 'x' is not before", 2, 5),
    ("FROM a\nCOPY --from=$x a b", "a variable in '--from=$x'", 2, 6),
    ("FROM a\nCOPY --link=maybe a b", "bad value 'maybe'", 2, 6),
    ("FROM a\nCOPY --chown a b", "has no value", 2, 6),
    ("FROM a\nCOPY --chown=1 --chown=2 a b", "twice", 2, 16),
    ("FROM a\nRUN --mount=type=magic x", "unknown mount type 'magic'", 2, 5),
    ("FROM a\nRUN --mount=target=/x,tpye=bind x", "(did you mean 'type'?)", 2, 5),
    ("FROM a\nRUN --mount=type=bind,from=$x,target=/x x", "a variable in 'from=$x'", 2, 5),
    ("FROM a\nRUN --network=bridge x", "unknown network 'bridge'", 2, 5),
    ("FROM a\nRUN --device=x y", "unknown flag '--device'", 2, 5),
    ("FROM a\nENV a", "ENV must have two arguments", 2, 5),
    ("FROM a\nENV a=b c", "no '=' in 'c'", 2, 9),
    ("FROM a\nENV =b", "no name", 2, 5),
    ("FROM a\nCMD [1]", "only strings", 2, 5),
    ("FROM a\nEXPOSE 80 eighty", "bad port 'eighty'", 2, 11),
    ("FROM a\nEXPOSE 70000", "bad port '70000'", 2, 8),
    ("FROM a\nEXPOSE 80/icmp", "bad protocol 'icmp'", 2, 8),
    ("FROM a\nEXPOSE 9-8", "bad port '9-8'", 2, 8),
    ("FROM a\nSTOPSIGNAL SIGNOPE", "bad signal 'SIGNOPE'", 2, 12),
    ("FROM a\nSTOPSIGNAL 0", "bad signal '0'", 2, 12),
    ("FROM a\nHEALTHCHECK --interval=soon CMD a", "bad duration 'soon'", 2, 13),
    ("FROM a\nHEALTHCHECK --timeout=1us CMD a", "less than 1ms", 2, 13),
    ("FROM a\nHEALTHCHECK --retries=-1 CMD a", "retries '-1'", 2, 13),
    ("FROM a\nHEALTHCHECK MAYBE", "unknown health check", 2, 1),
    ("FROM a\nHEALTHCHECK CMD", "requires a command", 2, 1),
    ("FROM a\nHEALTHCHECK NONE a", "no arguments", 2, 18),
    ("FROM a\nSHELL sh -c", "SHELL requires", 2, 7),
    ("FROM a\nONBUILD", "ONBUILD requires", 2, 1),
    ("FROM a\nONBUILD ONBUILD RUN a", "ONBUILD of ONBUILD", 2, 1),
    ("FROM a\nONBUILD FROM b", "ONBUILD of FROM", 2, 1),
    ("FROM a\nONBUILD MAINTAINER b", "ONBUILD of MAINTAINER", 2, 1),
    ("FROM a\nONBUILD RNU a", "unknown instruction 'RNU'", 2, 9),
    ("FROM a\nRUN <<E\nx", "heredoc 'E' has no end", 2, 5),
    ("FROM a\nRUN a\0b", "a NUL", 2, 6),
    ("FROM a\nRUN <<E\na\nb\0\nE", "a NUL in a heredoc", 4, 2),
    ('FROM a\nRUN ["\\u0000"]', "a NUL", 2, 5),
    ("# escape=!\nFROM a", "bad escape character '!'", 1, 10),
    ("# escape=`\n# escape=`\nFROM a", "only one directive 'escape'", 2, 1),
    ("FROM a\nVOLUME ['x'] \nVOLUME [\" \"]", "empty path", 3, 1),
]


@pytest.mark.parametrize(("text", "message", "line", "column"), WRONG)
def test_wrong_at_its_place(text: str, message: str, line: int, column: int) -> None:
    with pytest.raises(BuildError) as raised:
        containerfile.parse(text.encode(), "My.file")
    error = raised.value
    assert message in (f"{error.message} ({error.hint})" if error.hint else error.message)
    assert (error.file, error.line, error.column) == ("My.file", line, column)
    lines = text.split("\n")
    assert error.source == (lines[line - 1] if text else "")


def test_bytes_that_are_no_text_are_refused_where_they_are() -> None:
    with pytest.raises(BuildError, match="not UTF-8") as raised:
        containerfile.parse(b"FROM a\nRUN \xffx")
    assert (raised.value.line, raised.value.column) == (2, 5)


@pytest.mark.parametrize(
    "syntax",
    ["evil/frontend", "registry.example/docker/dockerfile:1", "docker/dockerfile-evil", "x y",
     "docker/../dockerfile", "docker.io.example/docker/dockerfile", "UPPER"],
)  # fmt: skip
@pytest.mark.parametrize("before", ["", "#!/usr/bin/env x\n", "\ufeff", "# escape=`\n"])
def test_other_frontends_are_refused(syntax: str, before: str) -> None:
    """CVE-2024-23653, GHSA-4c29-8rgm-jvjj: nobody's image does the build."""
    text = f"{before}# syntax={syntax}\nFROM a\n"
    with pytest.raises(BuildError, match="asks for another frontend"):
        containerfile.parse(text.encode())


@pytest.mark.parametrize(
    "syntax",
    ["docker/dockerfile", "docker/dockerfile:1", "docker.io/docker/dockerfile:1.4 x",
     "docker/dockerfile-upstream:master", "docker/dockerfile@sha256:" + "a" * 64],
)  # fmt: skip
def test_dockers_own_frontend_is_what_we_are(syntax: str) -> None:
    assert containerfile.parse(f"#syntax={syntax}\nFROM a".encode()).directives.syntax == syntax


@pytest.mark.parametrize(
    ("text", "mount"),
    [
        ("target=/x", Mount("bind", target="/x")),
        ("type=bind,src=a,dst=/x,rw", Mount("bind", "a", "/x", readonly=False)),
        ("type=bind,destination=/x,from=b,ro=false", Mount("bind", "", "/x", "b", readonly=False)),
        ("type=cache,target=/x", Mount("cache", target="/x", readonly=False)),
        (
            "type=cache,id=$x,target=/$x,sharing=Locked,mode=0700,uid=1,gid=2,readonly",
            Mount("cache", "", "/1", "", True, "1", "locked", mode=0o700, uid=1, gid=2),
        ),
        (
            "type=tmpfs,target=/x,size=1.5k",
            Mount("tmpfs", target="/x", readonly=False, size_bytes=1536),
        ),
        ("type=secret,id=a,required", Mount("secret", id="a", required=True)),
        ("type=secret,id=a,env=", Mount("secret", id="a", variable="")),
        ("type=ssh,required=false", Mount("ssh")),
        ('type=bind,\\"target=/a,b\\"', Mount("bind", target="/a,b")),
    ],
)  # fmt: skip
def test_mounts(text: str, mount: Mount) -> None:
    assert mounts.mounts(one(f"RUN --mount={text} true"), {"x": "1"}) == (mount,)


@pytest.mark.parametrize(
    "text",
    ["", "x", "target", "type=bind,size=1", "type=bind,uid=1", "type=secret", "type=cache,required",
     "type=secret,id=a,src=b", "type=secret,id=a,from=b", "type=tmpfs,sharing=shared,target=/x",
     "type=tmpfs,target=/x,size=big", "type=cache,mode=9", "type=cache,uid=4294967296",
     "ro=perhaps", 'target=/x"', '"target=/x"y', "type=ssh,env=x,uid=-1",
     "propagation=shared,target=/x"],
)  # fmt: skip
def test_mounts_refused(text: str) -> None:
    """CVE-2024-9407 among them: no option of mount(2) gets through."""
    with pytest.raises(BuildError):
        mounts.parse(text, str)


@pytest.mark.parametrize(
    ("text", "health"),
    [
        ("NONE", Health(("NONE",))),
        ("CMD a b", Health(("CMD-SHELL", "a b"))),
        (
            "--interval=1m30s --timeout=1.5s --start-period=2h --start-interval=100ms --retries=3 "
            'CMD ["a"]',
            Health(("CMD", "a"), 90 * 10**9, 1500 * 10**6, 7200 * 10**9, 10**8, 3),
        ),
        ("--interval=0 CMD a", Health(("CMD-SHELL", "a"))),
    ],
)  # fmt: skip
def test_health(text: str, health: Health) -> None:
    assert values.health(one(f"HEALTHCHECK {text}")) == health


@pytest.mark.parametrize(
    ("text", "ports"),
    [
        ("80", ("80/tcp",)),
        ("53/UDP", ("53/udp",)),
        ("8000-8002/sctp", ("8000/sctp", "8001/sctp", "8002/sctp")),
        ("127.0.0.1:80:81", ("81/tcp",)),
        ("[::1]:80:81/udp", ("81/udp",)),
        ("8080:80", ("80/tcp",)),
    ],
)
def test_ports(text: str, ports: tuple[str, ...]) -> None:
    assert values.ports(text) == ports


@pytest.mark.parametrize(
    ("text", "number"),
    [("SIGTERM", 15), ("term", 15), ("9", 9), ("SIGRTMIN+3", 37), ("RTMAX-1", 63), ("Sigusr1", 10)],
)
def test_signals(text: str, number: int) -> None:
    assert values.signal_number(text) == number


def test_a_trigger_stands_where_the_stage_begins() -> None:
    stage = containerfile.parse(b"\n\nFROM base").stages[0]
    found = containerfile.parse_trigger("COPY --chown=1 . /x", stage)
    assert (found.keyword, found.location.line, found.flag("chown")) == ("COPY", 3, "1")
    for bad in ("", "RUN a\nRUN b", "FROM x", "ONBUILD RUN x", "RNU x", "RUN <<E\nx"):
        with pytest.raises(BuildError, match="ONBUILD") as raised:
            containerfile.parse_trigger(bad, stage)
        assert raised.value.line == 3


def test_ten_thousand_instructions_are_read_soon() -> None:
    parsed = containerfile.parse(b"FROM a\n" + b"RUN true \\\n  more\n" * 10_000)
    assert len(parsed.stages[0].instructions) == 10_000
