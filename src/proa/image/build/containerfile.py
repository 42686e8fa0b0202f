"""A Containerfile's text as data: BuildKit's grammar, with places (line and column) kept.

    parse(data, name) -> Containerfile          a whole file, checked
    parse_trigger(text, stage) -> Instruction   what an image's ONBUILD kept

Nothing is expanded here (words.py) and nothing is run.  Every error is a BuildError that points
at a place.
"""

from __future__ import annotations

import re
from dataclasses import replace

from proa.errors import BuildError
from proa.image.build import arguments, check, words
from proa.image.build.instructions import (
    Containerfile,
    Heredoc,
    Instruction,
    Place,
    Stage,
)
from proa.image.build.lines import Line, Reader

_HEREDOC = re.compile(r"(\d*)<<(-?)\s*([^<]*)")
_ONBUILD = re.compile(r"\s*ONBUILD\s*", re.IGNORECASE)
_STAGE_NAME = re.compile(r"[a-z][a-z0-9-_.]*")
_HEREDOC_KEYWORDS = ("RUN", "COPY", "ADD")


def parse(data: bytes, name: str = "Containerfile") -> Containerfile:
    """The file as data.  Raises BuildError, at the first place that is wrong."""
    reader = Reader(data, name)
    check.frontend(reader.directives.syntax, reader.location(1))
    meta: list[Instruction] = []
    stages: list[Stage] = []
    bodies: list[list[Instruction]] = []
    while line := reader.line():
        instruction = _instruction(line, reader)
        if instruction.keyword == "FROM":
            stages.append(_stage(instruction))
            bodies.append([])
        elif stages:
            bodies[-1].append(instruction)
        elif instruction.keyword == "ARG":
            meta.append(instruction)
        else:
            raise instruction.error(
                f"no build stage in current context: {instruction.keyword} before the first FROM",
                hint="a stage begins with FROM; only ARG may stand before it",
            )
    if not stages:
        empty = "no FROM" if meta else "no instructions"
        raise reader.location(1).error(f"'{name}' has {empty}", hint="begin with FROM")
    whole = tuple(
        replace(stage, instructions=tuple(body)) for stage, body in zip(stages, bodies, strict=True)
    )
    check.stages(whole)
    return Containerfile(name, reader.directives, tuple(meta), whole)


def parse_trigger(text: str, stage: Stage) -> Instruction:
    """What a base image's ONBUILD kept; it is told to stand where `stage` begins."""
    reader = Reader(text.encode("utf-8", "surrogateescape"), stage.origin.location.file)
    try:
        line = reader.line()
        instruction = _instruction(line, reader) if line else None
        if instruction is None or reader.line() is not None:
            raise BuildError("an ONBUILD trigger of the base image is not one instruction")
        check.trigger(instruction)
    except BuildError as error:
        raise stage.origin.error(
            f"{error.message} in the base image's ONBUILD {text[:60]!r}", hint=error.hint
        ) from error
    at = stage.origin.location
    return replace(
        instruction,
        location=at,
        places=tuple((at.line, at.column) for _ in instruction.places),
        flags=tuple(replace(flag, place=(at.line, at.column)) for flag in instruction.flags),
    )


def heredoc_start(word: str) -> Heredoc | None:
    """The heredoc that a word begins: `<<EOF`, `<<-EOF`, `3<<'EOF'`; None when it begins none."""
    match = _HEREDOC.fullmatch(word)
    if not match or not match[3]:
        return None
    try:
        plain = words.split(match[3], {}, words.Rules(keep_unset=True))
        (quoted,) = words.split(match[3], {}, words.Rules(keep_unset=True, keep_quotes=True))
    except (BuildError, ValueError):
        return None  # not our quoting, or not one word
    if len(plain) != 1:
        return None
    expand = all(plain[0].count(quote) == quoted.count(quote) for quote in "\"'")
    return Heredoc(plain[0], "", expand, match[2] == "-", int(match[1][:9] or 0))


def _stage(origin: Instruction) -> Stage:
    said = origin.arguments
    name = ""
    if len(said) == 3 and said[1].lower() == "as":
        name = said[2].lower()
        if not _STAGE_NAME.fullmatch(name):
            raise origin.error(
                f"bad stage name '{said[2]}'",
                hint="it begins with a letter, then letters, digits, '-', '_', '.'",
                at=origin.places[2],
            )
    elif len(said) != 1:
        raise origin.error(
            "FROM requires one or three arguments",
            hint="an image, or an image, AS and a name",
            at=origin.places[1] if len(said) > 1 else None,
        )
    return Stage(name, said[0], origin.flag("platform"), (), origin)


def _instruction(line: Line, reader: Reader) -> Instruction:
    found = arguments.read(line, 0, reader.directives.escape)
    inner = found
    if found.keyword == "ONBUILD":
        check.instruction(found)
        inner = arguments.read(line, _inner_begin(line), reader.directives.escape)
        check.trigger(inner)
    if inner.keyword in _HEREDOC_KEYWORDS and inner.form != "exec" and "<<" in line.text:
        heredocs = tuple(reader.heredoc(start, line) for start in _heredoc_starts(line))
        inner = replace(inner, heredocs=heredocs)
    if inner.keyword in ("COPY", "ADD"):
        inner = _with_files(inner)
    check.instruction(inner)
    if found.keyword != "ONBUILD":
        return _relocated(inner, reader)
    text = _ONBUILD.sub("", line.text, count=1)
    for heredoc in inner.heredocs:
        text += f"\n{heredoc.content}{heredoc.name}"
    return _relocated(replace(found, arguments=(text,)), reader)


def _relocated(instruction: Instruction, reader: Reader) -> Instruction:
    """With the heredocs' lines in its location."""
    at = instruction.location
    if at.end_line == reader.number:
        return instruction
    return replace(instruction, location=reader.location(at.line, at.column))


def _inner_begin(line: Line) -> int:
    match = _ONBUILD.match(line.text)
    return match.end() if match else 0


def _heredoc_starts(line: Line) -> list[Heredoc]:
    rules = words.Rules(keep_quotes=True, keep_escapes=True, keep_unset=True)
    try:
        starts = map(heredoc_start, words.split(line.text, {}, rules))
    except BuildError:
        return []  # not our quoting: it is for the shell to judge
    return [start for start in starts if start]


def _with_files(instruction: Instruction) -> Instruction:
    """COPY and ADD: heredocs among the sources are files, the other arguments stay."""
    bodies = {heredoc.name: heredoc for heredoc in instruction.heredocs}
    paths: list[str] = []
    places: list[Place] = []
    files: list[Heredoc] = []
    last = len(instruction.arguments) - 1
    for index, (word, place) in enumerate(
        zip(instruction.arguments, instruction.places, strict=True)
    ):
        start = heredoc_start(word) if "<<" in word else None
        if start is None:
            paths.append(word)
            places.append(place)
            continue
        if index == last:
            raise instruction.error(
                f"{instruction.keyword} cannot have a heredoc as its destination", at=place
            )
        body = bodies.get(start.name, start)
        content = re.sub(r"(?m)^\t+", "", body.content) if start.chomp else body.content
        files.append(replace(start, content=content))
    return replace(instruction, arguments=tuple(paths), places=tuple(places), heredocs=tuple(files))
