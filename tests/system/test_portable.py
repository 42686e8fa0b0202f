"""Snapshots as artefacts: pushed to a registry, gone on with at another engine; what is refused."""

from __future__ import annotations

import hashlib
import json
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from tests.conftest import need
from tests.support import registry as registries
from tests.support.copies import COUNTER, counted, counting, goes_on, own, refusal
from tests.support.engine import EngineProcess, engine
from tests.support.images import busy_image
from tests.support.instances import Api, Instance, Place
from tests.support.registry import Registry, registry

ACCEPT = "application/vnd.oci.image.manifest.v1+json"


@pytest.fixture(scope="module")
def shelf() -> Iterator[Registry]:
    need(registries.available(), "registry", "docker-registry, skopeo or htpasswd is missing")
    with registry() as made:
        yield made


@pytest.fixture(scope="module")
def other() -> Iterator[EngineProcess]:
    """A second engine, which has made no machine yet."""
    with engine("proa-other-") as running:
        yield running


def pull(api: Api, name: str, as_name: str) -> Instance:
    made = api.json("POST", "/proa/snapshots/pull", name=as_name, **{"from": name})
    return Instance(api, made["Id"])


def fetch(shelf: Registry, path: str, data: bytes = b"", method: str = "GET") -> bytes:
    headers = {"Accept": ACCEPT} | ({"Content-Type": ACCEPT} if data else {})
    url = f"http://{shelf.host}/v2/{path}"
    request = urllib.request.Request(url, data or None, headers, method=method)
    with urllib.request.urlopen(request, timeout=30) as answer:
        return bytes(answer.read())


def put_blob(shelf: Registry, repository: str, data: bytes) -> dict[str, Any]:
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    url = f"http://{shelf.host}/v2/{repository}/blobs/uploads/"
    with urllib.request.urlopen(urllib.request.Request(url, b"", method="POST")) as answer:
        place = answer.headers["Location"]
    place += ("&" if "?" in place else "?") + f"digest={digest}"
    kind = {"Content-Type": "application/octet-stream"}
    urllib.request.urlopen(urllib.request.Request(place, data, kind, method="PUT")).close()
    return {"digest": digest, "size": len(data)}


def test_a_machine_goes_on_elsewhere(vm: Place, other: EngineProcess, shelf: Registry) -> None:
    source = counting(vm, f"echo kept > /file; {COUNTER}")
    before = max(counted(source))
    own(source, "POST", "/snapshots", name="warm", memory=1)
    then = max(counted(source))
    name = f"{shelf.host}/machines/counter:warm"
    pushed = own(source, "POST", "/push-snapshot", name="warm", to=name)
    document = json.loads(fetch(shelf, "machines/counter/manifests/warm"))
    assert document["artifactType"] == "application/vnd.proa.snapshot.v1"
    assert document["annotations"]["dev.proa.snapshot.qemu"]
    assert len(pushed["Digest"]) == 71
    status, said = refusal(
        other.api, "POST", "/proa/snapshots/pull", **{"from": name, "name": "a1"}
    )
    assert status == 404 and "not here" in said  # its image
    other.api.load(busy_image())
    there = pull(other.api, name, "counter")
    goes_on(there)
    assert before <= min(counted(there)) <= then + 1
    assert there.exec("cat", "/file").stdout == "kept\n"
    assert there.exec("hostname").stdout.strip() == there.id[:12]
    goes_on(source)
    there.remove()
    _refuse_changed(other, shelf, document)


def _refuse_changed(other: EngineProcess, shelf: Registry, document: dict[str, Any]) -> None:
    """Nothing comes of an artefact that does not fit, lies or wants too much."""
    config = json.loads(fetch(shelf, f"machines/counter/blobs/{document['config']['digest']}"))
    spec, machine = config["spec"], config["machine"]
    mount = {"kind": "bind", "source": "/", "target": "/host"}
    garbage = put_blob(shelf, "machines/counter", b"garbage, not a sparse file")
    evil = {
        "other-qemu": (config | {"machine": machine | {"qemu": "1.0"}}, {}, 501),
        "huge": (config | {"machine": machine | {"shape": {"ram_bytes": 1 << 60}}}, {}, 422),
        "mounts": (config | {"spec": spec | {"mounts": [mount]}}, {}, 422),
        "container": (config | {"spec": spec | {"isolation": "container"}}, {}, 422),
        "outside": (config | {"disks": {"disk": [["../../x", "raw"]]}}, {}, 422),
        "format": (config | {"format": 7}, {}, 501),
        "no-spec": ({"format": 1}, {}, 422),
        "garbage": (config, garbage, 422),
    }
    for tag, (changed, first, expected) in evil.items():
        blob = put_blob(shelf, "machines/counter", json.dumps(changed).encode())
        layers = [dict(layer) for layer in document["layers"]]
        layers[0] |= first
        whole = document | {"config": document["config"] | blob, "layers": layers}
        data = json.dumps(whole).encode()
        fetch(shelf, f"machines/counter/manifests/{tag}", data, "PUT")
        name = f"{shelf.host}/machines/counter:{tag}"
        status, said = refusal(
            other.api, "POST", "/proa/snapshots/pull", **{"from": name, "name": "evil"}
        )
        assert status == expected, (tag, status, said)
        assert other.api.ids() == set(), tag


def test_what_cannot_be_pushed(place: Place, shelf: Registry) -> None:
    made = place.create("busy", "true")
    own(made, "POST", "/snapshots", name="files")
    to = f"{shelf.host}/machines/files:x"
    path = f"/proa/instances/{made.id}/push-snapshot"
    assert refusal(made.api, "POST", path, name="files", to=to)[0] == 501
    assert refusal(made.api, "POST", path, name="none", to=to)[0] == 404
