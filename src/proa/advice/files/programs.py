"""What programs are in it, and what they are good for.  Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from proa.advice.elf import Program
from proa.advice.facts import Fact
from proa.advice.files import binaries
from proa.advice.tree import FILE, LINK, Tree, first
from proa.printable import clean

_PLACES = (
    "bin", "sbin", "usr/bin", "usr/sbin", "usr/local/bin", "usr/local/sbin", "usr/libexec",
    "usr/lib/openssh", "usr/lib/dbus-1.0", "usr/lib/polkit-1", "usr/lib/xorg", "opt/bin",
)  # fmt: skip
_SET_USER_ID = 0o4000
_LISTED = 40

# Programs whose work is the kernel's; the first group may be a main program that makes an image
# a piece of infrastructure, the second only hints at it.
FAVOURED = frozenset(
    "dockerd containerd podman kubelet k3s k0s crio libvirtd virtqemud qemu-system-x86_64 "
    "qemu-system-aarch64 qemu-system-arm qemu-system-i386 firecracker cloud-hypervisor "
    "VBoxHeadless openvpn wg-quick charon ipsec starter pluto rpc.nfsd tgtd iscsid bpftrace "
    "perf keepalived hostapd modprobe insmod zpool cephadm openvswitchd ovs-vswitchd "
    "bird xl snapd".split()
)
HINTS = FAVOURED | frozenset(
    "iptables nft ipvsadm mdadm lvm cryptsetup dmsetup zfs mount.nfs mount.cifs fusermount "
    "fusermount3 bpftool ovs-vsctl wg kexec".split()
)
_DESKTOPS = (
    "gnome-shell", "gnome-session", "plasmashell", "startplasma-x11", "startplasma-wayland",
    "xfce4-session", "mate-session", "cinnamon-session", "lxsession", "lxqt-session", "sway",
    "weston", "gdm3", "lightdm", "sddm", "Xorg", "Xwayland",
)  # fmt: skip
_DATABASES = {
    "usr/sbin/mysqld": "mysql", "usr/sbin/mariadbd": "mariadb", "usr/bin/redis-server": "redis",
    "usr/bin/mongod": "mongodb", "usr/bin/etcd": "etcd", "usr/sbin/slapd": "openldap",
    "usr/bin/influxd": "influxdb", "usr/bin/clickhouse-server": "clickhouse",
    "usr/share/elasticsearch/bin/elasticsearch": "elasticsearch", "usr/bin/couchdb": "couchdb",
    "usr/local/bin/postgres": "postgresql", "usr/bin/postgres": "postgresql",
    "usr/local/bin/redis-server": "redis", "usr/local/bin/mongod": "mongodb",
    "usr/sbin/cassandra": "cassandra", "opt/mssql/bin/sqlservr": "mssql",
    "usr/bin/valkey-server": "valkey",
}  # fmt: skip
_LIBC = (
    "lib/x86_64-linux-gnu/libc.so.6", "lib64/libc.so.6", "usr/lib/x86_64-linux-gnu/libc.so.6",
    "usr/lib64/libc.so.6", "lib/aarch64-linux-gnu/libc.so.6",
    "usr/lib/aarch64-linux-gnu/libc.so.6", "lib/libc.so.6", "usr/lib/libc.so.6",
)  # fmt: skip
_RUN_TOO = (("386", "amd64"), ("arm", "arm64"))
_SEARCHED = ("usr/local/sbin", "usr/local/bin", "usr/sbin", "usr/bin", "sbin", "bin")


def facts(tree: Tree, host: str, main: str) -> Iterator[Fact]:
    """All of them; `host` is the host's architecture, `main` the main program's path, or empty."""
    yield from _made_for(tree, host, main)
    yield from _installed(tree)
    found = [(name, path) for path, name in _DATABASES.items() if tree.look(path)]
    found += [
        ("postgresql", path)
        for path in (
            f"usr/lib/postgresql/{v}/bin/postgres"
            for v in tree.names("usr/lib/postgresql")[:_LISTED]
        )
        if tree.look(path)
    ]
    if found:
        names = tuple(dict.fromkeys(name for name, _ in found))
        yield Fact("database", names, f"/{found[0][1]}")


def is_foreign(architecture: str, host: str) -> bool:
    """Whether programs for one processor do not run on another as they are."""
    return architecture != host and (architecture, host) not in _RUN_TOO


def find(tree: Tree, command: str, search: Sequence[str] = _SEARCHED) -> str:
    """The path of a command's file; empty when it is not there."""
    if "/" in command:
        path = command.strip("/")
        return path if path and tree.look(path) is not None else ""
    if not command or command in (".", ".."):
        return ""
    return first(tree, [f"{place.strip('/')}/{command}".strip("/") for place in search])


