"""The guest's kernel: which one, from where, made ready to boot.

The host's own kernel when it has every module a guest needs, else the newest generic kernel of the
distribution, unpacked from its package and never installed, else one named in the configuration.
A prepared kernel is a directory `kernels/RELEASE` with `vmlinux`, the few modules, `kernel.json`;
`more/` beside them has what only disks need, see `extras.py`.
"""

from __future__ import annotations

import contextlib
import json
import lzma
import os
import re
import shutil
import struct
import subprocess
import tempfile
import zlib
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from proa.errors import Corrupt, HostError, ProaError, Unsupported
from proa.isolation.vm import architectures, extras, initramfs, modules
from proa.isolation.vm.architectures import Architecture

ARM64, ARM64_AT = b"ARM\x64", 56
ZBOOT = struct.Struct("<4s4sII")  # linux/pe.h: magic, image type, payload offset and size
NAME_ONE = "name a vmlinuz with its modules in the configuration: vm.kernel (or foreign_kernel)"
KNOWN = modules.REQUIRED + modules.SHARES + modules.OPTIONAL
Progress = Callable[[str], None]


@dataclass(frozen=True)
class Kernel:
    """A kernel ready to boot; `modules` in loading order, as files `modules/NAME.ko`."""

    release: str
    origin: str
    directory: Path
    modules: tuple[str, ...]
    absent: tuple[str, ...] = ()  # of those for folders, when somebody named it all the same

    @property
    def image(self) -> Path:
        """The uncompressed kernel: an ELF file with a PVH entry, or arm64's `Image`."""
        return self.directory / "vmlinux"

    def initramfs(self, init: bytes) -> bytes:
        """The first file system around this init."""
        files = (
            (name, (self.directory / "modules" / f"{name}.ko").read_bytes())
            for name in self.modules
        )
        return initramfs.build(init, files)


def find(kernels: Path, configured: str = "", progress: Progress = lambda line: None) -> Kernel:
    """The guest kernel, prepared below `kernels`.  `configured` is the path of a vmlinuz."""
    if configured:
        return _configured(kernels, configured)
    own = os.uname().release
    ready = _ready(kernels, own)
    if ready:
        return ready
    with contextlib.suppress(Unsupported, Corrupt, FileNotFoundError):
        image, tree = Path(f"/boot/vmlinuz-{own}"), Path(f"/lib/modules/{own}")
        return prepare(kernels, Source(image, tree, own, "the host's own"))
    return _newest(kernels) or _from_package(kernels, progress)


def find_foreign(
    kernels: Path, architecture: Architecture, configured: str, progress: Progress
) -> Kernel:
    """The kernel for another processor, prepared below `kernels`: `configured` is the path of a
    vmlinuz, else it is the distribution's newest.
    """
    if configured:
        return _configured(kernels, configured)
    return _newest(kernels) or _from_package(kernels, progress, architecture)


def _configured(kernels: Path, path: str) -> Kernel:
    image = Path(path)
    release = image.name.partition("-")[2] or image.name
    tree = _modules_beside(image, release)
    return _ready(kernels, release) or prepare(
        kernels, Source(image, tree, release, f"configured: {path}")
    )


def named(kernels: Path, path: str, release: str) -> Kernel:
    """A kernel that somebody named for one vm, prepared below a directory of its own."""
    image = Path(path)
    tree = _modules_beside(image, release)
    return prepare(kernels, Source(image, tree, release, f"named: {path}", shares=False))


def only(kernels: Path) -> Kernel | None:
    """The kernel prepared in a directory that holds one."""
    names = [path.name for path in kernels.iterdir()] if kernels.is_dir() else []
    return next(filter(None, (_ready(kernels, name) for name in names)), None)


def complete(kernel: Kernel, configured: str, progress: Progress = lambda line: None) -> Kernel:
    """The same kernel with its extras, fetched once more when it was prepared without them."""
    kernels = kernel.directory.parent
    if extras.there(kernel.directory):
        return kernel
    if configured:
        image = Path(configured)
        tree = _modules_beside(image, kernel.release)
        return prepare(kernels, Source(image, tree, kernel.release, kernel.origin))
    if not kernel.origin.startswith("package"):
        image, tree = Path(f"/boot/vmlinuz-{kernel.release}"), Path("/lib/modules", kernel.release)
        return prepare(kernels, Source(image, tree, kernel.release, kernel.origin))
    package = f"linux-image-{kernel.release}"
    fetched = _from_package(kernels, progress, package=package)
    if not extras.there(fetched.directory):
        raise HostError(f"the guest kernel '{kernel.release}' could not be completed")
    return fetched


def _modules_beside(image: Path, release: str) -> Path:
    unpacked = image.parent.parent / "lib/modules" / release
    return unpacked if unpacked.is_dir() else Path("/lib/modules") / release


