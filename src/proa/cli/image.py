"""What concerns images."""

from __future__ import annotations

import os
import sys

from proa.cli import filters, format, session
from proa.cli.each import each
from proa.cli.format import Column
from proa.cli.options import Command, Option, Values
from proa.client.connection import Answer, Upload, image_path, target
from proa.errors import Invalid, NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, BinaryIO

_PIECE_BYTES = 256 * 1024
_COLUMNS = (
    Column("REPOSITORY", "Repository"), Column("TAG", "Tag"), Column("IMAGE ID", "ID"),
    Column("CREATED", "CreatedSince"), Column("SIZE", "Size"),
)  # fmt: skip
_DIGEST = Column("DIGEST", "Digest")
_HISTORY_COLUMNS = (
    Column("IMAGE", "ID"), Column("CREATED", "CreatedSince"), Column("CREATED BY", "CreatedBy"),
    Column("SIZE", "Size"), Column("COMMENT", "Comment"),
)  # fmt: skip
_FORMAT = Option("--format", "text", "FORMAT", "table, json, or a template like {{.ID}}")


def split_name(name: str) -> tuple[str, str]:
    """Repository and tag; a colon before a slash belongs to a port."""
    repository, colon, tag = name.rpartition(":")
    if not colon or "/" in tag:
        return name, "latest"
    return repository, tag


def images(values: Values, arguments: list[str]) -> int:
    """List images."""
    chosen = filters.parse(values.filter) or {}
    if arguments:
        chosen["reference"] = [arguments[0]]
    items = session.get("/images/json", all=values.all or None, filters=chosen or None)
    if values.quiet and not values.format:
        ids = (i["Id"] if values.no_trunc else format.short_id(i["Id"]) for i in items)
        sys.stdout.write("".join(f"{identity}\n" for identity in dict.fromkeys(ids)))
        return 0
    rows = [row for item in items for row in _image_rows(item, values.no_trunc)]
    columns = (*_COLUMNS[:2], _DIGEST, *_COLUMNS[2:]) if values.digests else _COLUMNS
    sys.stdout.write(format.listing(rows, columns, values.format))
    return 0


def _image_rows(item: dict[str, Any], full: bool) -> list[format.Row]:
    """One row per name; one of nothing but `<none>` for an image without."""
    names = [name for name in item.get("RepoTags") or [] if name != "<none>:<none>"]
    digests = dict(d.split("@", 1) for d in item.get("RepoDigests") or [] if "@" in d)
    rows = []
    for name in names or ["<none>:<none>"]:
        repository, tag = split_name(name)
        rows.append(
            {
                "Repository": repository,
                "Tag": tag,
                "Digest": digests.get(repository, "<none>"),
                "ID": item["Id"] if full else format.short_id(item["Id"]),
                "CreatedAt": format.when(item["Created"]),
                "CreatedSince": format.ago(item["Created"]) if item["Created"] > 0 else "N/A",
                "Size": format.decimal_size(item.get("Size") or 0),
            }
        )
    return rows


def load(values: Values, arguments: list[str]) -> int:
    """Load images from an archive, or from the directory of an OCI layout."""
    url = target("/images/load", {"quiet": values.quiet})
    if values.input is not None and os.path.isdir(values.input):
        from proa.cli import layout

        path = values.input
        _show_progress(session.connect().upload("POST", url, lambda to: layout.send(path, to)))
        return 0
    with _opened(values.input) as source:
        if values.input is None and source.isatty():
            raise Invalid("standard input is a terminal", hint="use -i FILE, or redirect")
        answer = session.connect().upload("POST", url, lambda to: _pour(source, to))
        _show_progress(answer)
    return 0


def import_(values: Values, arguments: list[str]) -> int:
    """Make an image of a file system's tar."""
    name, *rest = arguments
    repository, tag = split_name(rest[0]) if rest else ("", "")
    query: dict[str, object] = {
        "fromSrc": "-",
        "repo": repository or None,
        "tag": tag or None,
        "message": values.message,
        "platform": values.platform,
    }
    changes = "".join(f"&{target('', {'changes': c})[1:]}" for c in values.change)
    with _opened(None if name == "-" else name) as source:
        url = target("/images/create", query) + changes
        answer = session.connect().upload("POST", url, lambda to: _pour(source, to))
        _show_progress(answer)
    return 0


def _opened(path: str | None) -> BinaryIO:
    return open(path, "rb") if path else sys.stdin.buffer


def _pour(source: BinaryIO, to: Upload) -> None:
    while data := source.read(_PIECE_BYTES):
        to.write(data)


def _show_progress(answer: Answer) -> None:
    """Print a stream of progress messages.  Raises ProaError for the error one may carry."""
    from proa.client.progress import checked

    for message in checked(answer.json_lines()):
        text = message.get("stream") or message.get("status") or ""
        if text and "progressDetail" not in message:
            sys.stdout.write(text if text.endswith("\n") else f"{text}\n")


