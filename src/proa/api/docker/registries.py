"""Registries through Docker's API: pull, push, log in, ask what a name stands for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from proa.api.answer import Answer, json_reply
from proa.api.docker import bodies
from proa.api.feed import Feed, Message, stream
from proa.api.request import Request
from proa.engine.registries import Watch
from proa.errors import Invalid

if TYPE_CHECKING:
    from proa.engine.engine import Engine


def login_of(request: Request) -> str:
    """The text of the login that came along, if any."""
    return request.fields.get("x-registry-auth", "")


def auth(engine: Engine, request: Request) -> Answer:
    """POST /auth: whether a registry takes a login."""
    token = engine.registries.log_in(bodies.read(request))
    return json_reply({"IdentityToken": token, "Status": "Login Succeeded"})


def pull(engine: Engine, request: Request) -> Answer:
    """POST /images/create?fromImage=...: without any tag, every image's tag of the repository."""
    name, tag = request.text("fromImage"), request.text("tag")
    platform, login = request.text("platform"), login_of(request)
    request.body.all(bodies.BODY_BYTES)
    if tag:
        name = f"{_untagged(name)}{'@' if ':' in tag else ':'}{tag}"

    def work(feed: Feed) -> Iterator[Message]:
        watch = Watch(feed.told, feed.cancelled)
        names = [name]
        if name == _untagged(name):
            names = [f"{name}:{found}" for found in engine.registries.image_tags(name, login)]
        for one in names:
            engine.registries.pull(one, platform, login, watch)
        yield from ()

    return stream(work, "pull")


def push(engine: Engine, request: Request) -> Answer:
    """POST /images/{name}/push: without a tag, every tag of the repository that is here."""
    name, tag = request.parameter, request.text("tag")
    compression, login = request.text("compression"), login_of(request)
    request.body.all(bodies.BODY_BYTES)
    if "@" in name:
        raise Invalid("cannot push a digest reference", hint="push a name with a tag")
    bare = _untagged(name)
    if tag or bare != name:
        names = [f"{bare}:{tag}" if tag else name]
    else:
        names = engine.registries.names_of(name)

    def work(feed: Feed) -> Iterator[Message]:
        watch = Watch(feed.told, feed.cancelled)
        for one in names:
            pushed = engine.registries.push(one, compression, login, watch)
            text = f"{pushed.tag}: digest: {pushed.digest} size: {pushed.size}"
            yield {"status": text}
            aux = {"Tag": pushed.tag, "Digest": pushed.digest, "Size": pushed.size}
            yield {"progressDetail": {}, "aux": aux}

    return stream(work, "push")


def distribution(engine: Engine, request: Request) -> Answer:
    """GET /distribution/{name}/json: what a name stands for in its registry."""
    return json_reply(engine.registries.distribution(request.parameter, login_of(request)))


def _untagged(name: str) -> str:
    """The name without tag and digest."""
    bare = name.partition("@")[0]
    head, colon, tag = bare.rpartition(":")
    return head if colon and "/" not in tag else bare
