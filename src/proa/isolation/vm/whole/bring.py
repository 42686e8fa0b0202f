"""Bringing our agent into a running Linux that has only QEMU's, without a trace on its disk."""

from __future__ import annotations

from proa.errors import IsolationError, Unsupported
from proa.isolation.vm.whole.qga import Qga

DIRECTORY = "/run/proa"
NEEDED = frozenset({"guest-exec", "guest-exec-status", "guest-file-open", "guest-file-write"})
_HINT = "install Proa's agent there by cloud-init, or allow QEMU's guest agent more"
# Its own mount: /run may be one on which nothing is executed.
_PREPARE = f"""
mkdir -p -m 700 {DIRECTORY}
grep -q ' {DIRECTORY} ' /proc/mounts || mount -t tmpfs -o mode=700,size=16m tmpfs {DIRECTORY}
rm -f {DIRECTORY}/agent
"""
_START = f"""
chmod 700 {DIRECTORY}/agent
if [ -d /run/systemd/system ]; then
	systemctl reset-failed proa-agent.service 2>/dev/null
	systemd-run -q --unit=proa-agent -p KillMode=process -p Restart=always {DIRECTORY}/agent guest
else
	setsid {DIRECTORY}/agent guest </dev/null >/dev/null 2>&1 &
fi
"""


def bring(guest: Qga, program: bytes) -> None:
    """Copy our program there and start it.  Raises Unsupported where that cannot be."""
    missing = NEEDED - guest.commands()
    if missing:
        raise Unsupported(f"the guest agent in there does not do '{min(missing)}'", hint=_HINT)
    system = guest.system()
    if system == "mswindows":
        raise Unsupported(f"Proa's agent does not run on '{system}'")
    _run(guest, "[ $(uname -s) = Linux ]", f"Proa's agent does not run on '{system}'")
    _run(guest, _PREPARE, "Proa's agent finds no place in there")
    guest.write_file(f"{DIRECTORY}/agent", [program])
    _run(guest, _START, "Proa's agent does not start in there")


def _run(guest: Qga, script: str, reason: str) -> None:
    try:
        ended = guest.run(["/bin/sh", "-c", script])
    except IsolationError as error:
        raise Unsupported(f"{reason}: {error.message}") from error
    if ended.code != 0:
        said = ended.errors.decode("utf-8", "replace").strip()
        raise Unsupported(f"{reason}: {said}" if said else reason)
