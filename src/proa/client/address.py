"""Where the engine listens and keeps its state, as the environment says."""

from __future__ import annotations

import os

from proa.errors import Invalid

SOCKET_NAME = "proa.sock"


def root() -> str:
    """The engine's state directory: PROA_ROOT, the system's, or the user's own when rootless."""
    if given := os.environ.get("PROA_ROOT"):
        return os.path.abspath(given)
    if os.geteuid() == 0:
        return "/var/lib/proa"
    data = os.environ.get("XDG_DATA_HOME") or os.path.expanduser("~/.local/share")
    return os.path.join(data, "proa")


def run_directory() -> str:
    """The directory of the engine's socket."""
    if os.environ.get("PROA_ROOT"):
        return os.path.join(root(), "run")
    if os.geteuid() == 0:
        return "/run/proa"
    runtime = os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.geteuid()}"
    return os.path.join(runtime, "proa")


def socket_path() -> str:
    """The engine's Unix socket.  Raises Invalid for a PROA_HOST that names something else."""
    host = os.environ.get("PROA_HOST")
    if not host:
        return os.path.join(run_directory(), SOCKET_NAME)
    path = host.removeprefix("unix://")
    if not path.startswith("/"):
        raise Invalid(f"PROA_HOST '{host}' is not a Unix socket", hint="use unix:///path/to/socket")
    return path


def may_start() -> bool:
    """Whether an engine may be started here on demand: only at this root's own socket."""
    return not os.environ.get("PROA_HOST") or (
        socket_path() == os.path.join(run_directory(), SOCKET_NAME)
    )
