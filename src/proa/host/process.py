"""Programs of the host, run to their end; a failure carries the command, exit code and output."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Sequence

from proa.errors import HostError, Timeout

_OUTPUT_SHOWN = 2000


def run(argv: Sequence[str], *, input: str = "", timeout_seconds: float = 60) -> str:
    """The standard output of a program.  HostError when it fails, Timeout when it does not end."""
    shown = shlex.join(argv)
    try:
        done = subprocess.run(
            list(argv), input=input, capture_output=True, timeout=timeout_seconds, check=False,
            text=True, errors="replace",
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise Timeout(f"'{shown}' did not end within {timeout_seconds:g} s") from error
    except OSError as error:
        raise HostError(
            f"cannot run '{shown}': {error.strerror}", hint=f"install '{argv[0]}'"
        ) from error
    if done.returncode:
        said = " ".join((done.stderr or done.stdout).split())[:_OUTPUT_SHOWN]
        raise HostError(f"'{shown}' failed with exit code {done.returncode}: {said or 'no output'}")
    return done.stdout


def spawn(argv: Sequence[str], descriptors: Sequence[int] = ()) -> subprocess.Popen[bytes]:
    """Start a program that outlives us: own session, no standard streams, these descriptors kept.

    Whoever asked for it reaps it (`poll`), or init does when this process has ended.
    """
    try:
        return subprocess.Popen(
            list(argv), pass_fds=tuple(descriptors), start_new_session=True, cwd="/",
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={},
        )  # fmt: skip
    except OSError as error:
        raise HostError(f"cannot run '{shlex.join(argv)}': {error.strerror}") from error
