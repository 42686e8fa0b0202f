"""How QEMU is confined beside its namespaces: few capabilities, system calls and files.

Everything a machine may touch is a descriptor it is born with or is sent later.  What is left to a
path is QEMU's own: its program, libraries, firmware and, when there are shares, those.
"""

from __future__ import annotations

from functools import cache

from proa import capabilities, plan
from proa.host import kernel
from proa.isolation.vm import qemu
from proa.plan import Step

SHARE_CAPABILITIES = ("CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID")
LIBRARIES = ("/lib", "/lib64", "/usr/lib", "/usr/local/lib")
READ = (
    "/etc/ld.so.cache", "/proc/self", "/proc/sys/vm/overcommit_memory", "/sys/devices/system",
    "/usr/share/AAVMF", "/usr/share/OVMF", "/usr/share/ovmf", "/usr/share/qemu",
    "/usr/share/qemu-efi-aarch64", "/usr/share/seabios",
)  # fmt: skip
DEVICES = ("/dev/kvm", "/dev/null", "/dev/random", "/dev/urandom", "/dev/zero")


def steps(program: str, *, shares: bool) -> tuple[Step, ...]:
    """The last steps before QEMU's `exec`.  Only serving several owners' files takes privileges."""
    mask = capabilities.mask(add=SHARE_CAPABILITIES if shares else (), drop=("ALL",))
    restricted = (plan.Landlock(rules(program)),) if landlock_abi() else ()
    return (
        plan.Capabilities(f"{mask:x}"),
        plan.NoNewPrivileges(),
        *restricted,
        plan.Seccomp("machine"),
    )


def rules(program: str) -> tuple[str, ...]:
    """What of the place's files QEMU may open (`plan.Landlock`)."""
    return (
        f"exec:{program}",
        *(f"exec:{path}" for path in LIBRARIES),
        *(f"read:{path}" for path in READ),
        *(f"device:{path}" for path in DEVICES),
        f"all:{qemu.SHARES_PATH}",
    )


@cache
def landlock_abi() -> int:
    """The version of this kernel's Landlock; 0 without it."""
    try:
        return kernel.syscall(kernel.LANDLOCK_CREATE_RULESET, 0, 0, 1)
    except OSError:
        return 0


def fact() -> str:
    """What `inspect` tells of it."""
    abi = landlock_abi()
    return f"abi {abi}" if abi else "not in this kernel"
