"""The engine's process: its socket, its lock, its end.  The engine inside is the fake one."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.paths import ROOT, SOURCE
from tests.unit.api_server import call

PROGRAM = """
import sys
from tests.unit.fake_engine import FakeEngine
import proa.api.serve as serve
class Engine(FakeEngine):
    def __init__(self, root): super().__init__(); self.root = root
    def recover(self): print("recovered", flush=True)
    def close(self): print("closed", flush=True)
serve.Engine = Engine
sys.exit(serve.main())
"""


def variables(root: Path, **more: str) -> dict[str, str]:
    """The environment of an engine on `root`."""
    return os.environ | {"PROA_ROOT": str(root), "PYTHONPATH": f"{SOURCE}:{ROOT}"} | more


def begin(root: Path, **more: str) -> subprocess.Popen[str]:
    """An engine's process."""
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM],
        env=variables(root, **more),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def until_served(engine: subprocess.Popen[str], path: Path) -> None:
    """Wait until an engine answers; fails at once with its last words when it has ended."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            assert call(path, "GET", "/_ping").status == 200
            return
        assert engine.poll() is None, engine.communicate()
        time.sleep(0.02)
    raise AssertionError("no engine after 20 s")


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    root = tmp_path / "root"
    yield root


def test_serves_alone_and_ends_on_request(root: Path) -> None:
    first = begin(root)
    path = root / "run" / "proa.sock"
    until_served(first, path)
    assert path.stat().st_mode & 0o777 == 0o660
    assert (root / "run" / "engine.pid").read_text() == f"{first.pid}\n"
    second = begin(root)
    assert second.wait(20) == 125
    assert second.stderr is not None and "another engine runs" in second.stderr.read()
    assert call(path, "POST", "/proa/engine/stop").status == 202
    out, _ = first.communicate(timeout=20)
    assert (first.returncode, out) == (0, "recovered\nclosed\n")
    assert not path.exists() and not (root / "run" / "engine.pid").exists()


def test_replaces_what_a_killed_engine_left(root: Path) -> None:
    first = begin(root)
    path = root / "run" / "proa.sock"
    until_served(first, path)
    first.kill()
    first.communicate()
    assert path.exists()
    second = begin(root)
    until_served(second, path)
    second.send_signal(signal.SIGTERM)
    second.communicate(timeout=20)
    assert second.returncode == 0


@pytest.mark.parametrize("host", ["tcp://127.0.0.1:1", "relative/path"])
def test_refuses_a_host_that_is_no_unix_socket(root: Path, host: str) -> None:
    engine = begin(root, PROA_HOST=host)
    _, err = engine.communicate(timeout=20)
    assert engine.returncode == 125
    assert err.startswith(f"proa: PROA_HOST '{host}' is not a Unix socket")


def test_refuses_what_is_in_the_way(root: Path) -> None:
    (root / "run").mkdir(parents=True)
    (root / "run" / "proa.sock").write_text("precious")
    engine = begin(root)
    _, err = engine.communicate(timeout=20)
    assert engine.returncode == 125 and "is in the way" in err
    assert (root / "run" / "proa.sock").read_text() == "precious"


def test_takes_a_passed_socket_and_says_when_ready(root: Path, tmp_path: Path) -> None:
    path, ready = tmp_path / "passed.sock", tmp_path / "ready.sock"
    with (
        socket.socket(socket.AF_UNIX) as listener,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notified,
    ):
        listener.bind(str(path))
        listener.listen(8)
        notified.bind(str(ready))
        notified.settimeout(20)
        passing = (
            f"import os; os.dup2({listener.fileno()}, 3)\n"
            "os.environ['LISTEN_PID'] = str(os.getpid())\n"
        )
        engine = subprocess.Popen(
            [sys.executable, "-c", passing + PROGRAM],
            env=variables(root, LISTEN_FDS="1", NOTIFY_SOCKET=str(ready)),
            pass_fds=(listener.fileno(),),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        assert notified.recv(100) == b"READY=1\n"
        assert call(path, "GET", "/_ping").status == 200
        assert not (root / "run" / "proa.sock").exists()
        engine.send_signal(signal.SIGTERM)
        assert engine.wait(20) == 0
        assert path.exists()  # it belongs to whoever passed it
        with socket.socket(socket.AF_UNIX) as waiting:  # and still takes connections
            waiting.connect(str(path))
