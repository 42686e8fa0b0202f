"""Logins as clients send them to the engine: Docker's `X-Registry-Auth` and `X-Registry-Config`.

The engine keeps none: a login arrives with the request that needs it and is gone with it.  Who
reads them from files and credential helpers is the client (`proa.client.credentials`).
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from proa.errors import Invalid

HEADER_BYTES = 64 << 10
# Docker Hub's three names; logins are kept under the last.
_HUB = frozenset({"docker.io", "registry-1.docker.io", "index.docker.io"})
_HUB_KEY = "index.docker.io"


@dataclass(frozen=True)
class Login:
    """Who one is at a registry; an identity token (OAuth2 refresh) or a registry token wins."""

    username: str = ""
    password: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)
    registry_token: str = field(default="", repr=False)

    def __bool__(self) -> bool:
        return bool(self.username or self.identity_token or self.registry_token)


def host_of(key: str) -> str:
    """The registry a key of Docker's configuration means: no scheme, no path, one name of Hub."""
    host = key.partition("://")[2] if "://" in key else key
    host = host.partition("/")[0].lower()
    return _HUB_KEY if host in _HUB else host


@dataclass(frozen=True)
class Credentials:
    """Logins by registry, read-only."""

    logins: Mapping[str, Login] = field(default_factory=dict)

    def get(self, host: str) -> Login | None:
        """The login for a registry's host (with its port), or nobody's."""
        return self.logins.get(host_of(host))


NOBODY = Credentials()


def for_registry(registry: str, header: str) -> Credentials:
    """What an `X-Registry-Auth` header says for the registry of the request.  Raises Invalid."""
    login = decode(header)
    return Credentials({host_of(registry): login}) if login else NOBODY


def for_all(header: str) -> Credentials:
    """What an `X-Registry-Config` header says (of a build: many registries).  Raises Invalid."""
    entries = _object(header, "X-Registry-Config")
    logins = {host_of(key): _login(entry) for key, entry in entries.items()}
    return Credentials({host: login for host, login in logins.items() if login})


def decode(header: str) -> Login:
    """The login in one `X-Registry-Auth` header; an empty one is nobody's.  Raises Invalid."""
    return _login(_object(header, "X-Registry-Auth"))


def login_of(document: Any) -> Login:
    """The login in a document of Docker's AuthConfig shape.  Raises Invalid."""
    return _login(document)


def _object(header: str, name: str) -> dict[str, Any]:
    if not header.strip():
        return {}
    if len(header) > HEADER_BYTES:
        raise Invalid(f"the header '{name}' is too large")
    try:  # some clients write the standard alphabet, some no padding
        text = header.strip().rstrip("=").replace("+", "-").replace("/", "_")
        value = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    except (ValueError, binascii.Error, RecursionError):
        raise Invalid(f"the header '{name}' is not base64 of a json object") from None
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise Invalid(f"the header '{name}' is not base64 of a json object")
    return value


def _login(entry: Any) -> Login:
    if not isinstance(entry, dict):
        raise Invalid("a registry login is not a json object")
    names = ("username", "password", "identitytoken", "registrytoken", "auth")
    texts = {name: entry.get(name) or "" for name in names}
    if not all(isinstance(text, str) for text in texts.values()):
        raise Invalid("a registry login has a field that is not text")
    user, password = texts["username"], texts["password"]
    if texts["auth"] and not user:
        user, password = _pair(texts["auth"])
    return Login(user, password, texts["identitytoken"], texts["registrytoken"])


def _pair(text: str) -> tuple[str, str]:
    try:
        user, colon, password = base64.b64decode(text, validate=True).decode().partition(":")
    except (ValueError, binascii.Error):
        colon = ""
    if not colon:
        raise Invalid("a registry login's 'auth' is not base64 of 'user:password'")
    return user, password.rstrip("\0")
