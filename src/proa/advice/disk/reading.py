"""A machine, made of the names on its disk and of the texts that were read.  Pure."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from proa.advice.disk import products, services, systems
from proa.advice.disk.machine import Found, Machine, Service
from proa.advice.disk.tree import Tree
from proa.printable import clean

_INITS = (
    ("systemd", r"systemd"), ("openrc", r"openrc-init"), ("runit", r"runit(?:-init)?"),
    ("s6", r"s6-.*"), ("upstart", r"upstart"), ("sysvinit", r"init"), ("busybox", r"busybox"),
)  # fmt: skip
_BOOT_LOADERS = (
    ("grub", "/boot/grub"), ("grub", "/boot/grub2"), ("systemd-boot", "/boot/loader"),
    ("extlinux", "/boot/extlinux"), ("syslinux", "/boot/syslinux"), ("efi", "/boot/efi/EFI"),
)  # fmt: skip
_KERNEL = re.compile(r"/boot/vmlinu[xz]-(.+)")
_NO_SHELL = ("nologin", "false", "sync", "halt", "shutdown")
_SYSCTL_USUAL = re.compile(
    r".*/(?:10-|30-|50-|99-(?:sysctl|cloudimg)|protect-links|README|60-)[^/]*"
)
_NAMESPACED = re.compile(
    r"net[./].*|kernel[./](?:shm.*|msg.*|sem|hostname|domainname)|fs[./]mqueue.*"
)
_MODULES_USUAL = frozenset("fwupd-msr loop".split())
SIZES_MAXIMUM = 200


@dataclass(frozen=True)
class Disk:
    """What is known of a disk besides its files."""

    name: str
    partitions: tuple[str, ...] = ()
    virtual_bytes: int = 0
    used_bytes: int = 0
    problems: tuple[str, ...] = ()


def of_tree(tree: Tree, disk: Disk) -> Machine:
    """The machine whose root this is."""
    release, source = _release(tree)
    problems = (*disk.problems, *(("not all names were looked at",) if tree.cut else ()))
    versions = _versions(tree)
    found = tuple(_versioned(item, versions) for item in services.read(tree))
    return Machine(
        disk.name, "linux", source or "a root file system of Linux",
        systems.architecture(tree),
        Found(release["ID"], source) if release.get("ID") else None,
        Found(release["VERSION_ID"], source) if release.get("VERSION_ID") else None,
        clean(release.get("PRETTY_NAME", "")), clean(tree.text("/etc/hostname"), 64),
        _init(tree), _kernel(tree), _boot_loader(tree),
        tuple(_modules(tree)), tuple(_sysctls(tree)),
        tuple(_users(tree)), tuple(tree.setuid[:50]), _desktop(tree, found),
        tree.packages, found, _sizes(tree, found), disk.partitions,
        disk.virtual_bytes, disk.used_bytes, problems,
    )  # fmt: skip


def of_strange(
    disk: Disk, head: bytes, partitions: Sequence[tuple[int, bytes]], why: str
) -> Machine:
    """A disk no root of Linux was found on; `why` not."""
    found = systems.of(head, partitions)
    return Machine(
        disk.name, found.name if found else "", found.source if found else "",
        partitions=disk.partitions, virtual_bytes=disk.virtual_bytes, used_bytes=disk.used_bytes,
        problems=(*disk.problems, why),
    )  # fmt: skip


def _release(tree: Tree) -> tuple[dict[str, str], str]:
    path = tree.file("/etc/os-release", "/usr/lib/os-release")
    pairs = (line.partition("=") for _, line in tree.lines(path)) if path else ()
    found = {key.strip(): value.strip().strip("\"'") for key, equals, value in pairs if equals}
    return found, path


def _init(tree: Tree) -> Found | None:
    path = tree.file("/sbin/init", "/usr/sbin/init", "/init")
    for name, pattern in _INITS if path else ():
        if re.fullmatch(pattern, posixpath.basename(path)):
            busy = name == "busybox" and not tree.has("/etc/inittab")
            openrc = name in ("busybox", "sysvinit") and tree.has("/etc/runlevels")
            return None if busy else Found("openrc" if openrc else name, path)
    return None


def _kernel(tree: Tree) -> Found | None:
    named = [(match[1], path) for path in tree.entries if (match := _KERNEL.fullmatch(path))]
    for place in ("/lib/modules", "/usr/lib/modules"):
        named += [(posixpath.basename(path), path) for path in tree.under(place, r"\d+\..*")]
    if not named:
        return None
    version, path = max(named, key=lambda item: [int(n) for n in re.findall(r"\d+", item[0])[:4]])
    return Found(version, path)


def _boot_loader(tree: Tree) -> Found | None:
    there = (Found(name, path) for name, path in _BOOT_LOADERS if tree.has(path))
    return next(there, None)


def _modules(tree: Tree) -> Iterator[Found]:
    """Modules that are loaded by name, by somebody's will."""
    places = ("/etc/modules-load.d", "/usr/lib/modules-load.d", "/lib/modules-load.d")
    files = [path for place in places for path in tree.under(place, r".*\.conf")]
    seen: set[str] = set()
    for path in dict.fromkeys(("/etc/modules", *files)):
        for number, line in tree.lines(path):
            word = (line.partition("#")[0].split() or [""])[0]
            if word and not word.startswith(";") and word not in seen | _MODULES_USUAL:
                seen.add(word)
                yield Found(word[:80], f"{path}:{number}")


