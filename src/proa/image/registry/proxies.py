"""Which proxy the environment names for a host: HTTP_PROXY, HTTPS_PROXY, NO_PROXY."""

from __future__ import annotations

import base64
import os
import urllib.request
from urllib.parse import unquote, urlsplit

from proa.errors import RegistryError
from proa.image.registry.hosts import is_loopback
from proa.printable import clean


def proxy_for(scheme: str, host: str, port: int) -> tuple[str, int, str] | None:
    """The proxy the environment names for a host, never for this machine."""
    url = urllib.request.getproxies_environment().get(scheme, "")
    if not url or is_loopback(f"[{host}]" if ":" in host else host) or _direct(host, port):
        return None
    parts = urlsplit(url if "://" in url else f"http://{url}")
    if parts.scheme != "http" or not parts.hostname:
        raise RegistryError(f"the proxy '{clean(url)}' is not an http:// address")
    login = ""
    if parts.username is not None:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        login = "Basic " + base64.b64encode(pair.encode()).decode()
    return parts.hostname, parts.port or 8080, login


def _direct(host: str, port: int) -> bool:
    """Whether NO_PROXY names the host."""
    text = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
    for item in filter(None, (word.strip().lower() for word in text.split(","))):
        name = item.removesuffix(f":{port}").lstrip("*").lstrip(".")
        if item == "*" or host == name or (name and host.endswith(f".{name}")):
            return True
    return False
