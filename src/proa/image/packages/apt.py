"""apt resolves, downloads and checks; nothing is installed by it, and it is nobody's root.

Everything of it is in one directory of the store: `archives/` for packages, and a directory for
each set of repositories with its configuration and lists.  A repository must be signed by the keys
its line names; apt checks that, the packages' SHA-256 is checked here against the signed lists.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from proa.errors import Corrupt, HostError, Invalid
from proa.host import files
from proa.image.packages import cache, sandbox, sources
from proa.image.packages.sandbox import HERE
from proa.image.packages.spec import Repository, Spec

BASE = ("?and(?essential,?not(?exact-name(apt)))", "?exact-name(usr-is-merged)")
_LINE = re.compile(r"(Inst|Conf|Remv) (\S+) (?:\[[^]]*\] )?(?:\((\S+) )?")
# deb-control(5) and deb-version(7); these words become names of files and of shell commands.
_NAME = re.compile(r"[a-z0-9][a-z0-9+.-]*(:[a-z0-9-]+)?")
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+:~-]*")
_CONFIGURATION = """\
Dir "{home}"; Dir::Etc "{home}/etc";
Dir::Etc::Trusted "/dev/null"; Dir::Etc::TrustedParts "{home}/none";
Dir::State "{home}/state"; Dir::State::Lists "{home}/lists"; Dir::State::status "{home}/status";
Dir::Cache "{home}/cache"; Dir::Cache::archives "{here}/archives"; Dir::Log "{home}/log";
Dir::Bin::methods "/usr/lib/apt/methods"; Dir::Bin::dpkg "/usr/bin/dpkg";
APT::Architecture "{architecture}"; APT::Architectures {{ "{architecture}"; }};
APT::Install-Recommends "{recommends}"; APT::Get::Assume-Yes "true"; APT::Sandbox::User "";
APT::Update::Error-Mode "any"; Acquire::Languages "none"; Acquire::Retries "3";
"""


@dataclass(frozen=True)
class Package:
    """One package to install, and where it lies once fetched."""

    name: str
    version: str
    architecture: str
    file: Path
    sha256: str


@dataclass(frozen=True)
class Plan:
    """Packages in the order of their unpacking; `steps` are dpkg's: "unpack" or "configure"."""

    packages: tuple[Package, ...]
    steps: tuple[tuple[str, tuple[str, ...]], ...]


