"""The `proa` command against a real engine: streams, terminals, signals, copies."""

from __future__ import annotations

import contextlib
import io
import os
import pty
import select
import signal
import subprocess
import tarfile
import termios
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.engine import EngineProcess
from tests.support.paths import ROOT

PROA = ROOT / "bin" / "proa"
TIMEOUT_SECONDS = 60


class Cli:
    """The command with the environment that finds the engine."""

    def __init__(self, running: EngineProcess, isolation: str) -> None:
        self.environment = running.variables()
        self.shape = ["--isolation", isolation, "--network", "none"]

    def __call__(self, *words: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run one command line to its end."""
        if "input" not in options:
            options.setdefault("stdin", subprocess.DEVNULL)
        return subprocess.run(
            [PROA, *words],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_SECONDS,
            **options,
        )

    def run(self, *words: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """`proa run --rm` in this isolation."""
        return self("run", "--rm", *self.shape, *words, **options)

    @contextlib.contextmanager
    def detached(self, *words: str) -> Iterator[str]:
        """The id of a detached instance, removed at the end."""
        started = self("run", "-d", *self.shape, *words)
        assert started.returncode == 0, started.stderr
        identity = started.stdout.strip()
        try:
            yield identity
        finally:
            self("rm", "-f", identity)


@pytest.fixture(params=["container", "vm"])
def cli(request: pytest.FixtureRequest, session_engine: EngineProcess) -> Cli:
    return Cli(session_engine, str(request.param))


# -- streams and codes -----------------------------------------------------------------------------


def test_output_errors_and_code_are_kept_apart(cli: Cli) -> None:
    result = cli.run("busy", "sh", "-c", "echo out; echo err >&2; exit 7")
    assert (result.returncode, result.stdout, result.stderr) == (7, "out\n", "err\n")


def test_input_flows_only_with_interactive(cli: Cli) -> None:
    assert cli.run("-i", "busy", "cat", input="hello").stdout == "hello"
    assert cli.run("busy", "cat", input="hello").stdout == ""


def test_much_data_both_ways_at_once(cli: Cli) -> None:
    data = "0123456789abcde\n" * 200_000
    assert cli.run("-i", "busy", "cat", input=data).stdout == data


def test_the_process_may_stop_reading(cli: Cli) -> None:
    result = cli.run("-i", "busy", "head", "-c", "4", input="x" * 1_000_000)
    assert (result.returncode, result.stdout) == (0, "xxxx")


def test_exec_streams_and_code(cli: Cli) -> None:
    with cli.detached("busy", "sleep", "1000") as identity:
        result = cli(
            "exec", "-i", "-e", "A=b", identity, "sh", "-c", "cat; echo $A; exit 9", input="x"
        )
        assert (result.returncode, result.stdout) == (9, "xb\n")
        assert cli("exec", identity, "no-such-command").returncode in (126, 127)


def test_a_trace_is_printed_and_nothing_is_left(cli: Cli) -> None:
    result = cli.run("--trace", "--name", "traced", "busy", "true")
    assert result.returncode == 0, result.stderr
    assert "exit known" in result.stderr and "engine" in result.stderr
    assert "traced" not in cli("ps", "-a").stdout


# -- signals and terminals -------------------------------------------------------------------------


TRAPPING = "trap 'echo got; exit 5' INT TERM; echo ready; while :; do sleep 0.1; done"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_go_to_the_process(cli: Cli, number: signal.Signals) -> None:
    process = subprocess.Popen(
        [PROA, "run", "--rm", *cli.shape, "busy", "sh", "-c", TRAPPING],
        env=cli.environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(number)
    assert process.stdout.read() == "got\n"
    assert process.wait(TIMEOUT_SECONDS) == 5


class Terminal:
    """A command on a pseudo-terminal of its own."""

    def __init__(self, cli: Cli, *words: str) -> None:
        self.master, self.slave = pty.openpty()
        termios.tcsetwinsize(self.slave, (40, 100))
        self.before = termios.tcgetattr(self.slave)
        self.process = subprocess.Popen(
            [PROA, *words],
            env=cli.environment,
            stdin=self.slave,
            stdout=self.slave,
            stderr=self.slave,
            start_new_session=True,
        )
        self.output = b""

    def expect(self, word: bytes) -> None:
        """Read until `word` has been seen."""
        deadline = time.monotonic() + TIMEOUT_SECONDS
        while word not in self.output:
            assert select.select([self.master], [], [], deadline - time.monotonic())[0], self.output
            self.output += os.read(self.master, 4096)
        self.output = self.output.partition(word)[2]

    def type(self, keys: bytes) -> None:
        """Press keys."""
        os.write(self.master, keys)

    def resize(self, rows: int, columns: int) -> None:
        """Change the window's size."""
        termios.tcsetwinsize(self.master, (rows, columns))
        self.process.send_signal(signal.SIGWINCH)

    def end(self) -> int:
        """The exit code; the terminal must be as it was."""
        code = self.process.wait(TIMEOUT_SECONDS)
        assert termios.tcgetattr(self.slave) == self.before
        os.close(self.master)
        os.close(self.slave)
        return code


def test_a_terminal_its_size_and_its_resize(cli: Cli) -> None:
    shell = Terminal(cli, "run", "--rm", "-it", *cli.shape, "busy", "sh")
    shell.type(b"stty size; echo e''nd\n")
    shell.expect(b"end")
    shell.resize(50, 120)
    shell.type(b"while [ \"$(stty size)\" != '50 120' ]; do :; done; echo re''sized\n")
    shell.expect(b"resized")
    shell.type(b"exit 4\n")
    assert shell.end() == 4


def test_detach_keys_leave_it_running_and_attach_returns(cli: Cli) -> None:
    with cli.detached("-it", "busy", "sh") as identity:
        shell = Terminal(cli, "attach", identity)
        shell.type(b"echo he''re\n")
        shell.expect(b"here")
        shell.type(b"\x10\x11")
        assert shell.end() == 0
        assert cli("inspect", "-f", "{{.State.Running}}", identity).stdout == "true\n"
        again = Terminal(cli, "attach", identity)
        again.type(b"exit 6\n")
        assert again.end() == 6


def test_the_terminal_is_given_back_when_the_instance_is_killed(cli: Cli) -> None:
    shell = Terminal(cli, "run", "--rm", "-it", "--name", "victim", *cli.shape, "busy", "sh")
    shell.type(b"echo re''ady\n")
    shell.expect(b"ready")
    assert cli("kill", "victim").returncode == 0
    assert shell.end() == 137


def test_a_terminal_without_one_of_ours_is_refused(cli: Cli) -> None:
    result = cli.run("-it", "busy", "true")
    assert result.returncode == 125 and "terminal" in result.stderr


# -- copies ----------------------------------------------------------------------------------------


def test_copies_both_ways(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "d/e").mkdir(parents=True)
    (tmp_path / "d/e/f").write_text("content")
    with cli.detached("busy", "sleep", "1000") as identity:
        assert cli("cp", str(tmp_path / "d"), f"{identity}:/new").returncode == 0
        assert cli("cp", str(tmp_path / "d"), f"{identity}:/tmp").returncode == 0
        assert cli("cp", f"{tmp_path / 'd'}/.", f"{identity}:/tmp").returncode == 0
        seen = cli("exec", identity, "cat", "/new/e/f", "/tmp/d/e/f", "/tmp/e/f")
        assert seen.stdout == "content" * 3, seen.stderr
        assert cli("cp", f"{identity}:/new", str(tmp_path / "back")).returncode == 0
        assert cli("cp", f"{identity}:/new/.", str(tmp_path)).returncode == 0
        assert cli("cp", f"{identity}:/new/e/f", str(tmp_path / "g")).returncode == 0
    for path in ("back/e/f", "e/f", "g"):
        assert (tmp_path / path).read_text() == "content"


def test_copies_of_tar_streams(cli: Cli) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        member = tarfile.TarInfo("x")
        member.size = 3
        tar.addfile(member, io.BytesIO(b"abc"))
    with cli.detached("busy", "sleep", "1000") as identity:
        put = subprocess.run(
            [PROA, "cp", "-", f"{identity}:/tmp"],
            input=buffer.getvalue(),
            env=cli.environment,
            timeout=TIMEOUT_SECONDS,
            check=True,
        )
        assert put.returncode == 0
        got = subprocess.run(
            [PROA, "cp", f"{identity}:/tmp/x", "-"],
            capture_output=True,
            env=cli.environment,
            timeout=TIMEOUT_SECONDS,
            check=True,
        )
    with tarfile.open(fileobj=io.BytesIO(got.stdout)) as tar:
        file = tar.extractfile("x")
        assert file is not None and file.read() == b"abc"


def test_a_copy_of_what_is_not_there(cli: Cli, tmp_path: Path) -> None:
    with cli.detached("busy", "sleep", "1000") as identity:
        result = cli("cp", f"{identity}:/no/such", str(tmp_path))
        assert result.returncode == 125 and "/no/such" in result.stderr
        assert list(tmp_path.iterdir()) == []


# -- lists -----------------------------------------------------------------------------------------


def test_lists_name_the_instance(cli: Cli) -> None:
    with cli.detached("--name", "listed", "busy", "sleep", "1000") as identity:
        table = cli("ps").stdout.splitlines()
        assert table[0].split()[-1] == "ISOLATION"
        row = next(line for line in table if "listed" in line)
        assert identity[:12] in row and cli.shape[1] in row
        assert identity[:12] in cli("ps", "-q").stdout.split()
        assert cli("ps", "-f", "name=listed", "--format", "{{.Names}}").stdout == "listed\n"
        assert "sleep 1000" in cli("top", "listed").stdout
        assert "listed" in cli("stats", "--no-stream").stdout
        assert cli("rename", "listed", "other").returncode == 0
        assert cli("stop", "-t", "0", "other").stdout == "other\n"
        assert cli("wait", "other").stdout == "137\n"


def test_logs(cli: Cli) -> None:
    with cli.detached("busy", "sh", "-c", "echo one; echo two >&2; echo three") as identity:
        assert cli("wait", identity).stdout == "0\n"
        logs = cli("logs", "-f", identity)
        assert (logs.stdout, logs.stderr) == ("one\nthree\n", "two\n")
        tail = cli("logs", "-n", "1", identity)
        assert len((tail.stdout + tail.stderr).splitlines()) == 1
        first = cli("logs", "-t", identity).stdout.split()[0]
        assert first.endswith("Z") and cli("logs", "--since", "1h", identity).stdout


# -- the engine itself -----------------------------------------------------------------------------


def test_an_engine_starts_on_demand_once_and_stops(tmp_path: Path) -> None:
    variables = {k: v for k, v in os.environ.items() if k != "PROA_HOST"}
    variables["PROA_ROOT"] = str(tmp_path / "root")
    command = [str(PROA), "ps", "-q"]
    many = [subprocess.Popen(command, env=variables) for _ in range(4)]
    assert [one.wait(TIMEOUT_SECONDS) for one in many] == [0] * 4

    def engine(verb: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [PROA, "engine", verb],
            env=variables,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_SECONDS,
        )

    assert engine("status").returncode == 0
    assert engine("start").stdout.startswith("the engine already runs")
    assert engine("stop").returncode == 0
    assert engine("status").returncode == 3
    log = (tmp_path / "root/engine.log").read_text()
    assert log.count("serving") == 1, log


def test_an_engine_that_cannot_start_says_why(tmp_path: Path) -> None:
    (tmp_path / "root").write_text("a file is in the way")
    result = subprocess.run(
        [PROA, "ps"],
        env={**os.environ, "PROA_ROOT": str(tmp_path / "root"), "PROA_HOST": ""},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_SECONDS,
    )
    assert result.returncode == 125
    assert result.stderr.startswith("proa: ") and "Traceback" not in result.stderr
