"""What is wrong with a Containerfile before anything runs: unknown flags, missing arguments, bad
ports, signals and times, stages that are not there.  Values with a variable wait until expanded.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from proa.errors import Invalid
from proa.image import reference
from proa.image.build import mounts, values, words
from proa.image.build.instructions import Flag, Instruction, Location, Stage
from proa.image.build.text import did_you_mean

TEXT, MANY, SWITCH = "text", "many", "switch"

FLAGS: dict[str, dict[str, str]] = {
    "FROM": {"platform": TEXT},
    "RUN": {"mount": MANY, "network": TEXT, "security": TEXT},
    "COPY": {
        "from": TEXT,
        "chown": TEXT,
        "chmod": TEXT,
        "link": SWITCH,
        "parents": SWITCH,
        "exclude": MANY,
    },
    "ADD": {
        "checksum": TEXT,
        "chown": TEXT,
        "chmod": TEXT,
        "link": SWITCH,
        "keep-git-dir": SWITCH,
        "unpack": SWITCH,
        "exclude": MANY,
    },
    "HEALTHCHECK": {
        "interval": TEXT,
        "timeout": TEXT,
        "start-period": TEXT,
        "start-interval": TEXT,
        "retries": TEXT,
    },
}
_FRONTENDS = ("docker/dockerfile", "docker/dockerfile-upstream")
_NETWORKS = ("default", "none", "host")
_SECURITY = ("sandbox", "insecure")


@dataclass(frozen=True)
class _Count:
    least: int
    most: int | None = None


_ANY = _Count(1)
_ONE = _Count(1, 1)
_COUNTS: dict[str, _Count] = {
    "ADD": _Count(2),
    "ARG": _ANY,
    "COPY": _Count(2),
    "ENV": _ANY,
    "EXPOSE": _ANY,
    "FROM": _ANY,
    "LABEL": _ANY,
    "MAINTAINER": _ONE,
    "ONBUILD": _ONE,
    "RUN": _ANY,
    "SHELL": _ANY,
    "STOPSIGNAL": _ONE,
    "USER": _ONE,
    "VOLUME": _ANY,
    "WORKDIR": _ONE,
}


def frontend(syntax: str, location: Location) -> None:
    """Refuse `# syntax=` of anything but Docker's own: another image would do the build."""
    name = syntax.split(" ")[0]
    if not name:
        return
    with suppress(Invalid):
        image = reference.parse(name)
        if image.registry == reference.DEFAULT_REGISTRY and image.path in _FRONTENDS:
            return
    raise location.error(
        f"'# syntax={name}' asks for another frontend",
        hint="Proa reads Containerfiles itself; docker/dockerfile is the syntax it knows",
    )


def instruction(found: Instruction) -> None:
    """Raises BuildError, at the place, when the instruction alone is wrong."""
    keyword = found.keyword
    seen: set[str] = set()
    for flag in found.flags:
        _flag(found, flag, seen)
    _count(found)
    check = _CHECKS.get(keyword)
    if check:
        check(found)


def trigger(found: Instruction) -> None:
    """Raises BuildError when ONBUILD cannot keep this instruction."""
    if found.keyword == "ONBUILD":
        raise found.error("ONBUILD of ONBUILD is not allowed")
    if found.keyword in ("FROM", "MAINTAINER"):
        raise found.error(f"ONBUILD of {found.keyword} is not allowed")


def stages(all_stages: Sequence[Stage]) -> None:
    """Raises BuildError for names used twice, and for files from stages that come later."""
    lines: dict[str, int] = {}
    for stage in all_stages:
        if stage.name in lines:
            raise stage.origin.error(
                f"stage name '{stage.name}' is used twice",
                hint=f"line {lines[stage.name]} has it first",
                at=stage.origin.places[2],
            )
        if stage.name:
            lines[stage.name] = stage.line
    indexes = {stage.name: index for index, stage in enumerate(all_stages) if stage.name}
    for index, stage in enumerate(all_stages):
        for one in stage.instructions:
            for flag in one.flags:
                for name in _sources(one, flag):
                    _earlier(one, flag, name, indexes, index)


def _sources(found: Instruction, flag: Flag) -> list[str]:
    if found.keyword == "COPY" and flag.name == "from":
        return [flag.value or ""]
    if found.keyword == "RUN" and flag.name == "mount":
        return mounts.origins(flag.value or "")
    return []


