"""Images made into disks, and disks made into images."""

from __future__ import annotations

import os
import sys

from proa.cli import session
from proa.cli.options import Command, Option, Values
from proa.client import disks
from proa.client.connection import quote, target
from proa.client.progress import failure
from proa.errors import Conflict

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
    if message.get("error"):
        raise failure(message)
    if not quiet and message.get("status"):
        sys.stderr.write(f"{message['status']}\n")


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
}  # fmt: skip
