"""HTTP requests to registries: kept connections, redirects by hand, retries, proxies.

A redirect never leads from https to http, nor from elsewhere to this machine, and nothing that
proves who we are goes along to another host.  Failures that may pass are tried again after a
pause that doubles, and that the registry may set itself, within bounds.
"""

from __future__ import annotations

import email.utils
import http.client
import random
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from types import TracebackType
from urllib.parse import quote, urljoin, urlsplit

from proa import __version__
from proa.errors import Cancelled, Corrupt, RegistryError
from proa.image.registry import wire
from proa.image.registry.hosts import Hosts, Trust, is_loopback
from proa.image.registry.pool import Pool
from proa.image.registry.proxies import proxy_for
from proa.image.registry.wire import Patience, Route, Terms, Unreachable
from proa.printable import clean

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_PASSING = frozenset({408, 429, 500, 502, 503, 504})
_MAXIMUM_REDIRECTS = 5
_DRAIN_BYTES = 64 << 10
_TOKEN_BYTES = 1 << 20
_PRIVATE = frozenset({"authorization", "cookie", "proxy-authorization"})
_PORTS = {"https": 443, "http": 80}
_SAFE = "%/:=&?~#+!$,;'@()*[]"

Body = bytes | Callable[[], Iterable[bytes]]


@dataclass(frozen=True)
class Request:
    """What is asked.  A body that is not bytes is made anew for each attempt, `length` long."""

    method: str
    url: str
    headers: dict[str, str] = field(default_factory=dict)
    body: Body = b""
    length: int = 0
    repeat: bool = True  # whether it may be asked twice
    hurried: bool = False  # whether once must do: there are others to ask
    follow: bool = True  # whether redirects are followed
    origin: str = ""  # the host that redirected here: its authorities are trusted as well


class Answer:
    """What was answered; to be read to its end and closed (`with`)."""

    def __init__(
        self, response: http.client.HTTPResponse, url: str, release: Callable[[bool], None]
    ) -> None:
        self._response = response
        self._release = release
        self.url = url
        self.status = response.status

    def header(self, name: str) -> str:
        """A header's value, several joined by commas; empty when there is none."""
        return ", ".join(self.headers(name))

    def headers(self, name: str) -> tuple[str, ...]:
        """Every value of a header."""
        return tuple(self._response.headers.get_all(name) or ())

    @property
    def length(self) -> int | None:
        """How long the body says it is."""
        text = self.header("Content-Length")
        return int(text) if text.isdecimal() else None

    def read(self, size: int, /) -> bytes:
        """At most `size` bytes, none at the end.  Raises Unreachable when it is cut off."""
        try:
            data = self._response.read(size)
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise self._cut(wire.reason(error)) from error
        if not data and size and self._response.length:
            raise self._cut("the connection was cut")
        return data

    def _cut(self, why: str) -> Unreachable:
        return Unreachable(f"the answer of '{urlsplit(self.url).netloc}' broke off: {why}")

    def content(self, limit: int, what: str = "an answer") -> bytes:
        """The whole body.  Raises Corrupt when it is longer than `limit` bytes."""
        pieces, size = [], 0
        if (self.length or 0) > limit:
            raise Corrupt(f"{what} of '{self.length}' bytes is too large")
        while data := self.read(limit + 1 - size):
            pieces.append(data)
            size += len(data)
            if size > limit:
                raise Corrupt(f"{what} is larger than '{limit}' bytes")
        return b"".join(pieces)

    def close(self) -> None:
        """Give the connection back when everything was read, else drop it."""
        try:
            if (self._response.length or _DRAIN_BYTES + 1) <= _DRAIN_BYTES:
                self._response.read(_DRAIN_BYTES)
        except (OSError, http.client.HTTPException, ValueError):
            pass
        whole = self._response.isclosed() and not self._response.will_close
        self._response.close()
        self._release(whole)

    def __enter__(self) -> Answer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        self.close()


