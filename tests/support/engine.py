"""A real engine process with a root of its own, and the question what it left behind."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.http import ApiError
from tests.support.instances import Api, eventually
from tests.support.paths import PROA, ROOT, SOURCE

KERNELS = {name: ROOT / "build" / f"test-{name}" for name in ("kernels", "kernels-arm64")}


@dataclass
class EngineProcess:
    """`python -m proa.api.serve` on its own PROA_ROOT."""

    root: Path
    process: subprocess.Popen[bytes] | None = None
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def socket(self) -> Path:
        """Where it listens."""
        return self.root / "run" / "proa.sock"

    @property
    def log(self) -> Path:
        """Its standard error, kept beside the root for a failing test to show."""
        return self.root.parent / f"{self.root.name}.log"

    @property
    def api(self) -> Api:
        """A client of it."""
        return Api(self.socket)

    def variables(self) -> dict[str, str]:
        """The environment of the engine and of clients that shall find it."""
        ours = {
            "PROA_ROOT": str(self.root),
            "PROA_HOST": f"unix://{self.socket}",
            "DOCKER_HOST": f"unix://{self.socket}",
            "PYTHONPATH": str(SOURCE),
        }
        return os.environ | ours | self.environment

    def start(self) -> EngineProcess:
        """Start it and wait until it answers."""
        self.root.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "proa.api.serve"],
                env=self.variables(),
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        eventually(self.answers, 30, f"the engine did not come up, see {self.log}")
        return self

    def answers(self) -> bool:
        """Whether it responds; fails at once when it has ended."""
        if self.process is None or self.process.poll() is not None:
            raise AssertionError(f"the engine ended:\n{self.log.read_text()[-4000:]}")
        try:
            return self.api.call("GET", "/_ping") == b"OK"
        except (OSError, ApiError):
            return False

    def proa(self, *words: str, input: bytes | None = None) -> subprocess.CompletedProcess[bytes]:
        """`proa WORDS` against it, to the end."""
        stdin: dict[str, Any] = {"stdin": subprocess.DEVNULL} if input is None else {"input": input}
        return subprocess.run(
            [PROA, *words], env=self.variables(), capture_output=True, timeout=120, **stdin
        )

    def kill(self) -> None:
        """SIGKILL, as an out-of-memory killer would."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        """SIGTERM and wait."""
        if self.process is None or self.process.poll() is not None:
            return
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError("the engine did not stop within 30 s of SIGTERM") from None

    def remove_all(self) -> None:
        """Force-remove every instance."""
        for identity in self.api.ids():
            with contextlib.suppress(ApiError):
                self.api.call("DELETE", f"/containers/{identity}", force=1, v=1)


@contextlib.contextmanager
def engine(prefix: str = "proa-", **environment: str) -> Iterator[EngineProcess]:
    """An engine on a fresh root; at the end it is emptied, stopped and must have left nothing."""
    base = Path(tempfile.mkdtemp(prefix=prefix, dir="/tmp"))
    running = EngineProcess(base / "root", environment=environment)
    for name, kept in KERNELS.items():
        if kept.is_dir():
            shutil.copytree(kept, running.root / "vm" / name)
    try:
        yield running.start()
        running.remove_all()
        for name, kept in KERNELS.items():
            if (found := running.root / "vm" / name).is_dir() and not kept.exists():
                keep_kernels(found, kept)
    finally:
        running.stop()
    left = leftovers(running.root)
    assert not left, "left behind:\n" + "\n".join(left)
    subprocess.run(["rm", "-rf", "--one-file-system", str(base)], check=True)


def keep_kernels(found: Path, kept: Path) -> None:
    """Let the next engine find the guest's kernel, as it does on a machine where one has run."""
    kept.parent.mkdir(exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=".kernels-", dir=kept.parent))
    shutil.copytree(found, fresh, dirs_exist_ok=True)
    with contextlib.suppress(OSError):  # another run was faster
        fresh.rename(kept)
    shutil.rmtree(fresh, ignore_errors=True)


def leftovers(root: Path, ids: frozenset[str] = frozenset(), patience: float = 5) -> list[str]:
    """What still belongs to the engine of `root`, or to instances `ids`, after a moment's grace.

    Mounts below the root, processes that hold or name it, interfaces, firewall tables and
    cgroups that carry its tag (or an instance's id).
    """
    end = time.monotonic() + patience
    while found := list(_leftovers(root, ids)):
        if time.monotonic() > end:
            break
        time.sleep(0.1)
    return found


def engine_tag(root: Path) -> str:
    """The six hex digits by which the engine of this root names its host-wide things."""
    import hashlib

    return hashlib.sha256(str(root).encode()).hexdigest()[:6]


def _leftovers(root: Path, ids: frozenset[str]) -> Iterator[str]:
    tag = engine_tag(root)
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        if line.split()[4].startswith(str(root)):
            yield f"mount {line.split()[4]}"
    for process in processes_of(root):
        yield f"process {process}"
    short = {identity[:8] for identity in ids}
    for name in os.listdir("/sys/class/net"):
        if name == f"proa-{tag}" or (name.startswith("pv") and name[2:10] in short):
            yield f"interface {name}"
    tables = subprocess.run(["nft", "list", "tables"], capture_output=True, text=True).stdout
    if f"proa_{tag}" in tables:
        yield f"nft table proa_{tag}"
    for directory, _, _ in os.walk("/sys/fs/cgroup"):
        name = Path(directory).name
        if tag in directory or any(identity[:12] in name for identity in ids):
            yield f"cgroup {directory}"


def processes_of(root: Path) -> Iterator[str]:
    """Processes with a descriptor, a command line or a directory below `root`."""
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            held = [os.readlink(entry / "fd" / name) for name in os.listdir(entry / "fd")]
            state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        if state != "Z" and any(str(root) in text for text in (command, *held)):
            yield f"{entry.name} {command[:100]}"
