"""Programs of the host that make a disk's parts; what they say is kept for the error."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from collections.abc import Mapping, Sequence

from proa.errors import HostError, NoSpace, Unsupported

_SAID_MAXIMUM = 2000
_PATH = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"


def run(
    command: Sequence[str],
    *,
    environment: Mapping[str, str] | None = None,
    descriptors: Sequence[int] = (),
) -> None:
    """Run to the end.  Raises NoSpace, HostError with the program's words, or Unsupported."""
    try:
        result = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            env={"PATH": _PATH, "LC_ALL": "C.UTF-8", **(environment or {})},
            pass_fds=tuple(descriptors), check=False,
        )  # fmt: skip
    except FileNotFoundError:
        raise Unsupported(f"no program '{command[0]}'", hint=f"install '{command[0]}'") from None
    if result.returncode == 0:
        return
    said = " ".join(result.stdout.decode(errors="replace").split())[-_SAID_MAXIMUM:]
    if "No space left" in said:
        raise NoSpace("cannot make the disk: no space left on the engine's own")
    shown = shlex.join(command)
    raise HostError(f"'{shown}' failed with exit code {result.returncode}: {said or 'no output'}")


def program(name: str, package: str) -> str:
    """The path of a program.  Raises Unsupported, naming the package it comes in."""
    found = shutil.which(name, path=_PATH)
    if found is None:
        raise Unsupported(f"no program '{name}'", hint=f"install '{package}'")
    return found
