"""The nouns of a bill: a component, and all that is known of an image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import quote

from proa.printable import clean

DEB, RPM, APK, PYTHON, NPM, GO = "deb", "rpm", "apk", "pypi", "npm", "golang"
_OF_DISTRIBUTION = (DEB, RPM, APK)
MAXIMUM_TEXT = 500


@dataclass(frozen=True, order=True)
class Component:
    """A package; `kind` is the type in its package URL."""

    kind: str
    name: str
    version: str
    architecture: str = ""
    license: str = ""
    supplier: str = ""
    source: str = ""

    def purl(self, system: Mapping[str, str]) -> str:
        """Its package URL (purl-spec); `system` is the image's os-release."""
        path, version, qualifiers = self.name, self.version, []
        epoch = ""
        if self.kind == RPM and ":" in version:
            epoch, _, version = version.partition(":")
        if self.kind in _OF_DISTRIBUTION:
            vendor = system.get("ID") or "linux"
            path = f"{vendor}/{path}"
            release = system.get("VERSION_ID", "")
            qualifiers = [
                ("arch", self.architecture), ("distro", f"{vendor}-{release}" if release else ""),
                ("epoch", epoch),
            ]  # fmt: skip
        if self.kind == PYTHON:
            path = path.lower().replace("_", "-")
        text = f"pkg:{self.kind}/{quote(path)}"
        text += f"@{quote(version, safe=':')}" if version else ""
        given = "&".join(f"{key}={quote(value, safe=':')}" for key, value in qualifiers if value)
        return f"{text}?{given}" if given else text


@dataclass(frozen=True)
class Facts:
    """What is in an image: `name` and `digest` say which, `system` is its os-release.

    `created` is the image's, RFC 3339 in whole seconds; `missing` says what could not be read.
    """

    name: str
    digest: str
    created: str
    system: Mapping[str, str]
    components: tuple[Component, ...]
    missing: tuple[str, ...] = ()


def short(text: str) -> str:
    """One printable line of bounded length."""
    return clean(text, MAXIMUM_TEXT)
