"""Programs for another processor in a container: QEMU's user mode, by the kernel's binfmt_misc.

Since Linux 6.7 a user namespace may have a binfmt_misc of its own (Documentation/admin-guide/
binfmt-misc.rst), so the handler is registered for the one container and the host is not changed.
It is registered with `F`: the kernel opens the interpreter there and then, and the container needs
no copy.  On older kernels the host's handler serves, when it has one with `F`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from proa import plan
from proa.errors import Unsupported
from proa.host import features, kernel
from proa.isolation import processors
from proa.isolation.processors import Processor
from proa.plan import Step

OWN_SINCE = (6, 7)
HANDLERS = "/proc/sys/fs/binfmt_misc"
PROGRAMS = Path("/usr/bin")
PACKAGE = "qemu-user-static"
_FLAGS = "POCF"  # keep argv[0], open the program, use its credentials, fix the interpreter
_HEADERS_BYTES = 4096


@dataclass(frozen=True)
class Emulation:
    """How a container's programs run; without a `program` the host's own handler does it."""

    processor: Processor
    program: Path | None

    def steps(self, source: str) -> tuple[Step, ...]:
        """Before the root is changed to; `source` is where the program is (`fd:N`)."""
        if self.program is None:
            return ()
        here = f"/{self.program.name}"  # in the place before it has its root
        magic, mask = _escaped(self.processor.magic()), _escaped(self.processor.mask())
        line = f":proa-{self.processor.machine}:M::{magic}:{mask}:{here}:{_FLAGS}"
        return (
            plan.Attach(source, here),
            plan.MountFs("binfmt_misc", "binfmt_misc", HANDLERS, "nosuid,nodev,noexec"),
            plan.Write(f"{HANDLERS}/register", "0200", line),
            plan.ReadOnly(HANDLERS),
        )

    @property
    def described(self) -> str:
        """For people."""
        if self.program is None:
            return f"the host's handler 'qemu-{self.processor.machine}'"
        return str(self.program)


def find(architecture: str) -> Emulation:
    """How programs for a foreign processor can run here.  Raises Unsupported."""
    processor = processors.KNOWN.get(architecture)
    if processor is None:
        raise Unsupported(
            f"programs for '{architecture}' do not run on this host ({processors.host()})"
        )
    program = _program(processor)
    own = kernel.version() >= OWN_SINCE and not features.file_system("binfmt_misc")
    if program is not None and own:
        return Emulation(processor, program)
    if _hosts_handler(processor):
        return Emulation(processor, None)
    why = f"programs for '{architecture}' do not run on this host ({processors.host()})"
    if program is None:
        raise Unsupported(
            f"{why} and there is no emulator", hint=f"install '{PACKAGE}', or use --vm"
        )
    raise Unsupported(
        f"{why}: its kernel has no binfmt_misc of namespaces (6.7), and no emulator registered",
        hint=f"register '{program}' with binfmt_misc and the flag F (what '{PACKAGE}' and "
        "'binfmt-support' do), or use --vm",
    )


def _program(processor: Processor) -> Path | None:
    """QEMU's user mode for it, statically linked: it has no libraries in the container."""
    for name in (f"qemu-{processor.machine}-static", f"qemu-{processor.machine}"):
        path = PROGRAMS / name
        try:
            with path.open("rb") as file:
                if processors.is_static(file.read(_HEADERS_BYTES)):
                    return path
        except OSError:
            continue
    return None


def _hosts_handler(processor: Processor) -> bool:
    try:
        lines = Path(HANDLERS, f"qemu-{processor.machine}").read_text().splitlines()
    except OSError:
        return False
    flags = next((line.partition(":")[2] for line in lines if line.startswith("flags:")), "")
    return "enabled" in lines[:1] and "F" in flags


def _escaped(data: bytes) -> str:
    return "".join(f"\\x{byte:02x}" for byte in data)
