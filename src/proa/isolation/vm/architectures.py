"""What differs between guests of one processor and of another: QEMU, the board, the kernel.

Everything else (devices, templates, init) is the same: PCI is on all architectures.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from proa.errors import Unsupported
from proa.isolation import processors

_COMMON = "quiet panic=-1 cryptomgr.notests nowatchdog audit=0 rcupdate.rcu_expedited=1"
_PORTS = tuple(f"later{number}" for number in range(6))


@dataclass(frozen=True)
class Architecture:
    """A processor, `name` in the words of images, and the machine around it.

    `options` are the machine's, of which a QEMU may know some only; `cpu` is what TCG emulates;
    `late` are devices that make room for others while it runs (decision 020);
    `kernel` is Debian's package, `package` the one with QEMU's program.
    """

    name: str
    program: Path
    package: str
    machine: str
    options: tuple[str, ...]
    cpu: str
    command_line: str
    kernel: str
    ram_start: int  # where the guest sees its memory
    buses: tuple[str, ...]  # for devices that come later: names of what `late` makes
    late: tuple[str, ...]
    grows: bool  # whether memory and processors can be plugged

    @property
    def native(self) -> bool:
        """Whether the host has such a processor."""
        return not processors.is_foreign(self.name)

    def ours(self, native: Path) -> Path:
        """Our program for it, beside the host's, if it was built."""
        return native if self.native else native.with_name(f"proa-native-{self.name}")


_TABLE = (
    Architecture(
        "amd64", Path("/usr/bin/qemu-system-x86_64"), "qemu-system-x86", "q35",
        ("smm=off", "sata=off", "smbus=off", "usb=off", "vmport=off", "hpet=off", "i8042=off",
         "graphics=off", "dump-guest-core=off"),
        "max",
        f"{_COMMON} no_timer_check tsc=reliable 8250.nr_uarts=0 random.trust_cpu=on",
        "linux-image-amd64", 0, ("later",), ("pcie-pci-bridge,id=later",), True,
    ),
    Architecture(  # without `console=` the kernel takes the device tree's serial port, and waits
        "arm64", Path("/usr/bin/qemu-system-aarch64"), "qemu-system-arm", "virt",
        ("gic-version=max", "dump-guest-core=off"),
        "max,pauth-impdef=on",
        f"{_COMMON} console=hvc0 random.trust_cpu=on",
        "linux-image-arm64", 1 << 30, _PORTS,  # a bridge has ACPI's hot plugging on a PC only
        tuple(f"pcie-root-port,id={name},chassis={n}" for n, name in enumerate(_PORTS, 1)),
        False,  # QEMU 7.2 ends when a guest of `virt` switches a slot with memory off
    ),
)  # fmt: skip
ALL = {item.name: item for item in _TABLE}
HOST = processors.host() if processors.host() in ALL else "amd64"


def find(name: str) -> Architecture:
    """The architecture of an image; the host's when the image does not say.

    Raises Unsupported when there is none, or when its QEMU is not installed.
    """
    found = ALL.get(name or HOST)
    if found is None:
        raise Unsupported(f"no vm for the processor '{name}'", hint=f"there are: {', '.join(ALL)}")
    if not found.program.exists():
        raise Unsupported(f"no '{found.program}'", hint=f"install '{found.package}'")
    return found


def version_key(name: str) -> str:
    """What tells one installed QEMU from another without running it."""
    facts = ALL[name].program.stat()
    return f"{facts.st_size}.{facts.st_mtime_ns}.{facts.st_ino}"
