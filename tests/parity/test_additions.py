"""Networks, volumes and folders that come and go while an instance runs, and stay remembered."""

from __future__ import annotations

import json
import secrets
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from proa.client import Client
from tests.support.engine import EngineProcess
from tests.support.http import ApiError
from tests.support.instances import Api, Instance, Json, Place, eventually


@pytest.fixture
def network(api: Api) -> Iterator[Callable[..., str]]:
    """Makes networks, by name; they are removed in the end."""
    made: list[str] = []

    def make(**wanted: object) -> str:
        name = f"net-{secrets.token_hex(4)}"
        api.json("POST", "/networks/create", {"Name": name, **wanted})
        made.append(name)
        return name

    yield make
    for name in made:
        for member in api.json("GET", f"/networks/{name}")["Containers"]:
            api.call("DELETE", f"/containers/{member}", force=1)
        api.call("DELETE", f"/networks/{name}")


def idle(place: Place, **wanted: object) -> Instance:
    """One that only waits."""
    return place.start("busy", "sleep", "1000", **wanted)


def join(instance: Instance, network: str, **settings: object) -> None:
    """POST /networks/{id}/connect."""
    body: Json = {"Container": instance.id, "EndpointConfig": settings}
    instance.api.call("POST", f"/networks/{network}/connect", body)


def leave(instance: Instance, network: str) -> None:
    """POST /networks/{id}/disconnect."""
    instance.api.call("POST", f"/networks/{network}/disconnect", {"Container": instance.id})


def addresses(instance: Instance) -> dict[str, str]:
    """Its address in each network."""
    networks = instance.inspect()["NetworkSettings"]["Networks"]
    return {name: found["IPAddress"] for name, found in networks.items()}


def reaches(instance: Instance, name: str) -> bool:
    """Whether one packet comes back."""
    return instance.exec("ping", "-c", "1", "-W", "2", name).code == 0


def test_members_of_a_network_know_each_other_by_name(
    place: Place, container: Place, network: Callable[..., str]
) -> None:
    name = network()
    endpoints = {"EndpointsConfig": {name: {"Aliases": ["store"]}}}
    server = idle(
        container, name=f"db-{name}", host={"NetworkMode": name}, NetworkingConfig=endpoints
    )
    client = idle(place, name=f"app-{name}", host={"NetworkMode": name})
    assert reaches(client, f"db-{name}") and reaches(client, "store")
    assert eventually(lambda: reaches(server, f"app-{name}"))
    members = place.api.json("GET", f"/networks/{name}")["Containers"]
    assert set(members) == {server.id, client.id}
    server.remove()
    assert eventually(lambda: "store" not in client.exec("cat", "/etc/hosts").stdout)


def test_joined_and_left_while_it_runs(
    place: Place, container: Place, network: Callable[..., str]
) -> None:
    name = network(IPAM={"Config": [{"Subnet": "10.222.7.0/24", "Gateway": "10.222.7.9"}]})
    peer = idle(container, name=f"peer-{name}", host={"NetworkMode": name})
    instance = idle(place)
    assert not reaches(instance, addresses(peer)[name])
    join(instance, name, Aliases=["guest"], IPAMConfig={"IPv4Address": "10.222.7.44"})
    assert addresses(instance)[name] == "10.222.7.44"
    assert "10.222.7.44" in instance.exec("ip", "addr", "show", "eth1").stdout
    assert reaches(instance, f"peer-{name}")
    assert eventually(lambda: reaches(peer, "guest"))
    assert {"eth0", "eth1"} == set(statistics(instance))
    instance.api.call("POST", f"{instance.path}/restart", t=0)
    assert addresses(instance)[name] == "10.222.7.44"
    assert reaches(instance, f"peer-{name}")
    leave(instance, name)
    assert set(addresses(instance)) == {"bridge"}
    assert instance.exec("cat", "/sys/class/net/eth1/address").code != 0
    with pytest.raises(ApiError, match="is not connected") as caught:
        leave(instance, name)
    assert caught.value.status == 409


def statistics(instance: Instance) -> Json:
    """Counters by interface."""
    found = instance.api.json("GET", f"{instance.path}/stats", stream=0)
    return dict(found["networks"])


