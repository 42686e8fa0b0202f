"""A machine with a Debian of its own: one boot of `examples/monolith`, and all that works in there.

The tests share the machine and leave it as they found it; the last one stops and starts it.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import socket
import tarfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import need
from tests.support import monolith
from tests.support.engine import engine
from tests.support.http import ApiError, read_all
from tests.support.instances import eventually
from tests.support.monolith import Machine

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """The machine, up."""
    need(os.geteuid() == 0, "root", "the engine's tests need root")
    with engine("proa-monolith-") as running:
        yield monolith.boot(running, tmp_path_factory.mktemp("monolith"))


def _await(stream: socket.socket, words: bytes) -> None:
    seen = b""
    while words not in seen:
        piece = stream.recv(4096)
        assert piece, seen
        seen += piece


# -- processes ------------------------------------------------------------------------------------


def test_a_command_runs_with_its_code_streams_and_input(machine: Machine) -> None:
    done = machine.exec("sh", "-c", "cat; echo err >&2; exit 7", stdin=b"in\n")
    assert (done.code, done.stdout, done.stderr) == (7, "in\n", "err\n")
    assert machine.exec("sh", "-c", "kill -KILL $$").code == 137
    assert machine.exec("no-such-program").code == 127


def test_a_command_has_the_users_and_the_directory_of_that_system(machine: Machine) -> None:
    done = machine.exec("sh", "-c", 'id -un; pwd; echo "$HOME $A"', User="captain",
                        WorkingDir="/usr", Env=["A=b"])  # fmt: skip
    assert done.stdout.split("\n")[:3] == ["captain", "/usr", "/home/captain b"]


def test_a_command_has_all_rights_of_that_systems_root(machine: Machine) -> None:
    machine.shell("mkdir -p /mnt/x && mount -t tmpfs x /mnt/x && umount /mnt/x")
    assert "CapEff:\t000001ffffffffff" in machine.shell("grep CapEff /proc/self/status")
    assert machine.shell("sudo -u captain sudo id -u") == "0\n"


def test_a_command_has_a_terminal_of_the_right_size(machine: Machine) -> None:
    identity = machine.exec_create("sh", "-c", "tty; read x; stty size", stdin=True, Tty=True)
    stream = machine.exec_start(identity, tty=True)
    _await(stream, b"/dev/pts/")
    machine.api.call("POST", f"/exec/{identity}/resize", h=33, w=77)
    stream.sendall(b"\n")
    assert b"33 77" in read_all(stream)


def test_much_output_and_input_pass_whole(machine: Machine) -> None:
    data = os.urandom(3 << 20)
    done = machine.exec("sha256sum", stdin=data)
    assert done.stdout.split()[0] == hashlib.sha256(data).hexdigest()
    assert len(machine.exec("head", "-c", "5000000", "/dev/zero").stdout) == 5_000_000


def test_its_processes_and_what_they_use_are_seen(machine: Machine) -> None:
    table = machine.api.json("GET", f"{machine.path}/top", ps_args="-eo pid,comm")
    assert ["1", "systemd"] in table["Processes"] or ["1", "init"] in table["Processes"]
    used = machine.api.json("GET", f"{machine.path}/stats", stream=0)
    assert 50 << 20 < used["memory_stats"]["usage"] < used["memory_stats"]["limit"] <= 1 << 30
    assert used["pids_stats"]["current"] > 20


def test_files_are_copied_both_ways(machine: Machine) -> None:
    big = os.urandom(6 << 20)
    machine.put("/root", {"copied/big": big, "copied/small": b"x"})
    assert (
        machine.shell("sha256sum < /root/copied/big").split()[0] == hashlib.sha256(big).hexdigest()
    )
    machine.shell("ln -s small /root/copied/link; chown 1500:27 /root/copied/small")
    archive = machine.api.call("GET", f"{machine.path}/archive", path="/root/copied")
    with tarfile.open(fileobj=io.BytesIO(archive)) as opened:
        found = {member.name: member for member in opened}
    assert found["copied/link"].linkname == "small" and found["copied/big"].size == len(big)
    assert (found["copied/small"].uid, found["copied/small"].gid) == (1500, 27)
    machine.shell("rm -r /root/copied")
    with pytest.raises(ApiError) as raised:
        machine.get("/root/copied")
    assert raised.value.status == 404


# -- the agent comes and goes ---------------------------------------------------------------------


def test_an_agent_that_dies_takes_its_commands_along_and_comes_back(machine: Machine) -> None:
    identity = machine.exec_create("sh", "-c", "echo up; exec sleep 1000")
    stream = machine.exec_start(identity)
    _await(stream, b"up")
    session = machine.exec("pgrep", "-n", "-f", "^/usr/local/bin/proa-agent guest").stdout.strip()
    assert machine.exec("kill", "-KILL", session).code == 137, "it ended with its session"
    read_all(stream)
    eventually(machine.answers, 30)
    assert machine.exec_inspect(identity)["ExitCode"] == 137
    machine.shell("! pgrep -x sleep")


def test_another_engine_goes_on_with_it(machine: Machine) -> None:
    machine.engine.kill()
    machine.engine.start()
    assert machine.exec("hostname").stdout == "shop-one\n"


def test_without_an_agent_there_is_a_reason_and_a_hint(machine: Machine) -> None:
    """Both agents stop, QEMU's first, for it would bring ours; a timer starts them again."""
    machine.shell("systemctl stop qemu-guest-agent")
    start = "systemctl start qemu-guest-agent proa-agent"
    timer = f"systemd-run -q --on-active=15 {start}"
    machine.exec("sh", "-c", f"{timer}; systemctl --no-block stop proa-agent")

    def said() -> bool:
        done = monolith.ran(machine.engine, "exec", "monolith", "true")
        return done.code != 0 and "no agent listens" in done.stdout + done.stderr

    eventually(said, 30)
    with pytest.raises(ApiError) as raised:
        machine.get("/etc/hostname")
    assert raised.value.status == 409
    eventually(machine.answers, 120)


