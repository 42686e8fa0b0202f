"""What concerns the engine: inspect, events, info, version, engine."""

from __future__ import annotations

import sys

from proa.cli import filters, session
from proa.cli.options import Command, Option, Values
from proa.client.connection import image_path, instance_path
from proa.errors import EngineUnavailable, Invalid, NotFound, ProaError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_TEMPLATE = Option("-f, --format", "text", "FORMAT", "json, or a template like {{.Id}}")
_INSPECTED = {"container": instance_path, "image": image_path}


def inspect(values: Values, arguments: list[str]) -> int:
    """Print all that is known of instances and images."""
    from proa.cli.main import complain

    kind = {"instance": "container"}.get(values.type, values.type)
    if kind not in (None, *_INSPECTED):
        raise Invalid(f"unknown type '{values.type}'", hint="container or image")
    if values.remote or values.raw:
        return _remote(values, arguments)
    found, code = [], 0
    for reference in arguments:
        try:
            found.append(_find(reference, kind, values.size))
        except ProaError as error:
            complain(error)
            code = error.exit_code
    _print(found, values.format)
    return code


def _print(found: list[Any], template: str | None) -> None:
    if template:
        for item in found:
            print(_formatted(item, template))
        return
    from proa.client.fastjson import pretty

    print(pretty(found))


def _remote(values: Values, arguments: list[str]) -> int:
    from proa.cli import registry

    if not values.remote:
        raise Invalid("'--raw' needs '--remote'")
    found = registry.inspect(arguments, values.raw, values.platform)
    if not values.raw:
        _print(found, values.format)
    return 0


def _find(reference: str, kind: str | None, size: bool) -> Any:
    for name, locate in _INSPECTED.items():
        if kind in (None, name):
            try:
                return session.get(locate(reference, "/json"), size=size or None)
            except NotFound:
                if kind:
                    raise
    raise NotFound(f"no instance or image '{reference}'", hint="see `proa ps -a` and `proa images`")


def _formatted(item: object, format: str) -> str:
    from proa.client import fastjson

    if format == "json":
        return fastjson.dumps(item)
    from proa.cli.template import Template

    return Template(format).render(item)


def events(values: Values, arguments: list[str]) -> int:
    """Print what happens, as it happens."""
    from proa.cli.format import moment

    query: dict[str, object] = {
        "since": moment(values.since) if values.since else None,
        "until": moment(values.until) if values.until else None,
        "filters": filters.parse(values.filter),
    }
    for event in session.stream("GET", "/events", query).json_lines():
        print(_formatted(event, values.format) if values.format else _event(event), flush=True)
    return 0


def _event(event: dict[str, Any]) -> str:
    """`2026-11-23T06:21:31.123456789+00:00 container start ID (image=x, name=y)`."""
    import time

    nanoseconds = int(event.get("timeNano") or event.get("time", 0) * 10**9)
    local = time.localtime(nanoseconds // 10**9)
    zone = time.strftime("%z", local)
    actor = event.get("Actor") or {}
    attributes = ", ".join(f"{k}={v}" for k, v in sorted((actor.get("Attributes") or {}).items()))
    return (
        f"{time.strftime('%Y-%m-%dT%H:%M:%S', local)}.{nanoseconds % 10**9:09d}"
        f"{zone[:3]}:{zone[3:]} {event.get('Type')} {event.get('Action')} {actor.get('ID')}"
        f"{f' ({attributes})' if attributes else ''}"
    )


def info(values: Values, arguments: list[str]) -> int:
    """Print what the engine knows of itself and its host."""
    answer = session.get("/info")
    print(_formatted(answer, values.format) if values.format else "\n".join(_outline(answer)))
    return 0


def _outline(value: dict[str, Any], indent: str = "") -> list[str]:
    """Nested data as indented lines; what is empty is left out."""
    lines = []
    for key, item in value.items():
        if item in (None, "", [], {}):
            continue
        if isinstance(item, dict):
            lines += [f"{indent}{key}:", *_outline(item, f"{indent} ")]
        elif isinstance(item, list):
            words = [_word(part) for part in item]
            lines.append(f"{indent}{key}: {' '.join(words)}")
        else:
            lines.append(f"{indent}{key}: {_word(item)}")
    return lines


def _word(item: object) -> str:
    if isinstance(item, (list, tuple)):
        return "=".join(map(str, item))
    return str(item).lower() if isinstance(item, bool) else str(item)


def version(values: Values, arguments: list[str]) -> int:
    """Print the versions of command and engine."""
    import platform

    from proa import __version__

    if values.short:
        print(f"Proa version {__version__}")
        return 0
    client: dict[str, Any] = {"Version": __version__, "Python": platform.python_version()}
    try:
        server = session.get("/version")
    except EngineUnavailable:
        if values.format is None:
            print("\n".join(_outline({"Client": client})))
        raise
    both = {"Client": client, "Server": server}
    if values.format:
        print(_formatted(both, values.format))
        return 0
    told = {k: v for k, v in server.items() if k not in ("Components", "Platform")}
    print("\n".join(_outline({"Client": client, "Server": told})))
    return 0


def engine(values: Values, arguments: list[str]) -> int:
    """Start, stop, or look at the engine itself."""
    from proa.cli.engine import VERBS

    verb = VERBS.get(arguments[0])
    if verb is None:
        raise Invalid(
            f"'{arguments[0]}' is not a command of 'engine'", hint=f"one of: {', '.join(VERBS)}"
        )
    sys.stdout.flush()
    return verb()


COMMANDS = {
    "inspect": Command(
        "[OPTIONS] NAME|ID...", "Print all that is known of instances and images", inspect,
        (
            _TEMPLATE,
            Option("--type", "text", "container|image", "look only among these"),
            Option("-s, --size", "flag", "", "add sizes of instances"),
            Option("--remote", "flag", "", "images in their registry, which need not be here"),
            Option("--raw", "flag", "", "with --remote: what the registry has, byte for byte"),
            Option("--platform", "text", "OS/ARCH", "with --remote: for another platform"),
        ),
        arguments=(1, None),
    ),
    "events": Command(
        "[OPTIONS]", "Print what happens", events,
        (
            Option("--since", "text", "TIME", "from that time on"),
            Option("--until", "text", "TIME", "until that time, then end"),
            Option("-f, --filter", "list", "KEY=VALUE", "only those that match"),
            Option("--format", "text", "FORMAT", "json, or a template like {{.Action}}"),
        ),
    ),
    "info": Command("[OPTIONS]", "Print facts about the engine and its host", info, (_TEMPLATE,)),
    "version": Command(
        "[OPTIONS]", "Print versions", version,
        (_TEMPLATE, Option("--short", "flag", "", "one line, without asking the engine")),
    ),
    "engine": Command(
        "start|stop|status|run", "Start, stop, or look at the engine itself", engine,
        arguments=(1, 1),
    ),
}  # fmt: skip