def _ready(kernels: Path, release: str) -> Kernel | None:
    """A prepared kernel, unless it is incomplete or made for another list of modules."""
    directory = kernels / release
    try:
        facts = json.loads((directory / "kernel.json").read_text())
    except (OSError, ValueError):
        return None
    if facts.pop("required", None) != list(KNOWN):
        return None
    kernel = Kernel(
        facts["release"], facts["origin"], directory, tuple(facts["modules"]),
        tuple(facts.get("absent", ())),
    )  # fmt: skip
    complete = all((directory / "modules" / f"{name}.ko").is_file() for name in kernel.modules)
    return kernel if complete and kernel.image.is_file() else None


def _newest(kernels: Path) -> Kernel | None:
    """The newest prepared kernel that came from a package."""
    if not kernels.is_dir():
        return None
    found = [_ready(kernels, path.name) for path in kernels.iterdir()]
    packaged = [kernel for kernel in found if kernel and kernel.origin.startswith("package")]
    return max(packaged, key=lambda kernel: _version(kernel.release), default=None)


def _version(release: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", release))


@dataclass(frozen=True)
class Source:
    """Where a kernel is taken from; without `shares` it may be one that cannot share folders."""

    image: Path
    tree: Path
    release: str
    origin: str
    shares: bool = True


def prepare(kernels: Path, source: Source) -> Kernel:
    """Decompress a kernel and the modules a guest needs into `kernels/RELEASE`, all or nothing."""
    found, image, release = modules.scan(source.tree), source.image, source.release
    required = modules.REQUIRED + (modules.SHARES if source.shares else ())
    names = modules.order(found, required, modules.SHARES + modules.OPTIONAL)
    absent = tuple(
        name for name in modules.SHARES if name not in found.files and name not in found.builtin
    )
    kernels.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=".new-", dir=kernels))
    try:
        (work / "modules").mkdir()
        (work / "vmlinux").write_bytes(decompress(image.read_bytes()))
        for name in names:
            (work / "modules" / f"{name}.ko").write_bytes(modules.read(found.files[name]))
        extras.keep(found, image, work / extras.DIRECTORY)
        directory = kernels / release
        ready = _ready(kernels, release)
        if ready is not None:  # in use perhaps: only what is missing is added
            shutil.rmtree(directory / extras.DIRECTORY, ignore_errors=True)
            (work / extras.DIRECTORY).rename(directory / extras.DIRECTORY)
            return ready
        kernel = Kernel(release, source.origin, directory, names, absent)
        facts = asdict(kernel) | {"required": KNOWN}
        del facts["directory"]
        (work / "kernel.json").write_text(json.dumps(facts))
        work.chmod(0o755)
        shutil.rmtree(directory, ignore_errors=True)
        work.rename(directory)
        return kernel
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _from_package(
    kernels: Path, progress: Progress, architecture: Architecture | None = None, package: str = ""
) -> Kernel:
    """Fetch the distribution's generic kernel package and unpack it aside."""
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        raise Unsupported(
            "no guest kernel: the host's own does not fit and there is no apt-get", hint=NAME_ONE
        )
    kernels.mkdir(parents=True, exist_ok=True)
    wanted = architecture or architectures.ALL[architectures.HOST]
    with tempfile.TemporaryDirectory(prefix=".get-", dir=kernels) as scratch:
        apt = _apt_options(wanted, Path(scratch))
        package = package or _package_name(wanted.kernel, apt, progress)
        progress(f"fetching the guest kernel '{package}' (about 70 MB)")
        _run(("apt-get", *apt, "download", "-q", package), scratch)
        archive = next(Path(scratch).glob("*.deb"))
        progress(f"unpacking '{package}'")
        _run(("dpkg-deb", "-x", str(archive), "tree"), scratch)
        tree = Path(scratch) / "tree"
        image = next((tree / "boot").glob("vmlinuz-*"))
        release = image.name.removeprefix("vmlinuz-")
        library = next(
            path for path in (tree / "lib/modules", tree / "usr/lib/modules") if path.is_dir()
        )
        return prepare(kernels, Source(image, library / release, release, f"package {package}"))


def _apt_options(architecture: Architecture, scratch: Path) -> tuple[str, ...]:
    """For another processor: lists of packages of its own, so that the host's are left alone."""
    if architecture.native:
        return ()
    for name in ("lists/partial", "state", "cache/archives/partial"):
        (scratch / name).mkdir(parents=True, exist_ok=True)
    (scratch / "status").touch()
    settings = {
        "APT::Architecture": architecture.name, "APT::Architectures": architecture.name,
        "APT::Architectures::": architecture.name, "Acquire::Languages": "none",
        "Dir::State": scratch / "state", "Dir::State::lists": scratch / "lists",
        "Dir::State::status": scratch / "status", "Dir::Cache": scratch / "cache",
        "APT::Sandbox::User": "root",
    }  # fmt: skip
    return tuple(word for key, value in settings.items() for word in ("-o", f"{key}={value}"))


