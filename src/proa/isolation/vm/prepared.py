"""What vms of one architecture need before the first starts, made once per engine.

A kernel, the first file system around our init built for that processor, an accelerator that works,
an empty disk's blocks.  Most of it is found on disk by the next engine.
"""

from __future__ import annotations

import hashlib
import threading
from dataclasses import dataclass
from pathlib import Path

from proa.errors import Unsupported
from proa.host import files
from proa.isolation import processors
from proa.isolation.places import Places
from proa.isolation.vm import abilities, accel, architectures, child, disks, guest, hull, named
from proa.isolation.vm.abilities import Abilities
from proa.isolation.vm.accel import Accelerator
from proa.isolation.vm.architectures import Architecture
from proa.isolation.vm.settings import Settings


@dataclass(frozen=True)
class Ground:
    """What any machine of an architecture stands on.

    `best` is the accelerator that works, `policy` what the engine's owner demands.
    """

    architecture: Architecture
    abilities: Abilities
    best: Accelerator
    policy: str
    skeleton: Path

    def accelerate(self, wanted: str) -> Accelerator:
        """The accelerator for an instance that asks for `wanted`.  Raises Unsupported."""
        return accel.decide(self.policy, wanted, self.best)

    @property
    def options(self) -> str:
        """The machine's options this QEMU knows."""
        return ",".join(self.abilities.known(self.architecture.options))


@dataclass(frozen=True)
class Prepared(Ground):
    """And a vm of an image."""

    firmware: child.Firmware
    tsc_khz: int
    seed: disks.Seed

    @property
    def accelerator(self) -> Accelerator:
        """What an instance gets that demands none.  Raises Unsupported when policy forbids it."""
        return self.accelerate("")


class Preparation:
    """Prepares an architecture when it is first asked for; safe for threads."""

    def __init__(
        self, root: Path, places: Places, settings: Settings, progress: guest.Progress
    ) -> None:
        self._root, self._places = root, places
        self._settings, self._progress = settings, progress
        self._lock = threading.Lock()
        self._done: dict[tuple[str, str], Prepared] = {}

    def get(self, name: str = "", kernel: str = "") -> Prepared:
        """What there is for an architecture, by an image's word for it (empty: the host's), with
        the engine's kernel or the one of this key.

        Raises Unsupported.
        """
        name = name or architectures.HOST
        with self._lock:
            if (name, kernel) not in self._done:
                self._done[name, kernel] = self._prepare(architectures.find(name), kernel)
            return self._done[name, kernel]

    def known(self, name: str = "") -> Prepared | None:
        """The same if that takes no time: it was prepared before, by this engine or an earlier."""
        name = name or architectures.HOST
        own = "" if name == architectures.HOST else f".{name}"
        return self.get(name) if any(self._root.glob(f"initramfs{own}-*")) else None

    def name_kernel(self, path: str, name: str = "") -> str:
        """The key of the kernel in a file, made ready now if it is not; another content has
        another key.  Raises NotFound, Unsupported, Corrupt.
        """
        key = named.key(path)
        with files.Lock(self._made_root() / "lock"):
            named.ready(self._root, key, path, architectures.find(name), self._progress)
        return key

    def ground(self, name: str = "") -> Ground:
        """The same without what only vms of images need, where that is another processor's."""
        architecture = architectures.find(name)
        if architecture.native:
            return self.get(name)
        with self._lock, files.Lock(self._made_root() / "lock"):
            return Ground(
                architecture, abilities.of(architecture, self._root), _foreign(architecture),
                self._settings.accelerator, hull.make_skeleton(self._root / "skeleton"),
            )  # fmt: skip

    def kernel(self) -> guest.Kernel:
        """The kernel of guests like the host, with its extras, for disks that boot without us."""
        kernels, configured = self._root / "kernels", self._settings.kernel
        with files.Lock(self._made_root() / "lock"):
            found = guest.find(kernels, configured, self._progress)
            return guest.complete(found, configured, self._progress)

    def _made_root(self) -> Path:
        self._root.mkdir(mode=0o755, parents=True, exist_ok=True)
        return self._root

    def _prepare(self, architecture: Architecture, named_kernel: str) -> Prepared:
        root = self._made_root()
        home = named.home(root, named_kernel) if named_kernel else root
        init = _init(architecture, self._places.native)
        with files.Lock(root / "lock"):
            able = abilities.of(architecture, root)
            if lacking := able.missing():
                raise Unsupported(f"'{architecture.program}' has no {', no '.join(lacking)}")
            if named_kernel:
                kernel = named.find(root, named_kernel)
            else:
                kernel = self._find_kernel(architecture)
            firmware = child.Firmware(kernel, _initramfs(home, architecture, kernel, init))
            return Prepared(
                architecture, able, self._accelerator(architecture, firmware, able),
                self._settings.accelerator, hull.make_skeleton(root / "skeleton"), firmware,
                guest.tsc_khz() if architecture.native else 0,
                disks.format_seed(root, self._settings.disk_gib << 30),
            )  # fmt: skip

    def _find_kernel(self, architecture: Architecture) -> guest.Kernel:
        if architecture.native:
            return guest.find(self._root / "kernels", self._settings.kernel, self._progress)
        return guest.find_foreign(
            self._root / f"kernels-{architecture.name}", architecture,
            self._settings.foreign_kernel, self._progress,
        )  # fmt: skip

    def _accelerator(
        self, architecture: Architecture, firmware: child.Firmware, able: Abilities
    ) -> Accelerator:
        if not architecture.native:
            return _foreign(architecture)
        if "kvm" not in able.accelerators:
            return Accelerator("tcg", f"'{architecture.program}' was built without kvm")
        if self._settings.accelerator == "tcg":
            return Accelerator("tcg", "the engine's policy")
        return accel.choose(
            self._root / "accelerator.json", lambda: firmware, self._places.dispatcher,
            self._progress,
        )  # fmt: skip


def _foreign(architecture: Architecture) -> Accelerator:
    host = processors.host()
    return Accelerator("tcg", f"the guest is '{architecture.name}', the host is '{host}'")


def _init(architecture: Architecture, native: Path) -> bytes:
    """Our program for the guest's processor.  Raises Unsupported when it was not built."""
    path = architecture.ours(native)
    try:
        return path.read_bytes()
    except OSError:
        raise Unsupported(
            f"no '{path}': guests for '{architecture.name}' have no init",
            hint=f"install the cross compiler and run 'make native-{architecture.name}'",
        ) from None


def _initramfs(root: Path, architecture: Architecture, kernel: guest.Kernel, init: bytes) -> Path:
    """The first file system around this build of init, written once; older ones are removed."""
    content = kernel.initramfs(init)
    begin = "initramfs-" if architecture.native else f"initramfs.{architecture.name}-"
    path = root / f"{begin}{hashlib.sha256(content).hexdigest()[:16]}"
    if not path.exists():
        for old in root.glob(f"{begin}*"):
            old.unlink(missing_ok=True)
        files.atomic_write(path, content)
        path.chmod(0o644)
    return path
