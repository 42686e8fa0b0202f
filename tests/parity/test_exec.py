"""Further commands in a running instance land inside the very same place."""

from __future__ import annotations

import pytest

from tests.support.http import ApiError
from tests.support.instances import Instance, Place, eventually, raw


@pytest.fixture
def running(place: Place) -> Instance:
    """An instance to exec in."""
    script = "echo from main >/file; echo ready; sleep 1000"
    instance = place.start("busy", "sh", "-c", script, Env=["SETTING=yes"])
    eventually(lambda: "ready" in instance.logs().stdout)
    return instance


def test_same_files_kernel_network_and_processes(running: Instance) -> None:
    assert running.exec("cat", "/file").stdout == "from main\n"
    kernels = {running.exec("uname", "-r").stdout.strip() for _ in range(2)}
    assert kernels == {running.inspect()["Proa"]["Kernel"]}
    address = running.inspect()["NetworkSettings"]["IPAddress"]
    assert address
    assert address in running.exec("ip", "addr").stdout
    assert "sleep 1000" in running.exec("ps").stdout
    namespaces = "for n in pid net mnt ipc uts; do readlink /proc/$0/ns/$n; done"
    assert (
        running.exec("sh", "-c", namespaces, "1").stdout
        == running.exec("sh", "-c", namespaces.replace("$0", "self")).stdout
    )


def test_exit_codes(running: Instance) -> None:
    assert running.exec("sh", "-c", "exit 6").code == 6
    assert running.exec("sh", "-c", "kill -9 $$").code == 137
    assert running.state()["Running"]


@pytest.mark.parametrize(("command", "code"), [("no-such", 127), ("/etc/not-a-program", 126)])
def test_a_command_that_cannot_start(running: Instance, command: str, code: int) -> None:
    """As dockerd does it: the reason comes over the stream, the code by inspect."""
    identity = running.exec_create(command)
    with running.exec_start(identity) as stream:
        assert command in raw(stream).stdout
    assert running.exec_inspect(identity)["ExitCode"] == code


def test_streams(running: Instance) -> None:
    result = running.exec("sh", "-c", "cat; echo err >&2", stdin=b"in\n")
    assert (result.stdout, result.stderr) == ("in\n", "err\n")
    assert "err" not in running.logs().stderr


def test_user_environment_and_directory(running: Instance) -> None:
    result = running.exec(
        "sh", "-c", "id -un; pwd; echo $A $SETTING", User="alice", WorkingDir="/tmp", Env=["A=b"]
    )
    assert result.stdout.split() == ["alice", "/tmp", "b", "yes"]


def test_terminal_and_resize(running: Instance) -> None:
    identity = running.exec_create("sh", "-c", "read line; stty size", stdin=True, Tty=True)
    with running.exec_start(identity, tty=True) as stream:
        running.api.call("POST", f"/exec/{identity}/resize", h=40, w=99)
        stream.sendall(b"go\r")
        assert "40 99" in raw(stream).stdout
    assert running.exec_inspect(identity)["ExitCode"] == 0


def test_a_working_directory_that_is_missing(running: Instance) -> None:
    identity = running.exec_create("pwd", WorkingDir="/no/such")
    with running.exec_start(identity) as stream:
        assert "/no/such" in raw(stream).stdout
    assert running.exec_inspect(identity)["ExitCode"] == 127


def test_detached(running: Instance) -> None:
    identity = running.exec_create("sh", "-c", "echo done >/detached")
    running.api.call("POST", f"/exec/{identity}/start", {"Detach": True})
    eventually(lambda: running.exec("cat", "/detached").stdout == "done\n")
    assert not running.exec_inspect(identity)["Running"]


def test_many_at_once(running: Instance) -> None:
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(6) as pool:
        results = list(pool.map(lambda n: running.exec("echo", str(n)).stdout, range(12)))
    assert results == [f"{n}\n" for n in range(12)]


def test_its_output_comes_whole(running: Instance) -> None:
    result = running.exec("sh", "-c", "dd if=/dev/zero bs=64k count=32 2>/dev/null")
    assert len(result.stdout) == 2 << 20


def test_a_stopped_instance_refuses(running: Instance) -> None:
    running.stop(0)
    with pytest.raises(ApiError) as refusal:
        running.exec_create("true")
    assert refusal.value.status == 409
    assert "not running" in refusal.value.message


def test_a_paused_instance_stands_still(running: Instance) -> None:
    running.api.call("POST", f"{running.path}/pause")
    assert running.state()["Paused"]
    running.api.call("POST", f"{running.path}/unpause")
    assert running.exec("echo", "on").stdout == "on\n"
