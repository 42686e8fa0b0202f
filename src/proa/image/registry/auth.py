"""What a registry's 401 asks for, answered: Basic, or a Bearer token of its token server.

RFC 7235 challenges; tokens as in the distribution project's token and OAuth2 documents.  A login
goes to its own registry and to the realm that one names, over TLS, or in the clear where the
registry itself is spoken to in the clear; it is never part of a message.
"""

from __future__ import annotations

import base64
import json
import re
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode, urlsplit

from proa.errors import RegistryError, Unauthorized
from proa.image.registry.credentials import Credentials, Login
from proa.image.registry.hosts import is_loopback

CLIENT_ID = "proa"
TOKEN_BYTES = 1 << 20
DEFAULT_LIFE_SECONDS = 60
LONGEST_LIFE_SECONDS = 3600
JUST_MADE_SECONDS = 5  # another refusal of so young a token is meant
MAXIMUM_CHALLENGES = 16
MAXIMUM_PARAMETERS = 16

# (method, url, headers, body) → status and body, of at most TOKEN_BYTES.
Ask = Callable[[str, str, Mapping[str, str], bytes], tuple[int, bytes]]

_TOKEN68 = r"[A-Za-z0-9\-._~+/]+=*"
_PARAMETER = re.compile(r"""([!#$%&'*+\-.^_`|~\w]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))""")
_SCHEME = re.compile(rf"([A-Za-z][\w\-]*)(?:\s+(?={_TOKEN68}\s*(?:,|$))({_TOKEN68}))?")
_VISIBLE = re.compile(r"[\x21-\x7e]+")


@dataclass(frozen=True)
class Challenge:
    """One way a server offers to be convinced; scheme and names of parameters in lower case."""

    scheme: str
    parameters: Mapping[str, str] = field(default_factory=dict)


def parse(values: Iterable[str]) -> tuple[Challenge, ...]:
    """The challenges of all `WWW-Authenticate` headers, in order; what is no challenge is left."""
    found: list[Challenge] = []
    for value in values:
        position = 0
        while position < len(value) and len(found) < MAXIMUM_CHALLENGES:
            position = _skip(value, position)
            parameter = _PARAMETER.match(value, position)
            scheme = _SCHEME.match(value, position)
            if parameter and found:
                if len(found[-1].parameters) >= MAXIMUM_PARAMETERS:
                    break
                _add(found, parameter)
                position = parameter.end()
            elif scheme and not parameter:
                found.append(Challenge(scheme[1].lower()))
                position = scheme.end()
            else:
                break
    return tuple(found)


def _skip(text: str, position: int) -> int:
    while position < len(text) and text[position] in " \t,":
        position += 1
    return position


def _add(found: list[Challenge], match: re.Match[str]) -> None:
    last = found[-1]
    quoted = match[2]
    value = match[3] if quoted is None else re.sub(r"\\(.)", r"\1", quoted)
    found[-1] = Challenge(last.scheme, {match[1].lower(): value, **last.parameters})


def scope(repository: str, actions: str) -> str:
    """A token's scope: `actions` is `pull`, `pull,push`, `delete`...; empty without repository."""
    return f"repository:{repository}:{actions}" if repository else ""


@dataclass(frozen=True)
class _Token:
    header: str
    life_seconds: float
    made: float = field(default_factory=time.monotonic)

    def younger(self, seconds: float) -> bool:
        return time.monotonic() < self.made + seconds


