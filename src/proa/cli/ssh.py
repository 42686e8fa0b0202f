"""Logging in to a machine with a system of its own, by the host's ssh."""

from __future__ import annotations

import os

from proa.cli import session
from proa.cli.options import Option, OptionsFirst, Values
from proa.errors import Unsupported

_OPTIONS = (
    Option("-l, --user", "text", "USER", "user inside", "root"),
    Option("-o", "list", "OPTION", "an option of ssh, like LocalForward=8080:localhost:80"),
)


def ssh(values: Values, arguments: list[str]) -> int:
    """Log in, or run a command there: ssh takes this process's place."""
    instance, *command = arguments
    way = session.connect().request("GET", f"/proa/instances/{instance}/ssh").json()
    settings = {
        "IdentitiesOnly": "yes", "UserKnownHostsFile": way["KnownHosts"],
        "StrictHostKeyChecking": "yes" if way["Known"] else "accept-new", "LogLevel": "ERROR",
    }  # fmt: skip
    options = [f"{name}={value}" for name, value in settings.items()] + list(values.o or [])
    words = ["ssh", "-F", "none", "-i", way["Key"], "-l", values.user]
    for option in options:
        words += ["-o", option]
    try:
        os.execvp("ssh", [*words, "--", way["Address"], *command])
    except OSError as error:
        raise Unsupported(
            f"cannot run 'ssh': {error.strerror}", hint="install 'openssh-client'"
        ) from None


COMMANDS = {
    "ssh": OptionsFirst(
        "[OPTIONS] INSTANCE [COMMAND [ARGUMENT...]]",
        "Log in to a machine with its own system",
        ssh,
        _OPTIONS,
        arguments=(1, None),
    ),
}
