"""Which services run in it: enabled units, run levels, supervisors' directories.  Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from proa.advice.facts import Fact
from proa.advice.tree import Tree, below, text
from proa.printable import clean

_LISTED = 60
_TARGETS = ("multi-user.target.wants", "graphical.target.wants", "default.target.wants",
            "sockets.target.wants", "basic.target.wants", "getty.target.wants")  # fmt: skip
# Of systemd itself, or of every machine; no reason to have one.
_USUAL = re.compile(
    r"(?:systemd-|dbus|e2scrub|apt-|dpkg-|man-db|logrotate|fstrim|networking|network-|remote-fs|"
    r"rc-local|console-setup|keyboard-setup|machine-id|udev|sysstat|autovt|halt|reboot|hwclock|"
    r"kmod|procps|sudo|x11-common|plymouth|cloud-|unattended|wtmpdb|uuidd|timers?\b).*"
)
_PROGRAM = re.compile(r"^[ \t]*\[program:([^\]\n]{1,80})\]", re.MULTILINE)
_SUPERVISOR_FILES = ("etc/supervisor/supervisord.conf", "etc/supervisord.conf",
                     "usr/local/etc/supervisord.conf", "supervisord.conf")  # fmt: skip
_SUPERVISOR_DIRECTORIES = ("etc/supervisor/conf.d", "etc/supervisor.d", "etc/supervisord.d")
_S6 = ("etc/services.d", "etc/s6-overlay/s6-rc.d/user/contents.d", "run/service", "etc/s6")
_RUNIT = ("etc/service", "etc/runit/runsvdir/default", "service", "var/service")
# Main program → the supervisor it is, and where its services are.
SUPERVISORS: dict[str, tuple[str, Sequence[str]]] = {
    "supervisord": ("supervisord", ()),
    "s6-svscan": ("s6", _S6), "s6-overlay": ("s6", _S6), "s6-init": ("s6", _S6),
    "runsvdir": ("runit", _RUNIT), "runsvdir-start": ("runit", _RUNIT), "runit": ("runit", _RUNIT),
    "my_init": ("runit", _RUNIT), "svscan": ("daemontools", _RUNIT),
    "circusd": ("circus", ()), "monit": ("monit", ()), "pm2-runtime": ("pm2", ()),
    "pm2": ("pm2", ()), "multirun": ("multirun", ()), "honcho": ("honcho", ()),
    "foreman": ("foreman", ()),
}  # fmt: skip
_STARTS = (
    re.compile(r"\bservice\s+([\w@.-]{1,60})\s+(?:re)?start\b"),
    re.compile(r"/etc/init\.d/([\w@.-]{1,60})\s+(?:re)?start\b"),
    re.compile(r"\bsystemctl\s+(?:--now\s+)?(?:re)?start\s+([\w@.-]{1,60})"),
)
_LINE_MAXIMUM = 300  # of a script: patterns are never held against more
_SEPARATORS = re.compile(r"&&|\|\||[;\n]")
_NO_SERVICE = frozenset(
    "wait sleep trap echo cd export set if then fi while do done exec tail cat true kill".split()
)


def facts(tree: Tree) -> Iterator[Fact]:
    """The services that are enabled for an init system; a fact even when there are none."""
    found: dict[str, str] = {}
    for root in ("etc/systemd/system", "usr/lib/systemd/system", "lib/systemd/system"):
        for target in _TARGETS:
            for name in tree.names(f"{root}/{target}"):
                plain = name.rpartition(".")[0].partition("@")[0]
                if name.endswith((".service", ".socket")) and not _USUAL.fullmatch(plain):
                    found.setdefault(plain, f"/{root}/{target}/{name}")
    for directory in ("etc/rc2.d", "etc/rc3.d"):
        for name in tree.names(directory):
            if re.fullmatch(r"S\d\d.+", name) and not _USUAL.fullmatch(name[3:]):
                found.setdefault(name[3:], f"/{directory}/{name}")
    for name in tree.names("etc/runlevels/default"):
        if not _USUAL.fullmatch(name):
            found.setdefault(name, f"/etc/runlevels/default/{name}")
    names = tuple(clean(name, 60) for name in list(found)[:_LISTED])
    source = ", ".join([clean(path) for path in found.values()][:3])
    yield Fact("services", names, source or "no enabled unit or start script")


def started(tree: Tree, main: str, script: str, source: str) -> Iterator[Fact]:
    """What a supervisor (`main`, a program's name) or a start script's text starts."""
    if main in SUPERVISORS:
        name, directories = SUPERVISORS[main]
        yield Fact("supervisor", name, source)
        services = _supervised(tree, name, directories)
        if services:
            names = tuple(clean(service, 60) for service in list(services)[:_LISTED])
            yield Fact("services.started", names, next(iter(services.values())))
        return
    lines = [line.strip()[:_LINE_MAXIMUM] for line in _SEPARATORS.split(script)]
    found = [name for line in lines for pattern in _STARTS for name in pattern.findall(line)]
    behind = [line.removeprefix("exec ").split()[0] for line in lines if line[1:].endswith("&")]
    found += [word.rpartition("/")[2].rstrip("&") for word in behind]
    names = tuple(dict.fromkeys(clean(name) for name in found if name and name not in _NO_SERVICE))
    if names:
        yield Fact("services.started", names[:_LISTED], source)


def _supervised(tree: Tree, name: str, directories: Sequence[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    if name == "supervisord":
        paths = [*_SUPERVISOR_FILES]
        for directory in _SUPERVISOR_DIRECTORIES:
            paths += [*below(tree, directory, ".conf"), *below(tree, directory, ".ini")][:_LISTED]
        for path in paths:
            for program in _PROGRAM.findall(text(tree, path)):
                found.setdefault(program, f"/{path}")
    for directory in directories:
        for service in tree.names(directory):
            if not service.startswith("."):
                found.setdefault(service, f"/{directory}/{service}")
    return found
