"""What an app file's values mean: sizes, ports, mounts, words; errors name the place.  Pure."""

from __future__ import annotations

import math
import posixpath
import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from proa.advice.compose.document import Node
from proa.errors import Invalid
from proa.printable import clean

_SIZE = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,6})?)\s*([kmgtp]?)i?b?", re.IGNORECASE)
_DURATION = re.compile(r"(?:([0-9]+(?:\.[0-9]+)?)(us|µs|ms|h|m|s))")
_UNITS_SECONDS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6}
_FLAGS = {"true": True, "false": False, "yes": True, "no": False, "on": True, "off": False,
          "1": True, "0": False, "y": True, "n": False}  # fmt: skip
_PORT = re.compile(
    r"(?:(?P<ip>\[[0-9a-fA-F:.]+\]|[0-9.]+|[0-9a-fA-F:]+(?=:[0-9-]*:[0-9-]+$)):(?=[0-9-]*:))?"
    r"(?:(?P<published>[0-9]+(?:-[0-9]+)?)?:)?(?P<target>[0-9]+(?:-[0-9]+)?)"
)
PORT_MAXIMUM = 65535
PORTS_MAXIMUM = 4096


@dataclass(frozen=True)
class Port:
    """A port it serves; `published` is the host's, a number, a range, or empty for any."""

    target: int
    protocol: str = "tcp"
    published: str = ""
    host_ip: str = ""

    def __str__(self) -> str:
        return f"{self.target}/{self.protocol}"


@dataclass(frozen=True)
class Mount:
    """What is mounted where: `type` is volume, bind, tmpfs, image, cluster or npipe."""

    type: str
    source: str
    target: str
    read_only: bool = False


def text(node: Node) -> str:
    """A scalar as it was written.  Raises Invalid for anything else."""
    if node.value is None or node.kind != "a value":
        raise node.mark.error(
            f"a text is wanted, this is {'empty' if node.value is None else node.kind}"
        )
    return node.text


def optional(node: Node) -> str:
    """A scalar, or nothing."""
    return "" if node.value is None else text(node)


def flag(node: Node) -> bool:
    """Yes or no."""
    found = _FLAGS.get(text(node).lower())
    if found is None:
        raise node.mark.error(f"'{clean(node.text)}' is neither true nor false")
    return found


def number(node: Node) -> float:
    """A number, quoted or not."""
    try:
        found = float(text(node))
    except ValueError:
        found = math.nan
    if not math.isfinite(found) or abs(found) > 1e15:
        raise node.mark.error(f"'{clean(node.text)}' is no number")
    return found


def whole(node: Node) -> int:
    """A whole number."""
    found = number(node)
    if found != int(found):
        raise node.mark.error(f"'{clean(node.text)}' is no whole number")
    return int(found)


def size_bytes(node: Node) -> int:
    """`512m`, `1.5gb`, or bytes."""
    match = _SIZE.fullmatch(text(node).strip())
    if match is None:
        raise node.mark.error(f"'{clean(node.text)}' is no size", hint="like 512m or 2g")
    return int(float(match[1]) * (1 << 10 * "_kmgtp".index(match[2].lower() or "_")))


def seconds(node: Node) -> float:
    """`1m30s`."""
    parts = _DURATION.findall(text(node))
    if not parts or "".join(f"{amount}{unit}" for amount, unit in parts) != node.text.strip():
        raise node.mark.error(f"'{clean(node.text)}' is no duration", hint="like 1m30s")
    return sum(float(amount) * _UNITS_SECONDS[unit] for amount, unit in parts)


def texts(node: Node) -> tuple[str, ...]:
    """A list of texts; a single one counts as a list."""
    if isinstance(node.value, Mapping):
        raise node.mark.error("a list is wanted, this is a mapping")
    if node.value is None:
        return ()
    return tuple(map(text, node.each())) if isinstance(node.value, tuple) else (text(node),)


def words(node: Node) -> tuple[str, ...]:
    """A command: a list, or one text that is split as a shell does."""
    if isinstance(node.value, tuple) or node.value is None:
        return texts(node)
    try:
        return tuple(shlex.split(text(node)))
    except ValueError as error:
        raise node.mark.error(f"'{clean(node.text)}': {str(error).lower()}") from None


def pairs(node: Node) -> dict[str, str | None]:
    """A mapping of texts, after `merging.canonical`; None is taken from the environment."""
    if node.value is not None and not isinstance(node.value, Mapping):
        raise node.mark.error(f"a mapping is wanted, this is {node.kind}")
    return {key: None if item.value is None else text(item) for key, item in node.items()}


