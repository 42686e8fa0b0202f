"""What we push, tools nobody here wrote inspect, check and run; how it came there, a log proves."""

from __future__ import annotations

import contextlib
import hashlib
import json
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from proa.image.manifest import OCI_LAYER
from proa.image.store import Images
from tests.conftest import need
from tests.support import dockerd as daemon
from tests.support import registry as registries
from tests.support import schemas
from tests.support.engine import EngineProcess, engine
from tests.support.images import archive, busy_image, busy_layer, probe_layer
from tests.support.paths import PEERS
from tests.support.registry import Registry, registry
from tests.support.users import User

LOGIN = ("anna", "s3cret:pass")


@pytest.fixture(scope="module")
def hub() -> Iterator[Registry]:
    """A registry without logins."""
    need(registries.available(), "registry", "docker-registry, skopeo or htpasswd is missing")
    with registry() as made:
        yield made


@pytest.fixture
def user(session_engine: EngineProcess, tmp_path: Path) -> User:
    return User(session_engine, tmp_path)


@pytest.fixture
def named(user: User, hub: Registry) -> Iterator[Callable[[str], str]]:
    """Gives the busy image a name in the registry; the names go at the end."""
    names: list[str] = []

    def name(path: str) -> str:
        names.append(f"{hub.host}/{path}")
        user.proa("tag", "busy", names[-1])
        return names[-1]

    yield name
    user.try_("rmi", "-f", *names)


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A folder whose path podman does not find too long."""
    with tempfile.TemporaryDirectory(dir="/tmp") as path:
        yield Path(path)


def theirs(*command: str) -> str:
    """What a tool of others prints; it must succeed."""
    done = subprocess.run(command, capture_output=True, timeout=120)
    assert done.returncode == 0, f"{command}: {done.stderr.decode()}"
    return done.stdout.decode()


def sha256(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def pushed(user: User, name: str, *options: str) -> str:
    """Push; the digest that is printed."""
    return user.proa("push", "-q", *options, name).strip().rpartition("@")[2]


# -- others read it -------------------------------------------------------------------------------


def test_the_manifest_is_what_others_see_and_the_schemas_demand(
    user: User, hub: Registry, named: Callable[[str], str]
) -> None:
    name = named("ours/busy:1")
    digest = pushed(user, name)
    raw = hub.inspect_with_skopeo("ours/busy:1")
    assert sha256(raw) == digest
    shown = user.try_("image", "inspect", "--remote", "--raw", name)
    assert shown.stdout == raw
    assert f"{hub.host}/ours/busy@{digest}" in user.inspect(name)["RepoDigests"]
    need(schemas.available(), "schemas", "the schemas of image-spec are not here")
    assert schemas.faults("manifest", json.loads(raw)) == []


def test_crane_validates_every_layer(user: User, named: Callable[[str], str]) -> None:
    need((PEERS / "crane").exists(), "crane", "crane is not here")
    name = named("ours/crane:1")
    user.proa("push", name)
    told = theirs(str(PEERS / "crane"), "validate", "--insecure", "--remote", name)
    assert told.startswith("PASS")


def test_podman_runs_it(user: User, named: Callable[[str], str], short_path: Path) -> None:
    name = named("ours/podman:1")
    user.proa("push", name)
    words = [
        "podman", "--runtime", "runc", "--root", f"{short_path}/r", "--runroot",
        f"{short_path}/rr", "--storage-driver", "vfs", "--cgroup-manager", "cgroupfs",
    ]  # fmt: skip
    limits = ["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1000:1000"]
    options = ["--rm", "--tls-verify=false", "--network=none", "--security-opt=seccomp=unconfined"]
    ran = theirs(*words, "run", *options, *limits, name, "sh", "-c", "echo $FROM_IMAGE")
    assert ran == "yes\n"


def test_buildah_runs_it_from_zstd(
    user: User, hub: Registry, named: Callable[[str], str], short_path: Path
) -> None:
    name = named("ours/buildah:1")
    user.proa("push", "--compression", "zstd", name)
    listed = json.loads(hub.inspect_with_skopeo("ours/buildah:1"))["layers"]
    assert [item["mediaType"] for item in listed] == [f"{OCI_LAYER}+zstd"]
    words = [
        "buildah", "--root", f"{short_path}/r", "--runroot", f"{short_path}/rr",
        "--storage-driver", "vfs",
    ]  # fmt: skip
    container = theirs(*words, "from", "--tls-verify=false", name).strip()
    told = theirs(*words, "run", "--isolation", "chroot", container, "cat", "/etc/group")
    assert "alice" in told
    theirs(*words, "rm", "-a")


def test_docker_runs_it(user: User, named: Callable[[str], str]) -> None:
    need(daemon.available(), "dockerd", "the newest dockerd is not here")
    name = named("ours/docker:1")
    digest = pushed(user, name)
    with daemon.dockerd() as judge:
        judge.run("pull", "-q", name)
        found = json.loads(judge.run("image", "inspect", name).stdout)[0]
        assert f"{name.rpartition(':')[0]}@{digest}" in found["RepoDigests"]
        ran = judge.run("run", "--rm", "--network=none", name, "sh", "-c", "echo $FROM_IMAGE")
        assert ran.stdout == b"yes\n"


# -- how it comes there ---------------------------------------------------------------------------


def test_a_second_push_sends_nothing_and_says_the_same(
    user: User, hub: Registry, named: Callable[[str], str]
) -> None:
    name = named("twice/busy:1")
    first = user.proa("push", name), pushed(user, name)
    before = len(hub.requests("/twice/busy/blobs/uploads/"))
    again = user.try_("push", name)
    assert "Layer already exists" in again.stderr.decode()
    assert first[1] in again.stderr.decode()
    assert len(hub.requests("/twice/busy/blobs/uploads/")) == before


@pytest.mark.parametrize("form", ["v2s2", "oci"])
def test_a_digest_survives_pull_and_push_and_layers_are_mounted(
    user: User, hub: Registry, tmp_path: Path, form: str
) -> None:
    odd = busy_layer()
    odd.file("form", form)  # a layer skopeo has never seen: its cache knows of the zstd one
    layers = odd.bytes(), probe_layer().bytes()
    (tmp_path / "tar").write_bytes(archive("odd", *layers, Labels={"form": form}))
    hub.push_with_skopeo(f"docker-archive:{tmp_path}/tar", f"{form}/from:1", "--format", form)
    raw = hub.inspect_with_skopeo(f"{form}/from:1")
    source, target = f"{hub.host}/{form}/from:1", f"{hub.host}/{form}/to:2"
    user.proa("pull", source)
    user.proa("tag", source, target)
    shown = user.try_("push", target)
    assert shown.stderr.count(f"Mounted from {form}/from".encode()) == len(layers)
    assert hub.inspect_with_skopeo(f"{form}/to:2") == raw
    mounts = hub.requests("POST", f"/{form}/to/blobs/uploads/", f"from={form}%2Ffrom", " 201")
    assert len(mounts) == len(layers) + 1  # and the configuration
    assert hub.requests("PUT", f"/{form}/to/blobs/uploads/") == []
    assert user.proa("run", "--rm", "--network=none", target, "sh", "-c", "echo ok") == "ok\n"
    user.proa("rmi", "-f", source, target)


def test_artifacts_go_along_and_are_found_by_the_fallback_tag(
    user: User, hub: Registry, session_engine: EngineProcess, tmp_path: Path
) -> None:
    need((PEERS / "oras").exists(), "oras", "oras is not here")
    name = f"{hub.host}/about/image:1"
    session_engine.api.load(archive(name, probe_layer().bytes(), Cmd=["/probe"]))
    images = Images(session_engine.root / "images")
    with images.assembly() as assembly:
        kind, content = "application/vnd.example.bill+json", b'{"bill": true}'
        assembly.attach(images.get(name), kind, content, "application/json", {"made": "here"})
    digest = pushed(user, name)
    oras = str(PEERS / "oras")
    found = json.loads(theirs(oras, "discover", "--plain-http", "--format", "json", name))
    listed = found.get("referrers") or found["manifests"]
    assert [item["artifactType"] for item in listed] == [kind]
    assert listed[0]["annotations"]["made"] == "here"
    raw = hub.inspect_with_skopeo(f"about/image@{listed[0]['digest']}")
    assert json.loads(raw)["subject"]["digest"] == digest
    before = hub.inspect_with_skopeo(f"about/image:{digest.replace(':', '-')}")
    user.proa("push", name)  # does not list it twice
    assert hub.inspect_with_skopeo(f"about/image:{digest.replace(':', '-')}") == before
    user.proa("rmi", "-f", name)


# -- logins ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("token", [False, True], ids=["basic", "token"])
def test_logins_by_password_and_by_token(
    user: User, session_engine: EngineProcess, token: bool
) -> None:
    with registry(login=LOGIN, token=token) as closed:
        name = f"{closed.host}/team/busy:1"
        user.proa("tag", "busy", name)
        refused = user.try_("push", name)
        assert refused.returncode == 125 and b"wants a login" in refused.stderr
        wrong = user.try_("login", "-u", "anna", "--password-stdin", closed.host, input=b"wrong")
        assert wrong.returncode == 125 and b"refuses the login" in wrong.stderr
        assert not user.config.exists()
        user.log_in(closed.host, LOGIN)
        digest = pushed(user, name)
        assert sha256(closed.inspect_with_skopeo("team/busy:1")) == digest
        user.proa("rmi", name)
        assert user.proa("run", "--rm", "--network=none", name, "echo", "ok") == "ok\n"
        assert user.proa("image", "tags", name.rpartition(":")[0]) == "1\n"
        user.proa("logout", closed.host)
        again = user.try_("pull", name)
        assert again.returncode == 125 and b"wants a login" in again.stderr
        user.proa("rmi", "-f", name)
        if closed.token_server:
            assert "repository:team/busy:pull,push" in closed.token_server.scopes
    assert LOGIN[1] not in session_engine.log.read_text()


def test_a_login_of_a_credential_helper(user: User, tmp_path: Path) -> None:
    script = f"""#!/bin/sh