class Apt:
    """apt for one declaration; `directory` is the store's, `keys` are files by their name."""

    def __init__(self, directory: Path, spec: Spec, keys: Mapping[str, bytes]) -> None:
        self._root = sandbox.own(directory)
        self._archives = sandbox.own(directory / "archives")
        sandbox.own(self._archives / "partial")
        self._spec = spec
        self.architecture = spec.architecture or sources.host_architecture()
        lines, used = self._lines(keys)
        identity = hashlib.sha256(lines.encode() + self.architecture.encode())
        for name, content in sorted(used.items()):
            identity.update(name.encode() + hashlib.sha256(content).digest())
        self._name = identity.hexdigest()[:24]
        self._home = directory / self._name
        self._lock = directory / "lock"
        self._configure(lines, used)
        cache.used(self._home)

    # -- configuration --------------------------------------------------------------------------

    def _lines(self, keys: Mapping[str, bytes]) -> tuple[str, dict[str, bytes]]:
        """sources.list, with `KEYS` for the directory of keys, and the keys it names."""
        lines, used = [], {}
        for repository in sources.repositories(self._spec):
            name, content = self._key(repository, keys)
            used[name] = content
            options = "trusted=yes" if repository.trusted else f"signed-by=KEYS/{name}"
            if repository.expired:
                options += " check-valid-until=no"
            url = re.sub(r"^file:/+", "copy:/", repository.url)
            components = " ".join(repository.components)
            lines.append(f"deb [{options}] {url} {repository.suite or './'} {components}\n")
        return "".join(lines), used

    def _key(self, repository: Repository, keys: Mapping[str, bytes]) -> tuple[str, bytes]:
        if repository.trusted:
            return "none.gpg", b""
        if not repository.key:
            path = sources.keyring(self._spec.distribution)
            return path.name, path.read_bytes()
        if repository.key not in keys:
            raise Invalid(f"the key '{repository.key}' is not there")
        content = keys[repository.key]
        kind = "asc" if content.lstrip().startswith(b"-----BEGIN") else "gpg"
        return f"{hashlib.sha256(content).hexdigest()[:16]}.{kind}", content

    def _configure(self, lines: str, keys: Mapping[str, bytes]) -> None:
        for name in ("", "etc", "etc/apt.conf.d", "etc/preferences.d", "keys", "lists/partial",
                     "state", "cache", "log", "none"):  # fmt: skip
            for path in (self._home / name.split("/")[0], self._home / name):
                sandbox.own(path)
        here = f"{HERE}/{self._name}"
        text = _CONFIGURATION.format(
            home=here, here=HERE, architecture=self.architecture,
            recommends=str(self._spec.recommends).lower(),
        )  # fmt: skip
        self._write("apt.conf", text)
        self._write("etc/sources.list", lines.replace("KEYS", f"{here}/keys"))
        for name, content in keys.items():
            files.atomic_write(self._home / "keys" / name, content, mode=0o644)

    def _write(self, name: str, text: str) -> None:
        files.atomic_write(self._home / name, text.encode(), mode=0o644)

    def _run(self, *command: str, bounds: sandbox.Bounds = sandbox.LOCAL) -> str:
        environment = {"APT_CONFIG": f"{HERE}/{self._name}/apt.conf"}
        return sandbox.run(self._root, command, environment, bounds)

    # -- what it does ---------------------------------------------------------------------------

    def refresh(self) -> None:
        """Get the newest lists of the repositories.  Raises Invalid when one is not to be had."""
        with files.Lock(self._lock):
            cache.expire(self._root.parent)
            try:
                self._run("apt-get", "update", "-q", bounds=sandbox.NETWORK)
            except HostError as error:
                raise Invalid(f"cannot read the package lists: {_reason(error)}") from error

    def plan(self, wanted: Sequence[str], status: str = "", barred: Sequence[str] = ()) -> Plan:
        """What installs `wanted` where dpkg has `status`; `barred` are never taken.

        Raises Invalid when apt finds no way.
        """
        with files.Lock(self._lock):
            self._write("status", status)
            pins = "".join(
                f"Package: {name}\nPin: release *\nPin-Priority: -1\n\n" for name in barred
            )
            self._write("etc/preferences", pins)
            try:
                said = self._run("apt-get", "install", "--simulate", "-q", "--", *wanted)
            except HostError as error:
                raise Invalid(f"cannot resolve the packages: {_reason(error)}") from error
            order, steps = _ordered(said)
            return Plan(self._packages(order), steps)

    def absent(self, names: Sequence[str]) -> str:
        """A dpkg status that pretends these are installed, so that nothing brings them."""
        if not names:
            return ""
        with files.Lock(self._lock):
            self._write("status", "")
            said = self._run("apt-cache", "show", "--no-all-versions", "--", *names)
        return "".join(
            f"Package: {fields['Package']}\nStatus: install ok installed\n"
            f"Version: {fields['Version']}\nArchitecture: {fields['Architecture']}\n"
            "Maintainer: nobody\nDescription: left out\n\n"
            for fields in _stanzas(said)
        )

    def _packages(self, order: Sequence[tuple[str, str]]) -> tuple[Package, ...]:
        if not order:
            return ()
        said = self._run(
            "apt-cache", "show", "--", *(f"{name}={version}" for name, version in order)
        )
        known: dict[tuple[str, str], Package] = {}
        for fields in _stanzas(said):
            if "SHA256" not in fields:
                continue
            name, version = fields["Package"], fields["Version"]
            architecture = fields["Architecture"]
            if not _NAME.fullmatch(f"{name}:{architecture}") or not _VERSION.fullmatch(version):
                continue
            file = f"{name}_{version.replace(':', '%3a')}_{architecture}.deb"
            found = Package(name, version, architecture, self._archives / file, fields["SHA256"])
            known.setdefault((name, version), found)
        missing = [name for name, version in order if (_bare(name), version) not in known]
        if missing:
            raise Corrupt(f"the repositories have no checksum of package '{missing[0]}'")
        return tuple(known[_bare(name), version] for name, version in order)

    def fetch(self, plan: Plan, offline: bool = False) -> None:
        """Have the plan's packages in the archives, each with the SHA-256 the lists promise.

        Raises Invalid when `offline` and one is missing.
        """
        with files.Lock(self._lock):
            missing = [package for package in plan.packages if not _intact(package)]
            for package in plan.packages:
                cache.used(package.file)
            for package in missing:
                package.file.unlink(missing_ok=True)
            if missing and offline:
                raise Invalid(
                    f"the package '{missing[0].file.name}' was never downloaded",
                    hint="build once without --offline",
                )
            if missing:
                exact = [f"{item.name}:{item.architecture}={item.version}".replace(":all=", "=")
                         for item in missing]  # fmt: skip
                self._run("apt-get", "download", "-q", "-o", "Dir::Cache::archives=/none",
                          "--", *exact, bounds=sandbox.NETWORK)  # fmt: skip
            for package in missing:
                got = self._root / package.file.name
                if got.is_file() and not got.is_symlink():
                    os.chown(got, 0, 0)  # and so nobody's to change, now that it is checked
                    got.rename(package.file)
                if not _intact(package):
                    raise Corrupt(
                        f"the package '{package.file.name}' has another SHA-256 than promised"
                    )


def _ordered(said: str) -> tuple[list[tuple[str, str]], tuple[tuple[str, tuple[str, ...]], ...]]:
    """Packages (name, version) in order, and runs of the same step."""
    order: list[tuple[str, str]] = []
    steps: list[tuple[str, list[str]]] = []
    for line in said.splitlines():
        match = _LINE.match(line)
        if match is None:
            continue
        what, name, version = match.groups()
        if not _NAME.fullmatch(name) or not _VERSION.fullmatch(version or "0"):
            raise Corrupt(f"a repository has a package with the malformed name '{name}'")
        if what == "Remv":
            raise Invalid(f"the packages contradict the base: '{name}' would be removed")
        if what == "Inst":
            order.append((name, version))
        verb = "unpack" if what == "Inst" else "configure"
        if not steps or steps[-1][0] != verb:
            steps.append((verb, []))
        steps[-1][1].append(name)
    return order, tuple((verb, tuple(names)) for verb, names in steps)


def _stanzas(text: str) -> Iterator[dict[str, str]]:
    for stanza in text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in stanza.splitlines() if ": " in line)
        if {"Package", "Version", "Architecture"} <= fields.keys():
            yield fields


def _reason(error: HostError) -> str:
    return error.message.partition("failed: ")[2] or error.message


def _bare(name: str) -> str:
    return name.partition(":")[0]


def _intact(package: Package) -> bool:
    try:
        with package.file.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == package.sha256
    except FileNotFoundError:
        return False
