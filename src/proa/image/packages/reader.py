"""The declarative file an image is made of, read and checked as far as no repository is needed.

docs/guides/packages.md explains the keys.
"""

from __future__ import annotations

import posixpath
import re
import tomllib
from datetime import UTC, date, datetime, time

from proa.errors import Invalid
from proa.image.packages.spec import (
    DEB,
    FORMATS,
    RPM,
    Directory,
    File,
    Group,
    Link,
    Repository,
    Run,
    Spec,
    User,
)
from proa.image.packages.table import Table

MAXIMUM_BYTES = 4 << 20
MAXIMUM_ID = (1 << 32) - 2
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+_-]*")
_SUITE = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+_/-]*|/")
_PACKAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9+._-]*(:[a-z0-9]+)?(=[A-Za-z0-9.+:~*_^-]+)?")
_URL = re.compile(r"(https?://[^\s\[\]'\"]+|file:/[^\s\[\]'\"]*)")
_USER = re.compile(r"[a-z_][a-z0-9_-]{0,30}\$?")
_OWNER = re.compile(r"([a-z_][a-z0-9_-]*|\d{1,10})(:([a-z_][a-z0-9_-]*|\d{1,10}))?")
_PORT = re.compile(r"\d{1,5}(-\d{1,5})?(/(tcp|udp|sctp))?")
_VARIABLE = re.compile(r"[^=\s]+")


