"""The databases of package managers: dpkg, distroless's status.d, apk, rpm."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from proa.errors import Corrupt, HostError
from proa.image.packages import sandbox
from proa.image.sbom import reading
from proa.image.sbom.component import APK, DEB, RPM, Component, short

MAXIMUM_DATABASE = 64 << 20
MAXIMUM_RPM_DATABASE = 512 << 20
_RPM_PATHS = ("usr/lib/sysimage/rpm", "var/lib/rpm")
_RPM_FILES = ("rpmdb.sqlite", "Packages.db", "Packages")
_RPM_FIELDS = ("NAME", "EPOCHNUM", "VERSION", "RELEASE", "ARCH", "LICENSE", "VENDOR", "SOURCERPM")
_RPM_FORMAT = "\\t".join(f"%{{{name}}}" for name in _RPM_FIELDS) + "\\n"
_RPM_KEYS = "gpg-pubkey"
_MAXIMUM_COPYRIGHT = 1 << 20
_PACKAGE = re.compile(r"[a-z0-9][a-z0-9+.-]*")
_GNU = re.compile(r"(A?L?GPL)-(\d(?:\.\d)?)(\+?)")
_SPDX_WORDS = {"and": "AND", "or": "OR", "Expat": "MIT"}


def dpkg(root: int) -> Iterator[Component]:
    """Installed packages of dpkg's status file, and of distroless's directory beside it."""
    texts = [reading.read(root, "var/lib/dpkg/status", MAXIMUM_DATABASE)]
    for name in reading.names(root, "var/lib/dpkg/status.d"):
        if not name.endswith((".md5sums", ".preinst", ".postinst")):
            texts.append(reading.read(root, f"var/lib/dpkg/status.d/{name}", 1 << 20))
    for text in filter(None, texts):
        for fields in stanzas(text):
            state = fields.get("Status", "").rpartition(" ")[2]
            if fields.get("Package") and state not in ("not-installed", "config-files"):
                yield _of_dpkg(root, fields)


def _of_dpkg(root: int, fields: dict[str, str]) -> Component:
    return Component(
        DEB, short(fields["Package"]), short(fields.get("Version", "")),
        short(fields.get("Architecture", "")), _copyright(root, fields["Package"]),
        short(fields.get("Maintainer", "")),
        short(fields.get("Source", "").partition(" ")[0]),
    )  # fmt: skip


def _copyright(root: int, package: str) -> str:
    """The licences in a machine-readable copyright file (DEP-5), each once; else nothing."""
    if not _PACKAGE.fullmatch(package):
        return ""
    try:
        data = reading.read(root, f"usr/share/doc/{package}/copyright", _MAXIMUM_COPYRIGHT)
    except Corrupt:
        return ""
    if not data or not data.lstrip().startswith(b"Format:"):
        return ""
    found = {fields["License"] for fields in stanzas(data) if fields.get("License")}
    return short(" AND ".join(sorted({_grouped(name) for name in found})))


def _grouped(name: str) -> str:
    """A choice in brackets; Debian's `and`, `or` and names of GNU licences as SPDX has them."""
    words = [_SPDX_WORDS.get(word) or _spdx_name(word) for word in name.replace(",", "").split()]
    text = " ".join(words)
    return f"({text})" if "OR" in words or "AND" in words else text


def _spdx_name(word: str) -> str:
    match = _GNU.fullmatch(word)
    if match is None:
        return word
    name, version, later = match.groups()
    whole = version if "." in version else f"{version}.0"
    return f"{name}-{whole}-{'or-later' if later else 'only'}"


def stanzas(data: bytes) -> Iterator[dict[str, str]]:
    """Paragraphs of `Key: value`; continued lines are left out, a repeated key counts once."""
    fields: dict[str, str] = {}
    for line in data.split(b"\n"):
        if not line.strip():
            if fields:
                yield fields
            fields = {}
        elif not line.startswith((b" ", b"\t")):
            key, colon, value = line.partition(b":")
            if colon and len(key) < 64:
                text = value[:4096].strip().decode(errors="replace")
                fields.setdefault(key.decode(errors="replace"), text)
    if fields:
        yield fields


def apk(root: int) -> Iterator[Component]:
    """Packages of Alpine's database: one letter, a colon, the value."""
    for path in ("lib/apk/db/installed", "usr/lib/apk/db/installed"):
        data = reading.read(root, path, MAXIMUM_DATABASE)
        if data is None:
            continue
        for fields in stanzas(data):
            if fields.get("P"):
                yield Component(
                    APK, short(fields["P"]), short(fields.get("V", "")),
                    short(fields.get("A", "")), short(fields.get("L", "")),
                    short(fields.get("m", "")), short(fields.get("o", "")),
                )  # fmt: skip
        return


def rpm(root: int, workspace: Path) -> Iterator[Component]:
    """Packages of rpm's database: a copy of it, read by the host's rpm as nobody.

    Raises HostError when rpm cannot read it, or is not there.
    """
    for line in ask_rpm(root, workspace, _RPM_FORMAT).splitlines():
        fields = [short(field) for field in line.split("\t")]
        if len(fields) != len(_RPM_FIELDS):
            raise HostError("rpm's answer about the image's database is malformed")
        if fields[0] != _RPM_KEYS:
            yield _of_rpm(fields)


def ask_rpm(root: int, workspace: Path, format: str) -> str:
    """What rpm says of every package in an image's database; nothing where there is none."""
    for directory in _RPM_PATHS:
        found = [name for name in _RPM_FILES if name in reading.names(root, directory)]
        if not found:
            continue
        copy = sandbox.own(workspace / "rpm")
        for name in found:
            reading.copy(root, f"{directory}/{name}", copy / name, MAXIMUM_RPM_DATABASE)
            sandbox.give(copy / name)
        return sandbox.run(copy, ["rpm", "--dbpath", sandbox.HERE, "-qa", "--queryformat", format])
    return ""


def _of_rpm(fields: list[str]) -> Component:
    name, epoch, version, release, architecture, license, vendor, source = (
        "" if field == "(none)" else field for field in fields
    )
    whole = f"{version}-{release}" if epoch in ("", "0") else f"{epoch}:{version}-{release}"
    return Component(RPM, name, whole, architecture, license, vendor, source)
