"""What other tools push, we pull, keep byte for byte, and run; each layer is downloaded once."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from proa.errors import ImageNotFound
from proa.image import reference
from proa.image.catalog import Image
from proa.image.progress import Step
from proa.image.registry.client import Registry as Client
from proa.image.registry.hosts import Hosts
from proa.image.registry.pull import Options, pull
from proa.image.registry.transport import Transport
from proa.image.store import Images
from tests.conftest import need
from tests.support import dockerd as daemon
from tests.support import registry as registries
from tests.support.engine import EngineProcess
from tests.support.faulty import Faulty, digest_of, faulty
from tests.support.images import Layer, archive, busy_layer, probe_layer
from tests.support.instances import eventually
from tests.support.paths import PEERS
from tests.support.proxy import proxy
from tests.support.pulling import holds, pulling
from tests.support.registry import Registry, registry
from tests.support.users import User

INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"


@pytest.fixture(scope="module")
def hub() -> Iterator[Registry]:
    """A registry without logins."""
    need(registries.available(), "registry", "docker-registry, skopeo or htpasswd is missing")
    with registry() as made:
        yield made


@pytest.fixture(scope="module")
def tar(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A docker archive of two layers."""
    file = tmp_path_factory.mktemp("archive") / "busy.tar"
    upper = Layer()
    upper.file("srv/upper", "from above\n")
    upper.file("etc/.wh.not-a-program", "")
    config = {"Cmd": ["cat", "/srv/upper"], "Env": ["PATH=/bin"]}
    file.write_bytes(archive("busy", busy_layer().bytes(), upper.bytes(), **config))
    return file


@pytest.fixture
def short_path() -> Iterator[Path]:
    """podman wants its run root within fifty characters."""
    with tempfile.TemporaryDirectory(prefix="p-", dir="/tmp") as path:
        yield Path(path)


@pytest.fixture
def user(session_engine: EngineProcess, tmp_path: Path) -> User:
    return User(session_engine, tmp_path)


def fetch(
    store: Images, name: str, hosts: Hosts | None = None, options: Options | None = None
) -> Image:
    """Pull into a store of our own."""
    wanted = reference.parse(name)
    with Transport(hosts or Hosts()) as transport:
        return pull(store, Client(wanted.registry, transport), wanted, options)


# -- made by others ------------------------------------------------------------------------------


def theirs(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, timeout=120)
    assert done.returncode == 0, f"{command}: {done.stderr.decode()}"
    return done.stdout.decode()


SKOPEO = ("skopeo", "--insecure-policy", "copy", "--dest-tls-verify=false")
ZSTD = ("--format", "oci", "--dest-compress-format", "zstd")


def by_skopeo(tar: Path, name: str, folder: Path) -> None:
    theirs(*SKOPEO, f"docker-archive:{tar}", f"docker://{name}")


def by_skopeo_in_zstd(tar: Path, name: str, folder: Path) -> None:
    theirs(*SKOPEO, *ZSTD, f"docker-archive:{tar}", f"docker://{name}")


def by_podman(tar: Path, name: str, folder: Path) -> None:
    words = [
        "podman",
        "--root",
        f"{folder}/r",
        "--runroot",
        f"{folder}/rr",
        "--storage-driver",
        "vfs",
    ]
    theirs(*words, "load", "-q", "-i", str(tar))
    theirs(*words, "push", "-q", "--tls-verify=false", "localhost/busy", name)


def by_buildah(tar: Path, name: str, folder: Path) -> None:
    words = [
        "buildah",
        "--root",
        f"{folder}/r",
        "--runroot",
        f"{folder}/rr",
        "--storage-driver",
        "vfs",
    ]
    container = theirs(*words, "from", f"docker-archive:{tar}").strip()
    theirs(*words, "config", "--label", "by=buildah", container)
    theirs(*words, "commit", "-q", "--format", "oci", container, "made")
    theirs(*words, "push", "-q", "--tls-verify=false", "made", f"docker://{name}")


def by_umoci(tar: Path, name: str, folder: Path) -> None:
    layout = f"{folder}/layout"
    theirs(*SKOPEO[:3], f"docker-archive:{tar}", f"oci:{layout}:a")
    (folder / "inserted").write_text("hello")
    theirs("umoci", "insert", "--image", f"{layout}:a", f"{folder}/inserted", "/inserted")
    theirs(*SKOPEO, f"oci:{layout}:a", f"docker://{name}")