def _package_name(package: str, apt: tuple[str, ...], progress: Progress) -> str:
    """What the distribution's kernel meta package depends on now."""
    for attempt in range(2):
        with contextlib.suppress(HostError):
            listing = _run(("apt-cache", *apt, "depends", package), "/")
            found = re.search(r"Depends: (linux-image-[0-9]\S+)", listing)
            if found:
                return found[1]
        if attempt == 0:
            progress("updating the package lists")
            _run(("apt-get", *apt, "update", "-q"), "/")
    raise Unsupported(f"no package '{package}' among apt's sources", hint=NAME_ONE)


def _run(command: tuple[str, ...], directory: str) -> str:
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip().replace("\n", "; ")
        raise HostError(f"'{' '.join(command)}' failed with {done.returncode}: {said}")
    return done.stdout


# -- bzImage to vmlinux ------------------------------------------------------------------------

_UNPACKERS: tuple[tuple[bytes, Callable[[bytes], bytes]], ...] = (
    (b"\xfd7zXZ\0", lambda data: lzma.LZMADecompressor().decompress(data)),
    (b"\x1f\x8b\x08", lambda data: zlib.decompressobj(31).decompress(data)),
    (b"\x28\xb5\x2f\xfd", lambda data: modules.filter_through(("zstd", "-dc"), data[:-4])),
    (b"\x02\x21\x4c\x18", lambda data: modules.filter_through(("lz4", "-dc"), data[:-4])),
)


def decompress(image: bytes) -> bytes:
    """The ELF kernel inside a bzImage (x86 boot protocol 2.08 or newer), or the ELF file itself.

    Of arm64 it is the `Image` (Documentation/arch/arm64/booting.rst), packed by itself or as zboot.
    """
    if image[:4] == b"\x7fELF" or image[ARM64_AT : ARM64_AT + 4] == ARM64:
        return image
    if image[:2] == b"MZ" and image[4:8] == b"zimg" and len(image) > ZBOOT.size:
        _, _, offset, length = ZBOOT.unpack_from(image)
        return _unpacked(image[offset : offset + length])
    if image[:2] == b"\x1f\x8b":
        return _unpacked(image)
    if image[0x202:0x206] != b"HdrS" or len(image) < 0x250:
        raise Corrupt("the kernel image is neither a bzImage nor an ELF file")
    sectors = image[0x1F1] or 4
    offset, length = struct.unpack_from("<II", image, 0x248)
    start = (sectors + 1) * 512 + offset
    return _unpacked(image[start : start + length])


def _unpacked(payload: bytes) -> bytes:
    for magic, unpack in _UNPACKERS:
        if payload.startswith(magic):
            return _checked(unpack(payload))
    raise Unsupported(f"the kernel's compression is unknown: '{payload[:6].hex()}'")


def _checked(kernel: bytes) -> bytes:
    if kernel[:4] != b"\x7fELF" and kernel[ARM64_AT : ARM64_AT + 4] != ARM64:
        raise Corrupt("the decompressed kernel is not an ELF file")
    return kernel


def tsc_khz() -> int:
    """The time stamp counter's rate as this host's kernel found it, or 0 when it does not say.

    A guest that has to find it out by itself on a busy host is off by any factor, and so is its
    clock.  The log that has it is overwritten in time.
    """
    with contextlib.suppress(OSError, ProaError):
        found = re.search(r"tsc: Detected (\d+)\.(\d+) MHz", _kernel_log())
        if found:
            return int(found[1]) * 1000 + int(found[2].ljust(3, "0")[:3])
    with contextlib.suppress(OSError):
        changing = Path("/sys/devices/system/cpu/cpu0/cpufreq").exists()
        return 0 if changing else constant_khz(Path("/proc/cpuinfo").read_text())
    return 0


def constant_khz(cpuinfo: str) -> int:
    """The rate in /proc/cpuinfo when it can only be the counter's: the processors' own does not
    change, and is not measured either; 0 otherwise."""
    rates = set(re.findall(r"^cpu MHz\s*: (\d+\.\d{3})$", cpuinfo, re.MULTILINE))
    flags = re.search(r"^flags\s*:(.*)$", cpuinfo, re.MULTILINE)
    words = flags[1].split() if flags else []
    if len(rates) != 1 or "constant_tsc" not in words or "aperfmperf" in words:
        return 0
    return int(rates.pop().replace(".", ""))


def _kernel_log() -> str:
    """All of /dev/kmsg, without waiting for more."""
    parts: list[bytes] = []
    log = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK)
    try:
        while True:
            parts.append(os.read(log, 8192))
    except BlockingIOError:
        return b"".join(parts).decode("utf-8", "replace")
    except BrokenPipeError:
        return b"".join(parts).decode("utf-8", "replace")
    finally:
        os.close(log)
