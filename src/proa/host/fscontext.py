"""Making a file system step by step: fsopen, fsconfig, fsmount, and what it has to say."""

from __future__ import annotations

import os
from collections.abc import Sequence

from proa.errors import HostError
from proa.host import kernel

_SET_FLAG, _SET_STRING, _CREATE = 0, 1, 6
_CLOSE_ON_EXEC = 1


def make(kind: str, options: Sequence[tuple[str, str | None]], attributes: int) -> int:
    """A detached mount; an option whose value is None is a flag.

    A refusal is a HostError with the step that failed and the file system's own words.
    """
    step = "fsopen"
    context = -1
    try:
        context = kernel.syscall(kernel.FSOPEN, kind.encode(), _CLOSE_ON_EXEC)
        for key, value in options:
            step = key if value is None else f"{key}={value}"
            _configure(context, key, value)
        step = "create"
        kernel.syscall(kernel.FSCONFIG, context, _CREATE, None, None, 0)
        step = "fsmount"
        return kernel.syscall(kernel.FSMOUNT, context, _CLOSE_ON_EXEC, attributes)
    except OSError as error:
        said = _messages(context) or error.strerror
        raise HostError(f"cannot mount file system '{kind}' at '{step}': {said}") from error
    finally:
        if context >= 0:
            os.close(context)


def _configure(context: int, key: str, value: str | None) -> None:
    command = _SET_FLAG if value is None else _SET_STRING
    text = None if value is None else os.fsencode(value)
    kernel.syscall(kernel.FSCONFIG, context, command, key.encode(), text, 0)


def _messages(context: int) -> str:
    """What the file system wrote to its context's log, `e ` and the like cut off."""
    lines: list[str] = []
    try:
        while context >= 0 and len(lines) < 16:
            lines.append(os.read(context, 4096).decode(errors="replace").strip()[2:])
    except OSError:  # ENODATA: all read
        pass
    return "; ".join(lines)
