"""Images made of packages."""

from __future__ import annotations

import os
from typing import IO, cast

from proa.cli import session
from proa.cli.options import Command, Option, Values
from proa.client.connection import Upload, target
from proa.errors import Invalid

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any


def build(values: Values, arguments: list[str]) -> int:
    """Make an image of a declaration."""
    from proa.cli.layers import Display
    from proa.client.progress import checked

    path = arguments[0]
    name = os.path.basename(path)
    query: dict[str, object] = {
        "file": name,
        "isolation": values.isolation,
        "offline": values.offline or None,
        "sbom": False if values.no_sbom else None,
    }
    url = target("/proa/images/packages", query)
    url += "".join(f"&{target('', {'t': tag})[1:]}" for tag in values.tag)
    answer = session.connect().upload("POST", url, lambda to: _pack(to, path, name))
    made: dict[str, Any] = {}
    if values.quiet:
        for message in checked(answer.json_lines()):
            made.update(message.get("aux") or {})
    else:
        with Display() as display:
            for message in checked(answer.json_lines()):
                display.show(message)
                made.update(message.get("aux") or {})
    print(made.get("ID", ""))
    return 0


def _pack(to: Upload, path: str, name: str) -> None:
    """Send the declaration and every file it names, relative to its directory."""
    import tarfile

    directory = os.path.dirname(path)
    with open(path, "rb") as file:
        data = file.read()
    stream = cast("IO[bytes]", to)
    with tarfile.open(fileobj=stream, mode="w|", format=tarfile.PAX_FORMAT) as archive:
        archive.add(path, name, filter=_plain)
        for beside in dict.fromkeys(_beside(data)):
            try:
                archive.add(
                    os.path.realpath(os.path.join(directory, beside)), beside,
                    recursive=False, filter=_plain,
                )  # fmt: skip
            except FileNotFoundError:
                raise Invalid(f"{path}: the file '{beside}' is not beside it") from None


def _plain(member: Any) -> Any:
    member.uid = member.gid = member.mtime = 0
    member.uname = member.gname = ""
    return member


def _beside(data: bytes) -> Iterator[str]:
    """The files a declaration names; what is wrong with it the engine says."""
    import tomllib

    try:
        document = tomllib.loads(data.decode())
    except ValueError:
        return
    for key, field in (("files", "source"), ("repositories", "key")):
        tables = document.get(key)
        for table in tables if isinstance(tables, list) else ():
            value = table.get(field) if isinstance(table, dict) else None
            if isinstance(value, str) and value:
                plain = os.path.normpath(value)
                if not plain.startswith(("/", "..")):
                    yield plain


COMMANDS = {
    "from-packages": Command(
        "[OPTIONS] FILE", "Make an image of packages, as a declarative file says", build,
        (
            Option("-t, --tag", "list", "NAME[:TAG]", "name the image"),
            Option("--isolation", "text", "KIND", "where the packages' scripts run"),
            Option("--offline", "flag", "", "use only what was downloaded before"),
            Option("--no-sbom", "flag", "", "attach no bill of materials"),
            Option("-q, --quiet", "flag", "", "print only the image's id"),
        ),
        arguments=(1, 1),
    ),
}  # fmt: skip
