"""The calls of the OCI distribution protocol, version 1.1, and of registries older than it.

Whatever has a digest is checked against it.  Reading asks a registry's mirrors first and goes on
to the next place when one cannot be reached, has not got it, or gives something else.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar
from urllib.parse import quote, urlencode

from proa.errors import Corrupt, NotFound, RegistryError
from proa.image import manifest, reference
from proa.image.manifest import Descriptor
from proa.image.registry import transport
from proa.image.registry.hosts import Endpoint
from proa.image.registry.refusals import expect, said
from proa.image.registry.transport import Answer, Request, Transport
from proa.image.registry.wire import Unreachable
from proa.printable import clean

ACCEPTED = (
    manifest.OCI_INDEX, manifest.OCI_MANIFEST, manifest.DOCKER_INDEX, manifest.DOCKER_MANIFEST,
)  # fmt: skip
_ACCEPT = ", ".join((*ACCEPTED, "*/*;q=0.1"))
_SAYS_NOTHING = frozenset({"", "application/json", "application/octet-stream", "text/plain"})
_DIGEST_HEADER = "Docker-Content-Digest"
REFERRERS_TAG = re.compile(r"sha(256-[0-9a-f]{64}|512-[0-9a-f]{128})")
_MAXIMUM_PAGES = 1000
_PAGE = 1000
_NEXT = re.compile(r"""<([^<>]*)>\s*;[^,]*\brel="?next"?""")
T = TypeVar("T")


class Authorizer(Protocol):
    """Finds what to say in the `Authorization` header; `auth.py` has the real one."""

    def header_for(self, host: str, repository: str, actions: str, challenge: str) -> str:
        """The header's value, empty for none.

        `host` is the name logins are kept under, `actions` is `pull`, `pull,push` or `delete`,
        `challenge` what `WWW-Authenticate` said: empty before the first refusal, when only what
        is known already is asked for.
        """


def referrers_tag(digest: str) -> str:
    """The tag under which registries without the API list referrers ("Referrers Tag Schema")."""
    return digest.replace(":", "-")


class Anonymous:
    """Knows no logins."""

    def header_for(self, host: str, repository: str, actions: str, challenge: str) -> str:
        """Nothing."""
        return ""


@dataclass(frozen=True)
class Document:
    """A manifest or index as the registry has it, byte for byte."""

    media_type: str
    digest: str
    data: bytes

    @property
    def is_index(self) -> bool:
        """Whether it lists other manifests."""
        return self.media_type in manifest.INDEX_TYPES

    @property
    def descriptor(self) -> Descriptor:
        """What refers to it."""
        return Descriptor(self.media_type, self.digest, len(self.data))


@dataclass(frozen=True)
class Call:
    """One request below `/v2/` of an endpoint."""

    method: str
    path: str
    repository: str = ""
    actions: str = "pull"
    headers: tuple[tuple[str, str], ...] = ()
    body: transport.Body = b""
    length: int = 0
    repeat: bool = True


class Registry:
    """One registry as seen by one user; safe for many threads."""

    def __init__(self, name: str, sender: Transport, authorizer: Authorizer | None = None) -> None:
        self.name = name
        self.transport = sender
        self._authorizer = authorizer or Anonymous()
        self._endpoints = sender.hosts.endpoints(name)
        self._bases: dict[str, str] = {}  # an endpoint's URL by what was found to be spoken there
        self._dead: set[Endpoint] = set()  # mirrors that did not answer
        self._guard = threading.Lock()

    @property
    def endpoint(self) -> Endpoint:
        """The registry itself, where everything is written."""
        return self._endpoints[-1]

    def session(self, cancelled: Callable[[], bool]) -> Registry:
        """The same for one piece of work, which may be stopped without the others."""
        return Registry(self.name, self.transport.session(cancelled), self._authorizer)

    # -- asking ---------------------------------------------------------------------------------

    def ping(self) -> None:
        """Whether a registry answers, and takes our login.  Raises RegistryError, Unauthorized."""
        with self.ask(Call("GET", "")) as answer:
            expect(answer, (200,), f"registry '{self.name}'")

    def ask(self, call: Call, endpoint: Endpoint | None = None) -> Answer:
        """Send a call, to the registry itself unless told; a 401 is answered once."""
        endpoint = endpoint or self.endpoint
        try:
            return self.send(call, f"{self._base(endpoint)}/v2/{call.path}", endpoint)
        except Unreachable:
            if endpoint != self.endpoint:
                self._dead.add(endpoint)
            raise

    def send(self, call: Call, url: str, endpoint: Endpoint | None = None) -> Answer:
        """The same for a whole URL (an upload's); only the endpoint's own host sees a login."""
        endpoint = endpoint or self.endpoint
        request = Request(call.method, url, dict(call.headers), call.body, call.length, call.repeat)
        request = replace(request, hurried=endpoint != self.endpoint)
        if not url.startswith(f"{self._base(endpoint)}/"):
            return self.transport.send(request)

        who = (endpoint.login, call.repository, call.actions)
        known = self._authorizer.header_for(*who, "")
        answer = self.transport.send(_with_authorization(request, known))
        challenge = answer.header("WWW-Authenticate")
        if answer.status != 401 or not challenge:
            return answer
        try:
            value = self._authorizer.header_for(*who, challenge)
        except BaseException:
            answer.close()
            raise
        if not value or value == known:
            return answer
        answer.close()
        return self.transport.send(_with_authorization(request, value))

    def _base(self, endpoint: Endpoint) -> str:
        """The endpoint's URL: https, or http where that is permitted and nothing else spoken."""
        if not endpoint.plain:
            return endpoint.url
        with self._guard:
            if endpoint.url not in self._bases:
                self._bases[endpoint.url] = self._spoken(endpoint)
            return self._bases[endpoint.url]

    def _spoken(self, endpoint: Endpoint) -> str:
        try:
            self.transport.send(Request("GET", f"{endpoint.url}/v2/", repeat=False)).close()
            return endpoint.url
        except Unreachable:  # no TLS there, or nothing at its port
            return "http" + endpoint.url.removeprefix("https")

    def anywhere(self, attempt: Callable[[Endpoint], T]) -> T:
        """What the first endpoint that can gives; the registry's own error when none can."""
        for endpoint in self.endpoints[:-1]:
            try:
                return attempt(endpoint)
            except (RegistryError, NotFound, Corrupt):
                continue  # a mirror is a convenience
        return attempt(self.endpoint)

    # -- manifests ------------------------------------------------------------------------------

    def manifest(self, repository: str, wanted: str) -> Document:
        """The manifest or index of a tag or digest."""
        what = f"manifest '{self.name}/{repository}:{wanted}'"

        def attempt(endpoint: Endpoint) -> Document:
            with self.ask(_manifest_call("GET", repository, wanted), endpoint) as answer:
                expect(answer, (200,), what)
                data = answer.content(manifest.MAXIMUM_DOCUMENT, what)
                promised = answer.header(_DIGEST_HEADER)
                kind = answer.header("Content-Type")
            return document(data, kind, wanted, promised)

        return self.anywhere(attempt)

    def head(self, repository: str, wanted: str) -> Descriptor | None:
        """What a tag or digest stands for; None when there is nothing."""

        def attempt(endpoint: Endpoint) -> Descriptor | None:
            with self.ask(_manifest_call("HEAD", repository, wanted), endpoint) as answer:
                if answer.status == 404 and endpoint == self.endpoint:
                    return None
                expect(answer, (200,), f"manifest '{self.name}/{repository}:{wanted}'")
                digest = answer.header(_DIGEST_HEADER)
                kind = answer.header("Content-Type").partition(";")[0]
            if not reference.is_digest(digest):  # registries need not tell
                return self.manifest(repository, wanted).descriptor
            return Descriptor(kind, digest, answer.length or 0)

        return self.anywhere(attempt)

    def delete(self, repository: str, wanted: str) -> None:
        """Remove a tag, or a manifest with all its tags by its digest."""
        call = replace(_manifest_call("DELETE", repository, wanted), actions="delete")
        what = f"manifest '{self.name}/{repository}:{wanted}'"
        with self.ask(call) as answer:
            if answer.status in (400, 405, 501):
                raise RegistryError(
                    f"registry '{self.name}' does not delete: {said(answer)}",
                    hint="some registries must be told to permit it; some delete digests only",
                    status=answer.status,
                )
            expect(answer, (200, 202, 204), what)

    # -- lists ----------------------------------------------------------------------------------

    def tags(self, repository: str) -> list[str]:
        """Every tag of a repository."""
        found: list[str] = []
        what = f"repository '{self.name}/{repository}'"
        for page in self._pages(f"{quote(repository)}/tags/list?n={_PAGE}", repository, what):
            listed = page.get("tags") or []
            if not isinstance(listed, list) or not all(isinstance(tag, str) for tag in listed):
                raise Corrupt(f"the list of tags of '{repository}' is malformed")
            found += map(clean, listed)
        return list(dict.fromkeys(found))

    def referrers(self, repository: str, digest: str, kind: str = "") -> list[Descriptor]:
        """What refers to a manifest: by the API, or by the tag that stands in for it."""
        query = f"?{urlencode({'artifactType': kind})}" if kind else ""
        path = f"{quote(repository)}/referrers/{digest}{query}"
        found: list[Descriptor] = []
        try:
            for page in self._pages(path, repository, f"referrers of '{digest}'"):
                found += manifest.descriptors(page.get("manifests") or [], "the referrers")
        except NotFound:
            found = self._tagged_referrers(repository, digest)
        return [item for item in found if not kind or item.artifact_type == kind]

    def _tagged_referrers(self, repository: str, digest: str) -> list[Descriptor]:
        try:
            listed = self.manifest(repository, referrers_tag(digest))
        except NotFound:
            return []
        return list(manifest.parse_index(listed.data))

    def _pages(self, path: str, repository: str, what: str) -> Iterator[dict[str, Any]]:
        call = Call("GET", path, repository)
        url = f"{self._base(self.endpoint)}/v2/{path}"
        seen: set[str] = set()
        while url not in seen and len(seen) < _MAXIMUM_PAGES:
            seen.add(url)
            with self.send(call, url) as answer:
                expect(answer, (200,), what)
                data = answer.content(manifest.MAXIMUM_DOCUMENT, what)
                following = _NEXT.search(answer.header("Link"))
            yield manifest.decode_object(data, what)
            if following is None:
                return
            url = transport.absolute(url, following[1])
        raise Corrupt(f"{what}: the list does not end")

    # -- blobs ----------------------------------------------------------------------------------

    def blob(
        self, repository: str, digest: str, start: int = 0, endpoint: Endpoint | None = None
    ) -> Answer:
        """A blob from byte `start` on, 200 for all of it or 206; see `blobs.py` for the rest."""
        ranged = (("Range", f"bytes={start}-"),) if start else ()
        call = Call("GET", f"{quote(repository)}/blobs/{digest}", repository, headers=ranged)
        answer = self.ask(call, endpoint)
        return expect(answer, (200, 206) if start else (200,), f"blob '{digest}'")

    def has_blob(self, repository: str, digest: str) -> bool:
        """Whether the registry has a blob (asked of itself, never of a mirror)."""
        with self.ask(Call("HEAD", f"{quote(repository)}/blobs/{digest}", repository)) as answer:
            if answer.status == 404:
                return False
            expect(answer, (200,), f"blob '{digest}'")
            return True

    @property
    def mirrored(self) -> bool:
        """Whether others than the registry itself may give what is read."""
        return len(self._endpoints) > 1

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        """Where reading may ask, in order; no mirror that did not answer."""
        return tuple(each for each in self._endpoints if each not in self._dead)


def _with_authorization(request: Request, value: str) -> Request:
    return (
        replace(request, headers=request.headers | {"Authorization": value}) if value else request
    )


def _manifest_call(method: str, repository: str, wanted: str) -> Call:
    path = f"{quote(repository)}/manifests/{wanted}"
    return Call(method, path, repository, headers=(("Accept", _ACCEPT),))


def document(data: bytes, kind: str, wanted: str, promised: str = "") -> Document:
    """A manifest as it came, `kind` by its headers; checked against the digests it shall have."""
    found = manifest.digest_of(data)
    for digest in (wanted if ":" in wanted else "", promised):
        if digest.startswith("sha256:") and digest != found:
            raise Corrupt(f"the manifest has digest '{found}' but '{clean(digest)}' was promised")
    content = manifest.decode_object(data, "a manifest")
    said = content.get("mediaType")
    kind = kind.partition(";")[0].strip().lower()
    if isinstance(said, str) and said and said != kind:
        if kind in ACCEPTED and (said in manifest.INDEX_TYPES) != (kind in manifest.INDEX_TYPES):
            raise Corrupt(f"a manifest of type '{clean(said)}' was sent as '{clean(kind)}'")
        kind = said
    elif kind in _SAYS_NOTHING:
        kind = manifest.OCI_INDEX if "manifests" in content else manifest.OCI_MANIFEST
    return Document(clean(kind), found, data)
