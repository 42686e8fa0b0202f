"""The unmodified docker client over the engine's socket, with both isolations."""

from __future__ import annotations

import json
import os
import pty
import select
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.engine import EngineProcess
from tests.support.instances import eventually


@dataclass
class Docker:
    """The docker command, pointed at the engine."""

    program: str
    engine: EngineProcess
    isolation: str
    config: Path

    def popen(self, *arguments: str) -> list[str]:
        """The argument list."""
        host = f"unix://{self.engine.socket}"
        return [self.program, "--config", str(self.config), "-H", host, *arguments]

    def try_(self, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """Run, whatever the exit code."""
        return subprocess.run(
            self.popen(*arguments), capture_output=True, text=True, input=stdin, timeout=120
        )

    def __call__(self, *arguments: str, stdin: str = "") -> str:
        """Run and demand success; its stdout."""
        result = self.try_(*arguments, stdin=stdin)
        assert result.returncode == 0, f"docker {' '.join(arguments)}: {result.stderr}"
        return result.stdout.strip()

    def run(self, *arguments: str, stdin: str = "") -> str:
        """`docker run` with the isolation."""
        return self("run", "--isolation", self.isolation, *arguments, stdin=stdin)


@pytest.fixture(params=["container", "vm"])
def docker(
    request: pytest.FixtureRequest,
    session_engine: EngineProcess,
    require_program: Callable[[str], str],
    tmp_path: Path,
) -> Iterator[Docker]:
    """The client, with a configuration directory of its own."""
    yield Docker(require_program("docker"), session_engine, request.param, tmp_path / "config")
    session_engine.remove_all()


def test_run_rm(docker: Docker) -> None:
    assert docker.run("--rm", "busy", "echo", "hello") == "hello"
    assert docker("ps", "-aq") == ""


@pytest.mark.parametrize(
    ("command", "code"),
    [("true", 0), ("false", 1), ("no-such-command", 127), ("/etc/not-a-program", 126)],
)
def test_exit_codes(docker: Docker, command: str, code: int) -> None:
    result = docker.try_("run", "--rm", "--isolation", docker.isolation, "busy", command)
    assert result.returncode == code
    assert docker("ps", "-aq") == ""


def test_an_unknown_image_is_125(docker: Docker) -> None:
    result = docker.try_("run", "--rm", "--pull", "never", "no-such-image", "true")
    assert result.returncode == 125


def test_stdin_pipes_through(docker: Docker) -> None:
    assert docker.run("--rm", "-i", "busy", "sort", stdin="b\na\n") == "a\nb"


def test_an_interactive_terminal(docker: Docker) -> None:
    arguments = docker.popen(
        "run",
        "--rm",
        "-it",
        "--isolation",
        docker.isolation,
        "busy",
        "sh",
        "-c",
        "tty; read x; exit $x",
    )
    child, master = pty.fork()
    if child == 0:
        os.execv(arguments[0], arguments)
    seen, sent, end = "", False, time.monotonic() + 60
    while time.monotonic() < end:
        if not select.select([master], [], [], 1)[0]:
            continue
        try:
            piece = os.read(master, 4096)
        except OSError:
            break
        seen += piece.decode(errors="replace")
        if "/dev/pts/" in seen and not sent:
            sent = bool(os.write(master, b"11\r"))
    assert "/dev/pts/" in seen
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 11
    os.close(master)


def test_the_life_of_an_instance(docker: Docker, tmp_path: Path) -> None:
    identity = docker.run("-d", "--name", "walk", "-e", "A=b", "-w", "/srv", "busy",
                          "sh", "-c", "echo up; pwd; echo $A; exec sleep 1000")  # fmt: skip
    assert docker("ps", "-q", "--no-trunc") == identity
    assert "walk" in docker("ps", "--format", "{{.Names}}")
    eventually(lambda: docker("logs", "walk") == "up\n/srv\nb")
    assert docker("exec", "walk", "echo", "inside") == "inside"
    assert docker("exec", "-i", "walk", "cat", stdin="fed") == "fed"
    assert docker.try_("exec", "walk", "sh", "-c", "exit 9").returncode == 9
    assert docker("inspect", "-f", "{{.HostConfig.Isolation}}", "walk") == docker.isolation
    assert "sleep 1000" in docker("top", "walk")
    stats = json.loads(docker("stats", "--no-stream", "--format", "{{json .}}", "walk"))
    assert stats["Name"] == "walk"
    (tmp_path / "file").write_text("text\n")
    docker("cp", str(tmp_path / "file"), "walk:/srv/file")
    docker("cp", "walk:/srv/file", str(tmp_path / "back"))
    assert (tmp_path / "back").read_text() == "text\n"
    docker("pause", "walk")
    assert docker("inspect", "-f", "{{.State.Status}}", "walk") == "paused"
    docker("unpause", "walk")
    docker("rename", "walk", "walked")
    docker("restart", "-t", "0", "walked")
    docker("stop", "-t", "0", "walked")
    assert docker("wait", "walked") == "137"
    docker("start", "walked")
    docker("kill", "-s", "KILL", "walked")
    docker("rm", "-f", "walked")
    assert docker("ps", "-aq") == ""


def test_create_start_attach(docker: Docker) -> None:
    identity = docker("create", "-i", "--isolation", docker.isolation, "busy", "cat")
    assert docker("start", "-a", "-i", identity, stdin="through\n") == "through"


def test_publish(docker: Docker) -> None:
    docker.run("-d", "--name", "web", "-p", "127.0.0.1::8080", "busy", "sh", "-c",
               "echo page >/srv/index.html; httpd -f -p 8080 -h /srv")  # fmt: skip
    address = docker("port", "web", "8080/tcp").splitlines()[0]

    def page() -> bytes:
        try:
            return bytes(urllib.request.urlopen(f"http://{address}/", timeout=5).read())
        except OSError:
            return b""

    eventually(lambda: page() == b"page\n", 20)


def test_volumes(docker: Docker, tmp_path: Path) -> None:
    docker.run("--rm", "-v", f"{tmp_path}:/data", "busy", "sh", "-c", "echo in >/data/f")
    assert (tmp_path / "f").read_text() == "in\n"
    result = docker.try_("run", "--rm", "--isolation", docker.isolation, "-v",
                         f"{tmp_path}:/data:ro", "busy", "touch", "/data/g")  # fmt: skip
    assert result.returncode == 1


def test_images(docker: Docker, tmp_path: Path) -> None:
    docker("tag", "busy", "copied:one")
    assert "copied" in docker("images", "--format", "{{.Repository}}")
    docker("save", "-o", str(tmp_path / "saved.tar"), "copied:one")
    docker("rmi", "copied:one")
    assert "copied:one" in docker("load", "-i", str(tmp_path / "saved.tar"))
    assert docker.run("--rm", "copied:one", "echo", "again") == "again"
    docker("rmi", "copied:one")


def test_import_and_export_of_a_tree(docker: Docker, tmp_path: Path) -> None:
    from tests.support.images import busy_layer

    (tmp_path / "tree.tar").write_bytes(busy_layer().bytes())
    docker("import", "-c", 'CMD ["echo", "imported"]', str(tmp_path / "tree.tar"), "tree:1")
    assert docker.run("--rm", "tree:1", "/bin/echo", "yes") == "yes"
    docker("rmi", "tree:1")


def test_events(docker: Docker) -> None:
    since = time.time() - 1
    docker.run("--rm", "--name", "loud", "busy", "true")
    output = docker("events", "--since", f"{since:.6f}", "--until", f"{time.time():.6f}",
                    "--format", "{{.Action}}")  # fmt: skip
    actions = output.split()
    for action in ("create", "start", "die", "destroy"):
        assert action in actions


def test_facts(docker: Docker) -> None:
    assert json.loads(docker("version", "--format", "{{json .Server}}"))["ApiVersion"]
    assert json.loads(docker("info", "--format", "{{json .}}"))["ServerVersion"]


def test_commit_diff_and_export(docker: Docker, tmp_path: Path) -> None:
    script = "echo one >/made; rm /etc/group; echo ready; sleep 1000"
    docker.run("-d", "--name", "edited", "busy", "sh", "-c", script)
    eventually(lambda: docker("logs", "edited") == "ready")
    assert docker("diff", "edited").splitlines() == ["C /etc", "D /etc/group", "A /made"]
    change = 'CMD ["cat", "/made"]'
    identity = docker(
        "commit", "-a", "somebody", "-m", "a message", "-c", change, "edited", "edited:of-us"
    )
    found = json.loads(docker("inspect", "edited:of-us"))[0]
    assert (found["Id"], found["Author"], found["Comment"]) == (
        identity, "somebody", "a message",
    )  # fmt: skip
    assert docker.run("--rm", "edited:of-us") == "one"
    docker("export", "-o", str(tmp_path / "all.tar"), "edited")
    listed = subprocess.run(
        ["tar", "-tf", tmp_path / "all.tar"], capture_output=True, text=True, check=True
    )
    names = listed.stdout.splitlines()
    assert {"made", "bin/busybox", "etc/passwd"} <= set(names) and "etc/group" not in names
    docker("rmi", "edited:of-us")
