"""The monitor and its agent core: the real binary, driven through real sockets, as root."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import socket
import struct
from pathlib import Path

import pytest

from tests.native.monitor import (
    ATTACH,
    BASE,
    CLOSE,
    CLOSE_STDIN,
    DONE,
    ERR,
    EXEC,
    EXIT,
    FAILED,
    HUP,
    IN,
    JOIN,
    KILL,
    LAUNCH,
    MAP,
    MUX,
    NAMESPACES,
    OUT,
    PLACE,
    PLACE_PLAN,
    PLACED,
    QUIT,
    RESIZE,
    SIGNAL,
    STARTED,
    STATE,
    STATUS,
    STAY,
    WITH_LOG,
    WITH_STDIN,
    WITH_TTY,
    Connection,
    Monitor,
    command,
    gone,
    plan,
    read_all,
    read_until,
    shell,
)

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="places need root")


def run(engine: Connection, script: str, flags: int = 0) -> tuple[bytes, tuple[int, int]]:
    """Place and launch a script; its output and exit."""
    engine.place()
    client = engine.attach()
    engine.launch(shell(script), flags)
    output = read_all(client)
    return output, engine.expect(EXIT).exit


# -- the place and its process -------------------------------------------------------------------


def test_exit_code_and_record(monitor: Monitor, engine: Connection) -> None:
    assert run(engine, "exit 7") == (b"", (7, 0))
    assert monitor.wait() == 0
    record = monitor.record
    assert (record["code"], record["signal"], record["oom"], record["error"]) == ("7", "0", "0", "")
    assert int(record["finished_ns"]) > 1_600_000_000 * 10**9
    assert not (monitor.directory / "exit.new").exists()


def test_process_is_first_and_alone_in_all_namespaces(engine: Connection) -> None:
    script = (
        "echo $$ $(id -u) $(id -G); for n in user pid mnt net ipc uts cgroup; do "
        "readlink /proc/self/ns/$n; done; cat /proc/self/uid_map"
    )
    output, _ = run(engine, script)
    lines = output.decode().splitlines()
    assert lines[0] == "1 0 0"
    for name, inside in zip(
        ("user", "pid", "mnt", "net", "ipc", "uts", "cgroup"), lines[1:8], strict=True
    ):
        assert inside != os.readlink(f"/proc/self/ns/{name}")
    assert lines[8].split() == ["0", str(BASE), "65536"]


def test_started_names_the_host_pid(engine: Connection) -> None:
    placed = engine.place()
    assert engine.launch(command("sleep", "1000")) == placed
    status = Path(f"/proc/{placed}/status").read_text()
    assert f"Uid:\t{BASE}" in status
    engine.send(KILL)
    assert engine.expect(EXIT).exit == (137, 9)


def test_no_descriptor_leaks(engine: Connection) -> None:
    output, _ = run(engine, "exec ls -l /proc/self/fd")
    names = [line.split()[8] for line in output.decode().splitlines() if "->" in line]
    assert names[:3] == ["0", "1", "2"]
    assert len(names) == 4, output  # the fourth is the directory ls reads


def test_waiting_child_keeps_only_its_channel(engine: Connection) -> None:
    descriptors = Path(f"/proc/{engine.place()}/fd")
    links = {name.name: os.readlink(name) for name in descriptors.iterdir()}
    assert len(links) == 4
    assert [links[n] for n in "012"] == ["/dev/null"] * 3
    assert next(link for n, link in links.items() if n > "2").startswith("socket:")


def test_what_waits_in_a_place_is_out_of_its_reach(engine: Connection) -> None:
    """CVE-2016-9962, CVE-2019-5736: /proc/PID of our own program belongs to the host's root."""
    pid = engine.place()
    assert os.stat(f"/proc/{pid}/fd").st_uid == 0
    engine.launch(command("sleep", "1000"))
    assert os.stat(f"/proc/{pid}/fd").st_uid == BASE


def test_large_plan(engine: Connection) -> None:
    steps = [("umask", "0022")] * 200_000
    engine.place()
    engine.launch(plan(*steps, ("exec", "/bin/sleep", "1000")))
    engine.exec(2, plan(*steps, ("exec", "/bin/true")))
    assert engine.expect(EXIT, 2).exit == (0, 0)