def parse(data: bytes, name: str = "image.toml") -> Spec:
    """Read the file.  Raises Invalid naming file and key."""
    if len(data) > MAXIMUM_BYTES:
        raise Invalid(f"{name}: larger than '{MAXIMUM_BYTES}' bytes")
    try:
        document = tomllib.loads(data.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Invalid(f"{name}: not TOML: {' '.join(str(error).split()) or 'too deep'}") from error
    top = Table(name, document)
    spec = _read(top)
    top.close()
    return spec


def _read(top: Table) -> Spec:
    distribution = _matching(top, "distribution", _WORD)
    kind = top.text("format", FORMATS.get(distribution, ""))
    if kind not in (DEB, RPM):
        known = ", ".join(sorted(FORMATS))
        hint = f'one of {known}, or with a \'format\' of "deb" or "rpm"'
        raise top.fault("distribution", f"is not known: '{distribution}'", hint)
    return Spec(
        distribution=distribution,
        release=_matching(top, "release", _SUITE),
        format=kind,
        architecture=_matching(top, "architecture", _WORD, optional=True),
        packages=_each(top, "packages", _PACKAGE, "a package", needed=True),
        exclude=_each(top, "exclude", _PACKAGE, "a package"),
        recommends=top.flag("recommends", False),
        distroless=top.flag("distroless", False),
        slim=top.flag("slim", False),
        locales=_each(top, "locales", _WORD, "a locale"),
        epoch_seconds=_epoch(top),
        repositories=tuple(_repository(table, kind) for table in top.tables("repositories")),
        files=tuple(_file(table) for table in top.tables("files")),
        directories=tuple(_directory(table) for table in top.tables("directories")),
        links=tuple(_link(table) for table in top.tables("links")),
        groups=tuple(_group(table) for table in top.tables("groups")),
        users=tuple(_user(table) for table in top.tables("users")),
        run=_run(top.table("run")),
    )


def _matching(table: Table, key: str, pattern: re.Pattern[str], *, optional: bool = False) -> str:
    value = table.text(key) if optional else table.needed(key)
    if value and not pattern.fullmatch(value):
        raise table.fault(key, f"is malformed: '{value}'")
    return value


def _each(
    table: Table, key: str, pattern: re.Pattern[str], what: str, *, needed: bool = False
) -> tuple[str, ...]:
    values = table.texts(key)
    for value in values:
        if not pattern.fullmatch(value):
            raise table.fault(key, f"is a list, but '{value}' is not {what}")
    if needed and not values:
        raise table.missing(key, f"name {what} at least")
    return values


def _epoch(top: Table) -> int | None:
    value = top.any("date")
    if value is None or (type(value) is int and 0 <= value < 1 << 33):
        return value
    if isinstance(value, date) and not isinstance(value, datetime):
        value = datetime.combine(value, time())
    if not isinstance(value, datetime):
        hint = "write 2024-05-01, 2024-05-01T12:00:00Z, or seconds since 1970"
        raise top.fault("date", f"is not a date: '{value}'", hint)
    return max(0, int((value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp()))


def _repository(table: Table, kind: str) -> Repository:
    url = table.needed("url")
    if not _URL.fullmatch(url):
        raise table.fault("url", f"must begin with http://, https:// or file:/, not '{url}'")
    suite = ""
    components: tuple[str, ...] = ()
    if kind == DEB:
        suite = _matching(table, "suite", _SUITE)
        components = _each(table, "components", _SUITE, "a component")
        if not components and not suite.endswith("/"):
            components = ("main",)
    found = Repository(
        url, suite, components, _beside(table, "key"),
        table.flag("trusted", False), table.flag("expired", False),
    )  # fmt: skip
    table.close()
    return found


def _beside(table: Table, key: str) -> str:
    """A path relative to the declaration, inside its directory."""
    value = table.text(key)
    if value and (value.startswith("/") or ".." in value.split("/")):
        raise table.fault(key, f"must be a file beside this one, not '{value}'")
    return posixpath.normpath(value) if value else ""


def _path(table: Table, key: str = "path") -> str:
    value = table.needed(key)
    if not value.startswith("/") or ".." in value.split("/") or posixpath.normpath(value) == "/":
        raise table.fault(key, f"must be an absolute path without '..', not '{value}'")
    return posixpath.normpath(value).replace("//", "/")


def _owner(table: Table) -> str:
    return _matching(table, "owner", _OWNER, optional=True) or "0:0"


def _file(table: Table) -> File:
    path, source = _path(table), _beside(table, "source")
    content = table.text("content", line=False) if table.any("content") is not None else None
    if (content is None) == (not source):
        raise table.fault("content", "or 'source' must be given, one of them")
    found = File(path, content, source, table.mode("mode", 0o644), _owner(table))
    table.close()
    return found


def _directory(table: Table) -> Directory:
    found = Directory(_path(table), table.mode("mode", 0o755), _owner(table))
    table.close()
    return found


def _link(table: Table) -> Link:
    found = Link(_path(table), table.needed("target"))
    table.close()
    return found


def _id(table: Table, key: str) -> int:
    if table.any(key) is None:
        raise table.missing(key, "give a number, so that every build has the same")
    return table.number(key, 0, MAXIMUM_ID)


def _group(table: Table) -> Group:
    found = Group(_matching(table, "name", _USER), _id(table, "gid"))
    table.close()
    return found


def _user(table: Table) -> User:
    name = _matching(table, "name", _USER)
    found = User(
        name=name,
        uid=_id(table, "uid"),
        group=_matching(table, "group", _USER, optional=True),
        home=_path(table, "home") if table.any("home") is not None else "/nonexistent",
        shell=_path(table, "shell") if table.any("shell") is not None else "/usr/sbin/nologin",
        groups=_each(table, "groups", _USER, "a group"),
    )
    if ":" in found.home + found.shell:
        raise table.fault("home", "and 'shell' may not contain a colon")
    table.close()
    return found


def _run(table: Table) -> Run:
    environment = table.mapping("environment")
    for name in environment:
        if not _VARIABLE.fullmatch(name):
            raise table.fault("environment", f"has a malformed name: '{name}'")
    volumes = table.texts("volumes")
    for volume in volumes:
        if not volume.startswith("/") or ".." in volume.split("/"):
            raise table.fault("volumes", f"must hold absolute paths, not '{volume}'")
    found = Run(
        environment=environment,
        entrypoint=table.texts("entrypoint"),
        command=table.texts("command"),
        directory=_path(table, "directory") if table.text("directory", "/") != "/" else "",
        user=_matching(table, "user", _OWNER, optional=True),
        ports=_each(table, "ports", _PORT, "a port"),
        volumes=volumes,
        labels=table.mapping("labels"),
        stop_signal=_matching(table, "stop_signal", _WORD, optional=True),
    )
    table.close()
    return found
