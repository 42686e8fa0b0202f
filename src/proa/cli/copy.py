"""`proa cp`: where things land, as `docker cp` documents it, and both directions.

The rules are `destination`, a pure function; the engine only serves and takes plain tars whose
first path component is the copied thing's own name.
"""

from __future__ import annotations

import base64
import os
import posixpath
import stat
import sys

from proa.cli import session
from proa.client import fastjson
from proa.client.connection import Answer, instance_path, target
from proa.errors import Corrupt, Invalid, NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_GO_DIRECTORY = 1 << 31  # bits of Go's os.FileMode, which the API's stat has
_GO_SYMLINK = 1 << 27
_LINK_DEPTH = 16


class Place:
    """What is known of one end: its path as given, and what is there."""

    __slots__ = ("exists", "is_directory", "path")

    def __init__(self, path: str, *, exists: bool, is_directory: bool) -> None:
        self.path = path
        self.exists = exists
        self.is_directory = is_directory


def split(argument: str) -> tuple[str, str]:
    """Instance and path of `INSTANCE:PATH`; an empty instance for a local path.

    As with docker, a path that begins with `/` or `.` is local, whatever colons it has.
    """
    if argument.startswith(("/", ".")) or ":" not in argument:
        return "", argument
    instance, _, path = argument.partition(":")
    return instance, path


def wants_contents(path: str) -> bool:
    """Whether only the contents of a directory are meant: `dir/.`."""
    return path.endswith("/.") or path in (".", "/")


def destination(source: Place, to: Place) -> tuple[str, str]:
    """The directory to unpack in and the name the source gets there; no name: its contents only.

    Raises Invalid for what `docker cp` refuses.
    """
    clean = to.path.rstrip("/") or "/"
    if to.exists and to.is_directory:
        if source.is_directory and wants_contents(source.path):
            return to.path, ""
        return to.path, posixpath.basename(source.path.rstrip("/"))
    if source.is_directory and to.exists:
        raise Invalid(f"cannot copy the directory '{source.path}' over the file '{to.path}'")
    if not source.is_directory and to.path.endswith(("/", "/.")):
        raise Invalid(f"the destination '{to.path}' is not a directory")
    return posixpath.dirname(clean) or ".", posixpath.basename(clean)


def copy(source: str, to: str, *, follow: bool, archive: bool) -> int:
    """Copy in the direction the two arguments say."""
    (from_instance, from_path), (to_instance, to_path) = split(source), split(to)
    if from_instance and to_instance:
        raise Invalid("copying between two instances is not supported", hint="copy by way of here")
    if not from_instance and not to_instance:
        raise Invalid("neither end is in an instance", hint="INSTANCE:PATH names one")
    if from_instance:
        _copy_out(from_instance, from_path or "/", to_path, follow=follow, archive=archive)
    else:
        _copy_in(from_path, to_instance, to_path or "/", follow=follow, archive=archive)
    return 0


# -- from an instance ---------------------------------------------------------------------------


def _copy_out(instance: str, path: str, to: str, *, follow: bool, archive: bool) -> None:
    if follow:
        path = _resolved(instance, path)
    if to == "-":
        if sys.stdout.isatty():
            raise Invalid("standard output is a terminal", hint="redirect the tar stream")
        from proa.cli.pump import write_all

        for data in _archive(instance, path).parts():
            write_all(1, data)
        return
    answer = _archive(instance, _whole(path))
    found = _stat(answer)
    source = Place(path, exists=True, is_directory=bool(found["mode"] & _GO_DIRECTORY))
    directory, name = destination(source, _local(to))
    from proa.cli.unpack import unpack

    try:
        unpack(Reader(answer), directory, name, keep_owner=archive)
    except FileNotFoundError:
        raise NotFound(f"no such directory '{directory}'") from None


def _whole(path: str) -> str:
    """The path without a `/.` or `/` at its end: the archive then has the thing's own name."""
    return path.removesuffix("/.").rstrip("/") or "/"


def _archive(instance: str, path: str) -> Answer:
    return session.stream("GET", instance_path(instance, "/archive"), {"path": path})


def _stat(answer: Answer) -> dict[str, Any]:
    header = answer.headers.get("x-docker-container-path-stat", "")
    value = fastjson.loads(base64.b64decode(header)) if header else None
    if not isinstance(value, dict):
        raise Corrupt("the engine's answer does not say what the path is")
    return value


def _remote_stat(instance: str, path: str) -> dict[str, Any] | None:
    try:
        url = target(instance_path(instance, "/archive"), {"path": path})
        return _stat(session.connect().request("HEAD", url))
    except NotFound as error:
        if error.code == "not-found" and _instance_exists(instance):
            return None
        raise


def _instance_exists(instance: str) -> bool:
    session.get(instance_path(instance, "/json"))
    return True


def _resolved(instance: str, path: str) -> str:
    """Where a symbolic link at `path` in the instance leads."""
    for _ in range(_LINK_DEPTH):
        found = _remote_stat(instance, path)
        if found is None or not found["mode"] & _GO_SYMLINK:
            return path
        path = posixpath.join(posixpath.dirname(path.rstrip("/")), found["linkTarget"])
    raise Invalid(f"too many symbolic links at '{path}'")


class Reader:
    """The answer's body as a file to read."""

    def __init__(self, answer: Answer) -> None:
        self._parts = answer.parts()
        self._rest = b""

    def read(self, size: int) -> bytes:
        """Up to `size` bytes; empty at the end."""
        while not self._rest:
            piece = next(self._parts, None)
            if piece is None:
                return b""
            self._rest = piece
        data, self._rest = self._rest[:size], self._rest[size:]
        return data


def _local(path: str) -> Place:
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return Place(path, exists=False, is_directory=False)
    return Place(path, exists=True, is_directory=stat.S_ISDIR(mode))


# -- into an instance ---------------------------------------------------------------------------


def _copy_in(path: str, instance: str, to: str, *, follow: bool, archive: bool) -> None:
    to = _resolved(instance, to)
    found = _remote_stat(instance, to)
    is_directory = bool(found and found["mode"] & _GO_DIRECTORY)
    place = Place(to, exists=found is not None, is_directory=is_directory)
    if path == "-":
        if not place.is_directory:
            raise Invalid(f"the destination '{to}' of a tar stream must be an existing directory")
        _upload_stream(instance, to, archive)
        return
    follow = follow or path.endswith("/")
    mode = (os.stat if follow or wants_contents(path) else os.lstat)(path).st_mode
    directory, name = destination(Place(path, exists=True, is_directory=stat.S_ISDIR(mode)), place)
    from proa.cli.pack import pack

    url = _upload_url(instance, posixpath.join("/", directory), archive)
    session.connect().upload(
        "PUT", url, lambda body: pack(body, path, name, follow=follow, keep_owner=archive)
    ).read()


def _upload_url(instance: str, directory: str, archive: bool) -> str:
    query: dict[str, object] = {
        "path": directory,
        "noOverwriteDirNonDir": True,
        "copyUIDGID": archive or None,
    }
    return target(instance_path(instance, "/archive"), query)


def _upload_stream(instance: str, directory: str, archive: bool) -> None:
    if sys.stdin.isatty():
        raise Invalid("standard input is a terminal", hint="redirect a tar stream")

    def pour(body: Any) -> None:
        while data := os.read(0, 1 << 18):
            body.write(data)

    url = _upload_url(instance, directory, archive)
    session.connect().upload("PUT", url, pour).read()