def test_the_way_out_moves_to_another_network(place: Place, network: Callable[..., str]) -> None:
    name = network()
    instance = idle(place)
    join(instance, name)
    leave(instance, "bridge")
    gateway = place.api.json("GET", f"/networks/{name}")["IPAM"]["Config"][0]["Gateway"]
    assert f"default via {gateway}" in instance.exec("ip", "route").stdout
    assert reaches(instance, gateway)
    join(instance, "bridge")
    assert set(addresses(instance)) == {"bridge", name}
    assert reaches(instance, addresses(idle(place))["bridge"])


def test_an_internal_network_leads_nowhere(place: Place, network: Callable[..., str]) -> None:
    name = network(Internal=True)
    instance = idle(place, host={"NetworkMode": name})
    assert "default" not in instance.exec("ip", "route").stdout
    assert not reaches(instance, "198.51.100.1")


def test_networks_in_use_and_their_own_names(place: Place, network: Callable[..., str]) -> None:
    name = network(Labels={"a": "b"})
    with pytest.raises(ApiError, match="already exists"):
        place.api.json("POST", "/networks/create", {"Name": name})
    idle(place, host={"NetworkMode": name})
    with pytest.raises(ApiError, match="has active endpoints"):
        place.api.call("DELETE", f"/networks/{name}")
    filters = json.dumps({"label": ["a=b"]})
    assert place.api.json("POST", "/networks/prune", filters=filters)["NetworksDeleted"] is None
    found = place.api.json("GET", "/networks", filters=filters)
    assert [item["Name"] for item in found] == [name]
    with pytest.raises(ApiError) as caught:
        place.create("busy", "true", host={"NetworkMode": "nowhere"})
    assert caught.value.status == 404
    alone = place.start("busy", "sleep", "1000", host={"NetworkMode": "none"})
    with pytest.raises(ApiError, match="private"):
        join(alone, name)


# -- volumes and folders --------------------------------------------------------------------------


def add(instance: Instance, **mount: object) -> None:
    """POST /proa/instances/{id}/mounts."""
    instance.api.call("POST", f"/proa/instances/{instance.id}/mounts", dict(mount))


def take(instance: Instance, what: str) -> None:
    """DELETE /proa/instances/{id}/mounts."""
    instance.api.call("DELETE", f"/proa/instances/{instance.id}/mounts", of=what)


def test_a_volume_comes_and_goes(place: Place) -> None:
    name = f"vol-{secrets.token_hex(4)}"
    instance = idle(place)
    add(instance, Type="volume", Source=name, Target="/data")
    assert instance.exec("sh", "-c", "echo kept > /data/file && chown 33 /data/file").code == 0
    instance.api.call("POST", f"{instance.path}/restart", t=0)
    assert instance.exec("stat", "-c", "%u", "/data/file").stdout == "33\n"
    assert [item["Name"] for item in instance.inspect()["Mounts"]] == [name]
    take(instance, name)
    assert instance.exec("ls", "/data").stdout == ""
    assert instance.inspect()["Mounts"] == []
    add(instance, Type="volume", Source=name, Target="/again", ReadOnly=True)
    assert instance.exec("cat", "/again/file").stdout == "kept\n"
    assert instance.exec("touch", "/again/other").code != 0
    instance.remove()
    place.api.call("DELETE", f"/volumes/{name}")


