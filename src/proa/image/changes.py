"""Dockerfile lines that change an image's configuration, as `docker import --change` takes them."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Sequence
from typing import Any

from proa.errors import Invalid

_Config = dict[str, Any]


def apply(config: _Config, lines: Sequence[str]) -> _Config:
    """A copy of `config` with each line applied; all of them are checked first to last."""
    result: _Config = json.loads(json.dumps(config))
    seen: set[str] = set()
    for line in lines:
        word, _, rest = line.strip().partition(" ")
        change = _CHANGES.get(word.upper())
        if change is None:
            known = ", ".join(sorted(_CHANGES))
            raise Invalid(f"unknown change '{line}'", hint=f"known are {known}")
        if not rest.strip():
            raise Invalid(f"the change '{line}' says nothing")
        if "\0" in rest:
            raise Invalid(f"the change '{word}' contains a zero byte")
        change(result, rest.strip())
        seen.add(word.upper())
    if "ENTRYPOINT" in seen and "CMD" not in seen:
        result.pop("Cmd", None)  # an inherited command was meant for another entrypoint
    return result


def _command(key: str) -> Callable[[_Config, str], None]:
    def change(config: _Config, text: str) -> None:
        words = _json_words(text)
        config[key] = ["/bin/sh", "-c", text] if words is None else words

    return change


def _json_words(text: str) -> list[str] | None:
    """The exec form, a JSON list of strings; None when this is the shell form."""
    try:
        words = json.loads(text)
    except ValueError:
        return None
    is_exec = isinstance(words, list) and all(isinstance(word, str) for word in words)
    return words if is_exec else None


def _text(key: str) -> Callable[[_Config, str], None]:
    def change(config: _Config, text: str) -> None:
        config[key] = text

    return change


def _directory(config: _Config, text: str) -> None:
    base = str(config.get("WorkingDir") or "/")
    config["WorkingDir"] = text if text.startswith("/") else f"{base.rstrip('/')}/{text}"


def _pairs(text: str) -> list[tuple[str, str]]:
    """`key=value key2="two words"`, or the old form `key the rest`."""
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise Invalid(f"cannot read '{text}': {error}") from error
    if "=" not in words[0]:
        key, _, value = text.partition(" ")
        return [(key, value.strip())]
    pairs = [word.partition("=") for word in words]
    if any(not key or not equals for key, equals, _ in pairs):
        raise Invalid(f"cannot read '{text}'", hint="write KEY=value KEY2=value2")
    return [(key, value) for key, _, value in pairs]


def _environment(config: _Config, text: str) -> None:
    variables = dict(item.partition("=")[::2] for item in config.get("Env") or [])
    variables.update(_pairs(text))
    config["Env"] = [f"{key}={value}" for key, value in variables.items()]


def _labels(config: _Config, text: str) -> None:
    config["Labels"] = {**(config.get("Labels") or {}), **dict(_pairs(text))}


def _ports(config: _Config, text: str) -> None:
    ports = config.setdefault("ExposedPorts", {})
    for word in text.split():
        port, _, protocol = word.partition("/")
        protocol = protocol.lower() or "tcp"
        if not port.isdecimal() or not 0 < int(port[:6]) < 65536 or protocol not in _PROTOCOLS:
            raise Invalid(f"invalid port '{word}'", hint="write PORT or PORT/udp")
        ports[f"{int(port)}/{protocol}"] = {}


def _volumes(config: _Config, text: str) -> None:
    words = _json_words(text)
    for word in text.split() if words is None else words:
        config.setdefault("Volumes", {})[word] = {}


_PROTOCOLS = ("tcp", "udp", "sctp")
_CHANGES: dict[str, Callable[[_Config, str], None]] = {
    "CMD": _command("Cmd"), "ENTRYPOINT": _command("Entrypoint"), "ENV": _environment,
    "WORKDIR": _directory, "USER": _text("User"), "EXPOSE": _ports, "LABEL": _labels,
    "VOLUME": _volumes, "STOPSIGNAL": _text("StopSignal"),
}  # fmt: skip
