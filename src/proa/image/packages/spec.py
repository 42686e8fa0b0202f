"""What a declaration says: distribution, packages, files, users, configuration; frozen."""

from __future__ import annotations

from dataclasses import dataclass

DEB, RPM = "deb", "rpm"
# What kind of packages a distribution has; others say so with `format`.
FORMATS = {
    "debian": DEB, "ubuntu": DEB, "fedora": RPM, "centos": RPM, "rocky": RPM, "almalinux": RPM,
    "opensuse": RPM,
}  # fmt: skip


@dataclass(frozen=True)
class Repository:
    """Where packages come from.

    apt: `url`, `suite`, `components`; dnf: `url` alone.  `key` is a file beside the declaration
    with the keys that may sign; empty means the distribution's own.  `trusted` needs no signature,
    `expired` may be older than the repository itself allows (a snapshot is).
    """

    url: str
    suite: str = ""
    components: tuple[str, ...] = ()
    key: str = ""
    trusted: bool = False
    expired: bool = False


@dataclass(frozen=True)
class File:
    """A file: its `content`, or `source` beside the declaration."""

    path: str
    content: str | None
    source: str
    mode: int
    owner: str


@dataclass(frozen=True)
class Directory:
    """A directory that is there, with this mode and owner."""

    path: str
    mode: int
    owner: str


@dataclass(frozen=True)
class Link:
    """A symbolic link."""

    path: str
    target: str


@dataclass(frozen=True)
class Group:
    """A group with a number of its own."""

    name: str
    gid: int


@dataclass(frozen=True)
class User:
    """A user; without `group` a group of the same name and number is made."""

    name: str
    uid: int
    group: str
    home: str
    shell: str
    groups: tuple[str, ...]


@dataclass(frozen=True)
class Run:
    """What the image says of how it is run."""

    environment: dict[str, str]
    entrypoint: tuple[str, ...]
    command: tuple[str, ...]
    directory: str
    user: str
    ports: tuple[str, ...]
    volumes: tuple[str, ...]
    labels: dict[str, str]
    stop_signal: str


@dataclass(frozen=True)
class Spec:
    """The whole file.

    `distroless`: packages are only unpacked, no script of theirs runs, nothing is added that no
    package depends on.  `slim`: no documentation (but licences) and no translations beside
    `locales`.  `epoch_seconds`: nothing is younger; None: the newest file of any package.
    """

    distribution: str
    release: str
    format: str
    architecture: str
    packages: tuple[str, ...]
    exclude: tuple[str, ...]
    recommends: bool
    distroless: bool
    slim: bool
    locales: tuple[str, ...]
    epoch_seconds: int | None
    repositories: tuple[Repository, ...]
    files: tuple[File, ...]
    directories: tuple[Directory, ...]
    links: tuple[Link, ...]
    groups: tuple[Group, ...]
    users: tuple[User, ...]
    run: Run
