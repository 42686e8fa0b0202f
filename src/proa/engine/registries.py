"""Registries, as the engine's clients use them: pull, push, ask, remove, log in.

A login comes with each request (the text of Docker's `X-Registry-Auth`) and is kept nowhere.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from proa.engine.events import Events
from proa.errors import ImageNotFound, Invalid, RegistryError, Unauthorized
from proa.image import manifest, platforms, reference
from proa.image.catalog import Image
from proa.image.manifest import Descriptor
from proa.image.progress import Progress
from proa.image.reference import Reference
from proa.image.registry import auth, origins, pull, push, resolve
from proa.image.registry import credentials as logins
from proa.image.registry.auth import Authorizer
from proa.image.registry.client import REFERRERS_TAG, Registry
from proa.image.registry.credentials import Credentials
from proa.image.registry.hosts import Hosts
from proa.image.registry.push import Pushed
from proa.image.registry.resolve import Search
from proa.image.registry.transport import Request, Transport
from proa.image.store import Images

_MAXIMUM_MOUNT_SCOPES = 8
_NO_TAGS = frozenset({400, 405, 501})  # statuses of registries that delete digests only


@dataclass(frozen=True)
class Watch:
    """Who hears of long work, and who may call it off."""

    progress: Progress
    cancelled: Callable[[], bool]


class Registries:
    """All registries, for one engine."""

    def __init__(self, images: Images, events: Events, settings: Mapping[str, Any]) -> None:
        self._images = images
        self._events = events
        self._transport = Transport(Hosts(settings))

    def at(self, registry: str, credentials: Credentials, more: Sequence[str] = ()) -> Registry:
        """One registry for somebody with these logins."""
        return Registry(registry, self._transport, self._authorizer(credentials, more))

    def _authorizer(self, credentials: Credentials, more: Sequence[str] = ()) -> Authorizer:
        return Authorizer(credentials, self._ask, self._transport.hosts.plain, more)

    def _ask(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes
    ) -> tuple[int, bytes]:
        with self._transport.send(Request(method, url, dict(headers), body)) as answer:
            return answer.status, answer.content(auth.TOKEN_BYTES, "a token server's answer")

    def _for(self, name: str, login: str, more: Sequence[str] = ()) -> tuple[Registry, Reference]:
        wanted = reference.parse(name)
        return self.at(wanted.registry, logins.for_registry(wanted.registry, login), more), wanted

    def reach(self, name: str, login: str) -> tuple[Registry, Reference]:
        """The registry of a name, and what the name says there."""
        return self._for(name, login)

    # -- there and back ---------------------------------------------------------------------------

    def pull(self, name: str, platform: str, login: str, watch: Watch) -> Image:
        """Have the image of a name in the store."""
        platforms.parse(platform)  # a mistake is said before anybody is asked
        registry, wanted = self._for(name, login)
        options = pull.Options(platform, progress=watch.progress, cancelled=watch.cancelled)
        image = pull.pull(self._images, registry, wanted, options)
        self._emit("pull", wanted)
        return image

    def push(self, name: str, compression: str, login: str, watch: Watch) -> Pushed:
        """Send the image of a name."""
        wanted = reference.parse(name)
        known = origins.sources(self._images.shelves(), wanted.registry, wanted.path)
        sources = known.repositories()[:_MAXIMUM_MOUNT_SCOPES]
        registry, _ = self._for(name, login, [auth.scope(source, "pull") for source in sources])
        session = registry.session(watch.cancelled)
        pushed = push.push(self._images, session, wanted, compression or "gzip", watch.progress)
        self._emit("push", wanted)
        return pushed

    def _emit(self, action: str, wanted: Reference) -> None:
        attributes = {"name": wanted.familiar_repository}
        self._events.emit("image", action, wanted.familiar, attributes)

    def names_of(self, repository: str) -> list[str]:
        """Every name with a tag that the store has of a repository.  Raises ImageNotFound."""
        wanted = reference.parse(repository).repository
        names = (name for image in self._images.all() for name in image.names)
        found = [name for name in names if reference.parse(name).repository == wanted]
        if not found:
            raise ImageNotFound(
                f"An image does not exist locally with the tag: {repository}",
                hint="'proa images' lists what there is",
            )
        return sorted(found)

    # -- asking -----------------------------------------------------------------------------------

    def tags(self, repository: str, login: str) -> list[str]:
        """Every tag of a repository."""
        registry, wanted = self._for(repository, login)
        return registry.tags(wanted.path)

    def image_tags(self, repository: str, login: str) -> list[str]:
        """Those tags that name images: not the ones that list referrers."""
        return [tag for tag in self.tags(repository, login) if not REFERRERS_TAG.fullmatch(tag)]

    def distribution(self, name: str, login: str) -> dict[str, Any]:
        """Docker's DistributionInspect: what a name stands for, and the platforms it has."""
        registry, wanted = self._for(name, login)
        top = registry.manifest(wanted.path, wanted.digest or wanted.tag)
        if top.is_index:
            found = [item.platform for item in manifest.parse_index(top.data) if item.platform]
        else:
            found = [_platform(resolve.read(Search(registry, wanted), top).config.document)]
        return {"Descriptor": top.descriptor.document(), "Platforms": found}

    def remote(self, name: str, platform: str, login: str) -> dict[str, Any]:
        """All that a registry says of an image, without its layers; `Raw` is as it is there."""
        registry, wanted = self._for(name, login)
        found = resolve.resolve(Search(registry, wanted), platform)
        (image,) = found.images
        return {
            "Name": wanted.familiar,
            "Descriptor": found.top.descriptor.document(),
            "Raw": found.top.data.decode("utf-8", "replace"),
            "Platforms": _platforms(found.top),
            "Manifest": manifest.decode_object(image.document.data, "a manifest"),
            "ManifestDigest": image.document.digest,
            "Config": image.config.document,
            "Size": sum(layer.size for layer in image.manifest.layers),
        }

    def raw(self, name: str, login: str) -> bytes:
        """What a name stands for, byte for byte."""
        registry, wanted = self._for(name, login)
        return registry.manifest(wanted.path, wanted.digest or wanted.tag).data

    def referrers(self, name: str, kind: str, login: str) -> list[dict[str, Any]]:
        """The artifacts about an image."""
        registry, wanted = self._for(name, login)
        found = _found(registry, wanted)
        return [item.document() for item in registry.referrers(wanted.path, found.digest, kind)]

    def remove(self, name: str, login: str) -> str:
        """Remove a name there: its tag where the registry does that, else the manifest itself.

        Gives the digest of a removed manifest (all its tags are gone with it), else nothing.
        """
        registry, wanted = self._for(name, login)
        found = _found(registry, wanted)
        if not wanted.digest:
            try:
                registry.delete(wanted.path, wanted.tag)
                return ""
            except RegistryError as error:
                if error.status not in _NO_TAGS:
                    raise
        registry.delete(wanted.path, found.digest)
        return found.digest

    # -- logging in -------------------------------------------------------------------------------

    def log_in(self, document: Any) -> str:
        """See that a registry takes a login; the identity token it may give in its place.

        `document` is Docker's AuthConfig.  Raises Unauthorized, RegistryError.
        """
        if not isinstance(document, dict) or not isinstance(document.get("serveraddress", ""), str):
            raise Invalid("a login is a json object with the text 'serveraddress'")
        host = logins.host_of(document.get("serveraddress") or reference.DEFAULT_REGISTRY)
        name = reference.parse(f"{host}/x/x").registry
        login = logins.login_of(document)
        authorizer = self._authorizer(Credentials({logins.host_of(name): login}))
        try:
            Registry(name, self._transport, authorizer).ping()
        except Unauthorized as error:
            raise Unauthorized(f"'{name}' refuses the login", status=error.status) from error
        return authorizer.identity_token


def _found(registry: Registry, wanted: Reference) -> Descriptor:
    found = registry.head(wanted.path, wanted.digest or wanted.tag)
    if found is None:
        raise ImageNotFound(f"registry '{registry.name}' has no '{wanted.familiar}'")
    return found


def _platforms(top: Any) -> list[str]:
    if not top.is_index:
        return []
    listed = filter(platforms.is_image, manifest.parse_index(top.data))
    return [str(platforms.of(item.platform)) for item in listed]


def _platform(document: dict[str, Any]) -> dict[str, Any]:
    names = ("architecture", "os", "os.version", "os.features", "variant")
    return {name: document[name] for name in names if document.get(name)}
