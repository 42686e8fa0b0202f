"""`rollback`: the files of an instance as its image has them, again."""

from __future__ import annotations

import pytest

from tests.support.http import ApiError
from tests.support.instances import Place

KEEP = (
    "sh",
    "-c",
    "ls /mine /etc/passwd; echo mine > /mine; rm -f /etc/passwd; sleep ${1:-0}",
    "x",
)


def test_what_was_changed_is_gone(place: Place) -> None:
    made = place.create("busy", *KEEP)
    for _ in range(2):
        made.start().wait()
    assert made.logs().stdout == "/etc/passwd\n/mine\n"
    place.api.call("POST", f"/proa/instances/{made.id}/rollback")
    made.start().wait()
    assert made.logs().stdout == "/etc/passwd\n/mine\n/etc/passwd\n"


def test_one_that_runs_is_rolled_back_by_force_only(place: Place) -> None:
    made = place.start("busy", *KEEP, "1000")
    with pytest.raises(ApiError, match="running and cannot be rolled back") as caught:
        place.api.call("POST", f"/proa/instances/{made.id}/rollback")
    assert caught.value.status == 409
    place.api.call("POST", f"/proa/instances/{made.id}/rollback", {"Force": True})
    assert made.state()["Status"] == "exited"
    with pytest.raises(ApiError, match="has no snapshot 'absent'"):
        place.api.call("POST", f"/proa/instances/{made.id}/rollback", {"Snapshot": "absent"})
