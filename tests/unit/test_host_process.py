"""Children: output, and failures that explain themselves."""

from __future__ import annotations

import os

import pytest

from proa.errors import HostError, Timeout
from proa.host import process


def test_output_and_input() -> None:
    assert process.run(["cat"], input="hello") == "hello"


def test_failure_carries_command_code_and_output() -> None:
    with pytest.raises(HostError, match=r"'sh -c .*' failed with exit code 7: bad thing"):
        process.run(["sh", "-c", "echo bad thing >&2; exit 7"])


def test_a_missing_program_is_named() -> None:
    with pytest.raises(HostError, match="cannot run 'no-such-program x'") as caught:
        process.run(["no-such-program", "x"])
    assert caught.value.hint == "install 'no-such-program'"


def test_timeout() -> None:
    with pytest.raises(Timeout, match="did not end within"):
        process.run(["sleep", "5"], timeout_seconds=0.05)


def test_spawn_keeps_descriptors_and_nothing_else() -> None:
    reading, writing = os.pipe()
    child = process.spawn(
        ["/bin/sh", "-c", f"exec >/proc/self/fd/{writing}; echo $$; env"], [writing]
    )
    os.close(writing)
    with open(reading, encoding="ascii") as file:
        said = file.read()
    assert child.wait() == 0
    assert said.startswith(f"{child.pid}\n")
    assert "HOME" not in said
