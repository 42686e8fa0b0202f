"""Programs of the host that read what others wrote: unprivileged, seeing one directory as theirs.

apt, dnf and rpm resolve, download and check as nobody in particular: no capability, no way to gain
one, a mount namespace of their own in which their directory is `HERE`.  What packages bring to be
executed never runs this way; see `install.py`.
"""

from __future__ import annotations

import os
import pwd
import re
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from proa.errors import HostError, Timeout, Unsupported

HERE = "/mnt"
_MAXIMUM_OUTPUT = 128 << 20
_MAXIMUM_FILE = 8 << 30
_SHOWN = 1500
_USERS = ("_apt", "nobody")
_PASSED = ("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")
_TELLING = re.compile(r"^(E:|[Ee]rror|- nothing provides)|Depends:|Conflicts:|Breaks:")
_SCRIPT = f'mount --bind "$1" {HERE} && cd {HERE} && shift && exec "$@"'


def user() -> tuple[int, int]:
    """Whose id and group the programs run with."""
    for name in _USERS:
        try:
            found = pwd.getpwnam(name)
        except KeyError:
            continue
        return found.pw_uid, found.pw_gid
    raise Unsupported("no unprivileged user 'nobody' on this host")


def own(directory: Path) -> Path:
    """A directory that the programs may write to; made when it is not there."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.chown(directory, *user())
    return directory


def give(path: Path) -> None:
    """Make a file of ours theirs."""
    os.chown(path, *user(), follow_symlinks=False)


@dataclass(frozen=True)
class Bounds:
    """What a program may have and cost."""

    network: bool = False
    seconds: float = 1800.0


LOCAL, NETWORK = Bounds(seconds=300.0), Bounds(network=True)


def run(
    directory: Path,
    command: Sequence[str],
    environment: Mapping[str, str] | None = None,
    bounds: Bounds = LOCAL,
) -> str:
    """The standard output of a program that has `directory` at `HERE` as its working directory.

    Raises HostError with the last words of one that fails or says too much, Timeout.
    """
    uid, gid = user()
    drop = [
        "setpriv", f"--reuid={uid}", f"--regid={gid}", "--clear-groups", "--no-new-privs",
        "--inh-caps=-all", "--bounding-set=-all", "--",
        "prlimit", f"--fsize={_MAXIMUM_FILE}",  # no file it writes grows for ever
    ]  # fmt: skip
    unshare = ["unshare", "--mount", "--ipc", "--propagation", "private"]
    unshare += [] if bounds.network else ["--net"]
    shell = ["sh", "-c", _SCRIPT, "sh", str(directory)]
    passed = {name: os.environ[name] for name in _PASSED if name in os.environ}
    ours = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8", "HOME": HERE}
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        try:
            done = subprocess.run(
                [*unshare, *shell, *drop, *command], stdin=subprocess.DEVNULL, stdout=out,
                stderr=err, env={**passed, **ours, **(environment or {})}, cwd="/",
                timeout=bounds.seconds, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired as error:
            raise Timeout(f"'{command[0]}' did not end within {bounds.seconds:g} s") from error
        except OSError as error:
            raise HostError(f"cannot run '{command[0]}': {error.strerror}") from error
        said = _text(out)
        if done.returncode:
            raise HostError(f"'{command[0]}' failed: {_last_words(said + _text(err))}")
        if len(said) >= _MAXIMUM_OUTPUT:
            raise HostError(f"'{command[0]}' says more than '{_MAXIMUM_OUTPUT}' bytes")
        return said


def _text(file: BinaryIO) -> str:
    file.seek(0)
    return file.read(_MAXIMUM_OUTPUT).decode(errors="replace")


def _last_words(said: str) -> str:
    """Errors and their reasons when there are any; else the end of what was said."""
    lines = [" ".join(line.split()) for line in said.splitlines() if line.strip()]
    errors = [line for line in lines if _TELLING.search(line)]
    return "; ".join(errors or lines[-6:])[-_SHOWN:] or "no output"
