"""A shop of packages for tests: repositories, keys, declarations beside them, and the command."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.engine import EngineProcess
from tests.support.paths import PROA
from tests.support.repositories import Deb, Key, apt_repository, base, hello, rpm_repository

APP = '#!/bin/sh\necho "$GREETING $1"; id -u; cat /etc/app.conf /usr/share/hello/text\n'
REPOSITORY = """
[[repositories]]
url = "{url}"
suite = "tiny"
key = "keys/{key}"
"""


@dataclass
class Shop:
    """Repositories, keys, and a directory for declarations."""

    root: Path
    key: Key
    deb: str
    rpm: str

    def declare(self, name: str, text: str) -> Path:
        """A declaration beside the keys."""
        path = self.root / "declarations" / name
        path.write_text(text)
        return path

    def debian(self, name: str, head: str, tail: str = "", *, key: str = "right.asc") -> Path:
        """A declaration of packages of our apt repository."""
        head = f'distribution = "debian"\nrelease = "tiny"\n{head}\n'
        return self.declare(name, head + tail + REPOSITORY.format(url=self.deb, key=key))

    def red(self, name: str, head: str, tail: str = "", *, key: str = "right.asc") -> Path:
        """A declaration of packages of our rpm repository."""
        head = f'distribution = "rocky"\nrelease = "9"\n{head}\n{tail}'
        repository = f'\n[[repositories]]\nurl = "{self.rpm}"\nkey = "keys/{key}"\n'
        return self.declare(name, head + repository)


@contextmanager
def opened() -> Iterator[Shop]:
    """A shop where an unprivileged user may read; gone at the end."""
    root = Path(tempfile.mkdtemp(prefix="proa-shop-", dir="/tmp"))
    root.chmod(0o755)
    key = Key(root / "key")
    stranger = Key(root / "stranger", "stranger <stranger@example.invalid>")
    try:
        yield _furnished(root, key, stranger)
    finally:
        key.close()
        stranger.close()
        shutil.rmtree(root)


def _furnished(root: Path, key: Key, stranger: Key) -> Shop:
    bad = Deb("bad", scripts={"postinst": "echo it went wrong\nexit 3\n"})
    evil = Deb("evil", scripts={"postinst": f"""
        rm -rf /var/log /etc/machine-id
        ln -s {root}/canary /var/log
        ln -s {root}/canary/file /etc/machine-id
        ln -s /../../../..{root}/canary /srv
        ln -s {root}/canary/file /etc/shadow
        if echo x > /run/proa-packages/new; then exit 1; fi
        if cat {root}/canary/file; then exit 1; fi
    """})  # fmt: skip
    slow = Deb("slow", scripts={"postinst": "exec sleep 1000.25\n"})
    debs = (base(), hello(), Deb("greeting"), bad, evil, slow)
    made = Shop(root, key, apt_repository(root / "apt", key, *debs), "")
    made.rpm = rpm_repository(root / "rpm", key)
    keys = root / "declarations/keys"
    keys.mkdir(parents=True)
    (keys / "right.asc").write_bytes(key.public())
    (keys / "wrong.asc").write_bytes(stranger.public())
    (root / "declarations/run.sh").write_text(APP)
    return made


def proa(running: EngineProcess, *words: str | Path) -> subprocess.CompletedProcess[str]:
    """The command, against this engine."""
    command = [str(PROA), *map(str, words)]
    return subprocess.run(
        command, env=running.variables(), capture_output=True, text=True, timeout=120
    )


def build(running: EngineProcess, declaration: Path, tag: str, *options: str) -> str:
    """The id of the image that is made."""
    done = proa(running, "image", "from-packages", declaration, "-t", tag, *options)
    assert done.returncode == 0, done.stderr
    assert "Writing the image" in done.stderr
    return done.stdout.strip()


def refused(running: EngineProcess, declaration: Path, *options: str) -> str:
    """What the command says of a build that must fail, and leave no image."""
    done = proa(running, "image", "from-packages", declaration, "-t", "refused:1", *options)
    assert done.returncode != 0, done.stdout
    assert proa(running, "image", "inspect", "refused:1").returncode != 0
    return done.stderr
