"""Registries beyond Docker's API: tags, images that are not here, artifacts about them, removal.

The image is the argument `name`; a login comes as `X-Registry-Auth`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from proa.api.answer import Answer, Reply, json_reply
from proa.api.docker.registries import login_of
from proa.api.request import Request
from proa.errors import Invalid

if TYPE_CHECKING:
    from proa.engine.engine import Engine


def tags(engine: Engine, request: Request) -> Answer:
    """GET /proa/registry/tags."""
    name = _name(request)
    return json_reply({"Name": name, "Tags": engine.registries.tags(name, login_of(request))})


def inspect(engine: Engine, request: Request) -> Answer:
    """GET /proa/registry/image: an image that need not be here; for `platform` of an index."""
    name, platform = _name(request), request.text("platform")
    return json_reply(engine.registries.remote(name, platform, login_of(request)))


def manifest(engine: Engine, request: Request) -> Answer:
    """GET /proa/registry/manifest: what the name stands for, byte for byte."""
    return Reply(200, engine.registries.raw(_name(request), login_of(request)))


def referrers(engine: Engine, request: Request) -> Answer:
    """GET /proa/registry/referrers: artifacts about an image, of one `type` when it is given."""
    name, kind = _name(request), request.text("type")
    return json_reply(engine.registries.referrers(name, kind, login_of(request)))


def remove(engine: Engine, request: Request) -> Answer:
    """DELETE /proa/registry/image: the tag alone, or a manifest (by its digest) with all tags."""
    digest = engine.registries.remove(_name(request), login_of(request))
    return json_reply({"Name": _name(request), "Digest": digest})


def _name(request: Request) -> str:
    name = request.text("name")
    if not name:
        raise Invalid("no image named", hint="give 'name'")
    return name
