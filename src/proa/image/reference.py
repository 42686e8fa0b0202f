"""Names of images: Docker's reference grammar, and digests.

    [registry[:port]/]path[:tag][@sha256:hex]

`debian` means `docker.io/library/debian:latest`.  A `Reference` is always normalised; `familiar`
is what people are shown.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from proa.errors import Corrupt, Invalid

DEFAULT_REGISTRY = "docker.io"
DEFAULT_TAG = "latest"
MAXIMUM_NAME = 255

_LABEL = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_REGISTRY = re.compile(rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[a-fA-F0-9:]+\])(?::[0-9]{{1,5}})?")
_COMPONENT = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_DIGEST = re.compile(r"sha256:[a-f0-9]{64}")
_HEX = re.compile(r"[a-f0-9]{64}")
_HINT = "a name looks like 'registry.example/path/name:tag', in lower case"


@dataclass(frozen=True)
class Reference:
    """One normalised image name; `tag` or `digest` may be empty, not both."""

    registry: str
    path: str
    tag: str = ""
    digest: str = ""

    @property
    def repository(self) -> str:
        """Registry and path."""
        return f"{self.registry}/{self.path}"

    @property
    def familiar_repository(self) -> str:
        """The repository as Docker shows it: Docker Hub goes without saying where it can."""
        if self.registry != DEFAULT_REGISTRY:
            return self.repository
        official = self.path.removeprefix("library/")
        shown = self.path if "/" in official else official
        clear = _split(shown) == (self.registry, self.path) and not _is_like_an_id(shown)
        return shown if clear else self.repository

    @property
    def familiar(self) -> str:
        """The name as Docker shows it."""
        return self.familiar_repository + self._suffix()

    def _suffix(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        return tag + (f"@{self.digest}" if self.digest else "")

    def __str__(self) -> str:
        return self.repository + self._suffix()


def parse(text: str) -> Reference:
    """The reference that `text` means; without tag and digest the tag is `latest`."""
    name, _, digest = text.partition("@")
    if len(text) > 2 * MAXIMUM_NAME or ("@" in text and not _DIGEST.fullmatch(digest)):
        raise _invalid(text)
    head, colon, tag = name.rpartition(":")
    if not colon or "/" in tag:
        head, tag = name, ""
    elif not _TAG.fullmatch(tag):
        raise _invalid(text)
    registry, path = _split(head)
    if not _REGISTRY.fullmatch(registry) or not _is_path(path):
        raise _invalid(text)
    if len(registry) + 1 + len(path) > MAXIMUM_NAME or _is_like_an_id(head):
        raise _invalid(text)
    return Reference(registry, path, tag or ("" if digest else DEFAULT_TAG), digest)


def _split(name: str) -> tuple[str, str]:
    first, slash, rest = name.partition("/")
    is_registry = "." in first or ":" in first or first == "localhost" or first != first.lower()
    registry, path = (first, rest) if slash and is_registry else (DEFAULT_REGISTRY, name)
    if registry == "index.docker.io":
        registry = DEFAULT_REGISTRY
    if registry == DEFAULT_REGISTRY and "/" not in path:
        path = f"library/{path}"
    return registry, path


def _is_like_an_id(name: str) -> bool:
    return name == "sha256" or _HEX.fullmatch(name) is not None


def _is_path(path: str) -> bool:
    return all(_COMPONENT.fullmatch(part) for part in path.split("/"))


def _invalid(text: str) -> Invalid:
    return Invalid(f"invalid image name '{text[:100]}'", hint=_HINT)


def is_digest(value: object) -> bool:
    """Whether this is a digest Proa accepts: exactly `sha256:` and 64 lower-case hex digits."""
    return isinstance(value, str) and _DIGEST.fullmatch(value) is not None


def hexadecimal(digest: object) -> str:
    """The hex part of a digest read from outside: the only part ever used in a path."""
    if not isinstance(digest, str) or not is_digest(digest):
        raise Corrupt(f"invalid digest '{str(digest)[:100]}'", hint="only sha256 is supported")
    return digest[7:]
