"""Fuzz the reader of Containerfiles: parsed, checked and expanded, or refused at a place."""

from __future__ import annotations

from proa.errors import BuildError
from proa.image.build import containerfile, mounts, scope, script, values, words
from proa.image.build.instructions import Containerfile, Instruction
from tests.fuzz import harness

SEEDS = (
    b"# syntax=docker/dockerfile:1\n# escape=`\nARG v=1\nFROM debian:$v AS one\nRUN a `\n b\n",
    b"FROM scratch\nCOPY --from=0 <<EOF <<-'X' a /b/\n$x ${y:-z}\nEOF\n\tq\nX\nENV a=b c='d e'\n",
    b'FROM a\nENV old value\nARG x=${a#*b} y\nLABEL "a b"=c\nEXPOSE 80-90/udp $x\n'
    b'HEALTHCHECK --interval=1m2.5s CMD ["a"]\nSTOPSIGNAL SIGRTMIN+3\nVOLUME ["/a b", "c"]\n',
    b'FROM --platform=$BUILDPLATFORM a as b\nRUN --mount=type=cache,id=x,"target=/a,b",uid=0 \\\n'
    b'# comment\n\n --network=none echo <<A\nb\nA\nONBUILD RUN <<E\ne\nE\nSHELL ["/bin/sh","-c"]\n',
)
WORDS = tuple(
    b"RUN |COPY |ADD |ENV |ARG |FROM |ONBUILD |HEALTHCHECK |EXPOSE |LABEL |\\\n|`|\nEOF\n|\xff|\0|"
    b"<<EOF|<<-'E'|--from=|--mount=type=|${|:-|##|%%|//|}|$|\"|'|=|[\"|\"]|# escape=`\n|\r\n|"
    b"\xef\xbb\xbf|\xe2\x80\x83|type=secret,|,required|target=".split(b"|")
)
_VARIABLES = {"a": "value", "x": "a/b/c", "v": "", "HOME": "/root"}


def check(data: bytes) -> object:
    """What the file is about, roughly."""
    try:
        parsed = containerfile.parse(data, "fuzzed")
        outer = scope.of_file(parsed, scope.platform_variables("linux/amd64", "linux/arm64/v8"), {})
        shapes = [
            _expanded(one, parsed, outer) for stage in parsed.stages for one in stage.instructions
        ]
    except BuildError as error:
        lines = data.decode("utf-8", "replace").split("\n")
        assert error.file == "fuzzed"
        assert 1 <= error.line <= max(1, len(lines))
        raise
    return tuple(shapes[:8])


def _expanded(one: Instruction, parsed: Containerfile, outer: dict[str, str]) -> object:
    escape = parsed.directives.escape
    assert 1 <= one.location.line <= one.location.end_line
    found = words.expand(one, _VARIABLES, escape)
    for text in (*found.arguments, *(heredoc.content for heredoc in found.heredocs)):
        assert len(text) <= words.MAXIMUM_CHARACTERS * 4
        text.encode()
    if one.keyword == "ARG":
        scope.declared(one, _VARIABLES, outer, {}, escape)
    elif one.keyword == "RUN":
        return len(mounts.mounts(one, _VARIABLES, escape)), len(script.command(one).arguments)
    elif one.keyword == "ONBUILD":
        return containerfile.parse_trigger(one.arguments[0], parsed.stages[0]).keyword
    elif one.keyword == "HEALTHCHECK":
        return values.health(one).retries
    return one.keyword, one.form, len(found.pairs), len(found.heredocs)


TARGET = harness.Target("containerfile", check, SEEDS, WORDS)

if __name__ == "__main__":
    harness.main(TARGET)
