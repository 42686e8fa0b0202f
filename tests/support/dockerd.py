"""The newest dockerd (and the BuildKit in it) as a judge: started by hand, without a network."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.support.instances import eventually
from tests.support.paths import PEERS


def available() -> bool:
    """Whether tools/newer.sh was run here and containerd is installed."""
    there = (PEERS / "dockerd", PEERS / "docker-buildx")
    return all(path.exists() for path in there) and shutil.which("containerd") is not None


@dataclass(frozen=True)
class Dockerd:
    """A running daemon, and the docker client of it."""

    socket: Path
    config: Path

    def run(
        self, *arguments: str, input: bytes | None = None, check: bool = True
    ) -> subprocess.CompletedProcess[bytes]:
        """`docker ARGUMENTS`."""
        command = ["docker", "--config", str(self.config), "-H", f"unix://{self.socket}"]
        done = subprocess.run([*command, *arguments], input=input, capture_output=True, timeout=120)
        if check and done.returncode:
            raise AssertionError(f"docker {arguments}: {done.stderr.decode()}")
        return done

    def build(
        self, context: Path, name: str, options: Sequence[str] = ()
    ) -> subprocess.CompletedProcess[bytes]:
        """`docker buildx build` with BuildKit and no network; never raises."""
        words = ["buildx", "build", "--network=none", "--progress=plain", "-t", name]
        file = ["-f", str(context / "Containerfile")]
        return self.run(*words, *file, *options, str(context), check=False)


@contextlib.contextmanager
def dockerd() -> Iterator[Dockerd]:
    """A daemon on a root of its own."""
    base = Path(tempfile.mkdtemp(prefix="proa-dockerd-", dir="/tmp"))
    plugins = base / "config" / "cli-plugins"
    plugins.mkdir(parents=True)
    (plugins / "docker-buildx").symlink_to(PEERS / "docker-buildx")
    command = [
        str(PEERS / "dockerd"), "--data-root", str(base / "data"),
        "--exec-root", str(base / "exec"), "--pidfile", str(base / "pid"),
        "-H", f"unix://{base / 'sock'}", "--bridge=none",
        "--iptables=false", "--ip6tables=false",
    ]  # fmt: skip
    path = f"{PEERS}:/usr/sbin:{os.environ['PATH']}"
    with (base / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=os.environ | {"PATH": path})
    daemon = Dockerd(base / "sock", base / "config")
    try:
        eventually(
            lambda: daemon.run("version", check=False).returncode == 0, 60,
            "dockerd did not come up",
        )  # fmt: skip
        yield daemon
    finally:
        process.terminate()
        process.wait(30)
        subprocess.run(["rm", "-rf", str(base)], check=False)
