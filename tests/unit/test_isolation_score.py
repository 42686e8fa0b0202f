"""The isolation score: its table, its arithmetic, and what is judged beside the host."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proa.compare.isolation import inquiries, judge, shares
from proa.compare.isolation.gathering import PAIRS
from proa.compare.isolation.host import Host
from proa.compare.isolation.judging import BEHIND, JUDGES, Case
from proa.compare.isolation.score import AXIS_WEIGHTS, Found
from proa.compare.record import AXES, OUTCOMES, Answer
from tests.support.paths import ROOT

KEYS = [inquiry.key for inquiry in inquiries.ALL]
HERE = {"kernel.process", "escapes.cards", *PAIRS}  # put together on this side
HOST = Host(
    boot="host-boot",
    kernel="6.1",
    values={"sight.processor": "Quick 9000", "sight.disks": "sda=100, sdb=200"},
    uptime_seconds=5000.0,
    started=100_000,
    namespaces={"pid": "1", "net": "2", "time": "3", "user": "4", "uts": "5"},
)


def everything(outcome: str, score: float) -> dict[str, Answer]:
    """The same answer to every question."""
    return dict.fromkeys(KEYS, Answer(outcome, "said", score))


def case(boot: str, **lines: dict[str, Any]) -> Case:
    """Answers from inside; keys with `_` for the dot."""
    named = {key.replace("_", ".", 1): line for key, line in lines.items()}
    found = {"kernel.identity": {"boot": boot, "release": "6.1"}} | named
    later = replace(HOST, uptime_seconds=5002.0, started=100_050)
    return Case(found, HOST, later)


def opened(**facts: str) -> dict[str, Any]:
    """A line that says open."""
    return {"outcome": "open", "score": 0, "evidence": "seen", **facts}


def test_the_program_asks_what_the_table_explains() -> None:
    """Every key of the C tables has its words here, and the other way round."""
    asked: set[str] = set()
    for path in (ROOT / "native" / "probe").glob("isolation_*.c"):
        asked |= set(re.findall(r'^\t\{ "([a-z]+\.[a-z-]+)", ask_', path.read_text(), re.M))
    assert asked == set(KEYS) - HERE
    assert len(KEYS) == len(set(KEYS))
    assert {inquiry.axis for inquiry in inquiries.ALL} == set(AXES) == set(AXIS_WEIGHTS)
    assert {inquiry.judge for inquiry in inquiries.ALL} == set(JUDGES)


@pytest.mark.parametrize(
    ("outcome", "score", "points"),
    [("closed", 1.0, 100.0), ("open", 0.0, 0.0), ("partly", 0.5, 50.0), ("not tried", 1.0, 0.0)],
)
def test_all_alike_scores_alike_on_every_axis(outcome: str, score: float, points: float) -> None:
    """And what was not tried is worth nothing, whatever else it claims."""
    found = judge({"vm": everything(outcome, score)})
    assert found.scores["vm"] == pytest.approx(dict.fromkeys((*AXES, "total"), points), abs=0.1)


def test_what_was_not_asked_counts_as_nothing() -> None:
    """A form that closed one thing and was asked no other has not won."""
    found = judge({"vm": {"kernel.identity": Answer("closed", "its own", 1.0)}})
    assert found.scores["vm"]["host kernel"] == pytest.approx(33.3, abs=0.1)
    assert found.scores["vm"]["total"] == pytest.approx(10, abs=0.1)
    assert {line.answers["vm"].outcome for line in found.lines} == {"closed", "not tried"}


@settings(deadline=None, max_examples=50)
@given(st.dictionaries(st.sampled_from(KEYS), st.floats(0, 1), min_size=1), st.data())
def test_a_worse_answer_never_scores_better(scores: dict[str, float], data: st.DataObject) -> None:
    """Whichever line gets worse, its axis and the total do, and no other axis changes."""
    before = {key: Answer("partly", "", score) for key, score in scores.items()}
    key = data.draw(st.sampled_from(sorted(scores)))
    after = before | {key: Answer("open", "", 0.0)}
    found: Found = {"before": before, "after": after}
    result = judge(found).scores
    axis = next(inquiry.axis for inquiry in inquiries.ALL if inquiry.key == key)
    for name in AXES:
        if name == axis:
            assert result["after"][name] <= result["before"][name]
        else:
            assert result["after"][name] == result["before"][name]
    assert result["after"]["total"] <= result["before"]["total"]


def test_an_opening_counts_by_the_kernel_it_leads_into() -> None:
    """Into the host's it is open; into another partly; what is closed stays so."""
    key = "escapes.bpf"
    assert JUDGES["behind"](case("host-boot", escapes_bpf=opened()), key).outcome == "open"
    found = JUDGES["behind"](case("other-boot", escapes_bpf=opened()), key)
    assert (found.outcome, found.score) == ("partly", BEHIND)
    shut = {"outcome": "closed", "score": 1, "evidence": "EPERM"}
    assert JUDGES["behind"](case("other-boot", escapes_bpf=shut), key).score == 1.0


@pytest.mark.parametrize(
    ("boot", "served", "outcome"),
    [("host-boot", "", "open"), ("other-boot", "", "closed"), ("other-boot", "/data", "open")],
)
def test_a_machines_own_disks_are_not_from_outside(boot: str, served: str, outcome: str) -> None:
    """A mount beside the root is the host's in a container; in a machine only a served one is."""
    line = opened(served=served)
    assert JUDGES["mounts"](case(boot, x_shares=line), "x.shares").outcome == outcome


