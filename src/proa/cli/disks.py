"""Images made into disks, and disks made into images."""

from __future__ import annotations

import os
import sys

from proa.cli import session
from proa.cli.options import Command, Option, Values
from proa.client import disks, fastjson
from proa.client.connection import quote, target
from proa.client.progress import checked
from proa.errors import Conflict, EngineUnavailable
from proa.printable import visible

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_KERNEL_MAXIMUM_BYTES = 128 << 20


def to_disk(values: Values, arguments: list[str]) -> int:
    """Make a disk that boots of an image."""
    name, path = arguments
    if os.path.lexists(path) and not values.force:
        raise Conflict(f"'{path}' is there already", hint="remove it, or use --force")
    query: dict[str, object] = {
        "format": values.format or ("raw" if path.endswith((".raw", ".img")) else "qcow2"),
        "size": values.size, "hostname": values.hostname, "init": values.init,
        "cmdline": values.cmdline, "compress": values.compress or None,
    }  # fmt: skip
    url = target(f"/proa/images/{quote(name)}/disk", query)
    answer = session.connect().request("POST", url, _kernel(values.kernel))
    head = disks.receive(answer, path, lambda line: _tell(line, values.quiet))
    if not values.quiet:
        stored = os.stat(path).st_blocks * 512
        print(f"{path}: a disk of {_mib(head['virtual'])}, {_mib(stored)} of it stored")
    return 0


def _kernel(path: str | None) -> bytes | None:
    if not path:
        return None
    with open(path, "rb") as file:
        return file.read(_KERNEL_MAXIMUM_BYTES + 1)


def _mib(size: int) -> str:
    return f"{size / (1 << 20):.0f} MiB"


def _tell(message: dict[str, Any], quiet: bool) -> None:
    if not quiet and message.get("status"):
        sys.stderr.write(f"{visible(message['status'])}\n")


def from_disk(values: Values, arguments: list[str]) -> int:
    """Make an image of a machine's disk."""
    path = arguments[0]
    query: dict[str, object] = {
        "file": os.path.basename(path), "name": values.tag, "root": values.root,
    }  # fmt: skip
    url = target("/proa/disks", query)
    answer = session.connect().upload("POST", url, lambda to: disks.send(path, to))
    made: dict[str, Any] = {}
    for line in checked(answer.json_lines()):
        _tell(line, values.quiet)
        made = line if "image" in line else made
    if not made:
        raise EngineUnavailable("the engine stopped before the image was made")
    for problem in made["problems"]:
        sys.stderr.write(f"note: {visible(problem)}\n")
    if values.ledger:
        _write(values.ledger, _ledger_text(made["ledger"], values.ledger))
    if values.containerfile:
        _write(values.containerfile, made["containerfile"])
    elif not values.quiet:
        sys.stderr.write(f"\n{made['containerfile']}\n")
    print(made["image"])
    return 0


def _write(path: str, text: str) -> None:
    if path == "-":
        sys.stdout.write(text)
        return
    with open(path, "w", encoding="utf-8", errors="surrogateescape") as file:
        file.write(text)


def _ledger_text(ledger: dict[str, Any], path: str) -> str:
    """JSON for a file of that name, else a table."""
    if path.endswith(".json"):
        return fastjson.dumps(ledger) + "\n"
    lines = [f"{'BYTES':>15}  WHAT"]
    for title in ("kept", "left_out"):
        rows = ledger[title]
        lines.append(f"{ledger[f'{title}_bytes']:>15}  {title.replace('_', ' ').upper()}")
        lines += [f"{rows[name]:>15}    {name}" for name in rows]
    if ledger["used_bytes"]:
        lines.append(f"{ledger['other_bytes']:>15}  the file system's own: metadata, whole blocks")
        lines.append(f"{ledger['used_bytes']:>15}  USED")
    lines.append("")
    lines += [f"{size:>15}  package {visible(name)}" for name, size in ledger["packages"].items()]
    lines.append("")
    lines += [f"left out: /{visible(name)}" for name in ledger["left_out_paths"]]
    return "\n".join(lines) + "\n"


_QUIET = Option("-q, --quiet", "flag", "", "print no progress")

COMMANDS = {
    "to-disk": Command(
        "[OPTIONS] IMAGE FILE", "Make a disk of an image that boots in any virtual machine",
        to_disk,
        (
            Option("--format", "text", "FORMAT", "qcow2 or raw (by default as FILE is called)"),
            Option("--size", "bytes", "SIZE", "the disk's size (by default what is needed)"),
            Option("--hostname", "text", "NAME", "the machine's name"),
            Option("--init", "text", "KIND", "image (its own init), program (its command), auto"),
            Option("--kernel", "text", "FILE", "boot this kernel, a vmlinuz"),
            Option("--cmdline", "text", "TEXT", "more options for the kernel"),
            Option("--compress", "flag", "", "compress a qcow2"),
            Option("-f, --force", "flag", "", "replace FILE"),
            _QUIET,
        ),
        arguments=(2, 2),
    ),
    "from-disk": Command(
        "[OPTIONS] DISK", "Make an image of a machine's disk (raw, qcow2, vmdk, vhdx, vdi)",
        from_disk,
        (
            Option("-t, --tag", "text", "NAME", "name the image"),
            Option("--root", "integer", "N", "the root is on partition N"),
            Option("--containerfile", "text", "FILE", "write the proposed Containerfile, - prints"),
            Option("--ledger", "text", "FILE", "write where the bytes went (.json, or -)"),
            _QUIET,
        ),
        arguments=(1, 1),
    ),
}  # fmt: skip