def ports(node: Node) -> tuple[Port, ...]:
    """Published ports, short and long; ranges become one each."""
    found: list[Port] = []
    for item in sequence(node):
        found += _long_port(item) if isinstance(item.value, Mapping) else _short_port(item)
        if len(found) > PORTS_MAXIMUM:
            raise item.mark.error(f"more than '{PORTS_MAXIMUM}' ports")
    return tuple(found)


def sequence(node: Node) -> tuple[Node, ...]:
    """A list's elements.  Raises Invalid."""
    if node.value is not None and not isinstance(node.value, tuple):
        raise node.mark.error(f"a list is wanted, this is {node.kind}")
    return node.each()


def _short_port(node: Node) -> Iterator[Port]:
    written, _, protocol = text(node).partition("/")
    match = _PORT.fullmatch(written)
    if match is None:
        raise node.mark.error(f"'{clean(node.text)}' is no port", hint="like 8080:80 or 53:53/udp")
    targets = _range(node, match["target"])
    published = [str(item) for item in _range(node, match["published"] or "")]
    if published and len(published) != len(targets):
        if len(targets) > 1:
            raise node.mark.error(f"'{clean(node.text)}': ranges of different lengths")
        published = [match["published"]]
    for index, target in enumerate(targets):
        at = published[index] if published else ""
        yield Port(target, protocol or "tcp", at, (match["ip"] or "").strip("[]"))


def _long_port(node: Node) -> Iterator[Port]:
    target = node.get("target")
    if target is None:
        raise node.mark.error("a port without 'target'")
    said = {key: text(item) for key, item in node.items() if item.kind == "a value"}
    protocol, published = said.get("protocol", "tcp"), said.get("published", "")
    for value in _range(target, text(target)):
        yield Port(value, protocol, published, said.get("host_ip", ""))


def _range(node: Node, written: str) -> range:
    if not written:
        return range(0)
    first, _, last = written.partition("-")
    if not first.isdigit() or not (last or first).isdigit() or len(written) > 11:
        raise node.mark.error(f"'{clean(written)}' is no port")
    low, high = int(first), int(last or first)
    if not 0 < low <= high <= PORT_MAXIMUM:
        raise node.mark.error(f"'{clean(written)}' is no port")
    return range(low, high + 1)


def mounts(node: Node) -> tuple[Mount, ...]:
    """Volumes, short and long."""
    return tuple(map(mount, sequence(node)))


def mount(node: Node) -> Mount:
    """One of them; a host's path is left as it was written."""
    if isinstance(node.value, Mapping):
        said = {key: text(item) for key, item in node.items() if item.kind == "a value"}
        if not said.get("type") or (not said.get("target")):
            raise node.mark.error("a volume without 'type' and 'target'")
        read_only = said.get("read_only", "false").lower() == "true"
        return Mount(said["type"], said.get("source", ""), _inside(said["target"]), read_only)
    first, *rest = text(node).split(":")
    if not rest:
        return Mount("volume", "", _inside(first))
    if len(rest) > 2 or not rest[0]:
        raise node.mark.error(f"'{clean(node.text)}' is no volume", hint="SOURCE:TARGET[:MODE]")
    read_only = "ro" in rest[1].split(",") if len(rest) == 2 else False
    kind = "bind" if first[:1] in ("/", ".", "~") else "volume"
    return Mount(kind, first, _inside(rest[0]), read_only)


def _inside(path: str) -> str:
    """A path in an instance, as Compose writes it."""
    return posixpath.normpath(path) if path.startswith("/") else path


def device(node: Node) -> str:
    """The host's device, or a CDI name."""
    if isinstance(node.value, Mapping):
        source = node.get("source")
        return text(source) if source else ""
    return text(node).partition(":")[0]


def target(kind: str, node: Node) -> str:
    """What makes an element of a list of that kind the same as another one."""
    try:
        if kind == "ports":
            return "; ".join(
                f"{item.host_ip}:{item.published}:{item}" for item in ports(_list(node))
            )
        if kind == "volumes":
            return posixpath.normpath(mount(node).target)
    except Invalid:
        return node.text
    for key in ("target", "source", "path"):
        if (found := node.get(key)) is not None:
            return found.text
    return node.text.split(":")[1] if kind == "devices" and ":" in node.text else node.text


def _list(node: Node) -> Node:
    return Node(node.mark, (node,))