def by_crane(tar: Path, name: str, folder: Path) -> None:
    need((PEERS / "crane").exists(), "crane", "crane is not here")
    theirs(str(PEERS / "crane"), "push", "--insecure", str(tar), name)


def by_docker(tar: Path, name: str, folder: Path) -> None:
    need(daemon.available(), "dockerd", "the newest dockerd is not here")
    with daemon.dockerd() as other:
        other.run("load", "-q", "-i", str(tar))
        other.run("tag", "busy", name)
        other.run("push", "-q", name)


@pytest.mark.parametrize(
    "push",
    [by_skopeo, by_skopeo_in_zstd, by_podman, by_buildah, by_umoci, by_crane, by_docker],
)
def test_what_others_push_runs_and_is_kept_byte_for_byte(
    user: User, tar: Path, short_path: Path, push: Callable[[Path, str, Path], None]
) -> None:
    with registry() as fresh:  # where no tool finds a blob another brought
        name = f"{fresh.host}/theirs/image:1"
        push(tar, name, short_path)
        raw = fresh.inspect_with_skopeo("theirs/image:1")
        user.proa("pull", "-q", name)
        found = user.inspect(name)
        assert user.proa("run", "--rm", "--network=none", name) == "from above\n"
        missing = user.try_("run", "--rm", "--network=none", name, "cat", "/etc/not-a-program")
        assert missing.returncode == 1
    root = user.engine.root / "images" / "blobs" / "sha256"
    assert f"{fresh.host}/theirs/image@{digest_of(raw)}" in found["RepoDigests"]
    assert (root / digest_of(raw)[7:]).read_bytes() == raw
    listed = json.loads(raw)
    if listed.get("manifests"):  # the newest docker pushes an index
        listed = json.loads((root / listed["manifests"][0]["digest"][7:]).read_bytes())
    for item in (listed["config"], *listed["layers"]):
        assert digest_of((root / item["digest"][7:]).read_bytes()) == item["digest"]
    user.proa("rmi", "-f", name)


def test_docker_pulls_through_our_socket(user: User, hub: Registry, tar: Path) -> None:
    name = hub.push_with_skopeo(f"docker-archive:{tar}", "socket/busy:1")
    shown = user.docker("pull", name)
    assert f"Status: Downloaded newer image for {name}" in shown
    assert f"Status: Image is up to date for {name}" in user.docker("pull", name)
    assert user.docker("run", "--rm", "--network=none", name) == "from above\n"
    user.proa("rmi", "-f", name)


# -- indexes -------------------------------------------------------------------------------------