def test_signals_are_default_in_the_process(engine: Connection) -> None:
    output, _ = run(engine, "grep -E '^Sig(Blk|Ign)' /proc/self/status")
    assert output.split() == [b"SigBlk:", b"0" * 16, b"SigIgn:", b"0" * 16]


def test_pipelined_requests(engine: Connection) -> None:
    ours, theirs = socket.socketpair()
    engine.send(PLACE, payload=PLACE_PLAN)
    engine.send(LAUNCH, payload=shell("echo hello"))
    engine.send_with([theirs.fileno()], ATTACH, flags=OUT)
    theirs.close()
    kinds = {engine.receive().type for _ in range(3)}
    assert kinds == {PLACED, STARTED, DONE}
    engine.expect(EXIT)
    ours.close()


# -- failures ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("steps", "failure"),
    [
        (plan(("env", "A=1"), ("exec", "/no/such")), (1, errno.ENOENT, "exec", "/no/such")),
        (plan(("exec", "/etc/passwd")), (0, errno.EACCES, "exec", "/etc/passwd")),
        (plan(("nonsense",)), (0, errno.ENOSYS, "nonsense", "nonsense")),
        (plan(("env", "A=1")), (1, errno.EINVAL, "exec", "")),
    ],
)
def test_launch_failure_names_the_step(
    engine: Connection, steps: bytes, failure: tuple[int, int, str, str]
) -> None:
    pid = engine.place()
    engine.send(LAUNCH, payload=steps)
    assert engine.expect(FAILED).failure == failure
    assert gone(pid)


@pytest.mark.parametrize(
    ("steps", "step", "verb"),
    [
        (plan(("ns", "user", "nowhere")), 0, "ns"),
        (plan(NAMESPACES, ("idmap", "0", "0")), 1, "idmap"),
        (plan(NAMESPACES, ("cgroup", "fd:3")), 1, "cgroup"),
        (plan(NAMESPACES, MAP, ("mount", "nofs", "a", "/tmp", "", "")), 2, "mount"),
        (plan(("ns", "user", "mount"), MAP), 0, "ns"),
        (plan(("exec", "/bin/true")), 0, "ns"),
        (b"no plan at all", 0, "plan"),
    ],
)
def test_place_failure_names_the_step(
    engine: Connection, steps: bytes, step: int, verb: str
) -> None:
    engine.send(PLACE, payload=steps)
    failure = engine.expect(FAILED).failure
    assert (failure[0], failure[2]) == (step, verb)
    assert engine.place() > 0  # nothing of the first attempt is in the way


def test_failed_launch_answers_both_pipelined_requests(engine: Connection) -> None:
    engine.send(PLACE, payload=plan(NAMESPACES, MAP, ("mount", "nofs", "a", "/tmp", "", "")))
    engine.send(LAUNCH, payload=shell("true"))
    assert [engine.expect(FAILED).argument for _ in range(2)] == [PLACE, LAUNCH]


def test_requests_out_of_place_are_refused(engine: Connection) -> None:
    engine.send(LAUNCH, payload=shell("true"))
    assert engine.expect(FAILED).failure[1] == errno.ESRCH
    engine.send(EXEC, 2, shell("true"), flags=JOIN)
    assert engine.expect(FAILED, 2).failure[1] == errno.ESRCH
    engine.send(EXEC, 2, shell("true"))  # beside the monitor, on the host: never
    assert engine.expect(FAILED, 2).failure[1] == errno.EPERM
    engine.send(1, 0, shell("true"))
    assert engine.expect(FAILED, 0).failure[1] == errno.EPERM


# -- output, input, terminal ---------------------------------------------------------------------


def test_stdout_and_stderr_apart(monitor: Monitor, engine: Connection) -> None:
    engine.place()
    out, err, both = engine.attach(OUT), engine.attach(ERR), engine.attach(OUT | ERR | MUX)
    engine.launch(shell("echo one; echo two >&2"), WITH_LOG)
    assert (read_all(out), read_all(err)) == (b"one\n", b"two\n")
    frames, data = set(), read_all(both)
    while data:
        stream, length = struct.unpack(">B3xI", data[:8])
        frames.add((stream, data[8 : 8 + length]))
        data = data[8 + length :]
    assert frames == {(1, b"one\n"), (2, b"two\n")}
    engine.expect(EXIT)
    assert set(monitor.log) == {(1, b"one\n"), (2, b"two\n")}


