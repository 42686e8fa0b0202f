"""Registries that cut, lie, stall, flood and redirect: typed errors, and a store left as it was."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from proa.errors import (
    Cancelled,
    Corrupt,
    ImageNotFound,
    NoSpace,
    ProaError,
    RegistryError,
    Unsupported,
)
from proa.image import reference
from proa.image.catalog import Image
from proa.image.layer.stream import Bounds
from proa.image.registry.auth import Authorizer
from proa.image.registry.client import Registry
from proa.image.registry.credentials import Credentials, Login
from proa.image.registry.hosts import Hosts
from proa.image.registry.pull import Options, pull
from proa.image.registry.transport import Transport
from proa.image.registry.wire import Patience
from proa.image.store import Images
from tests.support import faulty as server_module
from tests.support.faulty import INDEX, LAYER, MANIFEST, Faulty, descriptor, digest_of
from tests.support.images import Layer
from tests.support.pulling import pulling
from tests.support.registry import authority

HASTY = Patience(
    connect_seconds=5, answer_seconds=10, interval_seconds=10, minimum_bytes=4096, attempts=3,
    pause_seconds=0.01, longest_pause_seconds=2,
)  # fmt: skip
VERY_HASTY = replace(HASTY, answer_seconds=0.2, interval_seconds=0.2)


@pytest.fixture
def server() -> Iterator[Faulty]:
    with server_module.faulty() as made:
        yield made


@pytest.fixture
def store(tmp_path: Path) -> Images:
    (tmp_path / "canary").write_text("untouched")
    return Images(tmp_path / "store")


def layer(name: str = "file", size: int = 1000) -> bytes:
    """A layer of one file that does not compress."""
    made = Layer()
    made.file(name, os.urandom(size))
    return made.bytes()


def fetch(
    store: Images, name: str, hosts: Hosts | None = None, options: Options | None = None
) -> Image:
    """Pull with little patience."""
    wanted = reference.parse(name)
    with Transport(hosts or Hosts(), HASTY) as transport:
        return pull(store, Registry(wanted.registry, transport), wanted, options)


def refused(store: Images, name: str, kind: type[ProaError], word: str = "") -> ProaError:
    """A pull that must fail so, and leave nothing but halves."""
    with pytest.raises(kind) as caught:
        fetch(store, name)
    assert word in str(caught.value)
    assert type(caught.value) is kind or kind is RegistryError
    root = store.shelves().layout.root
    assert json.loads((root / "index.json").read_bytes())["manifests"] == []
    assert list((root / "tmp").iterdir()) == []
    assert (root.parent / "canary").read_text() == "untouched"
    assert sorted(path.name for path in root.parent.iterdir()) == ["canary", "store"]
    return caught.value


def halves(store: Images) -> dict[str, int]:
    """What is half there, with its size."""
    files = [path for path in store.shelves().layout.partial.iterdir() if not path.suffix]
    return {path.name: path.stat().st_size for path in files}


def test_a_registry_that_names_no_types(server: Faulty, store: Images) -> None:
    """A file server will do."""
    server.image([layer()], "inner")
    inner = json.loads(server.manifests["inner"][1])
    del inner["mediaType"]
    item = server.document("text/plain", inner) | {"mediaType": MANIFEST}
    server.document("application/json", {"schemaVersion": 2, "manifests": [item]}, "latest")
    for _ in range(2):
        image = fetch(store, f"{server.host}/test")
        assert image.manifest_digest == item["digest"]


# -- cuts ----------------------------------------------------------------------------------------


def test_a_cut_layer_is_gone_on_with(server: Faulty, store: Images) -> None:
    name = server.image([layer(size=3 << 20)])
    blob = json.loads(server.manifests["latest"][1])["layers"][0]["digest"]
    server.on(blob, cut_after=1 << 20, times=2)
    image = fetch(store, name)
    asked = [item.headers.get("Range") for item in server.asked if blob in item.path]
    assert asked == [None, f"bytes={1 << 20}-", f"bytes={2 << 20}-"]
    assert store.blob(blob).stat().st_size == image.manifest.layers[0].size
    assert halves(store) == {}


def test_a_registry_without_ranges_is_read_again(server: Faulty, store: Images) -> None:
    name = server.image([layer(size=1 << 20)])
    blob = json.loads(server.manifests["latest"][1])["layers"][0]["digest"]
    server.ranges = False
    server.on(blob, cut_after=300_000, times=1)
    fetch(store, name)
    assert digest_of(store.blob(blob).read_bytes()) == blob


def test_what_a_failed_pull_left_is_used_by_the_next(server: Faulty, store: Images) -> None:
    name = server.image([layer(size=1 << 20)])
    blob = json.loads(server.manifests["latest"][1])["layers"][0]["digest"]
    fault = server.on(blob, cut_after=50_000)
    refused(store, name, RegistryError)
    (had,) = halves(store).values()
    assert had >= 50_000
    fault.times = 0
    before = len(server.asked)
    fetch(store, name)
    again = [item.headers.get("Range") for item in server.asked[before:] if blob in item.path]
    assert again == [f"bytes={had}-"]


def test_a_damaged_half_is_thrown_away(server: Faulty, store: Images) -> None:
    name = server.image([layer(size=100_000)])
    blob = json.loads(server.manifests["latest"][1])["layers"][0]["digest"]
    folder = store.shelves().layout.partial
    for damage in (b"x" * 5000, b"x" * 200_000):
        (folder / blob[7:]).write_bytes(damage)
        fetch(store, name)
        assert digest_of(store.blob(blob).read_bytes()) == blob
        assert halves(store) == {}
        store.remove(name)


def test_a_blob_a_power_cut_made_holes_in_is_fetched_again(server: Faulty, store: Images) -> None:
    """It arrived for an image that never did, in its full length."""
    name = server.image([layer(size=5000)])
    item = json.loads(server.manifests["latest"][1])["layers"][0]
    layout = store.shelves().layout
    layout.blob(item["digest"]).write_bytes(bytes(item["size"]))
    fetch(store, name)
    assert digest_of(store.blob(item["digest"]).read_bytes()) == item["digest"]


# -- lies ----------------------------------------------------------------------------------------


def test_other_bytes_than_promised(server: Faulty, store: Images) -> None:
    name = server.image([layer(size=50_000)])
    size = json.loads(server.manifests["latest"][1])["layers"][0]["size"]
    blob = json.loads(server.manifests["latest"][1])["layers"][0]["digest"]
    other = gzip.compress(layer(size=50_000), 0)
    for body in (b"x" * size, server.blobs[blob][:-8] + b"\0" * 8, other, other[:100], b""):
        fault = server.on(blob, body=body)
        refused(store, name, Corrupt)
        assert halves(store) == {}
        fault.times = 0
    fetch(store, name)


@pytest.mark.parametrize("change", [{"size": 10}, {"size": 10**6}, {"size": -1}, {"size": 1.5}])
def test_a_lying_size(server: Faulty, store: Images, change: dict[str, Any]) -> None:
    name = server.image([layer(size=50_000)])
    document = json.loads(server.manifests["latest"][1])
    document["layers"][0] |= change
    server.document(MANIFEST, document, "latest")
    refused(store, name, Corrupt)


def test_a_layer_larger_than_the_disk_is_not_begun(server: Faulty, store: Images) -> None:
    name = server.image([layer()])
    document = json.loads(server.manifests["latest"][1])
    document["layers"][0]["size"] = 1 << 60
    server.document(MANIFEST, document, "latest")
    refused(store, name, NoSpace)
    assert server.paths(document["layers"][0]["digest"]) == []


def test_plain_bytes_other_than_the_configuration_says(server: Faulty, store: Images) -> None:
    false = {"type": "layers", "diff_ids": [digest_of(b"something else")]}
    refused(store, server.image([layer()], rootfs=false), Corrupt, "promised")


def test_known_parts_cannot_be_put_together_wrongly(server: Faulty, store: Images) -> None:
    """Two layers the store has, one's blob with the other's digest of plain bytes."""
    first, second = layer("one"), layer("two")
    fetch(store, server.image([first, second], "right"))
    false = {"type": "layers", "diff_ids": [digest_of(second)]}
    with pytest.raises(Corrupt):
        fetch(store, server.image([first], "wrong", rootfs=false))


def test_manifests_are_checked(server: Faulty, store: Images) -> None:
    name = server.image([layer()])
    kind, data = server.manifests["latest"]
    server.on("/manifests/latest", headers={"Docker-Content-Digest": digest_of(b"")}, times=1)
    refused(store, name, Corrupt, "promised")
    by_digest = f"{server.host}/test@{digest_of(data)}"
    server.manifests[digest_of(data)] = (kind, data + b" ")
    refused(store, by_digest, Corrupt, "promised")
    server.manifests["latest"] = (INDEX, data)
    refused(store, name, Corrupt, "was sent as")


def both(server: Faulty) -> tuple[str, Any]:
    document = json.loads(server.manifests["latest"][1])
    return MANIFEST, document | {"manifests": []}


def no_list(server: Faulty) -> tuple[str, Any]:
    return MANIFEST, {"schemaVersion": 2, "layers": 7}


def traversal(server: Faulty) -> tuple[str, Any]:
    document = json.loads(server.manifests["latest"][1])
    document["layers"][0]["digest"] = "sha256:../../../canary"
    return MANIFEST, document


def other_hash(server: Faulty) -> tuple[str, Any]:
    document = json.loads(server.manifests["latest"][1])
    document["layers"][0]["digest"] = "sha512:" + "a" * 128
    return MANIFEST, document


def large(server: Faulty) -> tuple[str, Any]:
    return MANIFEST, b" " * (5 << 20)


def deep(server: Faulty) -> tuple[str, Any]:
    return MANIFEST, b"[" * 100_000


def nested(server: Faulty) -> tuple[str, Any]:
    item = server.document(INDEX, {"schemaVersion": 2, "mediaType": INDEX, "manifests": []})
    for _ in range(6):
        listed = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [item]}
        item = server.document(INDEX, listed)
    return INDEX, listed


def cycle(server: Faulty) -> tuple[str, Any]:
    """An index whose only child is, by the registry's word, itself."""
    child = {"mediaType": INDEX, "digest": digest_of(b"a"), "size": 0}
    document = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [child]}
    child["size"] = len(json.dumps(document | {"manifests": [child | {"size": 999}]}))
    server.manifests[str(child["digest"])] = (INDEX, json.dumps(document).encode())
    return INDEX, document


