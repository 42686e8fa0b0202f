"""Registries through the commands and the API: what users of `proa`, `docker` and the SDK see."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from proa.client import Client
from proa.client.values import Progress
from proa.errors import ImageNotFound, Unauthorized
from tests.conftest import need
from tests.support import registry as registries
from tests.support.engine import EngineProcess
from tests.support.faulty import INDEX, Faulty, faulty
from tests.support.http import ApiError, Request, UnixConnection, send
from tests.support.images import Layer, archive, probe_layer
from tests.support.instances import Api
from tests.support.registry import Registry, registry
from tests.support.users import User

LOGIN = ("anna", "s3cret:pass")
NETWORK = "--network=none"


@pytest.fixture(scope="module")
def closed() -> Iterator[Registry]:
    """A registry that wants a login."""
    need(registries.available(), "registry", "docker-registry, skopeo or htpasswd is missing")
    with registry(login=LOGIN) as made:
        yield made


@pytest.fixture
def user(session_engine: EngineProcess, tmp_path: Path) -> User:
    return User(session_engine, tmp_path)


@pytest.fixture
def server() -> Iterator[Faulty]:
    with faulty() as made:
        yield made


# -- docker ---------------------------------------------------------------------------------------


def test_dockers_client_logs_in_pushes_pulls_and_runs_what_is_missing(
    user: User, closed: Registry
) -> None:
    name = f"{closed.host}/docker/busy:1"
    wrong = user.run(
        "docker", "login", "-u", "anna", "--password-stdin", closed.host, input=b"wrong"
    )
    assert wrong.returncode == 1 and b"refuses the login" in wrong.stderr
    user.docker("tag", "busy", name)
    assert user.run("docker", "push", name).returncode == 1
    words = ("login", "-u", LOGIN[0], "--password-stdin", closed.host)
    assert "Login Succeeded" in user.docker(*words, input=LOGIN[1].encode())
    told = user.docker("push", name)
    assert "The push refers to repository" in told and "1: digest: sha256:" in told
    user.docker("rmi", name)
    ran = user.run("docker", "run", "--rm", NETWORK, name, "echo", "ok")
    assert ran.stdout == b"ok\n" and b"Unable to find image" in ran.stderr
    assert "Image is up to date" in user.docker("pull", name)
    assert f"{closed.host}/docker/busy:1" in user.docker("pull", "-q", name)
    user.docker("logout", closed.host)
    assert user.run("docker", "pull", name).returncode == 1
    user.docker("rmi", "-f", name)


# -- proa -----------------------------------------------------------------------------------------


def test_run_pulls_as_it_is_told(user: User, closed: Registry) -> None:
    name = f"{closed.host}/pulls/busy:1"
    user.log_in(closed.host, LOGIN)
    user.proa("tag", "busy", name)
    user.proa("push", name)
    user.proa("rmi", name)
    never = user.try_("run", "--pull", "never", "--rm", NETWORK, name, "echo", "ok")
    assert never.returncode == 125 and b"No such image" in never.stderr
    missing = user.try_("create", NETWORK, name, "echo", "ok")
    assert missing.returncode == 0 and b"Unable to find image" in missing.stderr
    user.proa("rm", missing.stdout.decode().strip())
    there = user.try_("run", "--rm", NETWORK, name, "echo", "ok")
    assert (there.stdout, there.stderr) == (b"ok\n", b"")
    always = user.try_("run", "--pull", "always", "--rm", NETWORK, name, "echo", "ok")
    assert always.stdout == b"ok\n" and b"Image is up to date" in always.stderr
    absent = user.try_("run", "--rm", NETWORK, f"{closed.host}/pulls/none", "true")
    assert absent.returncode == 125 and b"not found" in absent.stderr
    user.proa("rmi", "-f", name)


def test_remote_images_are_listed_inspected_and_removed(user: User, closed: Registry) -> None:
    repository = f"{closed.host}/remote/busy"
    user.log_in(closed.host, LOGIN)
    for tag in ("1", "2"):
        user.proa("tag", "busy", f"{repository}:{tag}")
    user.proa("push", "--all-tags", repository)
    listed = user.proa("image", "tags", repository).split()
    assert [tag for tag in listed if not tag.startswith("sha256-")] == ["1", "2"]  # referrers apart
    assert json.loads(user.proa("tags", "--format", "json", repository).splitlines()[0]) == {
        "Tag": "1", "Name": f"{repository}:1",
    }  # fmt: skip
    user.proa("rmi", f"{repository}:1", f"{repository}:2")
    (found,) = json.loads(user.proa("image", "inspect", "--remote", f"{repository}:1"))
    assert found["Config"]["config"]["Cmd"] == ["sh"]
    assert found["ManifestDigest"] == found["Descriptor"]["digest"]
    assert user.try_("image", "inspect", f"{repository}:1").returncode == 125  # it was not pulled
    user.proa("pull", "--all-tags", repository)
    assert {f"{repository}:1", f"{repository}:2"} <= set(user.inspect("busy")["RepoTags"])
    user.proa("rmi", "-f", f"{repository}:1", f"{repository}:2")
    told = user.proa("image", "rm", "--remote", f"{repository}:1")
    assert found["ManifestDigest"] in told
    assert user.try_("image", "inspect", "--remote", f"{repository}:1").returncode == 125


def test_a_platform_is_chosen_from_an_index(user: User, server: Faulty) -> None:
    listed = []
    for machine in ("amd64", "arm64"):
        server.image([probe_layer().bytes()], machine, architecture=machine)
        kind, data = server.manifests[machine]
        listed.append(
            server.document(kind, data, machine)
            | {"platform": {"os": "linux", "architecture": machine}}
        )
    document = {"schemaVersion": 2, "mediaType": INDEX, "manifests": listed}
    server.document(INDEX, document, "both")
    name = f"{server.host}/test:both"
    made = user.proa("create", "--platform", "linux/arm64", NETWORK, name, "/probe").strip()
    assert user.inspect(name)["Architecture"] == "arm64"
    user.proa("rm", made)
    made = user.proa("create", "--platform", "linux/amd64", NETWORK, name, "/probe").strip()
    assert user.inspect(name)["Architecture"] == "amd64"
    user.proa("rm", made)
    (found,) = json.loads(user.proa("inspect", "--remote", "--platform", "linux/arm64", name))
    assert found["Config"]["architecture"] == "arm64"
    assert found["Platforms"] == ["linux/amd64", "linux/arm64"]
    asked = user.engine.api.json("GET", f"/distribution/{name}/json")
    assert asked["Platforms"] == [item["platform"] for item in listed]
    user.proa("rmi", "-f", name)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("pull", "-a", "x:1"), b"has a tag already"), (("push", "UPPER"), b"invalid image name"),
        (("login", "-p", "x", "--password-stdin"), b"contradicts"),
        (("login", "--password-stdin"), b"needs '--username'"),
        (("login", "localhost:1"), b"no user and password"),
        (("push", "not-here/at-all:1"), b"does not exist locally"),
        (("inspect", "--raw", "x"), b"needs '--remote'"),
        (("pull", "--platform", "a b", "localhost:1/x"), b"platform"),
        (("push", "--compression", "lzma", "busy"), b"unknown compression"),
    ],
)  # fmt: skip
def test_mistakes_are_said_in_one_line(user: User, words: tuple[str, ...], said: bytes) -> None:
    done = user.try_(*words)
    assert done.returncode == 125 and said in done.stderr, done.stderr
    assert len(done.stderr.splitlines()) <= 3


# -- the API --------------------------------------------------------------------------------------


def messages(api: Api, path: str, **query: Any) -> list[Any]:
    """A stream of progress, read to its end."""
    answer = send(api.socket, Request("POST", path, query)).read()
    return [json.loads(line) for line in answer.splitlines()]


def test_progress_has_dockers_words_and_shape(api: Api, server: Faulty) -> None:
    fresh = Layer()
    fresh.file("f", b"a layer the engine has not got")
    name = server.image([fresh.bytes()])
    told = messages(api, "/images/create", fromImage=name.rpartition(":")[0], tag="latest")
    assert told[0] == {"status": "Pulling from test", "id": "latest"}
    layers = [item for item in told if "progressDetail" in item]
    assert {item["id"] for item in layers} == {layers[0]["id"]} and len(layers[0]["id"]) == 12
    assert layers[0]["status"] == "Pulling fs layer"
    assert layers[-1]["status"] == "Pull complete"
    assert told[-2]["status"].startswith("Digest: sha256:")
    assert told[-1] == {"status": f"Status: Downloaded newer image for {name}"}
    api.call("DELETE", f"/images/{name}")


def test_errors_come_as_docker_has_them(api: Api, server: Faulty) -> None:
    with pytest.raises(ApiError) as early:
        messages(api, "/images/create", fromImage=f"{server.host}/absent", tag="1")
    assert early.value.status == 404
    broken = Layer()
    broken.file("f", b"x" * 100_000)
    name = server.image([broken.bytes()])
    (layer,) = json.loads(server.manifests["latest"][1])["layers"]
    server.on(layer["digest"], body=b"y" * layer["size"])
    told = messages(api, "/images/create", fromImage=name)
    assert told[-1]["error"] == told[-1]["errorDetail"]["message"]
    with pytest.raises(ApiError):
        api.call("GET", f"/images/{name}/json")


@pytest.mark.parametrize("header", ["%%%", base64.b64encode(b"[]").decode()])
def test_a_malformed_login_is_the_clients_fault(api: Api, server: Faulty, header: str) -> None:
    connection = UnixConnection(api.socket)
    path = f"/v1.41/images/create?fromImage={server.host}/test&tag=latest"
    connection.request("POST", path, headers={"X-Registry-Auth": header})
    assert connection.getresponse().status == 400
    assert server.asked == []


def test_searching_is_refused_plainly(api: Api) -> None:
    with pytest.raises(ApiError) as refused:
        api.call("GET", "/images/search", term="debian")
    assert refused.value.status == 501


def test_events_tell_of_pull_and_push(api: Api, user: User, closed: Registry) -> None:
    name = f"{closed.host}/events/busy:1"
    user.log_in(closed.host, LOGIN)
    user.proa("tag", "busy", name)
    user.proa("push", name)
    user.proa("pull", name)
    filters = {"type": ["image"], "event": ["push", "pull"]}
    answer = api.call("GET", "/events", since=1, until=f"{time.time():.6f}", filters=filters)
    events = [json.loads(line) for line in answer.splitlines()]
    mine = [item["Action"] for item in events if item["Actor"]["ID"] == name]
    assert mine == ["push", "pull"]
    user.proa("rmi", "-f", name)


# -- the SDK --------------------------------------------------------------------------------------


def test_the_sdk_pulls_pushes_and_lists(
    session_engine: EngineProcess, closed: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    name = f"{closed.host}/sdk/probe:1"
    session_engine.api.load(archive(name, probe_layer().bytes(), Cmd=["/probe"]))
    steps: list[Progress] = []
    with Client(f"unix://{session_engine.socket}") as client:
        with pytest.raises(Unauthorized):
            client.push(name)
        with pytest.raises(Unauthorized):
            client.login(closed.host, LOGIN[0], "wrong")
        client.login(closed.host, *LOGIN)
        digest = client.push(name, progress=steps.append)
        assert "Pushed" in [step.status for step in steps] and digest.startswith("sha256:")
        client.remove_image(name)
        client.pull(name, progress=steps.append)
        assert steps[-1].status == f"Status: Downloaded newer image for {name}"
        assert client.tags(name) == ["1"]
        with pytest.raises(ImageNotFound):
            client.pull(f"{closed.host}/sdk/none")
        client.remove_image(name)
