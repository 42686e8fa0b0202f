"""What a machine starts by itself: units, links of other inits, timers, tables of cron.  Pure."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from proa.advice.disk.machine import Found
from proa.advice.disk.tree import Tree

_PLACES = ("/etc/systemd/system", "/usr/local/lib/systemd/system", "/lib/systemd/system",
           "/usr/lib/systemd/system")  # fmt: skip
_WANTS = re.compile(
    r"/etc/systemd/system/[^/]+\.(?:wants|requires)/([^/]+\.(?:service|socket|timer))"
)
_RC = re.compile(r"/etc/(?:rc[2-5]\.d|rc\.d/rc[2-5]\.d)/S\d\d([^/]+)")
_RUNLEVEL = re.compile(r"/etc/runlevels/(?:default|boot)/([^/]+)")
_RUNIT = re.compile(r"/(?:etc/service|etc/runit/runsvdir/default|service)/([^/]+)")
_CRON = re.compile(r"/etc/crontab|/etc/cron\.d/[^/.][^/]*|/var/spool/cron/(?:crontabs/)?[^/.][^/]*")
_CRON_LINE = re.compile(r"(@\w+|(?:[\d*/,A-Za-z-]+\s+){4}[\d*/,A-Za-z-]+)\s+(\S.*)")
_CRON_USUAL = re.compile(
    r".*(?:run-parts|/usr/lib/php/sessionclean|e2scrub|anacron|debian-sa1|popularity).*"
)
_ASSIGNMENT = re.compile(r"\s*([A-Za-z]+)\s*=(.*)")
_SUPERVISED = re.compile(r"\[program:([^\]]+)\]")
JOBS_MAXIMUM = 200
STARTED_MAXIMUM = 300


@dataclass
class Unit:
    """Sections' settings with where each stands, drop-ins applied; an empty value takes back."""

    path: str
    settings: dict[str, list[Found]] = field(default_factory=dict)

    def all(self, key: str) -> list[Found]:
        """Every value of a key that lists."""
        return self.settings.get(key, [])

    def words(self, key: str) -> Iterator[Found]:
        """The words of such values."""
        for found in self.all(key):
            yield from (Found(word, found.source) for word in found.value.split())

    def one(self, key: str) -> str:
        """The last value of a key that is one."""
        found = self.settings.get(key)
        return found[-1].value if found else ""


@dataclass(frozen=True)
class Started:
    """A name that is started, what enables it, and the unit, script or line that says how."""

    name: str
    kind: str
    enabled: str
    path: str
    command: str = ""
    user: str = ""
    when: str = ""


def started(tree: Tree) -> list[Started]:
    """All of it, each name once, in the order of names; what is masked is not."""
    found: dict[tuple[str, str], Started] = {}
    for item in (*_systemd(tree), *_others(tree), *_supervised(tree), *_cron(tree)):
        found.setdefault((item.name, item.kind), item)
    if len(found) > STARTED_MAXIMUM:
        tree.cut = True
    return [found[key] for key in sorted(found)[:STARTED_MAXIMUM]]


def path_of(tree: Tree, name: str) -> str:
    """The file of a unit, of its template for an instance; empty for none, or a masked one."""
    template = re.sub(r"@[^.]+\.", "@.", name)
    for candidate in dict.fromkeys((name, template)):
        for place in _PLACES:
            if tree.target(f"{place}/{candidate}") == "/dev/null":
                return ""
            if path := tree.file(f"{place}/{candidate}"):
                return path
    return ""


def read(tree: Tree, path: str, name: str) -> Unit:
    """A unit with its drop-ins."""
    unit = Unit(path)
    drops = [f"{place}/{name}.d" for place in reversed(_PLACES)]
    more = [drop for place in drops for drop in tree.under(place, r".*\.conf")]
    for file in dict.fromkeys((path, *more)):
        _read(tree, file, unit)
    return unit


def _read(tree: Tree, path: str, unit: Unit) -> None:
    joined = ""
    for number, line in tree.lines(path):
        joined += line
        if joined.endswith("\\"):
            joined = joined[:-1] + " "
            continue
        text, joined = joined, ""
        match = _ASSIGNMENT.fullmatch(text)
        if match is None or text.lstrip()[:1] in ("#", ";"):
            continue
        value = match[2].strip()
        if value:
            unit.settings.setdefault(match[1], []).append(Found(value, f"{path}:{number}"))
        else:
            unit.settings.pop(match[1], None)


def _systemd(tree: Tree) -> Iterator[Started]:
    for path in sorted(tree.entries):
        match = _WANTS.fullmatch(path)
        if match is None:
            continue
        name = match[1]
        unit = path_of(tree, name) or tree.file(path)
        if not unit or tree.target(f"/etc/systemd/system/{name}") == "/dev/null":
            continue
        own = posixpath.basename(unit)
        stem, _, kind = name.rpartition(".")
        if "@" not in own and own.endswith(f".{kind}"):
            stem = own.removesuffix(f".{kind}")  # an alias is its unit
        yield Started(stem, kind, path, unit)


def _others(tree: Tree) -> Iterator[Started]:
    """System V's links, OpenRC's and runit's; what systemd has a unit of its own for is its."""
    for path in sorted(tree.entries):
        match = _RC.fullmatch(path) or _RUNLEVEL.fullmatch(path)
        if match and not _native(tree, match[1]):
            script = tree.file(path, f"/etc/init.d/{match[1]}")
            yield Started(match[1], "service", path, script or path)
            continue
        match = _RUNIT.fullmatch(path)
        if match:
            yield Started(match[1], "service", path, tree.file(f"{path}/run") or path)


def _native(tree: Tree, name: str) -> bool:
    places = ("/lib/systemd/system", "/usr/lib/systemd/system", "/etc/systemd/system")
    return any(f"{place}/{name}.service" in tree.entries for place in places)


def _supervised(tree: Tree) -> Iterator[Started]:
    """Programs of supervisord."""
    for path in tree.under("/etc/supervisor/conf.d", r".*\.conf"):
        name = ""
        for number, line in tree.lines(path):
            section = _SUPERVISED.match(line.strip())
            name = section[1] if section else "" if line.startswith("[") else name
            key, equals, value = line.partition("=")
            if name and equals and key.strip() == "command":
                yield Started(name, "service", path, f"{path}:{number}", value.strip())


def _cron(tree: Tree) -> Iterator[Started]:
    count = 0
    for path in tree.matching(_CRON):
        own = path.startswith("/var/spool")
        for number, line in tree.lines(path):
            match = _CRON_LINE.fullmatch(line.strip())
            if match is None or _CRON_USUAL.fullmatch(line) or count >= JOBS_MAXIMUM:
                continue
            user, command = (posixpath.basename(path), match[2])
            if not own:
                user, _, command = match[2].partition(" ")
            count += 1
            yield Started(
                f"{posixpath.basename(path)}-{number}", "cron", path, f"{path}:{number}",
                command.strip(), user, match[1].strip(),
            )  # fmt: skip
