"""Where a registry is reached: its mirrors, its own address, and what is trusted there.

    [registry."docker.io"]
    mirrors = ["mirror.example", "127.0.0.1:5000/docker"]

    [registry."registry.example:5000"]
    insecure = true            # plain http, or https with any certificate
    ca = "/etc/proa/ca.crt"    # trusted beside the system's authorities
    cert = "/etc/proa/me.cert"
    key = "/etc/proa/me.key"

Certificates are found in Docker's and Podman's directories as well: `HOST/ca.crt`, `HOST/*.cert`
with `HOST/*.key`.  Plain http is spoken with loopback addresses and insecure registries only.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, urlsplit

from proa.errors import Invalid
from proa.image import reference

DIRECTORIES = (Path("/etc/docker/certs.d"), Path("/etc/containers/certs.d"))
_ADDRESSES = {reference.DEFAULT_REGISTRY: "registry-1.docker.io"}
_NAMES = {address: name for name, address in _ADDRESSES.items()}
_KINDS: dict[str, type] = {"mirrors": list, "insecure": bool, "ca": str, "cert": str, "key": str}


@dataclass(frozen=True)
class Trust:
    """What TLS with a host goes by: extra authorities, our certificate and key, or no check."""

    authorities: tuple[Path, ...] = ()
    identity: tuple[Path, Path] | None = None
    verify: bool = True


@dataclass(frozen=True)
class Endpoint:
    """One place to ask: `url` has no trailing slash; `plain` says that http may be tried.

    `login` is the name under which credentials for it are kept.
    """

    login: str
    url: str
    plain: bool = False

    @property
    def host(self) -> str:
        """Host and port."""
        return urlsplit(self.url).netloc


class Hosts:
    """Answers for one engine's configuration (the `registry` table of its `proa.toml`)."""

    def __init__(
        self, settings: Mapping[str, Any] | None = None, directories: Sequence[Path] = DIRECTORIES
    ) -> None:
        self._settings = {
            _canonical(name): _checked(name, value) for name, value in (settings or {}).items()
        }
        self._directories = tuple(directories)
        for name in self._settings:
            self.endpoints(name)  # a mistake shows when the engine starts

    def endpoints(self, registry: str, mirrored: bool = True) -> tuple[Endpoint, ...]:
        """Where to ask for a registry's images, in order: its mirrors, then itself."""
        mirrors = self._of(registry).get("mirrors", ()) if mirrored else ()
        return (*map(self._mirror, mirrors), self._own(registry))

    def _own(self, registry: str) -> Endpoint:
        address = _ADDRESSES.get(registry, registry)
        return Endpoint(registry, f"https://{address}", self.plain(address))

    def _mirror(self, text: str) -> Endpoint:
        parts = _split(text if "://" in text else f"https://{text}")
        host, path = parts.netloc, parts.path.rstrip("/")
        plain = self.plain(host)
        if parts.scheme == "http" and not plain:
            raise Invalid(
                f"the mirror '{text}' is reached without TLS",
                hint=f'[registry."{host}"] insecure = true permits that',
            )
        return Endpoint(_NAMES.get(host, host), f"https://{host}{path}", plain)

    def plain(self, host: str) -> bool:
        """Whether plain http may be spoken with `host[:port]`."""
        return is_loopback(host) or bool(self._of(host).get("insecure"))

    def trust(self, host: str) -> Trust:
        """What TLS with `host[:port]` goes by."""
        settings = self._of(host)
        folders = [folder / _NAMES.get(host, host) for folder in self._directories]
        authorities = [path for folder in folders for path in sorted(folder.glob("*.crt"))]
        if "ca" in settings:
            authorities.insert(0, Path(settings["ca"]))
        return Trust(
            tuple(authorities), _identity(settings, folders), not settings.get("insecure", False)
        )

    def _of(self, host: str) -> dict[str, Any]:
        return self._settings.get(_NAMES.get(host, host), {})


def is_loopback(host: str) -> bool:
    """Whether `host[:port]` names this machine itself."""
    name = urlsplit(f"//{host}").hostname or ""
    try:
        return name == "localhost" or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _canonical(name: str) -> str:
    return _NAMES.get(name, reference.parse(f"{name}/x/x").registry)


def _checked(name: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise Invalid(f"the configuration of registry '{name}' is not a table")
    for key, item in value.items():
        if key not in _KINDS or not isinstance(item, _KINDS[key]):
            raise Invalid(
                f"bad setting '{key}' of registry '{name}'", hint=f"known are {', '.join(_KINDS)}"
            )
    if not all(isinstance(mirror, str) for mirror in value.get("mirrors", ())):
        raise Invalid(f"the mirrors of registry '{name}' are not strings")
    if ("cert" in value) != ("key" in value):
        raise Invalid(f"registry '{name}' needs both 'cert' and 'key'")
    return dict(value)


def _split(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        well_formed = bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        well_formed = False
    if not well_formed or parts.scheme not in ("http", "https") or "@" in parts.netloc:
        raise Invalid(f"invalid mirror '{url}'", hint="a mirror is HOST[:PORT][/PATH]")
    return parts


def _identity(settings: dict[str, Any], folders: Sequence[Path]) -> tuple[Path, Path] | None:
    if "cert" in settings:
        return Path(settings["cert"]), Path(settings["key"])
    for folder in folders:
        for certificate in sorted(folder.glob("*.cert")):
            key = certificate.with_suffix(".key")
            if not key.exists():
                raise Invalid(f"the certificate '{certificate}' has no key '{key}' beside it")
            return certificate, key
    return None