@pytest.mark.parametrize("make", [both, no_list, traversal, other_hash, large, deep, nested, cycle])
def test_malformed_documents(server: Faulty, store: Images, make: Any) -> None:
    name = server.image([layer()])
    kind, document = make(server)
    server.document(kind, document, "latest")
    refused(store, name, Corrupt)


def test_ten_thousand_platforms(server: Faulty, store: Images) -> None:
    server.image([layer()], "inner")
    right = descriptor(MANIFEST, server.manifests["inner"][1])
    others = [
        {"mediaType": MANIFEST, "digest": digest_of(str(number).encode()), "size": 10,
         "platform": {"os": "linux", "architecture": f"a{number}"}}
        for number in range(10_000)
    ]  # fmt: skip
    document = {"schemaVersion": 2, "mediaType": INDEX, "manifests": others}
    server.document(INDEX, document, "without")
    error = refused(store, f"{server.host}/test:without", ImageNotFound)
    assert len(error.hint) < 500
    host = {"os": "linux", "architecture": "amd64"}
    server.document(INDEX, document | {"manifests": [*others, right | {"platform": host}]}, "with")
    fetch(store, f"{server.host}/test:with", options=Options("linux/amd64"))
    assert len(server.asked) < 12


def test_what_is_no_image_is_said_so(server: Faulty, store: Images) -> None:
    name = server.image([layer()])
    image = json.loads(server.manifests["latest"][1])
    chart = image | {"config": image["config"] | {"mediaType": "application/vnd.helm.config"}}
    foreign = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
    kinds = (foreign, LAYER + "+encrypted", "text/plain")
    variants = [image | {"layers": [image["layers"][0] | {"mediaType": kind}]} for kind in kinds]
    for document in (chart, *variants, {"schemaVersion": 1, "fsLayers": []}):
        server.document(MANIFEST, document, "latest")
        refused(store, name, Unsupported)