def _sysctls(tree: Tree) -> Iterator[Found]:
    """Settings of the kernel that are no namespace's, and no distribution's own."""
    files = [*tree.under("/etc/sysctl.d", r".*\.conf"), "/etc/sysctl.conf"]
    for path in files:
        if _SYSCTL_USUAL.fullmatch(path):
            continue
        for number, line in tree.lines(path):
            key, equals, _ = line.partition("=")
            key = key.strip().lstrip("-")
            if equals and key[:1] not in ("#", ";", "") and not _NAMESPACED.fullmatch(key):
                yield Found(key[:80], f"{path}:{number}")


def _users(tree: Tree) -> Iterator[str]:
    """People and applications: who can log in or has a number of their own."""
    for _, line in tree.lines("/etc/passwd"):
        parts = line.split(":")
        if len(parts) < 7 or not parts[2].isdigit():
            continue
        number, shell = int(parts[2]), posixpath.basename(parts[6])
        if (1000 <= number < 60000 or number == 0) and shell not in _NO_SHELL:
            yield clean(parts[0], 40)


def _desktop(tree: Tree, found: Sequence[Service]) -> Found | None:
    for place in ("/usr/share/xsessions", "/usr/share/wayland-sessions"):
        for path in tree.under(place, r".*\.desktop"):
            return Found(posixpath.basename(path).removesuffix(".desktop"), path)
    managers = [item for item in found if re.fullmatch(r"gdm\d*|lightdm|sddm|xdm", item.name)]
    return Found(managers[0].name, managers[0].enabled) if managers else None


def _versions(tree: Tree) -> dict[str, Found]:
    """Versions of packages of products, of dpkg's database."""
    found: dict[str, Found] = {}
    name = ""
    for number, line in tree.lines("/var/lib/dpkg/status"):
        key, _, value = line.partition(": ")
        if key == "Package":
            name = value
        elif key == "Version" and name:
            found[name] = Found(value, f"/var/lib/dpkg/status:{number}")
    return found


def _versioned(service: Service, versions: dict[str, Found]) -> Service:
    """The version of its product: of its package, or of a directory that is named by it."""
    product = products.BY_KEY.get(service.product)
    if product is None:
        return service
    for name in sorted(versions, reverse=True):
        if product.packages and re.fullmatch(product.packages, name):
            plain = versions[name].value.rpartition(":")[2] or versions[name].value
            if match := re.match(product.tag, plain):
                return replace(service, version=Found(match[0], versions[name].source))
    for path in service.configuration:
        if match := re.match(rf"/(?:etc|var/lib)/(?:postgresql|php|pgsql)/({product.tag})/", path):
            return replace(service, version=Found(match[1], path))
    return service


def _sizes(tree: Tree, found: Sequence[Service]) -> tuple[tuple[str, int], ...]:
    """Of data directories of services, and of the usual places of data."""
    wanted = [item.value for service in found for item in service.data]
    wanted += [path for path in ("/srv", "/home", "/opt", "/data", "/var/www") if tree.sizes[path]]
    sizes = ((path, tree.sizes[path]) for path in dict.fromkeys(wanted) if tree.sizes[path])
    return tuple(sizes)[:SIZES_MAXIMUM]
