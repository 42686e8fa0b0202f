"""Linux capability names and Docker's default set (capabilities(7), linux/capability.h)."""

from __future__ import annotations

from proa.errors import Invalid

NAMES = (
    "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE "
    "NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO "
    "SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME "
    "SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG "
    "WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE"
).split()

DEFAULT = (
    "CHOWN DAC_OVERRIDE FSETID FOWNER MKNOD NET_RAW SETGID SETUID SETFCAP SETPCAP "
    "NET_BIND_SERVICE SYS_CHROOT KILL AUDIT_WRITE"
).split()


def mask(add: tuple[str, ...] = (), drop: tuple[str, ...] = ()) -> int:
    """Bits of the default set with changes; `ALL` is understood in both lists, as Docker does."""
    chosen = set(DEFAULT)
    removed, added = {_name(item) for item in drop}, {_name(item) for item in add}
    if "ALL" in removed:
        chosen = set()
    if "ALL" in added:
        chosen = set(NAMES)
    chosen = (chosen | (added - {"ALL"})) - (removed - {"ALL"})
    return sum(1 << NAMES.index(name) for name in chosen)


def _name(item: str) -> str:
    name = item.upper().removeprefix("CAP_")
    if name != "ALL" and name not in NAMES:
        raise Invalid(f"unknown capability '{item}'")
    return name