def test_a_bomb_in_a_layer(server: Faulty, store: Images) -> None:
    store.bounds = Bounds(1 << 20, 100)
    made = Layer()
    made.file("zeros", bytes(16 << 20))
    refused(store, server.image([made.bytes()]), Corrupt, "unfolds")
    assert halves(store) == {}


# -- floods, and too little ----------------------------------------------------------------------


def test_answers_that_never_end(server: Faulty, store: Images) -> None:
    name = server.image([layer()])
    config = json.loads(server.manifests["latest"][1])["config"]["digest"]
    blob = json.loads(server.manifests["latest"][1])["layers"][0]["digest"]
    for path in ("/manifests/", config, blob):
        fault = server.on(path, endless=True)
        refused(store, name, Corrupt)
        fault.times = 0
    assert halves(store) == {}


def test_lists_come_in_pages(server: Faulty) -> None:
    pages = {"n=1000": (b'{"tags":["a","b"]}', '<?last=b&n=1000>; rel="next"'),
             "last=b": (b'{"tags":["b","c"]}', '</v2/test/tags/list?last=c>; rel=next'),
             "last=c": (b'{"tags":null}', "")}  # fmt: skip
    for words, (body, link) in reversed(pages.items()):
        server.on(f"list?{words}", body=body, headers={"Link": link})
    with Transport(Hosts(), HASTY) as transport:
        assert Registry(server.host, transport).tags("test") == ["a", "b", "c"]
    assert len(server.paths("/tags/list")) == 3