@pytest.mark.parametrize(
    ("boot", "ids", "outcome"),
    [
        ("host-boot", "pci:v000010ECd00008139", "closed"),
        ("other-boot", "pci:v00001AF4d00001041, pci:v000010ECd00008139", "open"),
        ("other-boot", "pci:v00001AF4d00001041", "closed"),
        ("other-boot", "pci:v00001AF4d00001041, ...", "not tried"),
    ],
)
def test_emulated_cards_are_known_by_number(boot: str, ids: str, outcome: str) -> None:
    """An rtl8139 counts where it is emulated; a list that is not whole proves nothing."""
    line = opened(pci="2", virtio="1", cards=ids)
    assert JUDGES["cards"](case(boot, devices_machine=line), "escapes.cards").outcome == outcome


def test_what_a_translator_refuses_is_not_closed() -> None:
    """Its ENOSYS says nothing of the kernel below, unless that is another one than the host's."""
    line = {"outcome": "closed", "score": 1, "evidence": "bpf: ENOSYS"}
    for boot, outcome in (("host-boot", "not tried"), ("other-boot", "closed")):
        found = replace(case(boot, escapes_bpf=line), translated=True)
        assert JUDGES["behind"](found, "escapes.bpf").outcome == outcome


def test_the_page_lists_every_line() -> None:
    """docs/concepts/isolation-score.md: axis, title, how and share, in the table's order."""
    text = (ROOT / "docs" / "concepts" / "isolation-score.md").read_text()
    whole = {a: sum(i.weight for i in inquiries.ALL if i.axis == a) for a in AXES}
    for inquiry in inquiries.ALL:
        share = f"{100 * inquiry.weight / whole[inquiry.axis]:.0f} %"
        assert f"| {inquiry.title} | {inquiry.how} | {share} |" in text
    for axis, weight in AXIS_WEIGHTS.items():
        assert re.search(rf"^\| \*\*{axis}\*\* \|.*\| {weight:.0f} % \|$", text, re.M), axis
    assert text.count("\n| ") == len(KEYS) + len(AXES) + len(OUTCOMES) + 8  # and heads


def test_without_a_boot_id_nobody_is_apart() -> None:
    """A kernel that was not seen to be another one is taken for the host's."""
    found = case("", kernel_calls=opened())
    assert not found.apart
    assert JUDGES["identity"](found, "kernel.identity").outcome == "not tried"
    assert JUDGES["calls"](found, "kernel.calls").outcome == "open"


@pytest.mark.parametrize(
    ("judge_name", "key", "value", "outcome"),
    [
        ("equal", "sight.processor", "Quick 9000", "open"),
        ("equal", "sight.processor", "Other", "closed"),
        ("equal", "sight.disks", "vda=7, sdb=200", "open"),
        ("equal", "sight.disks", "sdb=201", "closed"),
        ("uptime", "sight.uptime", "5001.2 9.9", "open"),
        ("uptime", "sight.uptime", "12.5 9.9", "closed"),
        ("activity", "sight.activity", "100020", "open"),
        ("activity", "sight.activity", "118", "closed"),
        ("paths", "sight.mounts", "/etc/passwd", "open"),
        ("paths", "sight.mounts", "/mnt/no/such, /null", "closed"),
    ],
)
def test_what_equals_the_hosts_is_open(judge_name: str, key: str, value: str, outcome: str) -> None:
    """Values are compared; another value is no sight of the host."""
    found = case("host-boot", **{key.replace(".", "_"): opened(value=value)})
    assert JUDGES[judge_name](found, key).outcome == outcome


def test_namespaces_are_counted_one_by_one() -> None:
    """Two of eight shared: partly; in another kernel equal numbers mean nothing."""
    numbers = {name: f"9{name}" for name in ("pid", "user", "mnt", "uts", "ipc", "cgroup")}
    mine = opened(**numbers, net="2", time="3")
    shared = JUDGES["namespaces"](
        case("host-boot", privileges_namespaces=mine), "privileges.namespaces"
    )
    assert (shared.outcome, shared.score) == ("partly", 0.75)
    apart = JUDGES["namespaces"](
        case("other-boot", privileges_namespaces=mine), "privileges.namespaces"
    )
    assert apart.outcome == "closed"


@pytest.mark.parametrize(
    "line",
    [
        {},
        {"outcome": "invented", "score": 1, "evidence": "x"},
        {"outcome": "not tried", "score": 1, "evidence": "x"},
        {"outcome": "closed", "score": 9, "evidence": "x"},
    ],
)
def test_an_instance_cannot_praise_itself(line: dict[str, Any]) -> None:
    """What comes from inside is one of the outcomes, and at most one point."""
    for name, function in JUDGES.items():
        answer = function(case("host-boot", devices_nodes=line), "devices.nodes")
        assert answer.outcome in OUTCOMES, name
        assert 0 <= answer.score <= 1, name
        if answer.outcome == "not tried":
            assert answer.score == 0, name


def test_shared_rows_leave_out_what_nobody_knows() -> None:
    """`yes`, `partly`, `no`, or nothing at all."""
    answers = {
        shares.PREFIX + "kernel": Answer("open", "the host's own", 0.0),
        shares.PREFIX + "layers": Answer("not tried", "no neighbour", 0.0),
    }
    rows = {row.what: row.answers for row in judge({"container": answers}).shared}
    assert rows["kernel"] == {"container": ("yes", "the host's own")}
    assert rows["the image's files"] == {}