def test_stdin_and_its_end(engine: Connection) -> None:
    engine.place()
    client = engine.attach(IN | OUT | CLOSE)
    client.sendall(b"early ")  # before the process exists
    engine.launch(command("cat"), WITH_STDIN)
    client.sendall(b"late")
    client.shutdown(socket.SHUT_WR)
    assert read_all(client) == b"early late"
    assert engine.expect(EXIT).exit == (0, 0)


def test_much_stdin(engine: Connection) -> None:
    engine.place()
    client, result = engine.attach(IN | CLOSE), engine.attach(OUT)
    engine.launch(command("wc", "-c"), WITH_STDIN)
    client.sendall(b"x" * (8 << 20))
    client.close()
    assert read_all(result).split() == [str(8 << 20).encode()]


def test_without_stdin_reads_end_of_file(engine: Connection) -> None:
    assert run(engine, "cat; readlink /proc/self/fd/0") == (b"/dev/null\n", (0, 0))


def test_close_stdin_request(engine: Connection) -> None:
    engine.place()
    engine.launch(command("cat"), WITH_STDIN)
    engine.send(CLOSE_STDIN)
    assert engine.expect(EXIT).exit == (0, 0)


def test_terminal_and_resize(engine: Connection) -> None:
    engine.place()
    client = engine.attach(IN | OUT | CLOSE)
    engine.send(RESIZE, payload=struct.pack("<HH", 11, 22))
    script = "stty size; trap 'stty size; exit 3' WINCH; echo ready; while :; do read x; done"
    engine.launch(
        plan(("env", "PATH=/usr/bin:/bin"), ("tty", "5", "6"), ("exec", "/bin/sh", "-c", script)),
        WITH_STDIN | WITH_TTY,
    )
    assert b"\r\n" in read_until(client, b"ready")
    engine.send(RESIZE, payload=struct.pack("<HH", 33, 44))
    with contextlib.suppress(BrokenPipeError):  # it may have ended already
        client.sendall(b"\n")
    assert b"33 44\r\n" in read_all(client)
    assert engine.expect(EXIT).exit == (3, 0)


def test_end_of_input_on_a_terminal(engine: Connection) -> None:
    engine.place()
    client = engine.attach(IN | OUT | CLOSE)
    engine.launch(plan(("tty", "5", "6"), ("exec", "/bin/cat")), WITH_STDIN | WITH_TTY)
    client.sendall(b"hello\n")
    client.shutdown(socket.SHUT_WR)
    assert read_all(client).count(b"hello\r\n") == 2
    assert engine.expect(EXIT).exit == (0, 0)


def test_detach_keys(engine: Connection) -> None:
    engine.place()
    client, witness = engine.attach(IN | OUT | CLOSE, keys=b"\x10\x11"), engine.attach(OUT)
    engine.launch(command("cat"), WITH_STDIN)
    client.sendall(b"a\x10b\x10")
    assert read_until(witness, b"b") == b"a\x10b"
    client.sendall(b"\x11never")
    assert read_all(client) in (b"a\x10b", b"")
    engine.send(SIGNAL, argument=signal.SIGKILL)
    assert engine.expect(EXIT).exit == (137, 9)  # its stdin had stayed open
    assert read_all(witness) == b""


def test_hang_up(engine: Connection) -> None:
    engine.place()
    client = engine.attach(OUT | HUP)
    engine.launch(shell("trap 'exit 5' HUP; echo ready; while :; do sleep 0.01; done"))
    read_until(client, b"ready")
    client.close()
    assert engine.expect(EXIT).exit == (5, 0)


def test_slow_reader_sees_every_byte(engine: Connection) -> None:
    engine.place()
    slow, fast = engine.attach(OUT), engine.attach(OUT)
    size = 50 << 20
    engine.launch(shell(f"head -c {size} /dev/zero"))
    fast.setblocking(False)
    received, ahead = 0, 0
    while received < size:
        piece = slow.recv(1 << 20)
        assert piece == bytes(len(piece)) and piece
        received += len(piece)
        with contextlib.suppress(BlockingIOError):
            while piece := fast.recv(1 << 20):
                ahead += len(piece)
        assert ahead < received + (2 << 20)  # the slow one holds it back
    assert slow.recv(1) == b""
    assert engine.expect(EXIT).exit == (0, 0)


