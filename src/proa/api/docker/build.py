"""`/build`: Docker's classic build, as `DOCKER_BUILDKIT=0 docker build` speaks it.

The context is the body (a tar, compressed or not) or comes from `remote`; the answer is a stream
of messages in the classic builder's words.  Steps are numbered within their stage, and stages
that run side by side are told one after the other.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from proa.api.answer import Answer
from proa.api.docker.classic import Classic
from proa.api.errors import message_of
from proa.api.feed import Feed, Message, stream
from proa.api.request import Request
from proa.engine import building
from proa.engine.building import BuildRequest, Origin
from proa.errors import BuildError, Invalid, Unsupported

if TYPE_CHECKING:
    from proa.engine.engine import Engine

_CONFIG_BYTES = 1 << 20
_NETWORKS = {"": "default", "bridge": "default"} | {one: one for one in ("default", "none", "host")}
_ISOLATIONS = {"default": ""}
_REFUSED = {
    "securityopt": "security options",
    "outputs": "outputs",
    "cgroupparent": "a parent cgroup",
}


def build(engine: Engine, request: Request) -> Answer:
    """POST /build."""
    asked, quiet = _asked(request), request.flag("q")
    remote = request.text("remote")
    if remote == "client-session":
        raise Unsupported("a context over a session is BuildKit's own protocol")
    origin = Origin(remote, request.file(), request.text("dockerfile"))

    def work(feed: Feed) -> Iterator[Message]:
        with building.with_files(engine.images, asked, origin, feed.check) as wanted:
            classic = Classic(feed.say, quiet)
            try:
                image = engine.build(wanted, classic.told, feed.left)
            except BuildError as error:
                classic.flush()
                if not classic.said:
                    raise BuildError(_text(error), hint=error.hint) from error
                yield _failure(error)
                return
            classic.flush()
        yield {"aux": {"ID": image.id}}
        if quiet:
            yield {"stream": f"{image.id}\n"}
            return
        yield {"stream": f"Successfully built {image.id.removeprefix('sha256:')[:12]}\n"}
        for name in wanted.names:
            yield {"stream": f"Successfully tagged {building.familiar(name)}\n"}

    return stream(work, "build", held_back=0)


def _text(error: BuildError) -> str:
    """The message, with its place in front."""
    return f"{error.file}:{error.line}: {error.message}" if error.line else error.message


def _failure(error: BuildError) -> Message:
    text = message_of(BuildError(_text(error), hint=error.hint))
    detail = {"code": error.step_exit or 1, "message": text}
    return {"errorDetail": detail, "error": text, "code": error.code}


# -- the query ------------------------------------------------------------------------------------


def _asked(request: Request) -> BuildRequest:
    if request.text("version", "1") != "1":
        raise Unsupported(
            "BuildKit's own protocol is not spoken here",
            hint="use 'DOCKER_BUILDKIT=0 docker build', or 'proa build'",
        )
    for name, what in _REFUSED.items():
        if request.text(name) not in ("", "[]", "null"):
            raise Unsupported(f"{what} cannot be chosen for a build")
    network, isolation = request.text("networkmode"), request.text("isolation")
    if network not in _NETWORKS:
        raise Unsupported(
            f"network '{network}' cannot be used by a build", hint="default, none or host"
        )
    names = tuple(name for name in request.query.get("t", []) if name)
    for name in names:
        building.familiar(name)
    period, quota = request.whole("cpuperiod") or 100_000, request.whole("cpuquota") or 0
    return BuildRequest(
        b"",
        names=names,
        target=request.text("target"),
        arguments=_arguments(request),
        labels=_texts(request, "labels"),
        hosts=_hosts(request),
        logins=logins(request.fields.get("x-registry-config", "")),
        isolation=_ISOLATIONS.get(isolation, isolation),
        network=_NETWORKS[network],
        platform=request.text("platform"),
        pull=request.flag("pull"),
        use_cache=not request.flag("nocache"),
        squash=request.flag("squash"),
        shm_bytes=max(0, request.whole("shmsize") or 0),
        memory_bytes=max(0, request.whole("memory") or 0),
        cpus=max(0, quota) / max(1, period),
    )


def _json(request: Request, name: str, kind: type, otherwise: Callable[[], Any]) -> Any:
    text = request.text(name)
    if not text:
        return otherwise()
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        raise Invalid(f"'{name}' is not JSON") from None
    if found is None:
        return otherwise()
    if not isinstance(found, kind):
        raise Invalid(f"'{name}' has the wrong JSON type")
    return found


def _texts(request: Request, name: str) -> dict[str, str]:
    found = _json(request, name, dict, dict)
    if not all(isinstance(value, str) for value in found.values()):
        raise Invalid(f"'{name}' has values that are no text")
    return dict(found)


def _arguments(request: Request) -> dict[str, str]:
    """Build arguments; null means that the client's environment does not have it either."""
    found = _json(request, "buildargs", dict, dict)
    given = {name: value for name, value in found.items() if value is not None}
    if not all(isinstance(value, str) for value in given.values()):
        raise Invalid("'buildargs' has values that are no text")
    return given


def _hosts(request: Request) -> tuple[str, ...]:
    """`name:address` each; a client sends them one by one, or as a JSON list."""
    given = request.query.get("extrahosts", [])
    if len(given) == 1 and given[0].startswith("["):
        given = _json(request, "extrahosts", list, list)
    return tuple(str(one) for one in given if one)


def logins(header: str) -> dict[str, str]:
    """The logins of an X-Registry-Config header, each as the text of an X-Registry-Auth."""
    if not header:
        return {}
    try:
        found = json.loads(base64.b64decode(header[:_CONFIG_BYTES] + "==", altchars=b"-_"))
        entries = [(host, dict(login)) for host, login in dict(found).items()]
    except (ValueError, TypeError, RecursionError, binascii.Error):
        raise Invalid("malformed 'X-Registry-Config'") from None
    texts = {}
    for host, login in entries:
        text = json.dumps({"serveraddress": host, **login}).encode()
        texts[building.registry_of(host)] = base64.urlsafe_b64encode(text).decode()
    return texts
