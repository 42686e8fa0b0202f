"""Reports as JSON: out, in, and what no report may be."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from proa.compare import document
from proa.compare.record import Report
from proa.errors import Corrupt, Invalid, NotFound, ProaError
from tests.support import reports

SCHEMA = Path(__file__).parents[2] / "docs" / "schemas" / "compare.json"


@pytest.mark.parametrize("make", reports.CASES.values(), ids=list(reports.CASES))
def test_a_report_comes_back_as_it_was(make: Callable[[], Report], tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    path.write_text(document.write(make()))
    assert document.read(path) == make()


@pytest.mark.parametrize("make", reports.CASES.values(), ids=list(reports.CASES))
def test_a_report_is_what_the_published_schema_says(make: Callable[[], Report]) -> None:
    published = json.loads(SCHEMA.read_text())
    jsonschema.Draft202012Validator.check_schema(published)
    jsonschema.Draft202012Validator(published).validate(json.loads(document.write(make())))


def test_the_published_schema_is_the_one_of_the_record() -> None:
    assert json.loads(SCHEMA.read_text()) == document.schema(), (
        "write it anew: python -m tools.schemas"
    )


def changed(change: Callable[[dict[str, Any]], object]) -> bytes:
    value = json.loads(document.write(reports.full()))
    change(value)
    return json.dumps(value).encode()


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"", Corrupt),
        (b"[" * 100_000, Corrupt),
        (b"[]", Corrupt),
        (b"\xff\xfe", Corrupt),
        (b'{"schema": "proa.compare/2"}', Invalid),
        (b'{"schema": ["proa.compare/1"]}', Invalid),
        (b'{"schema": "proa.compare/1"}', Corrupt),
        (changed(lambda r: r.pop("subject")), Corrupt),
        (changed(lambda r: r.update(rounds="12")), Corrupt),
        (changed(lambda r: r.update(rounds=True)), Corrupt),
        (changed(lambda r: r.update(confidence=float("nan"))), Corrupt),
        (changed(lambda r: r.update(confidence=10**400)), Corrupt),
        (changed(lambda r: r.update(measures={})), Corrupt),
        (changed(lambda r: r["measures"][0]["samples"].update(container=[1, "2"])), Corrupt),
        (changed(lambda r: r["isolation"]["shared"][0]["answers"].update(vm=["no"])), Corrupt),
    ],
)
def test_what_is_no_report_is_refused(data: bytes, error: type[ProaError]) -> None:
    with pytest.raises(error) as raised:
        document.parse(data, "old.json")
    assert "'old.json" in raised.value.message
    assert "\n" not in raised.value.message


def test_what_a_later_version_adds_is_passed_over() -> None:
    found = document.parse(changed(lambda r: r.update(mood="fine")), "old.json")
    assert found == reports.full()


def test_a_file_that_is_not_there_or_too_large(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(NotFound):
        document.read(tmp_path / "none")
    with pytest.raises(Corrupt):
        document.read(tmp_path)
    monkeypatch.setattr(document, "MAXIMUM_BYTES", 10)
    (tmp_path / "large").write_bytes(b" " * 11)
    with pytest.raises(Corrupt):
        document.read(tmp_path / "large")