# -- cloud-init -----------------------------------------------------------------------------------


def test_cloud_init_did_all_that_it_was_told(machine: Machine) -> None:
    assert "status: done" in machine.shell("cloud-init status --long")
    assert machine.shell("id captain").startswith("uid=1500(captain)")
    assert monolith.KEY in machine.shell("cat /home/captain/.ssh/authorized_keys")
    assert machine.shell("stat -c %a /etc/greeting; cat /etc/greeting") == "640\nfrom user data\n"
    assert machine.shell("cat /usr/share/hello; hostname") == "from a package\nshop-one\n"
    assert machine.shell("cat /var/tmp/ran").strip() == machine.id


def test_a_share_is_where_it_was_asked_for(machine: Machine) -> None:
    found = machine.inspect()
    shared = Path(found["Mounts"][0]["Source"])
    (shared / "from-host").write_text("of the host\n")
    assert machine.shell("cat /srv/shared/from-host; echo inside >/srv/shared/made") == (
        "of the host\n"
    )
    assert (shared / "made").read_text() == "inside\n"
    assert found["Proa"]["Shares"] in machine.shell("grep ' /srv/shared ' /proc/mounts")


def test_the_users_data_is_the_users_alone(machine: Machine, tmp_path: Path) -> None:
    told = json.loads(machine.shell("tail -n 1 /var/lib/cloud/instance/user-data.txt"))
    assert told == json.loads(monolith.user_data(tmp_path).partition("\n")[2])


def test_the_seed_has_the_same_names_for_every_reader(machine: Machine) -> None:
    names = "meta-data\nproa-agent\nuser-data\nvendor-data\n"
    for options in ("ro", "ro,norock"):
        script = f"mount -o {options} LABEL=CIDATA /mnt && ls -1 /mnt; umount /mnt"
        assert machine.shell(script) == names


# -- QEMU's guest agent ---------------------------------------------------------------------------


def test_the_guest_agent_tells_runs_and_writes(machine: Machine) -> None:
    with machine.guest_agent() as guest:
        assert guest.system() == "debian" and "guest-exec" in guest.commands()
        done = guest.run(["/bin/sh", "-c", "cat; echo $A >&2; exit 3"], ["A=b"], b"in")
        assert (done.code, done.output, done.errors) == (3, b"in", b"b\n")
        guest.write_file("/var/tmp/written", [b"a" * (1 << 20), b"b"])
        assert b"".join(guest.read_file("/var/tmp/written", 2 << 20)) == b"a" * (1 << 20) + b"b"
        found = {card.name: card for card in guest.interfaces()}
        assert "127.0.0.1/8" in found["lo"].addresses
        guest.set_time(time.time_ns())


