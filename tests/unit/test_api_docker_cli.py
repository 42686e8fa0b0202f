"""The unmodified docker client against the API over the fake engine: output and exit codes."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from proa.api.routes import Router
from proa.api.table import ROUTES
from tests.conftest import need
from tests.unit.api_server import served
from tests.unit.fake_engine import FakeEngine

Docker = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def docker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Docker]:
    """Runs `docker ARGUMENTS` with a fake engine behind it."""
    need(shutil.which("docker"), "docker", "the docker client is not installed")
    home = tmp_path_factory.mktemp("home")
    with served(Router(FakeEngine(), ROUTES)) as path:  # type: ignore[arg-type]
        environment = os.environ | {"DOCKER_HOST": f"unix://{path}", "HOME": str(home)}

        def run(*arguments: str, text: str = "") -> subprocess.CompletedProcess[str]:
            return subprocess.run(
                ["docker", *arguments],
                env=environment,
                input=text,
                capture_output=True,
                text=True,
                timeout=30,
            )

        yield run


def test_run_keeps_streams_apart(docker: Docker) -> None:
    ran = docker("run", "--rm", "tiny", "echo", "hello")
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "hello\n", "done\n")


def test_run_with_input(docker: Docker) -> None:
    ran = docker("run", "-i", "--rm", "tiny", "cat", text="abc\n" * 1000)
    assert (ran.returncode, ran.stdout) == (0, "abc\n" * 1000)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("tiny", "false"), 1, ""),
        (("tiny", "nope"), 127, "executable file not found"),
        (("tiny", "denied"), 126, "permission denied"),
        (("--memory", "1k", "tiny", "echo"), 125, "minimum memory limit"),
        (("--cap-add", "NONE_SUCH", "tiny", "echo"), 125, "NONE_SUCH"),
    ],
)
def test_exit_codes(docker: Docker, arguments: tuple[str, ...], code: int, words: str) -> None:
    ran = docker("run", "--rm", *arguments)
    assert ran.returncode == code
    assert words in ran.stderr


def test_a_life(docker: Docker, tmp_path: Path) -> None:
    cid = tmp_path / "cid"
    flags = (
        "-e A=b -w /x -u 1 -v vol:/data -p 8080:80 --entrypoint sleep --memory 64m --cpus 1 "
        "--network none --isolation vm --label a=b --hostname h --read-only --cap-add NET_ADMIN "
        "--cap-drop ALL --tmpfs /t --mount type=bind,source=/tmp,target=/mnt --stop-signal INT "
        "--add-host a:1.2.3.4 --dns 1.1.1.1 --ulimit nofile=10:20 --sysctl net.x=1 "
        "--security-opt no-new-privileges --shm-size 64m --pids-limit 5"
    ).split()
    made = docker("run", "-d", "--name", "life", *flags, "--cidfile", str(cid), "tiny", "9")
    assert made.returncode == 0, made.stderr
    assert made.stdout.strip() == cid.read_text()
    steps = (
        ("ps", "life"), ("inspect -f {{.State.Status}} life", "running"), ("top life", "PID"),
        ("stats --no-stream life", "life"), ("pause life", "life"), ("unpause life", "life"),
        ("exec life echo hi", "hi"), ("rename life lives", ""), ("update --memory 32m lives", ""),
        ("kill lives", "lives"), ("wait lives", "137"), ("start lives", "lives"),
        ("restart -t 0 lives", "lives"), ("stop lives", "lives"), ("logs lives", ""),
        ("ps -aqf status=exited", ""), ("port lives", ""), ("rm lives", "lives"),
    )  # fmt: skip
    for step, shown in steps:
        done = docker(*step.split())
        assert done.returncode == 0, (step, done.stderr)
        assert shown in done.stdout, step
    gone = docker("rm", "lives")
    assert gone.returncode == 1 and "No such container: lives" in gone.stderr


def test_exec_exit_code(docker: Docker) -> None:
    docker("run", "-d", "--name", "worker", "tiny", "sleep")
    assert docker("exec", "worker", "nope").returncode == 127
    assert docker("exec", "-d", "worker", "echo").returncode == 0
    docker("rm", "-f", "worker")


def test_copy(docker: Docker, tmp_path: Path) -> None:
    docker("create", "--name", "files", "tiny", "sleep")
    assert docker("cp", "files:/etc/hostname", str(tmp_path / "out")).returncode == 0
    assert (tmp_path / "out").read_text() == "fake\n"
    assert docker("cp", str(tmp_path / "out"), "files:/tmp/").returncode == 0
    missing = docker("cp", "files:/absent", str(tmp_path))
    assert missing.returncode == 1 and "Could not find the file /absent" in missing.stderr
    docker("rm", "files")


def test_images_and_system(docker: Docker, tmp_path: Path) -> None:
    saved = tmp_path / "saved.tar"
    for step, words in (
        ("version", "Proa"), ("info", "Server Version"), ("images", "tiny"),
        ("history tiny", "IMAGE"), ("tag tiny other:1", ""), ("rmi other:1", "Untagged"),
        (f"save tiny -o {saved}", ""), (f"load -i {saved}", "Loaded image: tiny:latest"),
        (f"import {saved} made:1", "sha256:"), ("rmi made:1", ""),
        ("container prune -f", "Total"),
        ("network ls", "bridge"), ("network inspect bridge", "bridge"), ("volume create v", "v"),
        ("volume ls", "v"), ("volume rm v", "v"),
        ("events --since 1h --until 0s --filter event=create", ""),
    ):  # fmt: skip
        done = docker(*step.split())
        assert done.returncode == 0, (step, done.stderr)
        assert words in done.stdout, step
