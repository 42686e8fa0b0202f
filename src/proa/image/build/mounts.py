"""`RUN --mount=...`: its comma-separated fields, typed and checked (BuildKit's rules)."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace

from proa.errors import BuildError
from proa.image.build import values, words
from proa.image.build.instructions import Instruction, Mount
from proa.image.build.text import did_you_mean

KINDS = ("bind", "cache", "tmpfs", "secret", "ssh")
SHARING = ("shared", "private", "locked")
_FIELD = re.compile(r'"((?:[^"]|"")*)"|([^",]*)')
_TRUE, _FALSE = ("1", "t", "true"), ("0", "f", "false")
_SAME = {
    "src": "source",
    "dst": "target",
    "destination": "target",
    "ro": "readonly",
    "rw": "readwrite",
}


def mounts(
    instruction: Instruction, environment: Mapping[str, str], escape: str = "\\"
) -> tuple[Mount, ...]:
    """The mounts of a RUN, expanded.  Raises BuildError that points at the flag."""
    found = []
    for flag in instruction.flags:
        if flag.name == "mount":
            with words.pointing(instruction, flag.place):
                found.append(
                    parse(flag.value or "", lambda text: words.word(text, environment, escape))
                )
    return tuple(found)


def origins(text: str) -> list[str]:
    """What `from=` says in a mount, unexpanded.  Raises BuildError."""
    pairs = (field.partition("=") for field in _fields(text))
    return [value for name, _, value in pairs if name.lower() == "from"]


def parse(text: str, expand: Callable[[str], str]) -> Mount:
    """The mount that `text` means.  Raises BuildError, without a place."""
    mount = Mount("bind")
    readonly: bool | None = None
    for field in _fields(text):
        name, equals, value = field.partition("=")
        name = _SAME.get(name.lower(), name.lower())
        if name == "from" and "$" in value[:-1]:
            raise BuildError(
                f"a variable in 'from={value}'",
                hint="name a stage with FROM, which may have variables, and mount from that",
            )
        if not equals and name not in _SWITCHES:
            raise BuildError(f"'{field}' has no value", hint="a mount is name=value,...")
        value = expand(value) if equals else "true"
        if name in ("readonly", "readwrite"):
            readonly = _boolean(name, value) == (name == "readonly")
        elif name in _SETTERS:
            mount = _SETTERS[name](mount, value)
        else:
            known = (*_SETTERS, *_SWITCHES, *_SAME)
            raise BuildError(f"unknown mount option '{name}'", hint=did_you_mean(name, known))
    if readonly is None:
        readonly = mount.kind not in ("cache", "tmpfs")
    return _checked(replace(mount, readonly=readonly))


def _checked(mount: Mount) -> Mount:
    for name, kinds in _ONLY.items():
        value = getattr(mount, name)
        if value != getattr(_UNSET, name) and mount.kind not in kinds:
            raise BuildError(f"a {mount.kind} mount has no '{_OPTION.get(name, name)}'")
    if mount.kind == "secret":
        if mount.source and mount.id:
            raise BuildError("a secret mount has both a source and an id")
        if not (mount.source or mount.target or mount.id):
            raise BuildError("a secret mount needs an id or a target")
    return mount


_UNSET = Mount("bind")
_OPTION = {"kind": "type", "size_bytes": "size", "origin": "from", "variable": "env"}
_ONLY: dict[str, tuple[str, ...]] = {
    "mode": ("secret", "ssh", "cache"),
    "uid": ("secret", "ssh", "cache"),
    "gid": ("secret", "ssh", "cache"),
    "required": ("secret", "ssh"),
    "size_bytes": ("tmpfs",),
    "sharing": ("cache",),
    "origin": ("bind", "cache", "tmpfs", "ssh"),
}


def _fields(text: str) -> list[str]:
    """Comma-separated, as CSV: a field in double quotes may have commas."""
    found: list[str] = []
    position = 0
    while True:
        match = _FIELD.match(text, position)
        if match is None or text[match.end() : match.end() + 1] not in (",", ""):
            raise BuildError(f"a stray quote in the mount '{text}'")
        found.append(match[2] if match[1] is None else match[1].replace('""', '"'))
        position = match.end() + 1
        if match.end() == len(text):
            return found


def _boolean(name: str, value: str) -> bool:
    if value.lower() not in _TRUE + _FALSE:
        raise BuildError(f"bad value '{value}' for '{name}'", hint="true or false")
    return value.lower() in _TRUE


def _word(field: str, options: tuple[str, ...]) -> Callable[[Mount, str], Mount]:
    def put(mount: Mount, value: str) -> Mount:
        if value.lower() not in options:
            close = did_you_mean(value, options)
            raise BuildError(f"unknown mount {_OPTION.get(field, field)} '{value}'", hint=close)
        return _with(mount, field, value.lower())

    return put


def _number(field: str, base: int) -> Callable[[Mount, str], Mount]:
    digits = re.compile(f"[0-{base - 1}]{{1,11}}")

    def put(mount: Mount, value: str) -> Mount:
        if not digits.fullmatch(value) or int(value, base) >= 1 << 32:
            raise BuildError(f"bad value '{value}' for '{field}'")
        return _with(mount, field, int(value, base))

    return put


def _text(field: str) -> Callable[[Mount, str], Mount]:
    return lambda mount, value: _with(mount, field, value)


def _with(mount: Mount, field: str, value: str | int | bool) -> Mount:
    return replace(mount, **{field: value})  # type: ignore[arg-type]


_SWITCHES = ("readonly", "readwrite", "required")
_SETTERS: dict[str, Callable[[Mount, str], Mount]] = {
    "type": _word("kind", KINDS),
    "from": _text("origin"),
    "source": _text("source"),
    "target": _text("target"),
    "id": _text("id"),
    "sharing": _word("sharing", SHARING),
    "required": lambda mount, value: replace(mount, required=_boolean("required", value)),
    "size": lambda mount, value: replace(mount, size_bytes=values.size_bytes(value)),
    "mode": _number("mode", 8),
    "uid": _number("uid", 10),
    "gid": _number("gid", 10),
    "env": _text("variable"),
}
