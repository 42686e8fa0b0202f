"""What `proa build` asks the engine for: its options, files and secrets as the API's order."""

from __future__ import annotations

import os
import sys

from proa.cli.options import Values
from proa.client.build import CONTAINERFILES, logins
from proa.errors import Invalid, NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from proa.client.connection import Upload

    Order = dict[str, Any]
    Pour = Callable[[Upload], None]

_PIECE_BYTES = 256 * 1024
_EPOCH = "SOURCE_DATE_EPOCH"
_IMAGE = "docker-image://"


def make(values: Values, path: str) -> tuple[Order, Pour | None]:
    """What the engine is asked for, and what pours a context into the request."""
    order: Order = {
        "names": values.tag,
        "target": values.target,
        "arguments": _arguments(values.build_arg),
        "labels": _pairs(values.label, "--label"),
        "annotations": _pairs(values.annotation, "--annotation"),
        "contexts": _contexts(values.build_context),
        "secrets": dict(map(_secret, values.secret)),
        "ssh": dict(map(_agent, values.ssh)),
        "hosts": [host.replace("=", ":", 1) for host in values.add_host],
        "logins": logins(),
        "isolation": values.isolation,
        "network": values.network,
        "platform": values.platform,
        "pull": values.pull,
        "no_cache": values.no_cache,
        "squash": values.squash,
        "shm_bytes": values.shm_size,
        "memory_bytes": values.memory,
    }
    pour = None
    if path == "-":
        pour = _from_input(values, order)
    elif "://" in path or path.startswith("git@"):
        order["remote"], order["file"] = path, values.file
    else:
        _from_directory(values, order, path)
    return {key: value for key, value in order.items() if value not in (None, "")}, pour


def _from_directory(values: Values, order: Order, path: str) -> None:
    """A context on this host is read in place; what `.dockerignore` counts is decided here."""
    if not os.path.isdir(path):
        raise NotFound(f"the context '{path}' is no directory")
    order["context"] = os.path.realpath(path)
    if values.file == "-":
        order["containerfile"], order["name"] = _text(sys.stdin.buffer.read()), "Containerfile"
        candidates = [os.path.join(path, ".dockerignore")]
    else:
        tried = [values.file] if values.file else [os.path.join(path, n) for n in CONTAINERFILES]
        found = next((name for name in tried if os.path.isfile(name)), None)
        if found is None:
            raise NotFound(f"no Containerfile '{tried[0]}'", hint="give one with -f")
        with open(found, "rb") as file:
            order["containerfile"] = _text(file.read())
        order["name"] = os.path.relpath(found, path)
        if order["name"].startswith(".."):
            order["name"] = os.path.basename(found)
        candidates = [f"{found}.dockerignore", os.path.join(path, ".dockerignore")]
    order["ignore"] = _first(candidates)


def _first(paths: list[str]) -> str | None:
    for path in paths:
        if os.path.isfile(path):
            with open(path, "rb") as file:
                return _text(file.read())
    return None


def _from_input(values: Values, order: Order) -> Pour | None:
    """Standard input is a tar, the context, or else a Containerfile."""
    if values.file == "-":
        raise Invalid("context and Containerfile cannot both be standard input")
    stdin = sys.stdin.buffer
    head = stdin.read(512)
    packed = head.startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd"))
    if not packed and head[257:262] != b"ustar":
        order["containerfile"] = _text(head + stdin.read())
        return None
    order["file"] = values.file

    def pour(body: Upload) -> None:
        body.write(head)
        while data := stdin.read(_PIECE_BYTES):
            body.write(data)

    return pour


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def _pairs(words: list[str], option: str) -> dict[str, str]:
    found = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not name or not equals:
            raise Invalid(f"'{word}' is not a value for '{option}'", hint="write NAME=VALUE")
        found[name] = value
    return found


def _arguments(words: list[str]) -> dict[str, str]:
    """Build arguments; one without a value is taken from the environment, if it is there."""
    found: dict[str, str] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if equals:
            found[name] = value
        elif name in os.environ:
            found[name] = os.environ[name]
    if _EPOCH in os.environ:
        found.setdefault(_EPOCH, os.environ[_EPOCH])
    return found


def _contexts(words: list[str]) -> dict[str, str]:
    found = _pairs(words, "--build-context")
    return {name: _context(text) for name, text in found.items()}


def _context(text: str) -> str:
    """A named context: a directory of this host, or an image."""
    if text.startswith(_IMAGE):
        return text
    if not os.path.isdir(text):
        raise NotFound(f"the context '{text}' is no directory", hint=f"an image is {_IMAGE}NAME")
    return os.path.realpath(text)


def fields(text: str, option: str, known: tuple[str, ...]) -> dict[str, str]:
    """`name=value,...` with only the known names.  Raises Invalid."""
    found = {}
    for word in text.split(","):
        name, equals, value = word.partition("=")
        if not equals or name not in known:
            raise Invalid(f"'{text}' is not a value for '{option}'", hint=f"{', '.join(known)}=...")
        found[name] = value
    return found


def _secret(text: str) -> tuple[str, str]:
    """`id=x,src=path`, `id=x,env=VARIABLE`; without either a variable `x`, else a file `x`."""
    from binascii import b2a_base64

    said = fields(text, "--secret", ("id", "src", "source", "env", "type"))
    name = said.get("id", "")
    path, variable = said.get("src") or said.get("source") or "", said.get("env", "")
    if not name:
        raise Invalid(f"the secret '{text}' has no id")
    if said.get("type") == "env" or (not path and not variable and name in os.environ):
        variable = variable or path or name
    if variable:
        if variable not in os.environ:
            raise NotFound(f"the variable '{variable}' of the secret '{name}' is not set")
        data = os.fsencode(os.environ[variable])
    else:
        with open(path or name, "rb") as file:
            data = file.read()
    return name, b2a_base64(data, newline=False).decode()


def _agent(text: str) -> tuple[str, str]:
    """`default`, or `id=socket` of an agent."""
    import stat

    name, _, path = text.partition("=")
    path = path or os.environ.get("SSH_AUTH_SOCK", "")
    if not path:
        raise Invalid(f"no agent for '{text}'", hint="start one: SSH_AUTH_SOCK is not set")
    if not stat.S_ISSOCK(os.stat(path).st_mode):
        raise Invalid(f"'{path}' is no agent's socket", hint="add the key to an agent: ssh-add")
    return name, os.path.realpath(path)