def test_a_folder_beside_one_given_at_the_start(place: Place, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    for folder in (first, second):
        folder.mkdir()
        (folder / "name").write_text(folder.name)
    tmp_path.chmod(0o755)
    instance = idle(place, host={"Binds": [f"{first}:/first"]})
    add(instance, Type="bind", Source=str(second), Target="/deep/second")
    assert instance.exec("cat", "/first/name", "/deep/second/name").stdout == "firstsecond"
    take(instance, "/first")
    assert instance.exec("cat", "/first/name").code != 0
    assert instance.exec("cat", "/deep/second/name").stdout == "second"


def test_additions_that_cannot_be(place: Place, tmp_path: Path) -> None:
    instance = idle(place)
    add(instance, Type="volume", Source="twice", Target="/data")
    for mount, status in (
        ({"Type": "volume", "Source": "other", "Target": "/data"}, 409),
        ({"Type": "bind", "Source": str(tmp_path / "nothing"), "Target": "/x"}, 400),
        ({"Type": "tmpfs", "Target": "/x"}, 400),
        ({"Type": "volume", "Source": "v", "Target": "/../x"}, 400),
    ):
        with pytest.raises(ApiError) as caught:
            add(instance, **mount)
        assert caught.value.status == status, mount
    with pytest.raises(ApiError) as caught:
        take(instance, "nothing")
    assert caught.value.status == 404
    instance.remove()
    place.api.call("DELETE", "/volumes/twice")


# -- disks ----------------------------------------------------------------------------------------


def test_a_disk_comes_stays_and_goes(vm: Place, tmp_path: Path) -> None:
    path = tmp_path / "disk.raw"
    path.write_bytes(b"from outside".ljust(1 << 20, b"\0"))
    instance = idle(vm)
    disks = f"/proa/instances/{instance.id}/disks"
    first = vm.api.json("POST", disks, {"Path": str(path)})["Name"]
    second = vm.api.json("POST", disks, {"Size": 8 << 20})["Name"]
    assert instance.exec("head", "-c", "12", f"/dev/{first}").stdout == "from outside"
    write = f"echo -n from inside > /dev/{first}; echo mine > /dev/{second}; sync"
    assert instance.exec("sh", "-c", write).code == 0
    assert eventually(lambda: path.read_bytes().startswith(b"from inside"))
    instance.api.call("POST", f"{instance.path}/restart", t=0)
    assert instance.exec("head", "-n", "1", f"/dev/{second}").stdout == "mine\n"
    vm.api.call("DELETE", disks, of=first)
    assert instance.exec("head", "-c", "1", f"/dev/{first}").code != 0
    with pytest.raises(ApiError, match="no disk"):
        vm.api.call("POST", disks, {"Path": str(tmp_path)})


def test_a_container_has_no_disks(container: Place) -> None:
    instance = idle(container)
    with pytest.raises(ApiError, match="attach a volume") as caught:
        container.api.call("POST", f"/proa/instances/{instance.id}/disks", {"Size": 1 << 20})
    assert caught.value.status == 501


# -- by the SDK, and by docker's own client --------------------------------------------------------


def test_networks_by_dockers_client(
    place: Place, session_engine: EngineProcess, require_program: Callable[[str], str]
) -> None:
    host = f"unix://{session_engine.socket}"

    def docker(*words: str) -> str:
        command = [require_program("docker"), "-H", host, *words]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    name = f"net-{secrets.token_hex(4)}"
    docker("network", "create", "--subnet", "10.222.9.0/24", "--label", "x=y", name)
    run = ("run", "-d", "--isolation", place.isolation, "--network", name)
    identity = docker(*run, "--network-alias", "alias", "busy", "sleep", "1000")
    place.made.append(Instance(place.api, identity))
    assert docker("exec", identity, "ping", "-c", "1", "alias")
    docker("network", "connect", "bridge", identity)
    docker("network", "disconnect", name, identity)
    assert identity not in docker("network", "inspect", name)
    docker("update", "--memory", "300m", "--memory-swap", "300m", identity)
    assert name in docker("network", "ls")
    assert docker("network", "rm", name) == name


def test_changes_by_the_sdk(
    place: Place, network: Callable[..., str], session_engine: EngineProcess
) -> None:
    name = network()
    instance = idle(place)
    with Client(f"unix://{session_engine.socket}") as client:
        found = client.get(instance.id)
        found.update(Memory=300 << 20)
        found.connect(name, aliases=["me"])
        assert found.inspect()["HostConfig"]["Memory"] == 300 << 20
        assert reaches(instance, "me")
        found.disconnect(name)
        found.attach_volume("by-the-sdk", "/data")
        assert instance.exec("touch", "/data/x").code == 0
        found.detach_volume("/data")
        assert instance.exec("ls", "/data/x").code != 0
    instance.remove()
    place.api.call("DELETE", "/volumes/by-the-sdk")
