"""Writing to a registry: the calls of the distribution protocol that change something.

An upload is `start`ed, gets its bytes in `patch`es or all at once, and is `finish`ed with its
digest.  Where it goes on is the registry's to say after every call.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import quote, urlencode

from proa.errors import Corrupt, RegistryError
from proa.image.registry import transport
from proa.image.registry.client import Call, Document, Registry
from proa.image.registry.refusals import expect
from proa.image.registry.transport import Answer, Body
from proa.printable import clean

_BYTES = "application/octet-stream"
_RANGE = re.compile(r"(?:bytes=)?0-([0-9]{1,18})")


@dataclass(frozen=True)
class Upload:
    """An upload under way: where its next bytes go, and how many the registry has."""

    repository: str
    url: str
    offset: int = 0


def start(registry: Registry, repository: str) -> Upload:
    """Begin an upload."""
    call = Call("POST", f"{quote(repository)}/blobs/uploads/", repository, "pull,push")
    with registry.ask(call) as answer:
        expect(answer, (202,), f"upload to '{registry.name}/{repository}'")
        return Upload(repository, _location(answer))


def mount(registry: Registry, repository: str, digest: str, source: str) -> Upload | None:
    """Have a blob of the repository `source` here as well: None when that was done.

    A registry that does not begins an upload instead, which is given.
    """
    query = urlencode({"mount": digest, "from": source})
    path = f"{quote(repository)}/blobs/uploads/?{query}"
    with registry.ask(Call("POST", path, repository, "pull,push")) as answer:
        expect(answer, (201, 202), f"upload to '{registry.name}/{repository}'")
        return None if answer.status == 201 else Upload(repository, _location(answer))


def patch(registry: Registry, upload: Upload, body: Body, length: int) -> Upload:
    """Send the next `length` bytes."""
    headers = [("Content-Type", _BYTES)]
    headers.append(("Content-Range", f"{upload.offset}-{upload.offset + length - 1}"))
    with _send(registry, "PATCH", upload, _Piece(body, length, tuple(headers))) as answer:
        expect(answer, (202, 204), f"upload to '{registry.name}/{upload.repository}'")
        return Upload(upload.repository, _location(answer, upload.url), upload.offset + length)


def stand(registry: Registry, upload: Upload) -> Upload:
    """How far an upload came, after a cut."""
    with _send(registry, "GET", upload, _Piece()) as answer:
        expect(answer, (204, 200), f"upload to '{registry.name}/{upload.repository}'")
        found = _RANGE.fullmatch(answer.header("Range"))
        offset = int(found[1]) + 1 if found and answer.header("Range") != "0-0" else 0
        return Upload(upload.repository, _location(answer, upload.url), offset)


def finish(
    registry: Registry, upload: Upload, digest: str, body: Body = b"", length: int = 0
) -> None:
    """End an upload, with its last (or all its) bytes."""
    joint = "&" if "?" in upload.url else "?"
    url = f"{upload.url}{joint}{urlencode({'digest': digest})}"
    headers = (("Content-Type", _BYTES),) if length or body else ()
    with _send(registry, "PUT", upload, _Piece(body, length, headers), url) as answer:
        expect(answer, (201, 204), f"upload of '{digest}' to '{registry.name}'")
        _check_digest(answer, digest)


def cancel(registry: Registry, upload: Upload) -> None:
    """Have the registry forget an upload; it may refuse."""
    _send(registry, "DELETE", upload, _Piece()).close()


def put_manifest(registry: Registry, repository: str, wanted: str, document: Document) -> bool:
    """Store a manifest or index under a tag or its digest; whether `subject` was understood."""
    call = Call(
        "PUT", f"{quote(repository)}/manifests/{wanted}", repository, "pull,push",
        (("Content-Type", document.media_type),), document.data,
    )  # fmt: skip
    with registry.ask(call) as answer:
        expect(answer, (201, 200, 202), f"manifest '{registry.name}/{repository}:{wanted}'")
        _check_digest(answer, document.digest)
        return bool(answer.header("OCI-Subject"))


@dataclass(frozen=True)
class _Piece:
    body: Body = b""
    length: int = 0
    headers: tuple[tuple[str, str], ...] = ()


def _send(registry: Registry, method: str, upload: Upload, piece: _Piece, url: str = "") -> Answer:
    call = Call(
        method, "", upload.repository, "pull,push", piece.headers, piece.body, piece.length,
        repeat=method in ("GET", "DELETE"),
    )  # fmt: skip
    return registry.send(call, url or upload.url)


def _location(answer: Answer, otherwise: str = "") -> str:
    target = answer.header("Location")
    if not target and not otherwise:
        raise RegistryError(f"the registry says nowhere to upload to: '{clean(answer.url)}'")
    return transport.absolute(answer.url, target) if target else otherwise


def _check_digest(answer: Answer, digest: str) -> None:
    said = answer.header("Docker-Content-Digest")
    if said and said != digest:
        raise Corrupt(f"the registry stored '{clean(said)}' but '{digest}' was sent")