def test_backpressure_stops_the_process(monitor: Monitor, engine: Connection) -> None:
    engine.place()
    client = engine.attach(OUT)
    pid = engine.launch(command("head", "-c", str(50 << 20), "/dev/zero"))
    read_until(client, b"\0")
    with open(f"/proc/{monitor.process.pid}/statm") as statm:
        assert int(statm.read().split()[1]) * 4096 < 16 << 20
    os.kill(pid, 0)  # still writing: nobody took its bytes
    assert len(read_all(client)) > 49 << 20
    assert engine.expect(EXIT).exit == (0, 0)


def test_rest_of_output_survives_the_process(monitor: Monitor, engine: Connection) -> None:
    engine.place()
    client = engine.attach(OUT)
    engine.launch(shell("head -c 300000 /dev/zero"))
    assert engine.expect(EXIT).exit == (0, 0)
    assert monitor.record["code"] == "0"
    assert monitor.process.poll() is None  # lingers for the client
    assert len(read_all(client)) == 300000
    assert monitor.wait() == 0


# -- exec ----------------------------------------------------------------------------------------


def test_exec_joins_the_place(engine: Connection) -> None:
    names = (
        "readlink /proc/self/ns/user /proc/self/ns/pid /proc/self/ns/mnt /proc/self/ns/net "
        "/proc/self/ns/ipc /proc/self/ns/uts /proc/self/ns/cgroup; id -u; id -G"
    )
    engine.place()
    first = engine.attach(OUT)
    engine.launch(shell(f"{names}; exec sleep 1000"))
    second = engine.attach(OUT | ERR, 2)
    pid = engine.exec(2, shell(f"{names}; exit 4"))
    expected = read_until(first, b"\n0\n0\n")
    assert read_all(second) == expected
    assert engine.expect(EXIT, 2).exit == (4, 0)
    assert gone(pid)
    engine.send(KILL)


def test_exec_with_stdin_terminal_and_no_leaks(engine: Connection) -> None:
    engine.place()
    engine.launch(command("sleep", "1000"))
    client = engine.attach(IN | OUT | CLOSE, 2)
    engine.exec(2, command("cat"), JOIN | WITH_STDIN)
    client.sendall(b"through")
    client.shutdown(socket.SHUT_WR)
    assert read_all(client) == b"through"
    engine.expect(EXIT, 2)
    client = engine.attach(OUT, 3)
    engine.exec(
        3, plan(("tty", "7", "9"), ("exec", "/bin/sh", "-c", "tty; stty size")), JOIN | WITH_TTY
    )
    assert read_all(client).split() == [b"/dev/pts/0", b"7", b"9"]
    engine.expect(EXIT, 3)
    client = engine.attach(OUT, 4)
    engine.exec(4, command("ls", "/proc/self/fd"))
    assert read_all(client).split() == [b"0", b"1", b"2", b"3"]


def test_exec_failures(engine: Connection) -> None:
    engine.place()
    engine.launch(command("sleep", "1000"))
    engine.send(EXEC, 2, command("/no/such"), flags=JOIN)
    assert engine.expect(FAILED, 2).failure == (1, errno.ENOENT, "exec", "/no/such")
    engine.exec(2, shell("sleep 1000"))  # the id is free again
    engine.send(EXEC, 2, shell("true"), flags=JOIN)
    assert engine.expect(FAILED, 2).failure[1] == errno.EEXIST


def test_execs_end_before_their_place(engine: Connection) -> None:
    engine.place()
    engine.launch(command("sleep", "1000"))
    engine.exec(2, command("sleep", "1000"))
    engine.send(SIGNAL, argument=signal.SIGKILL)
    assert engine.expect(EXIT, 2).exit == (137, 9)
    assert engine.expect(EXIT).exit == (137, 9)


def test_builtin_reports_started(engine: Connection) -> None:
    engine.place()
    engine.launch(plan(("builtin", "pause")))
    client = engine.attach(OUT, 2)
    engine.exec(2, plan(("builtin", "procs")))
    assert b"1 0 0 S" in read_all(client)
    assert engine.expect(EXIT, 2).exit == (0, 0)


