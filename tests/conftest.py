"""What every suite shares: one engine for the session, images, places, and honest verdicts.

A test that cannot run says why with `need`.  A skip is a failure unless PROA_ALLOW_SKIP (a comma
list of the words given to `need`, or of suite names) permits it, and a suite most of which was
skipped is never green by itself.
"""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.engine import EngineProcess, engine
from tests.support.images import BUSYBOX, busy_image, probe_image
from tests.support.instances import Api, Place

ISOLATIONS = ("container", "vm")
ALLOWED = frozenset(filter(None, os.environ.get("PROA_ALLOW_SKIP", "").split(",")))


def need(condition: object, word: str, reason: str) -> None:
    """Skip when a condition is missing and PROA_ALLOW_SKIP names `word`; else fail."""
    if condition:
        return
    if word in ALLOWED:
        pytest.skip(reason)
    pytest.fail(f"{reason} (PROA_ALLOW_SKIP={word} permits to skip this)")


@pytest.fixture(scope="session")
def session_engine() -> Iterator[EngineProcess]:
    """The engine most tests share."""
    need(os.geteuid() == 0, "root", "the engine's tests need root")
    with engine() as running:
        running.api.load(probe_image())
        if BUSYBOX.exists():
            running.api.load(busy_image())
        yield running


@pytest.fixture
def api(session_engine: EngineProcess) -> Iterator[Api]:
    """The shared engine's API; shows the engine's log when it died under a test."""
    assert session_engine.answers()
    yield session_engine.api


@pytest.fixture(params=ISOLATIONS)
def place(request: pytest.FixtureRequest, api: Api) -> Iterator[Place]:
    """Makes instances, once as containers and once as vms."""
    made = Place(api, str(request.param))
    yield made
    made.close()


@pytest.fixture
def container(api: Api) -> Iterator[Place]:
    """Makes containers, for what only a container can be asked."""
    made = Place(api, "container")
    yield made
    made.close()


@pytest.fixture
def vm(api: Api) -> Iterator[Place]:
    """Makes vms, for what only a vm can be asked."""
    made = Place(api, "vm")
    yield made
    made.close()


@pytest.fixture(scope="session")
def require_program() -> Callable[[str], str]:
    """The path of a program of this host, which must be there."""

    def find(name: str) -> str:
        path = shutil.which(name)
        need(path, name, f"'{name}' is not installed")
        return str(path)

    return find


# -- the verdict --------------------------------------------------------------------------------

TALLY: dict[str, Counter[str]] = {}
PARITY: Counter[str] = Counter()


def suite_of(nodeid: str) -> str:
    """`parity` for tests/parity/...; the file's own folder otherwise."""
    parts = Path(nodeid.split("::")[0]).parts
    return parts[1] if len(parts) > 2 else "tests"


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Count outcomes per suite, and the parity suite's per isolation."""
    if report.when == "call" or report.outcome == "skipped":
        suite = suite_of(report.nodeid)
        TALLY.setdefault(suite, Counter())[report.outcome] += 1
        if suite == "parity" and report.outcome == "passed":
            PARITY.update(kind for kind in ISOLATIONS if f"[{kind}" in report.nodeid)


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """A suite that was mostly skipped turns a green run red."""
    if exitstatus == 0 and hollow_suites():
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def hollow_suites() -> list[str]:
    """Suites that skipped more than they ran, without leave."""
    return [
        suite
        for suite, outcomes in TALLY.items()
        if outcomes["skipped"] > outcomes["passed"] and suite not in ALLOWED
    ]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The parity line (read by .ci/run), and the suites that prove nothing."""
    if "parity" in TALLY:
        counts = ", ".join(f"{PARITY[kind]} {kind}" for kind in ISOLATIONS)
        terminalreporter.write_line(f"parity: {counts} passed")
    for suite in hollow_suites():
        terminalreporter.write_line(f"hollow: most of tests/{suite} was skipped", red=True)
