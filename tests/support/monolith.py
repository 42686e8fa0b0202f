"""The machine of `examples/monolith`: its disk, made once per state of the example, and booted."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from proa.agent import Agent, Dispatcher
from proa.isolation.vm.whole.qga import Qga
from proa.isolation.vm.whole.running import GUEST_AGENT_KEPT
from tests.conftest import need
from tests.support.engine import EngineProcess
from tests.support.instances import Instance, Result, eventually, gather
from tests.support.paths import PROA, ROOT
from tests.support.repositories import Deb, apt_repository

EXAMPLE = ROOT / "examples" / "monolith"
DISKS = ROOT / "build" / "test-machines"
BUILD_SECONDS, BOOT_SECONDS = 900, 600
_NO_MIRROR = ("Could not resolve", "Temporary failure", "Unable to fetch", "unreachable", "refused")

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIEo3 somebody"


def user_data(work: Path) -> str:
    """A user, a key, files, a package (of a repository that comes along), a command."""
    repository = work / "repository"
    hello = Deb("proa-hello", files={"/usr/share/hello": (b"from a package\n", 0o644)})
    apt_repository(repository, None, hello)
    files: list[dict[str, str]] = [
        {"path": f"/srv/{path.relative_to(work)}", "encoding": "b64",
         "content": base64.b64encode(path.read_bytes()).decode()}
        for path in sorted(repository.rglob("*")) if path.is_file() and "trees" not in path.parts
    ]  # fmt: skip
    source = "deb [trusted=yes] file:/srv/repository tiny main\n"
    files.append({"path": "/etc/apt/sources.list.d/tests.list", "content": source})
    greeting = {"path": "/etc/greeting", "content": "from user data\n", "permissions": "0640"}
    captain = {
        "name": "captain", "uid": "1500", "groups": ["sudo"], "shell": "/bin/bash",
        "sudo": ["ALL=(ALL) NOPASSWD:ALL"], "ssh_authorized_keys": [KEY],
    }  # fmt: skip
    told = {
        "users": [captain], "write_files": [*files, greeting], "packages": ["proa-hello"],
        "runcmd": [["cp", "/var/lib/cloud/data/instance-id", "/var/tmp/ran"]],
    }  # fmt: skip
    return "#cloud-config\n" + json.dumps(told)


@dataclass(frozen=True)
class Machine(Instance):
    """The machine, and the engine it runs in."""

    engine: EngineProcess

    @property
    def port(self) -> int:
        """Where its web server is published now."""
        return int(self.inspect()["NetworkSettings"]["Ports"]["80/tcp"][0]["HostPort"])

    def shell(self, script: str) -> str:
        """What a shell in there prints; it must succeed."""
        done = self.exec("/bin/sh", "-c", script)
        assert done.code == 0, f"{script}: {done}"
        return done.stdout

    def answers(self) -> bool:
        """Whether a command can be run in there."""
        return self.exec("true").code == 0

    def await_up(self) -> None:
        """Until its system says that it has started, well or not."""
        eventually(self.answers, BOOT_SECONDS, "no agent came up in there")
        identity = self.exec_create("systemctl", "is-system-running", "--wait")
        stream = self.exec_start(identity)
        stream.settimeout(BOOT_SECONDS)
        gather(stream)

    @contextmanager
    def guest_agent(self) -> Iterator[Qga]:
        """QEMU's guest agent, by the descriptor the monitor keeps, as another engine would."""
        place = self.inspect()["Proa"]["Place"]
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(self.engine.root / "run" / f"{place}.sock"))
            agent = Agent(connection)
            Dispatcher().add(agent)
            client = Qga(socket.socket(fileno=agent.get_descriptor(GUEST_AGENT_KEPT)))
            try:
                yield client
            finally:
                client.close()
                connection.shutdown(socket.SHUT_RDWR)


def disk(engine: EngineProcess) -> Path:
    """Its disk, found or made; skipped or failed where no package mirror is reached."""
    digest = hashlib.sha256()
    for path in sorted(EXAMPLE.iterdir()):
        if path.suffix == ".md":
            continue
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    found = DISKS / f"monolith-{digest.hexdigest()[:16]}.qcow2"
    if not found.exists():
        DISKS.mkdir(parents=True, exist_ok=True)
        made = found.with_name(f".{os.getpid()}.qcow2")
        built = _proa(engine, "image", "from-packages", str(EXAMPLE / "monolith.toml"), "-t", "m")
        unreached = built.returncode != 0 and any(word in built.stderr for word in _NO_MIRROR)
        need(not unreached, "mirror", f"no package mirror is reached: {built.stderr[-300:]}")
        assert built.returncode == 0, built.stderr
        done = _proa(engine, "image", "to-disk", "m", str(made), "--size", "8G")
        assert done.returncode == 0, done.stderr
        made.rename(found)
    return found


def _proa(engine: EngineProcess, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [PROA, *words], env=engine.variables(), capture_output=True, text=True,
        timeout=BUILD_SECONDS, stdin=subprocess.DEVNULL,
    )  # fmt: skip


def boot(engine: EngineProcess, work: Path) -> Machine:
    """Start it with the user's data, and wait until its system is up."""
    data = work / "user-data"
    data.write_text(user_data(work))
    words = (
        "run",
        "-d",
        "--vm",
        "--name",
        "monolith",
        "--hostname",
        "shop-one",
        "-m",
        "1g",
        "--cpus",
        "2",
        "-p",
        "127.0.0.1::80",
        "--cloud-init",
        str(data),
        "-v",
        f"{work}/shared:/srv/shared",
        str(disk(engine)),
    )
    done = _proa(engine, *words)
    assert done.returncode == 0, done.stderr
    identity = done.stdout.strip()
    machine = Machine(engine.api, identity, engine)
    machine.await_up()
    return machine


def ran(engine: EngineProcess, *words: str) -> Result:
    """`proa WORDS` to its end."""
    done = _proa(engine, *words)
    return Result(done.returncode, done.stdout, done.stderr)
