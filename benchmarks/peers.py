"""The engines we compare with, started by hand: private roots, sockets and network namespace.

Nothing of theirs touches the host's own docker or podman: dockerd lives in a network namespace of
its own and ends by its pid, podman joins that namespace and keeps its state below one directory.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

IMAGE = "busy"
# Podman would raise the hard limits, which a root without CAP_SYS_RESOURCE may not.
LIMITS = ("--ulimit=nofile=1024:1024", "--ulimit=nproc=1024:1024")


class Absent(Exception):
    """A peer cannot run here; the message says why."""


def run(command: list[str], **options: object) -> str:
    """A program's output; raises with its words when it fails."""
    result = subprocess.run(
        command, capture_output=True, text=True, stdin=subprocess.DEVNULL, **options
    )  # type: ignore[call-overload]
    if result.returncode != 0:
        words = (result.stderr or result.stdout).strip()
        raise Absent(f"'{Path(command[0]).name}' exit code {result.returncode}: {words}")
    return str(result.stdout)


def program(name: str) -> str:
    """Its path; raises Absent."""
    path = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if not path:
        raise Absent(f"'{name}' is not installed (tools/install.sh peers)")
    return path


@dataclass(frozen=True)
class Docker:
    """A dockerd of our own and the client's argument list for it."""

    client: list[str]
    pid: int

    def run(self, *flags: str) -> list[str]:
        """`docker run --rm ... true`."""
        return [*self.client, "run", "--rm", *flags, IMAGE, "true"]

    def idle(self) -> list[str]:
        """A detached container that sleeps, without a network."""
        return [*self.client, "run", "-d", "--network", "none", IMAGE, "sleep", "1000"]


@contextlib.contextmanager
def docker(folder: Path, archive: Path) -> Iterator[Docker]:
    """dockerd in its own network namespace; SIGTERM at the end."""
    client, daemon = program("docker"), program("dockerd")
    socket = folder / "docker.sock"
    flags = [
        f"--data-root={folder}/data", f"--exec-root={folder}/exec", f"--host=unix://{socket}",
        f"--pidfile={folder}/dockerd.pid", "--log-level=error",
    ]  # fmt: skip
    enter = 'ip link set lo up; exec "$@"'
    with (folder / "dockerd.log").open("wb") as log:
        process = subprocess.Popen(
            [program("unshare"), "--net", "sh", "-c", enter, "sh", daemon, *flags],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log,
        )  # fmt: skip
    try:
        command = [client, "--config", str(folder / "config"), "-H", f"unix://{socket}"]
        wait_for([*command, "version"], process, folder / "dockerd.log")
        run([*command, "load", "-q", "-i", str(archive)])
        yield Docker(command, process.pid)
    finally:
        end(process)


def wait_for(command: list[str], process: subprocess.Popen[bytes], log: Path) -> None:
    """Until the daemon answers; raises Absent with its last word when it ends."""
    deadline = time.monotonic() + 60
    while subprocess.run(command, capture_output=True).returncode != 0:
        if process.poll() is not None or time.monotonic() > deadline:
            last = (log.read_text().strip().splitlines() or ["no word"])[-1]
            raise Absent(f"dockerd did not come up: {last}")
        time.sleep(0.2)


def end(process: subprocess.Popen[bytes]) -> None:
    """SIGTERM, and SIGKILL for who does not go."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@dataclass(frozen=True)
class Podman:
    """Podman's argument list for its private state."""

    command: list[str]

    def run(self, *flags: str) -> list[str]:
        """`podman run --rm ... true`."""
        return [*self.command, "run", "--rm", *LIMITS, *flags, IMAGE, "true"]

    def idle(self) -> list[str]:
        """A detached container that sleeps, without a network."""
        return [*self.command, "run", "-d", *LIMITS, "--network", "none", IMAGE, "sleep", "1000"]


@contextlib.contextmanager
def podman(folder: Path, archive: Path, namespace_pid: int) -> Iterator[Podman]:
    """Podman inside the namespace of `namespace_pid` (nsenter costs it about 1 ms)."""
    enter = [program("nsenter"), f"--net=/proc/{namespace_pid}/ns/net"]
    command = [
        *enter, program("podman"), f"--root={folder}/root", f"--runroot={folder}/run",
        f"--tmpdir={folder}/tmp", "--cgroup-manager=cgroupfs", f"--runtime={program('runc')}",
    ]  # fmt: skip
    run([*command, "load", "-q", "-i", str(archive)])
    try:
        yield Podman(command)
    finally:
        with contextlib.suppress(Absent):
            run([*command, "rm", "-af"])
            run([*command, "unmount", "-af"])


def bundle(folder: Path, tree: bytes) -> list[str]:
    """An OCI bundle of the same files; `runc run` of it but for the name of the container."""
    rootfs = folder / "rootfs"
    rootfs.mkdir(parents=True)
    subprocess.run(["tar", "-xf", "-", "-C", str(rootfs)], input=tree, check=True)
    runc = program("runc")
    run([runc, "spec", "--bundle", str(folder)])
    path = folder / "config.json"
    config = json.loads(path.read_text())
    config["process"] |= {"terminal": False, "args": ["true"], "env": ["PATH=/bin"]}
    config["root"]["readonly"] = False
    path.write_text(json.dumps(config))
    return [runc, "--root", str(folder / "state"), "run", "--bundle", str(folder)]
