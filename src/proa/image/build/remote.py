"""ADD from elsewhere: files by http and https, trees by git, fetched into a private directory."""

from __future__ import annotations

import hashlib
import os
import posixpath
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from proa.errors import Corrupt, HostError, Invalid, Unsupported
from proa.image import reference
from proa.image.layer.stream import CHUNK, write_all

TIMEOUT_SECONDS = 60.0  # without a byte
MAXIMUM_BYTES = 64 << 30
NAMELESS = "__unnamed__"  # as BuildKit calls a file whose URL has no path
_WEB = ("http://", "https://")
_GIT = re.compile(
    r"(?:git://|ssh://|[a-zA-Z0-9._-]+@[a-zA-Z0-9.-]+:).+|https?://[^#?]+\.git(?:[#?].*)?",
    re.DOTALL,
)
_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")

Check = Callable[[], None]
Moved = Callable[[int, int], None]  # bytes so far, and of all (0: unknown)


@dataclass(frozen=True)
class Fetched:
    """What came: `directory` holds the file `name`, or is the tree itself when that is empty."""

    directory: Path
    name: str = ""


def is_git(source: str) -> bool:
    """Whether a source means a git repository."""
    return _GIT.fullmatch(source) is not None


def is_remote(source: str) -> bool:
    """Whether a source is fetched from elsewhere at all."""
    return source.startswith(_WEB) or is_git(source)


def name_of(url: str) -> str:
    """The name a fetched file gets: the last one of the path."""
    from urllib.parse import unquote, urlsplit

    name = posixpath.basename(posixpath.normpath(unquote(urlsplit(url).path)))
    return NAMELESS if name in ("", ".", "..", "/") or "\0" in name else name


def fetch(url: str, directory: Path, checksum: str, watch: tuple[Check, Moved]) -> Fetched:
    """Fetch a file; `checksum` (`sha256:...`, or empty) is checked while it comes.

    It has mode 0600 and the time the server says.  Raises HostError, Corrupt, Invalid.
    """
    import http.client
    from urllib.error import URLError

    if checksum and not reference.is_digest(checksum):
        raise Invalid(f"invalid checksum '{checksum[:80]}'", hint="write sha256:<64 hex digits>")
    name = name_of(url)
    directory.mkdir(mode=0o700)
    try:
        with _opened(url) as answer:
            total = int(answer.headers.get("Content-Length") or 0)
            found, size = _receive(answer, directory / name, total, watch)
            mtime_ns = _modified_ns(answer.headers.get("Last-Modified"))
    except (URLError, http.client.HTTPException, OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        raise HostError(f"cannot fetch '{url}': {reason}") from error
    if total and size != total:
        raise Corrupt(f"'{url}' ended after '{size}' of '{total}' bytes")
    if checksum and found != checksum:
        raise Corrupt(f"'{url}' has digest '{found}' but '{checksum}' was promised")
    os.utime(directory / name, ns=(mtime_ns, mtime_ns))
    return Fetched(directory, name)


def _opened(url: str) -> Any:
    """The answer to a GET; redirects are followed, to http and https only."""
    from urllib import request

    opener = request.OpenerDirector()
    handlers: tuple[type[request.BaseHandler], ...] = (
        request.ProxyHandler, request.HTTPHandler, request.HTTPSHandler, request.UnknownHandler,
        request.HTTPDefaultErrorHandler, request.HTTPRedirectHandler, request.HTTPErrorProcessor,
    )  # fmt: skip
    for handler in handlers:
        opener.add_handler(handler())
    headers = {"User-Agent": "proa", "Accept-Encoding": "identity"}
    return opener.open(request.Request(url, headers=headers), timeout=TIMEOUT_SECONDS)


def _receive(answer: Any, path: Path, total: int, watch: tuple[Check, Moved]) -> tuple[str, int]:
    check, moved = watch
    digest, size = hashlib.sha256(), 0
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        while data := answer.read1(CHUNK):
            check()
            size += len(data)
            if size > MAXIMUM_BYTES:
                raise Corrupt(f"more than '{MAXIMUM_BYTES}' bytes came")
            digest.update(data)
            write_all(fd, data)
            moved(size, total)
    finally:
        os.close(fd)
    return f"sha256:{digest.hexdigest()}", size


def _modified_ns(text: str | None) -> int:
    from email.utils import parsedate_to_datetime

    try:
        return max(0, int(parsedate_to_datetime(text or "").timestamp())) * 10**9
    except (TypeError, ValueError, OverflowError):
        return 0


# -- git ------------------------------------------------------------------------------------------


def clone(source: str, directory: Path, keep_git: bool, checksum: str, check: Check) -> Fetched:
    """Fetch one revision of a repository, `url#revision:subdirectory`.

    Raises Unsupported without git, HostError when git refuses, Corrupt for another commit than
    `checksum`.
    """
    program = shutil.which("git")
    if program is None:
        raise Unsupported(f"cannot add '{source}': there is no git", hint="install git")
    url, _, fragment = source.partition("#")
    revision, _, below = fragment.partition(":")
    if revision.startswith("-"):
        raise Invalid(f"invalid revision '{revision}'")
    directory.mkdir(mode=0o700)
    git = _Git(program, directory / "tree", check)
    git.run("init", "--quiet", "--template=", ".")
    git.run("fetch", "--quiet", "--depth=1", "--no-tags", "--", url, revision or "HEAD")
    commit = git.run("rev-parse", "FETCH_HEAD").strip()
    if checksum and not (_COMMIT.fullmatch(commit) and commit.startswith(checksum)):
        raise Corrupt(f"'{source}' is at commit '{commit}' but '{checksum}' was promised")
    git.run("checkout", "--quiet", "--detach", "FETCH_HEAD")
    git.run("submodule", "--quiet", "update", "--init", "--recursive", "--depth=1")
    if not keep_git:
        shutil.rmtree(directory / "tree" / ".git")
    name = posixpath.normpath("/" + below).lstrip("/")
    return Fetched(directory / "tree", name)


class _Git:
    """Runs git in a directory of its own, nothing of the host's configuration in sight."""

    def __init__(self, program: str, directory: Path, check: Check) -> None:
        self._program = program
        self._directory = directory
        self._check = check
        directory.mkdir(mode=0o755)

    def run(self, *arguments: str) -> str:
        self._check()
        command = [
            self._program, "-c", "core.hooksPath=/dev/null", "-c", "protocol.ext.allow=never",
            "-c", "protocol.file.allow=never", *arguments,
        ]  # fmt: skip
        environment = {
            "PATH": os.environ.get("PATH", os.defpath), "HOME": "/nonexistent",
            "GIT_CONFIG_NOSYSTEM": "1", "GIT_TERMINAL_PROMPT": "0", "GIT_ASKPASS": "true",
            "GIT_CONFIG_GLOBAL": "/dev/null", "LC_ALL": "C",
        }  # fmt: skip
        with subprocess.Popen(
            command, cwd=self._directory, env=environment, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace",
        ) as child:  # fmt: skip
            try:
                return self._wait(child, arguments[0])
            finally:
                child.kill()

    def _wait(self, child: subprocess.Popen[str], what: str) -> str:
        while True:
            try:
                said, complained = child.communicate(timeout=0.2)
            except subprocess.TimeoutExpired:
                self._check()
                continue
            if child.returncode:
                last = (complained.strip().splitlines() or ["no reason given"])[-1]
                raise HostError(f"git {what} failed: {last}")
            return said