def test_a_list_of_tags_that_never_ends(server: Faulty) -> None:
    server.on(
        "/tags/list", body=b'{"tags":["a"]}', headers={"Link": '</v2/test/tags/list>; rel="next"'}
    )
    with Transport(Hosts(), HASTY) as transport, pytest.raises(Corrupt, match="does not end"):
        Registry(server.host, transport).tags("test")


@pytest.mark.parametrize(
    "raw",
    [
        b"\0\1\2\3\n\n", b"HTTP/1.1 two hundred\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 500,
        b"HTTP/1.1 200 OK\r\nA: " + b"b" * 100_000 + b"\r\n\r\n", b"A" * 100_000,
        b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nabc", b"HTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\nabc",
        b"HTTP/1.1 100 Continue\r\n\r\n" * 1000,
    ],
)  # fmt: skip
def test_answers_that_are_no_http(server: Faulty, store: Images, raw: bytes) -> None:
    name = server.image([layer()])
    server.on("/manifests/", raw=raw)
    with pytest.raises((RegistryError, Corrupt)):
        fetch(store, name)


def test_silence_and_dripping(server: Faulty, store: Images) -> None:
    name = server.image([layer(size=50_000)])
    wanted = reference.parse(name)
    for fault in ({"silent": True}, {"drip_seconds": 0.05}):
        made = server.on("/blobs/", **fault)
        with Transport(Hosts(), VERY_HASTY) as transport, pytest.raises(RegistryError):
            pull(store, Registry(server.host, transport), wanted)
        made.times = 0
    fetch(store, name)


def test_who_waits_may_call_it_off(server: Faulty, store: Images) -> None:
    name = server.image([layer()])
    server.on("/blobs/", silent=True)
    wanted = reference.parse(name)
    off = Options(cancelled=lambda: bool(server.paths("/blobs/")))
    with Transport(Hosts()) as transport, pytest.raises(Cancelled):
        pull(store, Registry(server.host, transport), wanted, off)


def test_too_many_requests(server: Faulty, store: Images) -> None:
    name = server.image([layer()])
    server.on("/manifests/", status=429, body=b"{}", headers={"Retry-After": "1"}, times=1)
    fetch(store, name)
    assert len(server.paths("/manifests/")) == 2
    server.on("/manifests/", status=429, body=b"{}", headers={"Retry-After": "100000"})
    with pytest.raises(RegistryError) as caught:
        fetch(store, name)
    assert caught.value.status == 429
    assert len(server.paths("/manifests/")) == 3