class Authorizer:
    """Answers challenges with the logins it was given; keeps tokens as long as they last.

    `ask` reaches token servers.  `plain(host)` says whether that registry is spoken to in the
    clear on purpose.  `more` are scopes wanted beside those of a request (sources of mounts).
    """

    def __init__(
        self,
        credentials: Credentials,
        ask: Ask,
        plain: Callable[[str], bool] = is_loopback,
        more: Sequence[str] = (),
    ) -> None:
        self._credentials = credentials
        self._ask = ask
        self._plain = plain
        self._more = tuple(more)
        self._guard = threading.Lock()
        self._known: dict[tuple[str, str, str], _Token] = {}
        self.identity_token = ""  # what a token server gave in place of the password, at a login

    def header_for(self, host: str, repository: str, actions: str, challenge: str) -> str:
        """The `Authorization` for a request; empty for none.

        `challenge` is what a 401's `WWW-Authenticate` said, empty before the first refusal: then
        only what convinced this host before is given.  Raises Unauthorized when there is no
        answer to it, RegistryError when the token server fails.
        """
        key = (host, repository, actions)
        if not challenge:
            known = self._known.get(key)
            return known.header if known and known.younger(known.life_seconds) else ""
        with self._guard:  # one token for all the layers that are refused together
            token = self._known.get(key)
            if token is None or not token.younger(min(JUST_MADE_SECONDS, token.life_seconds)):
                token = self._answer(host, scope(repository, actions), parse([challenge]))
                self._known[key] = token
            return token.header

    def _answer(self, host: str, wanted: str, challenges: Sequence[Challenge]) -> _Token:
        login = self._credentials.get(host)
        for challenge in challenges:
            if challenge.scheme == "bearer":
                if login and login.registry_token:
                    return _Token(_bearer(login.registry_token), float("inf"))
                return self._token(host, challenge, wanted, login)
        if any(challenge.scheme == "basic" for challenge in challenges):
            if login is None or not login.username:
                raise self._refused(host)
            return _Token(basic(login), float("inf"))
        offered = ", ".join(challenge.scheme for challenge in challenges)
        raise Unauthorized(f"'{host}' refuses, and offers no login proa knows: '{offered[:80]}'")

    def _refused(self, host: str) -> Unauthorized:
        if self._credentials.get(host):
            return Unauthorized(
                f"'{host}' refuses the login",
                hint=f"'proa login {host}' with another one",
                status=401,
            )
        return Unauthorized(f"'{host}' wants a login", hint=f"use 'proa login {host}'", status=401)

    # -- tokens -----------------------------------------------------------------------------------

    def _token(self, host: str, challenge: Challenge, wanted: str, login: Login | None) -> _Token:
        realm = challenge.parameters.get("realm", "")
        self._check_realm(host, realm)
        scopes = [challenge.parameters.get("scope", ""), wanted]
        scopes = list(dict.fromkeys(item for item in scopes if item))
        if len(scopes) == 2 and _covers(wanted, scopes[0]):
            scopes = [wanted]
        service = challenge.parameters.get("service", "")
        try:
            return self._fetch(host, realm, service, [*scopes, *self._more], login)
        except Unauthorized:
            if not self._more:
                raise
            return self._fetch(host, realm, service, scopes, login)

    def _check_realm(self, host: str, realm: str) -> None:
        try:
            parts = urlsplit(realm)
            name = parts.hostname or ""
        except ValueError:
            parts, name = urlsplit(""), ""
        if parts.scheme not in ("https", "http") or not name or parts.username is not None:
            raise RegistryError(
                f"'{host}' names the token server '{realm[:100]}', which is no address"
            )
        own = urlsplit(f"//{host}").hostname or ""
        clear = self._plain(host) or is_loopback(own)
        if parts.scheme == "http" and not (clear and (name == own or is_loopback(name))):
            raise RegistryError(
                f"'{host}' wants the login in the clear at '{realm[:100]}'",
                hint="the token server needs https",
            )

    def _fetch(
        self, host: str, realm: str, service: str, scopes: Sequence[str], login: Login | None
    ) -> _Token:
        fields = [("service", service)] if service else []
        if login and login.identity_token:
            fields += [("grant_type", "refresh_token"), ("client_id", CLIENT_ID)]
            fields += [("refresh_token", login.identity_token)]
            fields += [("scope", " ".join(scopes))] if scopes else []
            kind = {"Content-Type": "application/x-www-form-urlencoded"}
            status, body = self._ask("POST", realm, kind, urlencode(fields).encode())
        else:
            fields += [("scope", item) for item in scopes]
            headers = {}
            if login and login.username:
                fields += [("account", login.username), ("client_id", CLIENT_ID)]
                fields += [("offline_token", "true")] if not scopes else []
                headers["Authorization"] = basic(login)
            joint = "&" if "?" in realm else "?"
            url = f"{realm}{joint}{urlencode(fields)}" if fields else realm
            status, body = self._ask("GET", url, headers, b"")
        return self._read(host, realm, status, body)

    def _read(self, host: str, realm: str, status: int, body: bytes) -> _Token:
        if status in (400, 401, 403):  # OAuth2 says 400 for a refresh token that is no more
            raise self._refused(host)
        if status != 200:
            raise RegistryError(
                f"the token server '{realm[:100]}' answered '{status}'", status=status
            )
        fields = _fields(body, realm)
        text = fields.get("token") or fields.get("access_token")
        life = fields.get("expires_in")
        if not isinstance(life, int | float) or life <= 0:
            life = DEFAULT_LIFE_SECONDS
        refresh = fields.get("refresh_token")
        if isinstance(refresh, str) and _VISIBLE.fullmatch(refresh):
            self.identity_token = refresh
        if not isinstance(text, str) or not _VISIBLE.fullmatch(text):
            raise RegistryError(f"the token server '{realm[:100]}' answered without a token")
        return _Token(_bearer(text), 0.9 * min(life, LONGEST_LIFE_SECONDS))


def _covers(wanted: str, asked: str) -> bool:
    """Whether the scope we ask for has all that the challenge asks for."""
    mine, theirs = wanted.rpartition(":"), asked.rpartition(":")
    return mine[0] == theirs[0] and set(theirs[2].split(",")) <= set(mine[2].split(","))


def _fields(body: bytes, realm: str) -> dict[str, Any]:
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise RegistryError(f"the token server '{realm[:100]}' did not answer with a json object")
    return value


def _bearer(token: str) -> str:
    if not _VISIBLE.fullmatch(token):
        raise Unauthorized("the registry token is not printable text")
    return f"Bearer {token}"


def basic(login: Login) -> str:
    """A Basic `Authorization` (RFC 7617)."""
    pair = f"{login.username}:{login.password}".encode()
    return f"Basic {base64.b64encode(pair).decode()}"