def test_frozen_file_systems_take_no_writes(machine: Machine) -> None:
    with machine.guest_agent() as guest:
        with guest.frozen() as count:
            assert count >= 1
            assert guest.call("guest-fsfreeze-status") == "frozen"
        assert guest.call("guest-fsfreeze-status") == "thawed"
    machine.shell("touch /root/thawed && sync")


def test_our_agent_is_brought_by_qemus(machine: Machine) -> None:
    machine.exec("sh", "-c", "systemctl disable proa-agent; mv /usr/local/bin/proa-agent /root/;"
                 " systemctl --no-block stop proa-agent")  # fmt: skip
    eventually(lambda: not _serves(machine, "/usr/local/bin/proa-agent"), 30)
    assert machine.shell("ls /run/proa") == "agent\n"
    assert "proa-agent" not in machine.shell("ls /usr/local/bin")
    machine.exec("sh", "-c", "mv /root/proa-agent /usr/local/bin/; systemctl daemon-reload;"
                 " systemctl stop proa-agent")  # fmt: skip


def _serves(machine: Machine, program: str) -> bool:
    with machine.guest_agent() as guest:
        return guest.run(["pgrep", "-f", f"^{program} guest"]).code == 0


def test_where_ours_does_not_run_qemus_agent_does_what_it_can(machine: Machine) -> None:
    """The system is made to look like one of another kind; ours is gone, and is not brought."""
    fake = b"#!/bin/sh\necho FreeBSD\n"
    with machine.guest_agent() as guest:
        guest.run(["systemctl", "stop", "proa-agent"])
        guest.write_file("/usr/local/bin/uname", [fake])
        guest.run(["chmod", "755", "/usr/local/bin/uname"])
    try:
        done = machine.exec("sh", "-c", "cat; echo err >&2; exit 5", stdin=b"given")
        assert (done.code, done.stdout, done.stderr) == (5, "given", "err\n")
        assert machine.exec("no-such-program").code == 127
        refused = monolith.ran(machine.engine, "exec", "-u", "captain", "monolith", "id")
        assert refused.code and "another user" in refused.stdout + refused.stderr
        machine.put("/var/tmp", {"stranger/file": b"content"})
        assert machine.get("/var/tmp/stranger") == {"stranger/file": b"content"}
        with pytest.raises(ApiError) as raised:
            machine.get("/var/tmp/nothing")
        assert raised.value.status == 404
    finally:
        with machine.guest_agent() as guest:
            guest.run(["rm", "/usr/local/bin/uname"])
            guest.run(["systemctl", "start", "proa-agent"])
    eventually(machine.answers, 30)


# -- ssh ------------------------------------------------------------------------------------------


def test_ssh_logs_in_with_the_engines_key_and_knows_the_host(machine: Machine) -> None:
    done = monolith.ran(machine.engine, "ssh", "monolith", "hostname; id -un; exit 6")
    assert (done.code, done.stdout) == (6, "shop-one\nroot\n"), done.stderr
    known = machine.api.json("GET", f"/proa/instances/{machine.id}/ssh")
    assert known["Known"] and os.stat(known["Key"]).st_mode & 0o777 == 0o600


# -- the monolith ---------------------------------------------------------------------------------


def _ask(machine: Machine, line: str | None = None) -> list[str]:
    data = None if line is None else line.encode()
    with urllib.request.urlopen(f"http://127.0.0.1:{machine.port}/", data, timeout=60) as answer:
        return list(json.load(answer)["lines"])


def test_a_whole_server_runs_stops_and_starts_with_its_data(machine: Machine) -> None:
    assert machine.shell("systemctl is-system-running") == "running\n"
    before = _ask(machine)
    assert _ask(machine, "written before the stop") == [*before, "written before the stop"]
    machine.stop(120)
    assert machine.state()["ExitCode"] == 0
    assert "Power down" in machine.logs().stdout
    machine.start()
    machine.await_up()
    assert _ask(machine, "and after") == [*before, "written before the stop", "and after"]
    said = machine.shell("journalctl -b -u postgresql@15-main; cat /var/log/postgresql/*.log")
    assert "database system was shut down" in said
    assert "not properly shut down" not in said and "recovery in progress" not in said
    assert machine.shell("systemctl is-system-running") == "running\n"


def test_a_stopped_machine_gives_no_files_and_takes_no_commands(machine: Machine) -> None:
    machine.stop(120)
    for words in (("exec", "monolith", "true"), ("cp", "monolith:/etc/hostname", "-")):
        assert monolith.ran(machine.engine, *words).code, words
