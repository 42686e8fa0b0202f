"""Forks: a running vm goes on in several, each a machine of its own."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from functools import partial

from tests.support.copies import (
    SERVER,
    address,
    counted,
    counting,
    fork,
    goes_on,
    own,
    page,
    port,
    refusal,
)
from tests.support.engine import EngineProcess
from tests.support.http import ApiError, read_all
from tests.support.instances import Instance, Place, eventually

FACTS = """
    hostname; cat /etc/hostname /etc/machine-id /sys/class/net/eth0/address
    head -c 16 /dev/urandom | md5sum
    ip -4 addr show eth0 | grep -o 'inet [0-9.]*'
"""


def facts(instance: Instance) -> list[str]:
    return instance.exec("sh", "-c", FACTS).stdout.split("\n")


def test_a_copy_goes_on_as_a_machine_of_its_own(vm: Place) -> None:
    source = counting(vm, SERVER, PortBindings={"80/tcp": [{"HostPort": ""}]})
    source.exec("sh", "-c", "echo before > /before")
    at_fork = max(counted(source))
    one, two = fork(vm, source, 2)
    instances = (source, one, two)

    for copy in (one, two):  # the very process, its memory and its number
        assert min(eventually(partial(counted, copy), 20)) >= at_fork
        assert copy.inspect()["Proa"]["StartedBy"] == "fork"
    for instance in instances:
        goes_on(instance)
        numbers = counted(instance)
        assert numbers == list(range(numbers[0], numbers[-1] + 1))  # nothing lost, nothing twice

    told = [facts(instance) for instance in instances]
    for column in list(zip(*told, strict=True))[:6]:
        assert len(set(column)) == 3, column
    for instance, found in zip(instances, told, strict=True):
        assert found[0] == found[1] == instance.id[:12]
        assert found[2] == instance.id[:32]
        assert found[5] == f"inet {address(instance)}"

    for number, instance in enumerate(instances):  # memory and disks part ways
        instance.exec("sh", "-c", f"echo {number} > /www/index.html; sync")
    for number, instance in enumerate(instances):
        assert instance.exec("cat", "/before").stdout == "before\n"
        assert eventually(partial(page, address(instance)), 10) == f"{number}\n"
        assert page("127.0.0.1", port(instance)) == f"{number}\n"
    assert len({port(instance) for instance in instances}) == 3

    source.remove()  # nobody needs the source
    goes_on(one)
    two.exec("sh", "-c", "kill -9 1; kill $(pidof httpd)")
    (child,) = fork(vm, one)
    one.remove()
    goes_on(child)
    assert child.exec("cat", "/www/index.html").stdout == "1\n"


def test_a_copy_can_be_stopped_and_started_on_its_disk(vm: Place) -> None:
    source = counting(vm)
    source.exec("sh", "-c", "echo kept > /kept; sync")
    (copy,) = fork(vm, source)
    copy.exec("sh", "-c", "echo mine > /mine; sync")
    copy.stop(0)
    assert copy.state()["ExitCode"] == 137
    copy.start()
    assert copy.exec("cat", "/kept", "/mine").stdout == "kept\nmine\n"
    assert goes_on(source) and source.exec("ls", "/mine").code


def test_what_runs_beside_goes_on_too(vm: Place) -> None:
    """An exec's process lives on in the copy without its client; the source keeps both."""
    source = counting(vm)
    identity = source.exec_create("sh", "-c", "read line; echo got $line", stdin=True)
    stream = source.exec_start(identity)
    eventually(lambda: "read line" in source.exec("ps").stdout)
    (copy,) = fork(vm, source)
    assert "read line" in copy.exec("ps").stdout
    stream.sendall(b"this\n")
    assert b"got this" in read_all(stream)
    assert eventually(lambda: source.exec_inspect(identity)["ExitCode"] == 0)
    assert "read line" in copy.exec("ps").stdout


def test_without_a_network(vm: Place) -> None:
    source = counting(vm, NetworkMode="none")
    (copy,) = fork(vm, source)
    goes_on(copy)
    assert copy.exec("cat", "/etc/hostname").stdout.strip() == copy.id[:12]


def test_forks_that_cannot_be(vm: Place, container: Place, tmp_path: object) -> None:
    api, before = vm.api, vm.api.ids()
    source = counting(vm)
    path = f"/proa/instances/{source.id}/fork"
    assert refusal(api, "POST", path, count=0x10000)[0] == 400
    assert refusal(api, "POST", path, name="not a name")[0] == 400
    taken = source.inspect()["Name"].strip("/")
    assert refusal(api, "POST", path, name=taken)[0] == 409
    api.call("POST", f"{source.path}/pause")
    assert refusal(api, "POST", path)[0] == 409
    api.call("POST", f"{source.path}/unpause")
    other = container.start("busy", "sleep", "1000")
    status, said = refusal(api, "POST", f"/proa/instances/{other.id}/fork")
    assert status == 501 and "container" in said
    shared = vm.start("busy", "sleep", "1000", host={"Binds": [f"{tmp_path}:/shared"]})
    status, said = refusal(api, "POST", f"/proa/instances/{shared.id}/fork")
    assert status == 501 and "cannot be duplicated" in said
    assert shared.exec("true").code == 0
    source.stop(0)
    assert refusal(api, "POST", path)[0] == 409
    assert api.ids() - before == {source.id, other.id, shared.id}


def test_killing_the_engine_leaves_the_source_running(
    vm: Place, session_engine: EngineProcess
) -> None:
    """At whatever moment of a fork: the source goes on, copies are whole or not there."""
    source = counting(vm)
    known = vm.api.ids()
    for delay in (0.02, 0.1):
        failed = threading.Thread(target=_attempt, args=(source,))
        failed.start()
        time.sleep(delay)  # a moment of the fork, not an event to wait for
        session_engine.kill()
        failed.join()
        session_engine.start()
        goes_on(source)
        assert source.exec("true").code == 0
        for identity in vm.api.ids() - known:
            copy = Instance(vm.api, identity)
            goes_on(copy)
            copy.remove()
    fork(vm, source)
    instances = session_engine.root / "instances"
    assert set(os.listdir(instances)) == vm.api.ids()


def _attempt(source: Instance) -> None:
    with contextlib.suppress(ApiError, OSError, ValueError):  # the engine is killed under it
        own(source, "POST", "/fork")
