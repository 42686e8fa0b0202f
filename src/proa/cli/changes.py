"""`proa commit`, `diff` and `export`: what an instance changed, and all its files."""

from __future__ import annotations

import sys

from proa.cli import session
from proa.cli.options import Command, Option, Values
from proa.client.connection import instance_path, target
from proa.errors import Invalid

_KINDS = "CAD"


def commit(values: Values, arguments: list[str]) -> int:
    """Make an image of an instance."""
    from proa.cli.image import split_name

    instance, *name = arguments
    repository, tag = split_name(name[0]) if name else (None, None)
    query: dict[str, object] = {
        "container": instance, "repo": repository, "tag": tag, "comment": values.message,
        "author": values.author, "pause": values.pause and not values.no_pause,
    }  # fmt: skip
    edits = "".join(f"&{target('', {'changes': line})[1:]}" for line in values.change)
    print(session.call("POST", target("/commit", query) + edits)["Id"])
    return 0


def diff(values: Values, arguments: list[str]) -> int:
    """Print changed, added and deleted paths."""
    for change in session.get(instance_path(arguments[0], "/changes")) or []:
        sys.stdout.write(f"{_KINDS[change['Kind']]} {change['Path']}\n")
    return 0


def export(values: Values, arguments: list[str]) -> int:
    """Write all files of an instance as a tar."""
    if values.output is None and sys.stdout.isatty():
        raise Invalid("standard output is a terminal", hint="use -o FILE, or redirect")
    from proa.cli.image import deliver

    deliver(session.stream("GET", instance_path(arguments[0], "/export")), values.output)
    return 0


COMMANDS = {
    "commit": Command(
        "[OPTIONS] INSTANCE [REPOSITORY[:TAG]]", "Make an image of an instance's changes", commit,
        (
            Option("-a, --author", "text", "NAME", "who made it"),
            Option("-m, --message", "text", "TEXT", "say what this is"),
            Option("-c, --change", "list", "INSTRUCTION", "apply a Dockerfile instruction"),
            Option("-p, --pause", "flag", "", "stop its processes meanwhile (default)", True),
            Option("--no-pause", "flag", "", "let them run"),
        ),
        arguments=(1, 2),
    ),
    "diff": Command(
        "INSTANCE", "Tell what an instance changed about its image: A, C, D", diff,
        arguments=(1, 1),
    ),
    "export": Command(
        "[OPTIONS] INSTANCE", "Write all files of an instance as a tar", export,
        (Option("-o, --output", "text", "FILE", "write this file"),),
        arguments=(1, 1),
    ),
}  # fmt: skip
