"""Which variables an instruction sees: ARG, ENV, what is predefined, and what a build was given.

    before the first FROM   platform variables, and the ARGs above              `of_file`
    in a stage              ENV of the base, and the stage's own ARG and ENV    `declared`
                            in their order: the last one said counts

An ARG of a stage without a value takes the one from before the first FROM, platform variables
included; a value given to the build beats both.  The proxy variables need no ARG: RUN has them,
and neither the cache nor the image knows.
"""

from __future__ import annotations

from collections.abc import Mapping

from proa.image.build import words
from proa.image.build.instructions import Containerfile, Instruction

PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY")
_PARTS = ("OS", "ARCH", "VARIANT")


def platform_variables(build: str, target: str, stage: str = "") -> dict[str, str]:
    """BUILDPLATFORM, TARGETPLATFORM and their parts; platforms are `os/arch[/variant]`.

    `stage` is the name of the stage that is wanted.
    """
    found: dict[str, str] = {}
    for prefix, platform in (("BUILD", build), ("TARGET", target)):
        found[f"{prefix}PLATFORM"] = platform
        parts = (*platform.split("/"), "", "")
        found |= {f"{prefix}{name}": part for name, part in zip(_PARTS, parts, strict=False)}
    found["TARGETSTAGE"] = stage or "default"
    return found


def of_file(
    containerfile: Containerfile, predefined: Mapping[str, str], given: Mapping[str, str]
) -> dict[str, str]:
    """The variables that FROM may use, and that an ARG without a value takes.

    `given` are the build's arguments.  Raises BuildError that points at the ARG.
    """
    found = {name: given.get(name, value) for name, value in predefined.items()}
    for argument in containerfile.meta_arguments:
        for name, value in declared(argument, found, {}, given, containerfile.directives.escape):
            if value is not None:
                found[name] = value
    return found


def declared(
    argument: Instruction,
    scope: Mapping[str, str],
    outer: Mapping[str, str],
    given: Mapping[str, str],
    escape: str = "\\",
) -> list[tuple[str, str | None]]:
    """Names and values of an ARG; None when it has no value, and then nothing changes.

    `scope` is what the stage knows so far, `outer` what `of_file` gave.  Raises BuildError.
    """
    known = dict(scope)
    found: list[tuple[str, str | None]] = []
    for (name, default), place in zip(argument.pairs, argument.places, strict=True):
        value = given.get(name)
        if value is None and default is None:
            value = outer.get(name)
        elif value is None and default is not None:
            with words.pointing(argument, place):
                value = words.word(default, known, escape)
        found.append((name, value))
        if value is not None:
            known[name] = value
    return found


def proxies(given: Mapping[str, str]) -> dict[str, str]:
    """The proxy variables among the build's arguments, for RUN: in both cases of letters."""
    found: dict[str, str] = {}
    for name in PROXIES:
        value = given.get(name) or given.get(name.lower())
        if value:
            found[name] = found[name.lower()] = value
    return found