def _never() -> bool:
    return False


class Transport:
    """Sends requests; safe for many threads, one of which may `stop` the others."""

    def __init__(
        self,
        hosts: Hosts,
        patience: Patience | None = None,
        pool: Pool | None = None,
        cancelled: Callable[[], bool] = _never,
    ) -> None:
        self.hosts = hosts
        self._patience = patience or Patience()
        self._pool = pool or Pool()
        self._cancelled = cancelled
        self._stopped = threading.Event()
        self._terms = Terms(self._patience, self._is_stopped)

    def session(self, cancelled: Callable[[], bool] = _never) -> Transport:
        """Another that shares the connections; it stops alone, and when `cancelled` says so."""
        return Transport(self.hosts, self._patience, self._pool, cancelled)

    def __enter__(self) -> Transport:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        self.close()

    def stop(self) -> None:
        """Whoever waits for an answer, now or later, gets Cancelled."""
        self._stopped.set()

    def _is_stopped(self) -> bool:
        return self._stopped.is_set() or self._cancelled()

    def check(self) -> None:
        """Raises Cancelled when it was stopped."""
        if self._is_stopped():
            raise Cancelled("stopped before all was there")

    def close(self) -> None:
        """Drop the connections that are kept."""
        self._pool.close()

    def ask(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes
    ) -> tuple[int, bytes]:
        """Status and the first MiB of what a token server answers; redirects are not followed."""
        request = Request(method, url, dict(headers), body, follow=False)
        with self.send(request) as answer:
            return answer.status, answer.read(_TOKEN_BYTES)

    # -- attempts -------------------------------------------------------------------------------

    def send(self, request: Request) -> Answer:
        """The answer, whatever its status, after redirects.  Raises RegistryError."""
        once = request.hurried or not request.repeat
        attempts = 1 if once else self._patience.attempts
        for attempt in range(1, attempts + 1):
            try:
                answer = self._follow(request)
            except wire.NotTls:
                raise
            except Unreachable:
                if attempt == attempts:
                    raise
                self.wait(attempt)
                continue
            if answer.status not in _PASSING or attempt == attempts:
                return answer
            asked = _retry_after(answer.header("Retry-After"))
            if asked is not None and asked > self._patience.longest_pause_seconds:
                return answer
            answer.close()
            self._pause(self._delay(attempt) if asked is None else asked)
        raise AssertionError("unreachable")

    def wait(self, attempt: int) -> None:
        """Pause after so many attempts that failed."""
        self._pause(self._delay(attempt))

    def _pause(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self._stopped.wait(min(left, wire.LOOK_SECONDS))
            self.check()

    def _delay(self, attempt: int) -> float:
        """Doubles with every attempt; half of it is chance, so that many do not come at once."""
        doubled: float = self._patience.pause_seconds * 2 ** (attempt - 1)
        return doubled * random.uniform(0.5, 1)

    def _follow(self, request: Request) -> Answer:
        followed = 0
        while True:
            answer = self._once(request)
            target = answer.header("Location")
            follows = request.follow and request.method in ("GET", "HEAD")
            if not follows or answer.status not in _REDIRECTS or not target:
                return answer
            answer.close()
            followed += 1
            if followed > _MAXIMUM_REDIRECTS:
                raise RegistryError(f"'{_host(request.url)}' redirects more than 5 times")
            request = self._redirected(request, target)

    def _redirected(self, request: Request, target: str) -> Request:
        url = absolute(request.url, target)
        old, new = urlsplit(request.url), urlsplit(url)
        if old.scheme == "https" and new.scheme == "http":
            raise RegistryError(f"'{old.netloc}' redirects from https to http: '{clean(url)}'")
        if is_loopback(new.netloc) and not is_loopback(old.netloc):
            raise RegistryError(f"'{old.netloc}' redirects to this machine: '{clean(url)}'")
        if (old.scheme, old.netloc) == (new.scheme, new.netloc):
            return replace(request, url=url)
        headers = {k: v for k, v in request.headers.items() if k.lower() not in _PRIVATE}
        return replace(request, url=url, headers=headers, origin=request.origin or old.netloc)

    # -- one request ----------------------------------------------------------------------------

    def _once(self, request: Request) -> Answer:
        route = self._route(request)
        kept = self._pool.take(route)
        if kept is not None:
            try:
                return self._exchange(kept, route, request)
            except Unreachable as error:  # it may have been closed while it was idle
                if not request.repeat or isinstance(error.__cause__, TimeoutError):
                    raise
        return self._exchange(wire.connect(route, self._terms), route, request)

    def _exchange(
        self, connection: http.client.HTTPConnection, route: Route, request: Request
    ) -> Answer:
        body = request.body if isinstance(request.body, bytes) else request.body()
        length = len(request.body) if isinstance(request.body, bytes) else request.length
        headers = {"User-Agent": f"proa/{__version__}", "Accept-Encoding": "identity"}
        if length or request.method in ("POST", "PUT", "PATCH"):
            headers["Content-Length"] = str(length)
        through = route.proxy is not None and route.context is None
        if through and route.proxy and route.proxy[2]:
            headers["Proxy-Authorization"] = route.proxy[2]
        try:
            if connection.sock is not None:
                connection.sock.settimeout(self._patience.interval_seconds)
            wire.bind(connection, self._terms)
            target = request.url if through else _target(request.url)
            connection.request(request.method, target, body or None, headers | request.headers)
            response = connection.getresponse()
        except (OSError, http.client.HTTPException, ValueError) as error:
            connection.close()
            host = _host(request.url)
            raise Unreachable(f"'{host}' does not answer: {wire.reason(error)}") from error
        except BaseException:
            connection.close()
            raise

        def release(whole: bool) -> None:
            self._pool.give(route, connection) if whole else connection.close()

        return Answer(response, request.url, release)

    def _route(self, request: Request) -> Route:
        parts = urlsplit(request.url)
        host, port = parts.hostname or "", parts.port or _PORTS[parts.scheme]
        proxy = proxy_for(parts.scheme, host, port)
        if parts.scheme == "http":
            if not self.hosts.plain(parts.netloc):
                raise RegistryError(
                    f"'{parts.netloc}' is reached without TLS",
                    hint=f'[registry."{parts.netloc}"] insecure = true in proa.toml permits that',
                )
            return Route("http", host, port, proxy)
        trust = self.hosts.trust(parts.netloc)
        if request.origin:
            first = self.hosts.trust(request.origin)
            trust = Trust(
                (*first.authorities, *trust.authorities), trust.identity,
                first.verify and trust.verify,
            )  # fmt: skip
        return Route("https", host, port, proxy, self._pool.context(trust))


def absolute(base: str, target: str) -> str:
    """Where a `Location` or `Link` leads.  Raises RegistryError when that is no http(s) URL."""
    try:
        url = urljoin(base, quote(target, safe=_SAFE))
        parts = urlsplit(url)
        well_formed = bool(parts.hostname) and (parts.port or 1) > 0 and "@" not in parts.netloc
    except ValueError:
        well_formed = False
    if not well_formed or parts.scheme not in _PORTS:
        raise RegistryError(f"'{_host(base)}' refers to the invalid address '{clean(target)}'")
    return parts._replace(fragment="").geturl()


def _host(url: str) -> str:
    return urlsplit(url).netloc


def _target(url: str) -> str:
    parts = urlsplit(url)
    return (parts.path or "/") + (f"?{parts.query}" if parts.query else "")


def _retry_after(text: str) -> float | None:
    """Seconds of a `Retry-After` header, which may be a date."""
    if text.isdecimal():
        return float(text[:9])
    try:
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, TypeError, OverflowError):
        return None
