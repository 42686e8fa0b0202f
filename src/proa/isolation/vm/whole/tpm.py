"""A software TPM 2.0 for one machine: swtpm, in a place of its own, with its state and a socket."""

from __future__ import annotations

import socket
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from proa import capabilities, plan
from proa.agent import MAIN, Kind
from proa.errors import Unsupported
from proa.isolation.places import Place, Places
from proa.isolation.vm import hull, qemu
from proa.plan import encode
from proa.resources import Share

PROGRAM = Path("/usr/bin/swtpm")
STATE = "tpm"  # in the instance's directory


@dataclass
class Tpm:
    """A TPM at work; `connection` is QEMU's end."""

    place: Place
    connection: socket.socket

    def end(self, places: Places) -> None:
        """Give up."""
        self.connection.close()
        places.end(self.place)


def check() -> None:
    """Raises Unsupported where there is no swtpm."""
    if not PROGRAM.exists():
        raise Unsupported("this host has no software TPM", hint="install 'swtpm'")


def serve(places: Places, skeleton: Path, directory: Path) -> Tpm:
    """Start the TPM of the instance whose directory this is.  It ends with its connection."""
    check()
    state = directory / STATE
    state.mkdir(mode=0o700, exist_ok=True)
    place = places.take()
    with ExitStack() as undo, ExitStack() as opened:
        undo.callback(places.end, place)
        ours, theirs = socket.socketpair()
        undo.callback(ours.close)
        with theirs:
            share = Share(state, "")
            steps, trees = hull.root_steps(hull.Site(place, skeleton), (share,), False, 1, opened)
            steps += (
                plan.Capabilities(f"{capabilities.mask(drop=('ALL',)):x}"),
                plan.NoNewPrivileges(), plan.Seccomp("default"),
                plan.Exec((
                    str(PROGRAM), "socket", "--tpm2", "--terminate",
                    "--ctrl", f"type=unixio,clientfd={plan.INHERIT_FIRST}",
                    "--tpmstate", f"dir={qemu.SHARES_PATH}/0", "--flags", "startup-clear",
                )),
            )  # fmt: skip
            sent = (theirs.fileno(), *trees)
            place.agent.finish(place.agent.begin(Kind.LAUNCH, MAIN, encode(steps), 0, sent))
        undo.pop_all()
    return Tpm(place, ours)