@pytest.fixture
def index(hub: Registry, tmp_path: Path) -> tuple[str, bytes]:
    """A multi-platform index, copied by skopeo from a layout: its name, and its bytes."""
    blobs = tmp_path / "layout" / "blobs" / "sha256"
    blobs.mkdir(parents=True)

    def put(kind: str, data: bytes) -> dict[str, object]:
        (blobs / digest_of(data)[7:]).write_bytes(data)
        return {"mediaType": kind, "digest": digest_of(data), "size": len(data)}

    def encode(document: object) -> bytes:
        return json.dumps(document).encode()

    manifests = []
    for words in ("linux/amd64", "linux/arm64/v8", "linux/arm/v6", "linux/arm/v7", "linux/s390x"):
        made = Layer()
        made.file("platform", words)
        tar = made.bytes()
        parts = dict(zip(("os", "architecture", "variant"), words.split("/"), strict=False))
        rootfs = {"type": "layers", "diff_ids": [digest_of(tar)]}
        config = put("application/vnd.oci.image.config.v1+json", encode(parts | {"rootfs": rootfs}))
        layer = put("application/vnd.oci.image.layer.v1.tar", tar)
        document = {"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [layer]}
        manifests.append(put(MANIFEST, encode(document)) | {"platform": parts})
    raw = encode({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests})
    top = {"schemaVersion": 2, "manifests": [put(INDEX, raw)]}
    (tmp_path / "layout" / "index.json").write_bytes(encode(top))
    (tmp_path / "layout" / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
    name = hub.push_with_skopeo(
        f"oci:{tmp_path}/layout", "multi/arch:1", "--all", "--preserve-digests"
    )
    return name, raw


def platform_of(store: Images, image: Image) -> str:
    return (store.layers(image)[0] / "platform").read_text()


def test_an_index_is_kept_and_its_platforms_are_chosen(
    hub: Registry, index: tuple[str, bytes], tmp_path: Path
) -> None:
    name, raw = index
    store = Images(tmp_path / "store")
    chosen = {
        "": "linux/amd64" if platform.machine() == "x86_64" else "linux/arm64/v8",
        "linux/arm64": "linux/arm64/v8", "arm": "linux/arm/v7", "linux/arm/v8": "linux/arm/v7",
        "linux/arm/v6": "linux/arm/v6", "linux/s390x": "linux/s390x",
    }  # fmt: skip
    for asked, given in chosen.items():
        image = fetch(store, name, options=Options(asked))
        assert platform_of(store, image) == given
        by_index = f"{hub.host}/multi/arch@{digest_of(raw)}"
        assert store.get(by_index).id == image.id == store.get(name).id
        assert by_index in image.digests
    store.collect()
    assert store.document(digest_of(raw)) == raw
    before = len(hub.requests("/v2/multi/arch/"))
    assert platform_of(store, fetch(store, name, options=Options("linux/s390x"))) == "linux/s390x"
    assert len(hub.requests("/v2/multi/arch/")) == before + 1
    assert len(hub.requests("HEAD", "/v2/multi/arch/manifests/1 200")) > 0
    with pytest.raises(ImageNotFound) as caught:
        fetch(store, name, options=Options("linux/riscv64"))
    assert "linux/arm/v6, linux/arm/v7, linux/arm64" in caught.value.hint
    image = fetch(store, f"{hub.host}/multi/arch@{digest_of(raw)}", options=Options("linux/amd64"))
    assert platform_of(store, image) == "linux/amd64"


def test_every_platform_is_kept_when_wanted(
    hub: Registry, index: tuple[str, bytes], tmp_path: Path
) -> None:
    name, raw = index
    store = Images(tmp_path / "store")
    image = fetch(store, name, options=Options("linux/s390x", all_platforms=True))
    assert platform_of(store, image) == "linux/s390x"
    for item in json.loads(raw)["manifests"]:
        found = store.get(f"{hub.host}/multi/arch@{item['digest']}")
        words = item["platform"].values()
        assert platform_of(store, found) == "/".join(words)
    assert [image.names for image in store.all() if image.names] == [(name,)]


# -- once, and again -----------------------------------------------------------------------------


def big_layer() -> bytes:
    """Two MiB that do not compress."""
    made = Layer()
    made.file("big", os.urandom(2 << 20))
    return made.bytes()


def blob_of(server: Faulty, number: int) -> str:
    """The digest of a layer of the image a server serves."""
    layers = json.loads(server.manifests["latest"][1])["layers"]
    return str(layers[number]["digest"])


def test_a_killed_pull_is_gone_on_with(tmp_path: Path) -> None:
    partial = tmp_path / "store" / "partial"
    with faulty() as server:
        name = server.image([probe_layer().bytes(), big_layer()])
        first, second = blob_of(server, 0), blob_of(server, 1)
        gate = threading.Event()
        fault = server.on(second, cut_after=1 << 20, until=gate)
        child = pulling(name, tmp_path / "store")
        done = tmp_path / "store" / "blobs" / "sha256" / first[7:]
        eventually(lambda: done.exists() and (partial / second[7:]).stat().st_size > 500_000, 30)
        child.kill()
        child.communicate()
        gate.set()
        fault.times = 0
        had = (partial / second[7:]).stat().st_size
        before = len(server.asked)
        store = Images(tmp_path / "store")
        assert store.all() == ()
        image = fetch(store, name)
        again = [(item.path, item.headers.get("Range")) for item in server.asked[before:]]
        assert [path for path, _ in again if first in path] == []
        assert [start for path, start in again if second in path] == [f"bytes={had}-"]
        assert (store.layers(image)[0] / "big").stat().st_size == 2 << 20
        assert not (partial / second[7:]).exists()


def test_processes_download_a_layer_once(tmp_path: Path) -> None:
    partial = tmp_path / "store" / "partial"
    with faulty() as server:
        name = server.image([big_layer()])
        gate = threading.Event()
        server.on(blob_of(server, 0), cut_after=1 << 20, until=gate, times=1)
        children = [pulling(name, tmp_path / "store")]
        eventually(lambda: server.paths(blob_of(server, 0)), 30)
        children += [pulling(name, tmp_path / "store") for _ in range(2)]
        for child in children:
            eventually(lambda child=child: holds(child, partial), 30)  # type: ignore[misc]
        gate.set()
        for child in children:
            child.communicate(timeout=60)
            assert child.returncode == 0
        assert len(server.paths(blob_of(server, 0))) == 1
    assert len(Images(tmp_path / "store").all()) == 1


def test_threads_download_a_layer_once_and_images_share_it(hub: Registry, tmp_path: Path) -> None:
    shared = big_layer()
    names = []
    for number in range(4):
        own = Layer()
        own.file(f"own-{number}", os.urandom(1000))
        (tmp_path / "tar").write_bytes(archive(f"image{number}", shared, own.bytes()))
        names.append(hub.push_with_skopeo(f"docker-archive:{tmp_path}/tar", f"shared/i{number}:1"))
    store = Images(tmp_path / "store")
    steps: list[Step] = []
    threads = [
        threading.Thread(target=fetch, args=(store, name, None, Options(progress=steps.append)))
        for name in names
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(store.all()) == 4
    digest = store.get(names[0]).manifest.layers[0].digest
    assert len(hub.requests("GET", f"/blobs/{digest}")) == 1
    said = [step.status for step in steps if step.id == digest[7:19]]
    assert said.count("Pull complete") == 1
    assert said.count("Already exists") == 3


# -- mirrors and trust ---------------------------------------------------------------------------


def test_a_mirror_is_asked_first_and_may_be_useless(hub: Registry, tmp_path: Path) -> None:
    layer = big_layer()
    (tmp_path / "tar").write_bytes(archive("mirrored", layer))
    name = hub.push_with_skopeo(f"docker-archive:{tmp_path}/tar", "mirrored/image:1")
    with faulty() as mirror:
        mirrors = ["127.0.0.1:1", f"{mirror.host}"]
        hosts = Hosts({hub.host: {"mirrors": mirrors}})
        store = Images(tmp_path / "first")
        image = fetch(store, name, hosts)  # one is not there, one has nothing
        assert len(mirror.paths("/manifests/")) == 1
        blob = image.manifest.layers[0].digest
        for digest in (image.manifest_digest, "1"):
            mirror.manifests[digest] = (MANIFEST, store.document(image.manifest_digest))
        for digest in (blob, image.id):
            mirror.blobs[digest] = store.blob(digest).read_bytes()
        before = len(hub.requests("GET", "/v2/mirrored/"))
        fetch(Images(tmp_path / "second"), name, hosts)  # it has all
        assert len(hub.requests("GET", "/v2/mirrored/")) == before
        mirror.blobs[blob] = mirror.blobs[blob][:-1] + b"x"  # it lies
        fetch(Images(tmp_path / "third"), name, hosts)
        assert len(hub.requests("GET", f"/v2/mirrored/image/blobs/{blob}")) == 2


def test_own_authorities_and_certificates_are_found_where_docker_keeps_them(
    tmp_path: Path, tar: Path
) -> None:
    with registry(tls=True) as closed:
        name = closed.push_with_skopeo(f"docker-archive:{tar}", "tls/busy:1")
        folder = tmp_path / "certs.d" / closed.host
        folder.mkdir(parents=True)
        (folder / "ca.crt").write_bytes(closed.ca.read_bytes())
        for suffix, file in ((".cert", "server.crt"), (".key", "server.key")):
            (folder / f"client{suffix}").write_bytes((closed.folder / file).read_bytes())
        hosts = Hosts({}, [tmp_path / "certs.d"])
        assert hosts.trust(closed.host).identity is not None
        assert fetch(Images(tmp_path / "store"), name, hosts).names == (name,)


def test_a_proxy_of_the_environment_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    registries.authority(tmp_path)
    hosts = Hosts({"registry.test": {"insecure": True}, "registry.test:80": {"insecure": True}})
    with faulty(tmp_path) as secure, faulty() as clear, proxy(secure.host) as tunnel:
        monkeypatch.setenv("HTTPS_PROXY", f"http://me:secret@{tunnel.host}")
        for server in (secure, clear):
            server.image([probe_layer().bytes()])
        fetch(Images(tmp_path / "one"), "registry.test/test", hosts)
        assert set(tunnel.tunnels) == {("registry.test:443", "Basic bWU6c2VjcmV0")}
        assert not any("Proxy-Authorization" in item.headers for item in secure.asked)
        monkeypatch.setenv("HTTPS_PROXY", f"http://{clear.host}")  # which makes no tunnels
        monkeypatch.setenv("HTTP_PROXY", f"http://{clear.host}")
        fetch(Images(tmp_path / "two"), "registry.test:80/test", hosts)
        assert clear.paths("http://registry.test:80/v2/test/manifests/latest")
