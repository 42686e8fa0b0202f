"""Which service uses which: addresses, sockets, names in settings, order of units.  Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace

from proa.advice.disk import products
from proa.advice.disk.machine import Found, Need, Service
from proa.advice.disk.products import Product

NEEDS_MAXIMUM = 32
LINES_MAXIMUM = 20_000
_URL = re.compile(
    r"\b([a-z][a-z0-9+]{1,15})://(?:[^@\s/'\"]*@)?(localhost|127\.0\.0\.1|\[::1\])(?::(\d{1,5}))?"
)
_ADDRESS = re.compile(
    r"(?<![\w.])(?:localhost|127\.0\.0\.1|\[::1\])[:,'\"\s]+(?:port\s*=\s*)?(\d{2,5})\b"
)
_LIBPQ = re.compile(r"['\"][^'\"]*\bdbname\s*=\s*\w+[^'\"]*['\"]")
_HOST = re.compile(
    r"\b([A-Z][A-Z0-9]*?)_?(?:DB_|DATABASE_)?(?:HOST|SERVER|URL|ADDR)\w*['\"]?\s*[:=>]+\s*['\"]?"
    r"(localhost|127\.0\.0\.1|::1)\b"
)
_NO_PRODUCT = Product("", "")
_COMMENT = re.compile(r"\s*(?:#|;|//|--)")
_SECRET = re.compile(
    r"(://[^:/@\s]*:)[^@\s]*@|((?:PASS|SECRET|TOKEN|KEY)\w*['\"]?\s*[:=]\s*)\S+", re.I
)


def of_all(services: Iterable[Service], texts: dict[str, list[Found]]) -> tuple[Service, ...]:
    """The services with what each uses; `texts` are lines of settings by service's name."""
    known = list(services)
    result = []
    for service in known:
        found: dict[str, Need] = {}
        for need in (*_by_text(service, texts.get(service.name, ()), known), *service.needs):
            kept = found.get(need.service)
            if need.service != service.name and (kept is None or (need.strict and not kept.strict)):
                found[need.service] = need
        names = {other.name for other in known}
        needs = [need for need in found.values() if need.service in names]
        result.append(replace(service, needs=tuple(needs[:NEEDS_MAXIMUM])))
    return tuple(result)


def _by_text(service: Service, lines: Iterable[Found], known: list[Service]) -> Iterator[Need]:
    own = {port.port for port in service.ports}
    for line in lines:
        if _COMMENT.match(line.value):
            continue
        for other, why, port in _named(line.value, known):
            if other is not service and port not in own:
                yield Need(other.name, why, line.source, hidden(line.value), port)


def _named(line: str, known: list[Service]) -> Iterator[tuple[Service, str, int]]:
    for match in _URL.finditer(line):
        port = int(match[3] or 0)
        schemes = [item for item in known if match[1] in _row(item).schemes]
        found = _at(known, port) or next(iter(schemes), None)
        if found:
            yield (
                found,
                f"its settings name {match[0].rpartition('@')[2] if '@' in match[0] else match[0]}",
                port,
            )
    for match in _ADDRESS.finditer(line):
        found = _at(known, int(match[1]))
        if found:
            yield found, f"its settings name port {match[1]} of this machine", int(match[1])
    for match in _HOST.finditer(line):
        named = [item for item in known if match[1] in _row(item).words]
        found = next(iter(named), None) or _only_database(known, match[1])
        if found:
            yield found, f"its settings name the host of {match[1]}", 0
    if _LIBPQ.search(line) and "host=" not in line:
        found = next((item for item in known if item.product == "postgresql"), None)
        if found:
            yield found, "a libpq connection without a host goes to the local socket", 0
    for item in known:
        if re.search(_row(item).sockets, line):
            yield item, "its settings name the local socket", 0


def _at(known: list[Service], port: int) -> Service | None:
    if not port:
        return None
    return next((item for item in known for at in item.ports if at.port == port), None)


def _row(service: Service) -> Product:
    return products.BY_KEY.get(service.product, _NO_PRODUCT)


def _only_database(known: list[Service], word: str) -> Service | None:
    """`DB_HOST` where the machine has one database only."""
    if word not in ("DB", "DATABASE", "SQL"):
        return None
    found = [item for item in known if item.product in ("postgresql", "mysql", "mariadb")]
    return found[0] if len(found) == 1 else None


def hidden(line: str) -> str:
    """A line of settings without its secrets, short enough to be shown."""
    shown = _SECRET.sub(lambda match: f"{match[1]}...@" if match[1] else f"{match[2]}...", line)
    return " ".join(shown.split())[:160]
