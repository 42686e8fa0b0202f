"""How commands end: codes, signals, and commands that cannot start."""

from __future__ import annotations

import pytest

from tests.support.http import ApiError
from tests.support.instances import Place, eventually

TRAP = "trap 'echo caught; exit 7' {signal}; echo ready; sleep 1000 & wait"


@pytest.mark.parametrize("code", [0, 1, 42, 255])
def test_exit_code(place: Place, code: int) -> None:
    assert place.run("busy", "sh", "-c", f"exit {code}").code == code


def test_death_by_signal_is_128_plus_its_number(place: Place) -> None:
    instance = place.start("busy", "sleep", "1000")
    instance.kill("KILL")
    assert instance.wait() == 137
    assert instance.state()["ExitCode"] == 137
    assert instance.state()["Status"] == "exited"


def test_a_child_killed_by_a_signal_is_the_shells_business(place: Place) -> None:
    assert place.run("busy", "sh", "-c", "sh -c 'kill -9 $$'; echo $?").stdout == "137\n"


@pytest.mark.parametrize(
    ("command", "code", "words"),
    [
        ("no-such-command", 127, "executable file not found"),
        ("/bin/no-such-file", 127, "no such file or directory"),
        ("/etc/not-a-program", 126, "permission denied"),
        ("/etc", 126, "permission denied"),
    ],
)
def test_a_command_that_cannot_start(place: Place, command: str, code: int, words: str) -> None:
    instance = place.create("busy", command)
    with pytest.raises(ApiError) as refusal:
        instance.start()
    assert words in refusal.value.message.lower()
    assert command in refusal.value.message
    assert "\n" not in refusal.value.message
    assert instance.state()["ExitCode"] == code
    assert not instance.state()["Running"]


@pytest.mark.parametrize("signal", ["TERM", "INT", "HUP", "USR1"])
def test_a_signal_reaches_the_main_process(place: Place, signal: str) -> None:
    instance = place.start("busy", "sh", "-c", TRAP.format(signal=signal))
    eventually(lambda: "ready" in instance.logs().stdout)
    instance.kill(signal)
    assert instance.wait() == 7
    assert instance.logs().stdout == "ready\ncaught\n"


def test_the_main_process_is_pid_1(place: Place) -> None:
    assert place.run("busy", "sh", "-c", "echo $$").stdout == "1\n"


def test_stop_is_polite_first(place: Place) -> None:
    instance = place.start("busy", "sh", "-c", TRAP.format(signal="TERM"))
    eventually(lambda: "ready" in instance.logs().stdout)
    instance.stop(20)
    assert instance.state()["ExitCode"] == 7


def test_stop_kills_after_the_grace(place: Place) -> None:
    instance = place.start("busy", "sh", "-c", "trap '' TERM; echo ready; sleep 1000")
    eventually(lambda: "ready" in instance.logs().stdout)
    instance.stop(1)
    assert instance.state()["ExitCode"] == 137


def test_stop_uses_the_images_signal(place: Place) -> None:
    script = TRAP.format(signal="USR1")
    instance = place.start("busy", "sh", "-c", script, StopSignal="SIGUSR1")
    eventually(lambda: "ready" in instance.logs().stdout)
    instance.stop(20)
    assert instance.state()["ExitCode"] == 7


def test_all_processes_end_with_the_main_one(place: Place) -> None:
    instance = place.start("busy", "sh", "-c", "setsid sleep 1000 & exit 3")
    assert instance.wait() == 3


def test_restart_gives_a_new_run_on_the_same_files(place: Place) -> None:
    instance = place.start("busy", "sh", "-c", "echo run >>/runs; cat /runs; sleep 1000")
    eventually(lambda: instance.logs().stdout.count("run") == 1)
    instance.api.call("POST", f"{instance.path}/restart", t=0)
    eventually(lambda: instance.logs().stdout.count("run") == 3)
    instance.stop(0)
    instance.start()
    eventually(lambda: instance.logs().stdout.count("run") == 6)


def test_starting_twice_and_stopping_twice_is_no_error(place: Place) -> None:
    instance = place.start("busy", "sleep", "1000")
    instance.start()
    instance.stop(0)
    instance.stop(0)


def test_wait_answers_every_waiter(place: Place) -> None:
    from concurrent.futures import ThreadPoolExecutor

    instance = place.start("busy", "sh", "-c", "read line; exit 9", OpenStdin=True)
    with ThreadPoolExecutor(4) as pool:
        waiters = [pool.submit(instance.wait) for _ in range(4)]
        with instance.attach() as stream:
            stream.sendall(b"go\n")
        assert [waiter.result(30) for waiter in waiters] == [9] * 4
    assert instance.wait() == 9


def test_wait_for_the_next_exit_begins_before_the_start(place: Place) -> None:
    from concurrent.futures import ThreadPoolExecutor

    instance = place.create("busy", "sh", "-c", "exit 5")
    with ThreadPoolExecutor(1) as pool:
        waiter = pool.submit(instance.wait, "next-exit")
        instance.start()
        assert waiter.result(30) == 5
