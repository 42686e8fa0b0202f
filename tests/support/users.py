"""Somebody at an engine: the commands `proa` and `docker` with a home, and logins of its own."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.engine import EngineProcess
from tests.support.paths import PROA

Done = subprocess.CompletedProcess[bytes]


@dataclass(frozen=True)
class User:
    """One user; `variables` are added to the environment of what is run."""

    engine: EngineProcess
    home: Path
    variables: dict[str, str] = field(default_factory=dict)

    @property
    def config(self) -> Path:
        """Docker's configuration of this user."""
        return self.home / ".docker" / "config.json"

    def run(self, *command: str, input: bytes = b"") -> Done:
        """A command, whatever its exit code."""
        ours = {"HOME": str(self.home), "DOCKER_CONFIG": str(self.config.parent)}
        environment = {**self.engine.variables(), **ours, **self.variables}
        return subprocess.run(
            command, env=environment, input=input, capture_output=True, timeout=120
        )

    def try_(self, *words: str, input: bytes = b"") -> Done:
        """`proa WORDS`, whatever its exit code."""
        return self.run(str(PROA), *words, input=input)

    def proa(self, *words: str, input: bytes = b"") -> str:
        """`proa WORDS`, which must succeed; its standard output."""
        return _succeeded(self.try_(*words, input=input)).stdout.decode()

    def docker(self, *words: str, input: bytes = b"") -> str:
        """`docker WORDS`, which must succeed; its standard output."""
        return _succeeded(self.run("docker", *words, input=input)).stdout.decode()

    def inspect(self, name: str) -> Any:
        """An image of the engine."""
        return json.loads(self.proa("image", "inspect", name))[0]

    def log_in(self, host: str, login: tuple[str, str]) -> None:
        """`proa login`."""
        name, password = login
        self.proa("login", "-u", name, "--password-stdin", host, input=f"{password}\n".encode())


def _succeeded(done: Done) -> Done:
    assert done.returncode == 0, f"{done.args}: {done.stderr.decode()}"
    return done
