"""Bills of materials of images."""

from __future__ import annotations

import sys

from proa.cli import format, session
from proa.cli.format import Column
from proa.cli.options import Command, Option, Values
from proa.client.connection import image_path, target

_COLUMNS = (
    Column("TYPE", "Type"), Column("NAME", "Name"), Column("VERSION", "Version"),
    Column("LICENSE", "License"),
)  # fmt: skip
_MADE = "proa: no bill is attached to the image, this one was made now\n"
_HINT = "hint: `proa image sbom --attach` keeps it with the image\n"


def sbom(values: Values, arguments: list[str]) -> int:
    """Print what software an image holds."""
    path = f"/proa{image_path(arguments[0], '/sbom')}"
    if values.attach:
        for made in session.post(path):
            sys.stderr.write(f"attached: {made['Digest']}\n")
    if values.format == "table":
        found = session.get(path, format="table")
        text = format.listing(found["Packages"], _COLUMNS, "").encode()
        attached = found["Attached"]
    else:
        url = target(path, {"format": values.format})
        answer = session.connect().request("GET", url)
        attached = answer.headers.get("proa-attached") == "true"
        text = answer.read()
    if not attached:
        sys.stderr.write(_MADE + _HINT)
    _write(text, values.output)
    return 0


def _write(text: bytes, path: str | None) -> None:
    if path is None:
        sys.stdout.flush()
        sys.stdout.buffer.write(text)
        return
    with open(path, "wb") as file:
        file.write(text)


COMMANDS = {
    "sbom": Command(
        "[OPTIONS] IMAGE", "Print what software an image holds (its bill of materials)", sbom,
        (
            Option("--format", "text", "FORMAT", "table, spdx or cyclonedx", "table"),
            Option("-o, --output", "text", "FILE", "write this file"),
            Option("--attach", "flag", "", "attach bills to the image that has none"),
        ),
        arguments=(1, 1),
    ),
}  # fmt: skip
