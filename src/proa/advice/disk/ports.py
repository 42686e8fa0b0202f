"""On which ports a service listens: by settings, commands, variables, sockets.  Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

from proa.advice.disk import products
from proa.advice.disk.machine import LOCAL, Found, Listening
from proa.advice.disk.products import Product
from proa.advice.disk.tree import Tree
from proa.advice.disk.units import Unit

_OPTION = re.compile(
    r"(?:--(?:bind|listen|port|http-port|addr|address|host-port|http|web\.listen-address)[= ]|-b |"
    r"-p )['\"]?((?:\[[0-9a-f:]*\]|[\w.*-]*)?:?\d{2,5})\b"
)
_PORT_VARIABLE = re.compile(
    r"(?:\w+_)?(?:PORT|LISTEN|BIND|ADDR)=['\"]?((?:[\w.]*:)?\d{2,5})['\"]?$"
)


def listening(
    tree: Tree, product: Product | None, command: str, environment: tuple[Found, ...], unit: Unit
) -> Iterator[Listening]:
    """The ports of a service: by its settings, its command and variables, its sockets."""
    seen: set[str] = set()
    for port in (
        *(_configured(tree, product) if product else ()),
        *_of_command(unit, command, environment),
        *_of_sockets(unit),
    ):
        if str(port) not in seen:
            seen.add(str(port))
            yield port
    if product and not seen:
        address = "127.0.0.1" if product.key in products.LOCAL_BY_DEFAULT else ""
        for usual in product.ports:
            number, _, protocol = usual.partition("/")
            yield Listening(int(number), protocol, address, f"usual for {product.key}", False)


def _configured(tree: Tree, product: Product) -> Iterator[Listening]:
    """What a product's own settings say: pairs of address and port, or one port and addresses."""
    said = {what: list(settings(tree, product, what)) for what in ("listen", "port", "address")}
    ports = [port for found in said["listen"] for port in _parsed(found)]
    yield from ports
    if said["listen"] and not ports and product.ports:
        source = f"{said['listen'][0].source}: a local socket"
        yield Listening(int(product.ports[0].partition("/")[0]), "tcp", LOCAL[0], source, False)
    address = _address(said["address"][-1].value) if said["address"] else (
        "127.0.0.1" if product.key in products.LOCAL_BY_DEFAULT else ""
    )  # fmt: skip
    number, _, protocol = next(iter(product.ports), "0/tcp").partition("/")
    if said["port"] and int(said["port"][-1].value):
        found = said["port"][-1]
        yield Listening(int(found.value), protocol, address, found.source)
    elif said["address"] and product.ports:
        yield Listening(int(number), protocol, address, said["address"][-1].source)


def settings(tree: Tree, product: Product, what: str) -> Iterator[Found]:
    """What a product's settings say of `port`, `address`, `listen`, `data`, `root`."""
    rows = [
        pattern for key, pattern, says in products.SETTINGS if key == product.key and says == what
    ]
    files = tree.matching(re.compile(product.configuration)) if rows else ()
    for path in files:
        for number, line in tree.lines(path):
            if line.lstrip()[:1] in ("#", ";") or line.lstrip().startswith("<!--"):
                continue
            for pattern in rows:
                if match := pattern.match(line):
                    yield Found(match[1], f"{path}:{number}")


def _address(value: str) -> str:
    first = value.split(",")[0].strip()
    return "" if first in ("*", "0.0.0.0", "::", "") else first


def _parsed(found: Found) -> Iterator[Listening]:
    """`80`, `127.0.0.1:8000`, `[::]:443 ssl`, `*:80`; a path of a local socket is none."""
    word = (found.value.split() or [""])[0].strip("\"'")
    address, _, port = word.rpartition(":")
    if word.startswith(("unix:", "/")) or not port.isdigit() or not 0 < int(port) < 65536:
        if re.fullmatch(
            r"\d+(?:\.\d+){3}|localhost|\*", word
        ):  # nginx: an address alone is port 80
            yield Listening(80, "tcp", _address(word), found.source)
        return
    protocol = "udp" if " quic" in found.value else "tcp"
    yield Listening(int(port), protocol, _address(address.strip("[]")), found.source)


def _of_command(unit: Unit, command: str, environment: tuple[Found, ...]) -> Iterator[Listening]:
    starts = unit.all("ExecStart")
    source = starts[-1].source if starts else unit.path
    for match in _OPTION.finditer(command):
        yield from _parsed(Found(match[1].removeprefix(":"), source))
    for found in environment:
        if variable := _PORT_VARIABLE.match(found.value):
            yield from _parsed(Found(variable[1].removeprefix(":"), found.source))


def _of_sockets(unit: Unit) -> Iterator[Listening]:
    for key, protocol in (("ListenStream", "tcp"), ("ListenDatagram", "udp")):
        for found in unit.all(key):
            for port in _parsed(found):
                yield replace(port, protocol=protocol)
