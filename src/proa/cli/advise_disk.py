"""`advise` of a machine's disk: its services shown, and the app file that splits them."""

from __future__ import annotations

import os
import sys

from proa.cli import session
from proa.errors import Conflict

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from proa.advice.disk.machine import Machine
    from proa.advice.facts import Facts


def is_disk(name: str) -> bool:
    """Whether a subject is meant as a disk's file."""
    from proa.cli import config

    return os.path.isfile(name) and config.is_disk(name)


def read(disk: str, root: int | None = None) -> Machine:
    """The machine on a disk; a guest of the engine's reads it."""
    from proa.advice.disk import machine

    query = {} if root is None else {"root": root}
    sys.stderr.write(f"reading '{disk}' in a vm\n")
    found: dict[str, Any] = session.post("/proa/disks/facts", disk=os.path.abspath(disk), **query)
    return machine.load(found)


def facts_of(machine: Machine) -> Facts:
    """What `POST /proa/advise` is told of it."""
    from proa.advice.disk import facts

    return facts.facts_of(machine)


def services(machine: Machine) -> str:
    """The services found inside, for people."""
    from proa.advice.disk import facts

    return "\n".join(
        ("  services found on it", *(f"    {one}" for one in facts.described(machine)))
    )


def split(machine: Machine, disk: str, path: str) -> None:
    """Write the draft of an app file; `-` prints it.  Raises Conflict for a file that is there."""
    from proa.advice.split import draft

    text = draft.draft(machine, disk)
    if path == "-":
        sys.stdout.write(text)
        return
    try:
        with open(path, "x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise Conflict(f"'{path}' is there already", hint="remove it, or name another") from None
    guesses = text.count("GUESS:")
    sys.stderr.write(f"{path}: a draft with {guesses} guesses, each with its reason\n")
