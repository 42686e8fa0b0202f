"""Which service uses which: addresses, sockets, names in settings, order of units.  Pure."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace

from proa.advice.disk import products
from proa.advice.disk.machine import Found, Need, Service

NEEDS_MAXIMUM = 32
LINES_MAXIMUM, LINE_MAXIMUM = 40_000, 600  # of all services together; of each line
_URL = re.compile(
    r"\b([a-z][a-z0-9+]{1,15})://(?:[^@\s/'\"]*@)?(localhost|127\.0\.0\.1|\[::1\])(?::(\d{1,5}))?"
)
_ADDRESS = re.compile(
    r"(?<![\w.])(?:localhost|127\.0\.0\.1|\[::1\])[:,'\"\s]+(?:port\s*=\s*)?(\d{2,5})\b"
)
_LIBPQ = re.compile(r"\bdbname\s?=\s?\w")
_HOST = re.compile(
    r"\b([A-Z][A-Z0-9]{0,20}?)_?(?:DB_|DATABASE_)?(?:HOST|SERVER|URL|ADDR)\w{0,20}['\"]?"
    r"\s{0,9}[:=>]{1,3}\s{0,9}['\"]?"
    r"(localhost|127\.0\.0\.1|::1)\b"
)
LIBPQ = "a libpq connection"
_RELATIONAL = ("postgresql", "mysql", "mariadb")
_ANY_STORE = ("DB", "DATABASE", "SQL")  # `DB_HOST`, where the machine has one only
_COMMENT = re.compile(r"\s*(?:#|;|//|--)")
_SECRET = re.compile(
    r"(://[^:/@\s]*:)[^@\s]*@|((?:PASS|SECRET|TOKEN|KEY)\w*['\"]?\s*[:=]\s*)\S+", re.I
)


def of_all(
    services: Sequence[Service], lines: Callable[[Service], Iterator[Found]]
) -> tuple[Service, ...]:
    """The services with what each uses; `lines` are those of a service's settings."""
    known = Known(services)
    left = LINES_MAXIMUM
    result = []
    for service in services:
        found: dict[str, Need] = {}
        texts = list(itertools.islice(lines(service), left))
        left -= len(texts)
        for need in (*_by_text(service, texts, known), *service.needs):
            kept = found.get(need.service)
            if need.service != service.name and (kept is None or (need.strict and not kept.strict)):
                found[need.service] = need
        names = {other.name for other in services}
        chosen = [need for need in found.values() if need.service in names][:NEEDS_MAXIMUM]
        needs = tuple(replace(need, setting=hidden(need.setting)) for need in chosen)
        result.append(replace(service, needs=needs))
    return tuple(result)


class Known:
    """What may be named: services by port, by scheme, by words of variables, by local sockets."""

    def __init__(self, services: Sequence[Service]) -> None:
        rows = [(item, products.BY_KEY[item.product]) for item in services if item.product]
        self.ports = {port.port: item for item in reversed(services) for port in item.ports}
        self.schemes = {word: item for item, row in reversed(rows) for word in row.schemes}
        self.words = {word: item for item, row in reversed(rows) for word in row.words}
        self.sockets = [(item, re.compile(row.sockets)) for item, row in rows if row.sockets]
        self.postgresql = next((item for item, row in rows if row.key == "postgresql"), None)
        stores = [item for item, row in rows if row.key in _RELATIONAL]
        self.database = stores[0] if len(stores) == 1 else None


def _by_text(service: Service, lines: Iterable[Found], known: Known) -> Iterator[Need]:
    own = {port.port for port in service.ports}
    for line in lines:
        if _COMMENT.match(line.value):
            continue
        for other, why, port in _named(line.value[:LINE_MAXIMUM], known):
            same = other.product and other.product == service.product
            if other is not service and not same and port not in own:
                yield Need(other.name, why, line.source, line.value, port)


def _named(line: str, known: Known) -> Iterator[tuple[Service, str, int]]:
    for match in _URL.finditer(line):
        port = int(match[3] or 0)
        found = known.ports.get(port) or known.schemes.get(match[1])
        if found:
            shown = f"{match[1]}://{match[2]}{f':{port}' if port else ''}"
            yield found, f"its settings name {shown}", port
    for match in _ADDRESS.finditer(line):
        found = known.ports.get(int(match[1]))
        if found:
            yield found, f"its settings name port {match[1]} of this machine", int(match[1])
    for match in _HOST.finditer(line):
        found = known.words.get(match[1]) or (known.database if match[1] in _ANY_STORE else None)
        if found:
            yield found, f"its settings name the host of {match[1]}", 0
    if known.postgresql and _LIBPQ.search(line) and "host=" not in line:
        yield known.postgresql, f"{LIBPQ} without a host goes to the local socket", 0
    for item, socket in known.sockets:
        if socket.search(line):
            yield item, "its settings name the local socket", 0


def hidden(line: str) -> str:
    """A line of settings without its secrets, short enough to be shown."""
    short = line[:LINE_MAXIMUM]
    shown = _SECRET.sub(lambda match: f"{match[1]}...@" if match[1] else f"{match[2]}...", short)
    return " ".join(shown.split())[:160]
