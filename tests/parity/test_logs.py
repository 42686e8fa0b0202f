"""Logs: complete, ordered, selectable, and readable after the end."""

from __future__ import annotations

import re
import time
from concurrent.futures import ThreadPoolExecutor

from tests.support.instances import Instance, Place, Result, eventually

SCRIPT = "echo one; echo two >&2; sleep 1.2; echo three; echo four >&2"


def finished(place: Place, script: str = SCRIPT) -> Instance:
    """An instance that has ended."""
    instance = place.start("busy", "sh", "-c", script)
    instance.wait()
    return instance


def test_both_streams_after_the_end(place: Place) -> None:
    instance = finished(place)
    log = instance.logs()
    assert (log.stdout, log.stderr) == ("one\nthree\n", "two\nfour\n")
    assert instance.logs(stderr=0).stderr == ""
    assert instance.logs(stdout=0).stdout == ""


def test_tail_counts_lines_of_both_streams(place: Place) -> None:
    instance = finished(place)
    log = instance.logs(tail=3)
    assert (log.stdout, log.stderr) == ("three\n", "two\nfour\n")
    assert instance.logs(tail=0) == Result(0, "", "")
    assert instance.logs(tail="all").stdout == "one\nthree\n"


def test_since_and_until(place: Place) -> None:
    instance = finished(place, "echo early; sleep 2; echo late")
    stamps = instance.logs(timestamps=1).stdout.split()[::2]
    assert len(stamps) == 2
    middle = time.time() - 1
    assert instance.logs(since=f"{middle:.9f}").stdout == "late\n"
    assert instance.logs(until=f"{middle:.9f}").stdout == "early\n"


def test_timestamps_are_rfc3339_with_nanoseconds(place: Place) -> None:
    log = finished(place, "echo a; echo b").logs(timestamps=1).stdout
    pattern = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z (a|b)"
    assert all(re.fullmatch(pattern, line) for line in log.splitlines())
    assert len(log.splitlines()) == 2


def test_follow_ends_with_the_instance(place: Place) -> None:
    instance = place.start("busy", "sh", "-c", "echo first; read line; echo last", OpenStdin=True)
    with ThreadPoolExecutor(1) as pool:
        follower = pool.submit(instance.logs, follow=1)
        eventually(lambda: "first" in instance.logs().stdout)
        with instance.attach() as stream:
            stream.sendall(b"\n")
        assert follower.result(30).stdout == "first\nlast\n"


def test_a_terminals_log_is_one_stream(place: Place) -> None:
    instance = place.start("busy", "sh", "-c", "echo out; echo err >&2", Tty=True)
    instance.wait()
    assert instance.logs().stdout == "out\r\nerr\r\n"


def test_lines_longer_than_a_buffer(place: Place) -> None:
    instance = finished(place, "head -c 100000 /dev/zero | tr '\\0' x; echo; echo end")
    assert instance.logs().stdout == "x" * 100000 + "\nend\n"
    assert instance.logs(tail=1).stdout == "end\n"


def test_a_long_log_is_whole_and_each_line_has_its_frame(place: Place) -> None:
    instance = finished(place, "seq 20000; echo -n end >&2")
    log = instance.logs()
    assert log.stdout == "".join(f"{number}\n" for number in range(1, 20001))
    assert log.stderr == "end"
    assert instance.logs(tail=2) == Result(0, "20000\n", "end")
    answer = instance.api.call("GET", f"{instance.path}/logs", stdout=1)
    assert answer.startswith(b"\1\0\0\0\0\0\0\x021\n\1\0\0\0\0\0\0\x022\n")


def test_one_that_writes_all_the_time_has_a_log_that_ends(place: Place) -> None:
    instance = place.start("busy", "yes")
    eventually(lambda: instance.logs(tail=5).stdout == "y\n" * 5)
    instance.kill()
    instance.wait()