def save(values: Values, arguments: list[str]) -> int:
    """Write images to an archive."""
    if values.output is None and (values.format == "oci-dir" or sys.stdout.isatty()):
        raise Invalid("images do not go to a terminal", hint="use -o PATH, or redirect")
    names = "&".join(target("", {"names": name})[1:] for name in arguments)
    kind = {"oci-dir": "oci-archive"}.get(values.format, values.format)
    answer = session.stream("GET", f"/images/get?format={kind}&{names}")
    if values.format == "oci-dir":
        from proa.cli import layout

        layout.receive(values.output, answer)
    else:
        deliver(answer, values.output)
    return 0


def deliver(answer: Answer, path: str | None) -> None:
    """What the engine sends goes to standard output, or to a file that is never half there."""
    if path is None:
        from proa.cli.pump import write_all

        for data in answer.parts():
            write_all(1, data)
        return
    from proa.client import partial

    with partial.written(path) as file:
        for data in answer.parts():
            file.write(data)


def tag(values: Values, arguments: list[str]) -> int:
    """Give an image one more name."""
    repository, label = split_name(arguments[1])
    session.post(image_path(arguments[0], "/tag"), repo=repository, tag=label)
    return 0


def remove(values: Values, arguments: list[str]) -> int:
    """Remove names of images, and images without a name."""
    if values.remote:
        from proa.cli import registry

        return registry.remove(arguments)

    def one(reference: str) -> None:
        query: dict[str, object] = {"force": values.force, "noprune": values.no_prune}
        try:
            changes = session.call("DELETE", image_path(reference), query)
        except NotFound:
            if not values.force:
                raise
            return
        for change in changes or []:
            for what, name in change.items():
                print(f"{what}: {name}")

    return each(arguments, one, echo=False)


def history(values: Values, arguments: list[str]) -> int:
    """Print how an image was made."""
    items = session.get(image_path(arguments[0], "/history"))
    if values.quiet:
        for item in items:
            print(item["Id"] if values.no_trunc else format.short_id(item["Id"]))
        return 0
    rows = [_history_row(item, values.no_trunc) for item in items]
    sys.stdout.write(format.listing(rows, _HISTORY_COLUMNS, values.format))
    return 0


def _history_row(item: dict[str, Any], full: bool) -> format.Row:
    made = " ".join((item.get("CreatedBy") or "").split())
    return {
        "ID": item["Id"] if full else format.short_id(item["Id"]),
        "CreatedAt": format.when(item["Created"]),
        "CreatedSince": format.ago(item["Created"]) if item["Created"] > 0 else "N/A",
        "CreatedBy": made if full else format.shorten(made, 45),
        "Size": format.decimal_size(item.get("Size") or 0),
        "Comment": item.get("Comment") or "",
    }


_QUIET = Option("-q, --quiet", "flag", "", "only ids")
_NO_TRUNC = Option("--no-trunc", "flag", "", "cut nothing short")

COMMANDS = {
    "images": Command(
        "[OPTIONS] [REPOSITORY[:TAG]]", "List images", images,
        (
            Option("-a, --all", "flag", "", "also those without a name that others build on"),
            Option("-f, --filter", "list", "KEY=VALUE", "only those that match"),
            Option("--digests", "flag", "", "show digests"),
            _QUIET, _NO_TRUNC, _FORMAT,
        ),
        arguments=(0, 1),
    ),
    "load": Command(
        "[OPTIONS]", "Load images from an archive (docker save's, or OCI) or standard input", load,
        (
            Option("-i, --input", "text", "PATH", "read this file, or an OCI layout's directory"),
            Option("-q, --quiet", "flag", "", "print no progress"),
        ),
    ),
    "save": Command(
        "[OPTIONS] IMAGE...", "Write images to an archive or standard output", save,
        (
            Option("-o, --output", "text", "PATH", "write this file, or directory"),
            Option("--format", "text", "FORMAT", "docker-archive, oci-archive or oci-dir",
                   "docker-archive"),
        ),
        arguments=(1, None),
    ),
    "import": Command(
        "[OPTIONS] FILE|- [REPOSITORY[:TAG]]", "Make an image of a file system's tar", import_,
        (
            Option("-c, --change", "list", "INSTRUCTION", "apply a Dockerfile instruction"),
            Option("-m, --message", "text", "TEXT", "say what this is"),
            Option("--platform", "text", "OS/ARCH", "what its programs are made for"),
        ),
        arguments=(1, 2),
    ),
    "tag": Command("IMAGE NAME[:TAG]", "Give an image one more name", tag, arguments=(2, 2)),
    "rmi": Command(
        "[OPTIONS] IMAGE...", "Remove images", remove,
        (
            Option("-f, --force", "flag", "", "also when it is in use; ignore a missing one"),
            Option("--no-prune", "flag", "", "keep images it was built on"),
            Option("--remote", "flag", "", "from their registry"),
        ),
        arguments=(1, None),
    ),
    "history": Command(
        "[OPTIONS] IMAGE", "Print how an image was made", history,
        (_QUIET, _NO_TRUNC, _FORMAT),
        arguments=(1, 1),
    ),
}  # fmt: skip
