"""Building images from Containerfiles."""

from __future__ import annotations

import sys

from proa.cli import buildorder, session
from proa.cli.buildshow import MODES
from proa.cli.options import Command, Option, Values
from proa.errors import BuildError, Invalid
from proa.printable import visible

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def build(values: Values, arguments: list[str]) -> int:
    """Build an image; its id is printed at the end."""
    from proa.cli.buildshow import show
    from proa.client.build import events

    if values.progress not in MODES:
        raise Invalid(f"unknown progress '{values.progress}'", hint=f"one of {', '.join(MODES)}")
    outputs = _outputs(values.output)
    order, pour = buildorder.make(values, arguments[0])
    image: dict[str, Any] = {}
    mode = "quiet" if values.quiet else values.progress
    shown = show(mode)
    try:
        with session.connect() as connection, shown:
            for event in events(connection, order, pour):
                shown.event(event)
                image = event.get("image") or image
    except BuildError as error:
        sys.stderr.write(_place(error))
        if error.step_exit and mode != "quiet" and shown.failed_aloud():
            error.hint = ""  # the end of the output, which was shown
        raise
    if values.iidfile:
        with open(values.iidfile, "w", encoding="utf-8") as file:
            file.write(image["id"])
    for output in outputs:
        from proa.cli import buildout

        buildout.write(output, image, values.tag)
    if not any(output.get("dest") == "-" for output in outputs):
        print(image["id"])
    return 0


def _place(error: BuildError) -> str:
    """File, line and column, then the source line with a caret below."""
    if not error.line:
        return ""
    where = f"{error.file}:{error.line}:{error.column}\n"
    if not error.source:
        return where
    source = visible(error.source)
    before = source[: max(0, error.column - 1)]
    blank = "".join("\t" if char == "\t" else " " for char in before)
    margin = f"{error.line:>4} | "
    return f"{where}{margin}{source}\n{' ' * (len(margin) - 2)}| {blank}^\n"


_KINDS = ("oci", "docker", "tar", "local")


def _outputs(words: list[str]) -> list[dict[str, str]]:
    """`type=oci|docker|tar|local,dest=...`; a bare word is a directory, `-` a tar."""
    found = []
    for word in words:
        if "=" not in word:
            said = {"type": "tar", "dest": "-"} if word == "-" else {"type": "local", "dest": word}
        else:
            said = buildorder.fields(word, "--output", ("type", "dest"))
        kind = said.get("type", "")
        if kind not in _KINDS:
            raise Invalid(f"unknown output '{kind}'", hint=f"type is one of {', '.join(_KINDS)}")
        said.setdefault("dest", "" if kind == "local" else "-")
        if not said["dest"] or (said["dest"] == "-" and kind == "local"):
            raise Invalid(f"the output '{word}' has no directory", hint="add dest=DIRECTORY")
        if said["dest"] == "-" and sys.stdout.isatty():
            raise Invalid("standard output is a terminal", hint="add dest=FILE, or redirect")
        found.append(said)
    return found


COMMANDS = {
    "build": Command(
        "[OPTIONS] PATH|URL|-", "Build an image from a Containerfile", build,
        (
            Option(
                "-f, --file", "text", "FILE",
                "the Containerfile (default: Containerfile or Dockerfile in PATH)",
            ),
            Option("-t, --tag", "list", "NAME[:TAG]", "name the image"),
            Option("--target", "text", "STAGE", "build this stage"),
            Option("--build-arg", "list", "NAME[=VALUE]", "value of an ARG"),
            Option(
                "--build-context", "list", "NAME=PATH",
                "another context: a directory, or docker-image://NAME",
            ),
            Option(
                "--secret", "list", "id=ID[,src=FILE|,env=NAME]",
                "a secret for RUN --mount=type=secret",
            ),
            Option("--ssh", "list", "default|ID=SOCKET", "an agent for RUN --mount=type=ssh"),
            Option("--network", "text", "MODE", "of RUN: default, none or host"),
            Option("--isolation", "text", "KIND", "where RUN runs: container or vm"),
            Option("--add-host", "list", "NAME:ADDRESS", "a host that RUN knows"),
            Option("--shm-size", "bytes", "BYTES", "size of /dev/shm in RUN", 0),
            Option("-m, --memory", "bytes", "BYTES", "memory that RUN may use", 0),
            Option("--no-cache", "flag", "", "carry out every step"),
            Option("--pull", "flag", "", "ask the registry for newer bases"),
            Option("--platform", "text", "OS/ARCH", "another platform than this machine's"),
            Option("--label", "list", "NAME=VALUE", "a label of the image"),
            Option("--annotation", "list", "NAME=VALUE", "an annotation of the manifest"),
            Option("--squash", "flag", "", "one layer for all that the build adds"),
            Option(
                "-o, --output", "list", "type=KIND,dest=PATH",
                "write it too: oci, docker, tar or local",
            ),
            Option("--iidfile", "text", "FILE", "write the image's id there"),
            Option("--progress", "text", "HOW", "auto, plain, tty, quiet or rawjson", "auto"),
            Option("-q, --quiet", "flag", "", "print only the image's id"),
        ),
        arguments=(1, 1),
    ),
}  # fmt: skip