file={tmp_path}/kept
echo "$1" >> {tmp_path}/asked
case $1 in
store) cat > $file ;;
erase) rm $file ;;
get) test -f $file && exec cat $file; echo "credentials not found in native keychain"; exit 1 ;;
esac
"""
    program = tmp_path / "docker-credential-test"
    program.write_text(script)
    program.chmod(0o755)
    user.config.parent.mkdir()
    user.config.write_text(json.dumps({"credsStore": "test"}))
    helped = User(user.engine, user.home, {"PATH": f"{tmp_path}:/usr/bin:/bin:/usr/sbin:/sbin"})
    with registry(login=LOGIN) as closed:
        name = f"{closed.host}/helped/busy:1"
        helped.proa("tag", "busy", name)
        helped.log_in(closed.host, LOGIN)
        assert LOGIN[1] not in helped.config.read_text()
        helped.proa("push", name)
        helped.proa("logout", closed.host)
        assert not (tmp_path / "kept").exists()
        assert helped.try_("push", name).returncode == 125
        helped.proa("rmi", "-f", name)
    assert (tmp_path / "asked").read_text().split()[:2] == ["store", "get"]


def test_tls_by_an_authority_of_the_configuration(tmp_path: Path) -> None:
    with contextlib.ExitStack() as stack:
        closed = stack.enter_context(registry(tls=True, login=LOGIN))
        strange = stack.enter_context(registry(tls=True))
        (tmp_path / "proa.toml").write_text(f'[registry."{closed.host}"]\nca = "{closed.ca}"\n')
        own = stack.enter_context(engine(PROA_CONFIG=str(tmp_path / "proa.toml")))
        own.api.load(busy_image())
        user = User(own, tmp_path)
        user.log_in(closed.host, LOGIN)
        for host in (closed.host, strange.host):
            user.proa("tag", "busy", f"{host}/tls/busy:1")
        digest = pushed(user, f"{closed.host}/tls/busy:1")
        assert sha256(closed.inspect_with_skopeo("tls/busy:1")) == digest
        refused = user.try_("push", f"{strange.host}/tls/busy:1")
        assert refused.returncode == 125 and b"is not trusted" in refused.stderr
        assert strange.requests("/tls/") == []


def test_podmans_logins_are_read(user: User, tmp_path: Path) -> None:
    with registry(login=LOGIN) as closed:
        file = tmp_path / "auth.json"
        done = subprocess.run(
            ["skopeo", "login", "--tls-verify=false", "--authfile", str(file), "-u", LOGIN[0],
             "--password-stdin", closed.host], input=LOGIN[1].encode(), capture_output=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        theirs = User(user.engine, user.home, {"REGISTRY_AUTH_FILE": str(file)})
        name = f"{closed.host}/podmans/busy:1"
        theirs.proa("tag", "busy", name)
        theirs.proa("push", name)
        theirs.proa("rmi", "-f", name)
