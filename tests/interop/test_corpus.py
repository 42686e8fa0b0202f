"""The corpus of Containerfiles, built by Proa and by BuildKit: same files, configuration, history.

What must fail fails in both, and Proa says where.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import need
from tests.support.corpus import Case, Held, corpus, held
from tests.support.dockerd import Dockerd, available, dockerd
from tests.support.engine import EngineProcess
from tests.support.images import busy_image

CASES = corpus()


@pytest.fixture(scope="module")
def judge() -> Iterator[Dockerd]:
    """The newest dockerd with the base image."""
    need(available(), "buildkit", "tools/newer.sh was not run here")
    with dockerd() as daemon:
        daemon.run("load", input=busy_image("busy"))
        yield daemon


def test_the_corpus_is_large() -> None:
    """At least a hundred, each with a name of its own."""
    assert len(CASES) >= 100
    assert len({case.name for case in CASES}) == len(CASES)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_same_as_buildkit(
    case: Case, judge: Dockerd, session_engine: EngineProcess, tmp_path: Path
) -> None:
    """One case in both."""
    context = tmp_path / case.name
    case.write(context)
    ours = session_engine.proa(
        "build", "--network=none", "-t", case.name, *case.options, str(context)
    )
    theirs = judge.build(context, case.name, case.options)
    said = theirs.stderr.decode()
    if case.error is not None:
        assert ours.returncode == 1, ours.stdout
        message = ours.stderr.decode()
        assert case.error.lower() in message.lower()
        assert "Traceback" not in message
        assert case.stricter or theirs.returncode
        line = re.search(r"^Containerfile:(\d+)$", said, re.MULTILINE)
        if line and not case.stricter:
            assert f"Containerfile:{line[1]}" in message
        return
    assert ours.returncode == 0, ours.stderr.decode()
    assert theirs.returncode == 0, said
    saved = session_engine.proa("save", case.name).stdout
    _compare(held(saved), held(judge.run("save", case.name).stdout))


def _compare(ours: Held, theirs: Held) -> None:
    assert sorted(ours.files) == sorted(theirs.files)
    assert {p: f for p, f in ours.files.items() if f != theirs.files[p]} == {}
    assert ours.config == theirs.config
    assert ours.history == theirs.history
    assert ours.layers == theirs.layers