def _earlier(
    found: Instruction, flag: Flag, name: str, indexes: dict[str, int], index: int
) -> None:
    """`name` is an image, or a stage before the `index`-th."""
    number = name.isascii() and name.isdigit() and found.keyword == "COPY"
    other = int(name[:9]) if number else indexes.get(name.lower(), -1)
    if other < index:
        return
    if number:
        message = f"stage {name} is not before this one"
        hint = f"stages count from 0; this is {index}"
    else:
        message = f"stage '{name}' is not before this one"
        hint = "a stage can take files only from those above it"
    raise found.error(message, hint=hint, at=flag.place)


def _flag(found: Instruction, flag: Flag, seen: set[str]) -> None:
    known = FLAGS.get(found.keyword, {})
    kind = known.get(flag.name)
    if kind is None:
        raise found.error(
            f"unknown flag '--{flag.name}' for {found.keyword}",
            hint=did_you_mean(flag.name, known)
            or ("it has " + ", ".join("--" + name for name in known) if known else "it has none"),
            at=flag.place,
        )
    if flag.name in seen and kind != MANY:
        raise found.error(f"flag '--{flag.name}' twice", at=flag.place)
    seen.add(flag.name)
    if kind == SWITCH:
        if flag.value is not None and flag.value.lower() not in ("true", "false"):
            raise found.error(
                f"bad value '{flag.value}' for '--{flag.name}'", hint="true or false", at=flag.place
            )
    elif flag.value is None:
        raise found.error(
            f"flag '--{flag.name}' has no value", hint=f"--{flag.name}=...", at=flag.place
        )


def _count(found: Instruction) -> None:
    count = _COUNTS.get(found.keyword)
    if count is None:
        return
    said = len(found.arguments) + len(found.pairs)
    if found.keyword in ("COPY", "ADD"):
        said += len(found.heredocs)
    if said < count.least:
        word = "exactly" if count.most else "at least"
        what = "two arguments" if count.least > 1 else "one argument"
        raise found.error(
            f"{found.keyword} requires {word} {what}",
            hint="a source and a destination" if count.least > 1 else "",
        )


def _run(found: Instruction) -> None:
    for flag in found.flags:
        value = flag.value or ""
        if flag.name == "network" and value not in _NETWORKS:
            raise found.error(
                f"unknown network '{value}'", hint="default, none or host", at=flag.place
            )
        if flag.name == "security" and value not in _SECURITY:
            raise found.error(
                f"unknown security '{value}'", hint="sandbox or insecure", at=flag.place
            )
        if flag.name == "mount":
            with words.pointing(found, flag.place):
                _mount(value)


def _mount(value: str) -> None:
    if "$" in value:
        for origin in mounts.origins(value):
            mounts.parse(f"from={origin}", str)
    else:
        mounts.parse(value, lambda text: words.word(text, {}))


def _copy(found: Instruction) -> None:
    for flag in found.flags:
        if flag.name == "from" and "$" in (flag.value or ""):
            raise found.error(
                f"a variable in '--from={flag.value}'",
                hint="name a stage with FROM, which may have variables, and copy from that",
                at=flag.place,
            )
        if flag.name == "from" and not flag.value:
            raise found.error("'--from' is empty", at=flag.place)


def _each(check: Callable[[str], object]) -> Callable[[Instruction], None]:
    """Check each argument that has no variable."""

    def run(found: Instruction) -> None:
        for text, place in zip(found.arguments, found.places, strict=True):
            if "$" not in text:
                with words.pointing(found, place):
                    for word in words.split(text, {}):
                        check(word)

    return run


def _shell(found: Instruction) -> None:
    if found.form != "exec":
        raise found.error(
            "SHELL requires a JSON array", hint='like ["/bin/bash", "-c"]', at=found.places[0]
        )


def _volume(found: Instruction) -> None:
    if not all(text.strip() for text in found.arguments):
        raise found.error("VOLUME of an empty path")


def _health(found: Instruction) -> None:
    if found.form == "none":
        kind = found.arguments[0] if found.arguments else ""
        if kind.upper() != "NONE":
            what = f"unknown health check '{kind}'" if kind else "HEALTHCHECK requires an argument"
            raise found.error(what, hint="CMD and a command, or NONE")
        if len(found.arguments) > 1:
            raise found.error("HEALTHCHECK NONE takes no arguments", at=found.places[1])
    elif not found.arguments:
        raise found.error("HEALTHCHECK CMD requires a command")
    values.health(found)


_CHECKS: dict[str, Callable[[Instruction], None]] = {
    "COPY": _copy,
    "EXPOSE": _each(values.ports),
    "HEALTHCHECK": _health,
    "RUN": _run,
    "SHELL": _shell,
    "STOPSIGNAL": _each(values.signal_number),
    "VOLUME": _volume,
}