def test_failures_that_pass_are_waited_for(server: Faulty, store: Images) -> None:
    name = server.image([layer()])
    for status in (500, 502, 503):
        server.on("/manifests/", status=status, body=b"<html>", times=1)
        server.on("/blobs/", status=status, body=b"<html>", times=1)
        fetch(store, name)
        store.remove(name)


# -- redirects -----------------------------------------------------------------------------------


def test_a_login_does_not_follow_to_another_host(server: Faulty, store: Images) -> None:
    name = server.image([layer(size=5000)])
    server.on("/manifests/", status=401, body=b"{}", headers={"WWW-Authenticate": "Basic"}, times=1)
    wanted = reference.parse(name)
    with server_module.faulty() as other, Transport(Hosts(), HASTY) as transport:
        other.blobs = server.blobs
        for digest in server.blobs:
            place = f"http://{other.host}/v2/x/blobs/{digest}"
            server.on(digest, status=307, body=b"", headers={"Location": place})
        login = Credentials({server.host: Login("me", "secret")})
        authorizer = Authorizer(login, transport.ask)
        pull(store, Registry(server.host, transport, authorizer), wanted)
        here = [item.headers.get("Authorization", "") for item in server.asked]
        assert here[-1].startswith("Basic ")
        assert len(other.asked) == 2
        for item in other.asked:
            assert not {name.lower() for name in item.headers} & {"authorization", "cookie"}


@pytest.mark.parametrize(
    "target",
    ["file:///etc/passwd", "ftp://127.0.0.1/x", "http://", "http://me:pw@127.0.0.1/", "http://a:b/",
     "http://127.0.0.1:99999/", "//", "http://[::1/"],
)  # fmt: skip
def test_redirects_to_what_is_no_registry(server: Faulty, store: Images, target: str) -> None:
    name = server.image([layer()])
    server.on("/blobs/", status=307, body=b"", headers={"Location": target})
    refused(store, name, RegistryError)


def test_redirects_that_do_not_end(server: Faulty, store: Images) -> None:
    name = server.image([layer()])
    server.on("/manifests/", status=302, body=b"", headers={"Location": "/v2/test/manifests/x"})
    refused(store, name, RegistryError, "redirects")
    assert len(server.paths("/manifests/")) == 6


def test_no_way_from_tls_to_the_clear(tmp_path: Path, server: Faulty) -> None:
    authority(tmp_path)
    store = Images(tmp_path / "store")
    with server_module.faulty(tmp_path) as secure:
        name = secure.image([layer()])
        server.blobs = secure.blobs
        config = json.loads(secure.manifests["latest"][1])["config"]["digest"]
        place = f"http://{server.host}/v2/test/blobs/{config}"
        secure.on(config, status=307, body=b"", headers={"Location": place})
        hosts = Hosts({secure.host: {"ca": str(tmp_path / "ca.crt")}})
        with pytest.raises(RegistryError, match="from https to http"):
            fetch(store, name, hosts)
    assert server.asked == []


def test_nothing_is_asked_in_the_clear_elsewhere(store: Images) -> None:
    with Transport(Hosts(), HASTY) as transport, pytest.raises(RegistryError):
        Registry("registry.invalid:5000", transport).ping()
    assert Hosts().endpoints("registry.invalid:5000")[0].plain is False


# -- memory --------------------------------------------------------------------------------------


def peak_kilobytes(name: str, root: Path) -> int:
    """The most memory a process of its own needs to pull."""
    child = pulling(name, root)
    said, _ = child.communicate(timeout=60)
    assert child.returncode == 0
    return int(said)


def test_memory_does_not_grow_with_a_layer(server: Faulty, tmp_path: Path) -> None:
    small = peak_kilobytes(server.image([layer(size=1000)], "small"), tmp_path / "small")
    large = peak_kilobytes(server.image([layer(size=96 << 20)], "large"), tmp_path / "large")
    assert large - small < 24 << 10
