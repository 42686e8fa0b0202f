"""Which function answers which request: a table, prepared once, looked up without regexes.

Templates hold at most one parameter, written `{id}` (no slash in it) or `{name}` (an image's
name, slashes welcome).  Every path is served with and without a `/v1.NN` prefix.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from proa.api.answer import API_VERSION, API_VERSION_MINIMUM, Answer, json_reply
from proa.api.message import Malformed
from proa.api.request import Request

if TYPE_CHECKING:
    from proa.engine.engine import Engine

Handler = Callable[["Engine", Request], Answer]
Methods = dict[str, "Route"]


@dataclass(frozen=True)
class Route:
    """One row.  An `upload` may pause between its bytes for as long as its source does."""

    method: str
    template: str
    handler: Handler
    upload: bool = False


class Router:
    """The application of the server: finds the route and calls its handler."""

    def __init__(self, engine: Engine, routes: Iterable[Route], upload_stall: float = 3600.0):
        self._engine = engine
        self._upload_stall = upload_stall
        self._exact: dict[str, Methods] = {}
        self._templates: dict[tuple[str, str], Methods] = {}
        self._slashes: set[tuple[str, str]] = set()
        for route in routes:
            self._add(route)

    def __call__(self, request: Request) -> Answer:
        """Answer `request`."""
        path = _strip_version(request)
        methods, parameter = self._find(path, request.method)
        if methods is None:
            return json_reply({"message": "page not found"}, 404)
        route = methods.get(request.method)
        if route is None:
            return json_reply({"message": f"method '{request.method}' not allowed here"}, 405)
        request.parameter = parameter
        if route.upload:
            request.body.patience_seconds = self._upload_stall
        return route.handler(self._engine, request)

    def _add(self, route: Route) -> None:
        before, brace, rest = route.template.partition("{")
        if not brace:
            self._exact.setdefault(route.template, {})[route.method] = route
            return
        name, _, after = rest.partition("}")
        key = (before, after)
        self._templates.setdefault(key, {})[route.method] = route
        if name == "name":
            self._slashes.add(key)

    def _find(self, path: str, method: str) -> tuple[Methods | None, str]:
        found = self._exact.get(path)
        if found is not None and method in found:
            return found, ""
        start = path.find("/", 1) + 1
        last = path.rfind("/")
        extension = path.find("/", start) + 1 if path.startswith("/proa/") else 0
        for begin, suffix in ((start, path[last:]), (extension, path[last:]), (start, "")):
            methods, parameter = self._match(path, begin, suffix)
            if methods is not None and (found is None or method in methods):
                if method in methods or not suffix:
                    return methods, parameter
                found = methods
        return found, ""

    def _match(self, path: str, begin: int, suffix: str) -> tuple[Methods | None, str]:
        end = len(path) - len(suffix)
        if not 0 < begin < end:
            return None, ""
        key = (path[:begin], suffix)
        parameter = path[begin:end]
        if "/" in parameter and key not in self._slashes:
            return None, ""
        return self._templates.get(key), parameter


def _strip_version(request: Request) -> str:
    """The path without `/v1.NN`; an impossible version is refused as dockerd refuses it."""
    path = request.path
    if not path.startswith("/v"):
        return path
    prefix, slash, rest = path[2:].partition("/")
    major, dot, minor = prefix.partition(".")
    if not (slash and dot and major.isdecimal() and minor.isdecimal() and len(prefix) < 9):
        return path
    version = (int(major), int(minor))
    wanted = f"client version {prefix} is too"
    if version > API_VERSION:
        limit = ".".join(map(str, API_VERSION))
        raise Malformed(f"{wanted} new. Maximum supported API version is {limit}")
    if version < API_VERSION_MINIMUM:
        limit = ".".join(map(str, API_VERSION_MINIMUM))
        raise Malformed(
            f"{wanted} old. Minimum supported API version is {limit}, "
            "please upgrade your client to a newer version"
        )
    request.version = version
    return "/" + rest