def _made_for(tree: Tree, host: str, main: str) -> Iterator[Fact]:
    """System, processor, C library and kernel, of the main program or what it is started by."""
    for path in (main, "bin/sh", "bin/busybox", "usr/bin/env", "sbin/init"):
        program = binaries.read(tree.read(path, binaries.HEAD_BYTES)) if path else None
        if program is None:
            continue
        yield Fact("os.kind", program.system, f"/{path}")
        if program.architecture:
            yield Fact("os.architecture", program.architecture, f"/{path} (its header)")
            foreign = is_foreign(program.architecture, host)
            yield Fact("os.foreign", foreign, f"/{path}; this host: {host}")
        if program.system == "linux":
            yield Fact("libc", _libc(program.interpreter), f"/{path} (its interpreter)")
            yield from _kernel(tree, program, path)
        return


def _libc(interpreter: str) -> str:
    if not interpreter:
        return "none (static)"
    kinds = (("ld-musl", "musl"), ("ld-linux", "glibc"), ("/ld64", "glibc"), ("/ld.so", "glibc"))
    return next((name for sign, name in kinds if sign in interpreter), clean(interpreter, 60))


def _kernel(tree: Tree, program: Program, path: str) -> Iterator[Fact]:
    """The newest kernel that the program or its C library asks for."""
    asked = [(program.kernel, path)]
    if program.interpreter:
        for library in filter(None, (program.interpreter.strip("/"), first(tree, _LIBC))):
            read = binaries.read(tree.read(library, binaries.HEAD_BYTES))
            asked.append((read.kernel if read else (), library))
    kernel, source = max(asked)
    if kernel:
        yield Fact("kernel.minimum", ".".join(map(str, kernel)), f"/{source} (.note.ABI-tag)")


def _installed(tree: Tree) -> Iterator[Fact]:
    """Set-user-id programs, those that need the kernel's favour, desktops."""
    suid: list[str] = []
    favoured: dict[str, str] = {}
    desktops: dict[str, str] = {}
    for place in _PLACES:
        entry = tree.look(place, follow=False)
        if entry is None or entry.kind == LINK:
            continue  # `bin` of merged systems is looked at as `usr/bin`
        for name, found in sorted(tree.entries(place)):
            if name in HINTS:
                favoured.setdefault(name, f"/{place}/{name}")
            elif name in _DESKTOPS:
                desktops.setdefault(name, f"/{place}/{name}")
            if found.kind == FILE and found.mode & _SET_USER_ID:
                suid.append(clean(f"/{place}/{name}"))
    yield Fact("programs.setuid", tuple(suid[:_LISTED]), "modes of files where programs are")
    if favoured:
        yield Fact(
            "programs.interesting",
            tuple(favoured)[:_LISTED],
            ", ".join(list(favoured.values())[:3]),
        )
    sessions = [f"/{place}" for place in ("usr/share/xsessions", "usr/share/wayland-sessions")
                if tree.names(place)]  # fmt: skip
    if desktops or sessions:
        value = next(iter(desktops), "sessions to log into")
        yield Fact("desktop", value, ", ".join([*desktops.values(), *sessions][:3]))