def test_many_execs(engine: Connection) -> None:
    engine.place()
    engine.launch(command("sleep", "1000"))
    for id in range(2, 42):
        engine.send(EXEC, id, shell(f"exit {id}"), flags=JOIN)
    events = [engine.receive() for _ in range(80)]
    assert {e.id: e.exit[0] for e in events if e.type == EXIT} == {n: n for n in range(2, 42)}
    for id in range(2, 42):
        assert [e.type for e in events if e.id == id] == [STARTED, EXIT]


# -- cgroups -------------------------------------------------------------------------------------


def test_place_and_execs_enter_the_cgroups(engine: Connection) -> None:
    group = Path(f"/sys/fs/cgroup/pids/proa-native-{os.urandom(4).hex()}")
    if not group.parent.is_dir():
        pytest.skip("no v1 pids hierarchy here")
    group.mkdir(exist_ok=True)
    procs = os.open(group / "cgroup.procs", os.O_WRONLY)
    try:
        pid = engine.place(plan(NAMESPACES, MAP, ("cgroup", "fd:0")), fds=[procs])
        engine.launch(command("sleep", "1000"))
        other = engine.exec(2, command("sleep", "1000"))
        # (perhaps with the one between, which made `other` and is ending)
        assert {str(pid), str(other)} <= set((group / "cgroup.procs").read_text().split())
        engine.send(KILL)
        engine.expect(EXIT, 2)
        engine.expect(EXIT)
    finally:
        os.close(procs)
        group.rmdir()


# -- signals and the end -------------------------------------------------------------------------


def test_signal_to_the_main_process(engine: Connection) -> None:
    engine.place()
    client = engine.attach(OUT)
    engine.launch(shell("trap 'exit 9' TERM; echo ready; while :; do sleep 0.01; done"))
    read_until(client, b"ready")
    engine.send(SIGNAL, argument=signal.SIGTERM)
    assert engine.expect(EXIT).exit == (9, 0)


def test_signal_to_all(engine: Connection) -> None:
    engine.place()
    client = engine.attach(OUT)
    engine.launch(
        shell(
            "trap 'echo main' USR1; sh -c \"trap 'echo child; exit' USR1; echo ready; "
            'while :; do sleep 0.01; done"; wait; exit 6'
        )
    )
    read_until(client, b"ready")
    engine.send(SIGNAL, argument=signal.SIGUSR1, flags=1)
    assert engine.expect(EXIT).exit == (6, 0)
    assert sorted(read_all(client).split()) == [b"child", b"main"]


def test_kill_leaves_nothing(monitor: Monitor, engine: Connection) -> None:
    engine.place()
    pid = engine.launch(shell("trap '' TERM; sleep 1000 & sleep 1000"))
    engine.send(KILL)
    assert engine.expect(EXIT).exit == (137, 9)
    assert monitor.wait() == 0 and gone(pid)
    assert monitor.record["code"] == "137"


def test_quit_a_spare(monitor: Monitor, engine: Connection) -> None:
    pid = engine.place()
    engine.send(QUIT)
    assert monitor.wait() == 0 and gone(pid)
    assert sorted(p.name for p in monitor.directory.iterdir()) == ["sock"]


def test_a_place_that_stays_has_no_record(monitor: Monitor, engine: Connection) -> None:
    assert run(engine, "exit 7", STAY) == (b"", (7, 0))
    engine.send(STATE, 0)
    engine.expect(STATUS)
    engine.expect(DONE, 0)
    assert monitor.process.poll() is None
    engine.send(QUIT, 0)
    assert monitor.wait() == 0
    assert not (monitor.directory / "exit").exists()


def test_quitting_a_place_that_stays_lets_its_process_end_it(
    monitor: Monitor, engine: Connection
) -> None:
    engine.place()
    pid = engine.launch(command("sleep", "1000"), STAY)
    engine.send(QUIT, 0)
    engine.send(STATE, 0)
    engine.expect(STATUS)
    engine.expect(DONE, 0)
    os.kill(pid, 9)
    assert engine.expect(EXIT).exit == (137, 9)
    assert monitor.wait() == 0
