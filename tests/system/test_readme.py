"""Every command the README shows is run, in its order, from a checkout."""

from __future__ import annotations

import os
import pty
import re
import select
import time

import pytest

from tests.support.engine import EngineProcess
from tests.support.paths import ROOT

DOCUMENTS = ("README.md",)
LIMIT_SECONDS = 300


def commands(document: str) -> list[str]:
    """Lines after a prompt, without their comments."""
    text = (ROOT / document).read_text()
    blocks = re.findall(r"```console\n(.*?)```", text, re.S)
    lines = [line for block in blocks for line in block.splitlines() if line.startswith("$ ")]
    return [line[2:].split("  #")[0].strip() for line in lines]


def at_a_terminal(command: str, environment: dict[str, str]) -> tuple[int, str]:
    """Run as a person would, leaving any shell by `exit`; exit code and what was shown."""
    child, master = pty.fork()
    if child == 0:
        os.chdir(ROOT)
        os.execvpe("sh", ["sh", "-c", command], environment)
    shown, left, end = "", False, time.monotonic() + LIMIT_SECONDS
    while time.monotonic() < end:
        if not select.select([master], [], [], 0.5)[0]:
            continue
        try:
            shown += os.read(master, 4096).decode(errors="replace")
        except OSError:
            break
        if not left and shown.rstrip(" ").endswith(("#", "$")):
            left = bool(os.write(master, b"exit\r"))
    else:
        os.kill(child, 9)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    os.close(master)
    return code, shown


@pytest.mark.slow
@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_command(session_engine: EngineProcess, document: str) -> None:
    environment = session_engine.variables()
    environment["PATH"] = f"{ROOT / 'bin'}:{environment['PATH']}"
    environment["MAKEFLAGS"] = ""
    listed = commands(document)
    assert "make demo" in listed, "the README's first command"
    for command in sorted(listed, key=lambda line: line != "make demo"):
        real = command.replace("/run/proa/proa.sock", str(session_engine.socket))
        code, shown = at_a_terminal(real, environment)
        assert code == 0, f"{command}\n{shown[-3000:]}"
    session_engine.remove_all()
