"""The verdict: what decides, what leans, what would flip it; policies; what is stated, measured."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest

from proa.advice import document, measured, policy, stated
from proa.advice.criteria import CRITERIA
from proa.advice.facts import KEYS, Fact, Facts, Value
from proa.advice.rules import RULES
from proa.advice.verdict import NEITHER, Advice, advise, with_facts
from proa.advice.what_if import CHANGES
from proa.compare import document as compared
from proa.engine.advise import engine_policy
from proa.errors import Invalid
from tests.support import advice_tables, reports
from tests.support.case_tree import facts_of
from tests.support.drawn import images
from tests.support.paths import ROOT


def facts(**given: Value) -> Facts:
    """Facts by key, `__` for the dot."""
    found = [Fact(key.replace("__", "."), value, f"test {key}") for key, value in given.items()]
    return Facts("image", "subject", tuple(found))


def form(found: Facts, rules: str = "", asked: str = "") -> str:
    """What is recommended."""
    return advise(found, policy.read(rules), asked).form


def test_nothing_known_is_a_container_and_says_so() -> None:
    advice = advise(facts())
    assert (advice.form, advice.strength, advice.reasons) == ("container", "even", ())
    assert "costs less" in advice.summary


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ({"os__kind": "windows"}, "vm"),
        ({"os__kind": "linux"}, "container"),
        ({"kernel__minimum": "6.2.0", "host__kernel": "6.1.90-amd64"}, "vm"),
        ({"kernel__minimum": "3.2.0", "host__kernel": "6.1.90-amd64"}, "container"),
        ({"kernel__minimum": "99.0.0"}, "container"),  # of a host nobody knows
        ({"os__init": "systemd"}, "vm"),
        ({"os__init": ""}, "container"),
        ({"run__devices": ("/dev/dri",), "os__init": "systemd"}, "container"),
        ({"run__host_namespaces": ("network",), "stated__trust": "untrusted"}, "container"),
        ({"run__privileged": True}, "vm"),
        ({"host__vm": False, "stated__trust": "untrusted"}, "container"),
        ({"host__container": False}, "vm"),
        ({"stated__start_budget_ms": 100, "measured__start_ms__vm": 180.0}, "container"),
        ({"measured__start_ms__vm": 180.0, "stated__trust": "untrusted"}, "vm"),
        ({"seen__failed": ("container",)}, "vm"),
        ({"os__kind": "windows", "run__devices": ("/dev/kvm",)}, NEITHER),
        ({"host__vm": False, "host__container": False}, NEITHER),
    ],
)
def test_what_decides_and_what_leans(given: dict[str, Value], wanted: str) -> None:
    assert form(facts(**given)) == wanted


def test_every_reason_rests_on_facts_with_sources_and_the_articles_criteria() -> None:
    for number in range(40):
        advice = advise(facts_of(images.draw(Random(number), number)))
        for reason in advice.reasons:
            assert reason.facts and all(fact.source for fact in reason.facts)
            assert "{" not in reason.words
            assert reason.criterion in ("", *CRITERIA)
    named = {rule.criterion for rule in RULES}
    assert set(CRITERIA) <= named


def test_what_would_flip_it_does() -> None:
    flipped = 0
    for number in range(60):
        found = facts_of(images.draw(Random(f"flip {number}"), number))
        advice = advise(found)
        for flip in advice.flips:
            again = advise(with_facts(found, flip.facts))
            assert again.form == flip.form != advice.form
            flipped += 1
    assert flipped > 60


def test_tables_name_facts_that_there_are() -> None:
    assert {change.key for change in CHANGES} <= set(KEYS)
    assert len({rule.key for rule in RULES}) == len(RULES)
    text = (ROOT / "docs" / "concepts" / "advice.md").read_text()
    assert advice_tables.criteria() in text
    assert advice_tables.rules() in text


# -- the form asked for, and policies --------------------------------------------------------------


def test_a_form_that_is_ruled_out_contradicts_and_one_that_is_worse_does_not() -> None:
    ruled_out = advise(facts(os__kind="windows"), asked="container")
    assert "windows" in ruled_out.contradiction
    worse = advise(facts(os__init="systemd"), asked="container")
    assert (worse.form, worse.contradiction) == ("vm", "")
    in_file = advise(facts(run__isolation="vm", run__engine_socket=True))
    assert (in_file.asked, bool(in_file.contradiction)) == ("vm", True)


POLICY = """
allowed = ["container"]
[stated]
trust = "untrusted"
[weights]
untrusted = 0
[[demand]]
when = { "run.ports" = ["22/tcp", "23/tcp"] }
form = "vm"
why = "logins"
[[deny]]
when = { "size.bytes" = { least = 1000, most = 2000 }, "run.user" = { known = true } }
why = "that size"
"""


def violations(**given: Value) -> tuple[str, ...]:
    """What of POLICY is broken."""
    return advise(facts(**given), policy.read(POLICY)).violations


def test_a_policy_states_weighs_demands_and_denies() -> None:
    fine = advise(facts(), policy.read(POLICY))
    assert (fine.form, fine.violations) == ("container", ())  # untrusted, which weighs nothing
    assert [fact.source for fact in fine.facts] == ["policy 'policy', stated.trust"]
    assert advise(facts(stated__trust="own"), policy.read(POLICY)).facts[0].value == "own"
    assert violations(run__ports=("22/tcp", "80/tcp")) == ("a vm is not allowed, only container",)
    demanded = advise(facts(run__ports=("23/tcp",), run__devices=("/dev/x",)), policy.read(POLICY))
    assert demanded.form == NEITHER
    assert demanded.violations == ("a vm is demanded: logins",)
    assert violations(size__bytes=1500, run__user="app") == ("denied: that size",)
    assert violations(size__bytes=2500, run__user="app") == ()
    assert violations(size__bytes=1500) == ()


def test_a_policy_judges_the_form_that_is_asked_for() -> None:
    rules = policy.read('allowed = ["vm"]')
    assert advise(facts(), rules, "vm").violations == ()
    assert advise(facts(), rules, "container").violations


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("allowed = []", "allowed"), ('allowed = ["pod"]', "allowed"), ("nonsense = 1", "nonsense"),
        ("a = ", "TOML".lower()), ("[weights]\nnothing = 1", "nothing"),
        ("[weights]\ninit = true", "init"), ("[weights]\ninit = -1", "init"),
        ('[stated]\ntrust = "maybe"', "maybe"), ("[stated]\nlove = 1", "love"),
        ('[[demand]]\nform = "vm"', "when"), ('[[demand]]\nwhen = {"x" = 1}\nform="vm"', "x"),
        ('[[demand]]\nwhen = {"run.user" = "x"}', "form"), ("demand = 1", "demand"),
        ('[[deny]]\nwhen = {"run.user" = {more = 1}}', "run.user"),
        ('[[deny]]\nwhen = {"run.user" = {least = "a"}}', "run.user"),
        ('[[deny]]\nwhen = {"run.user" = [[1]]}', "run.user"), ("stated = 1", "stated"),
        ("x" * (1 << 20) + "=1", "larger"), ("a=" + "[" * 5000, "toml"),
    ],
)  # fmt: skip
def test_a_policy_that_cannot_be_read_is_refused_by_name(text: str, what: str) -> None:
    with pytest.raises(Invalid) as refused:
        policy.read(text)
    assert what.lower() in refused.value.message.lower()


def test_an_engine_has_a_policy_of_its_owner(tmp_path: Path) -> None:
    def core(path: str) -> Any:
        return SimpleNamespace(config=SimpleNamespace(advice={"policy": path} if path else {}))

    file = tmp_path / "policy.toml"
    file.write_text('allowed = ["vm"]')
    assert engine_policy(core("")) == policy.NO_POLICY
    assert engine_policy(core(str(file))).allowed == ("vm",)
    for wrong in (str(tmp_path), str(tmp_path / "none")):
        with pytest.raises(Invalid):
            engine_policy(core(wrong))


# -- what is stated, sent, measured ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text", "key", "value"),
    [
        ("trust", "own", "stated.trust", "own"), ("tenants", "yes", "stated.tenants", True),
        ("tenants", False, "stated.tenants", False),
        ("start-budget", "1.5s", "stated.start_budget_ms", 1500.0),
        ("start_budget", "80", "stated.start_budget_ms", 80.0),
        ("memory-budget", "64m", "stated.memory_budget_bytes", 64 << 20),
        ("memory-budget", "1GiB", "stated.memory_budget_bytes", 1 << 30),
        ("lifetime", "years", "stated.lifetime", "years"),
        ("state", "in \x1b[2J", "stated.state", "in [2J"),
    ],
)  # fmt: skip
def test_statements(name: str, text: object, key: str, value: Value) -> None:
    assert stated.fact(name, text, "here") == Fact(key, value, "here")


@pytest.mark.parametrize(
    ("name", "text"),
    [("trust", "very"), ("start-budget", "soon"), ("start-budget", "-1s"), ("start-budget", "nan"),
     ("memory-budget", "m"), ("tenants", "maybe"), ("hope", "much")],
)  # fmt: skip
def test_statements_that_cannot_be(name: str, text: str) -> None:
    with pytest.raises(Invalid):
        stated.fact(name, text, "here")


def test_facts_are_sent_and_read_again() -> None:
    sent = (Fact("services", ("a", "b"), "x"), Fact("size.bytes", 5, "y"), Fact("os.init", "", "z"))
    assert document.read_facts([document.fact(one) for one in sent]) == sent
    wrongs: tuple[Any, ...] = (
        {},
        [1],
        [{"Key": "x"}],
        [{"Key": "services", "Value": {}}],
        [{}] * 2000,
    )
    for wrong in wrongs:
        with pytest.raises(Invalid):
            document.read_facts(wrong)
    whole = document.write(advise(Facts("image", "x", sent)))
    assert set(whole) >= {"Form", "Strength", "Reasons", "Flips", "Violations", "Facts"}


def report(**changes: Any) -> dict[str, Any]:
    """A report of a comparison, as far as facts are taken of it."""
    work = {"group": "work", "better": "higher", "samples": {"container": [10, 30], "vm": [4, 6]}}
    latency = {"group": "work", "better": "lower", "samples": {"container": [1], "vm": [1.25]}}
    start = {"group": "time", "better": "lower", "samples": {"container": [1], "vm": [2]},
             "intervals": {"container": {"median": 21.04}, "vm": {"median": 140.0}}}  # fmt: skip
    return {
        "schema": "proa.compare/1",
        "measures": [{**work, "key": "work.cpu"}, {**latency, "key": "work.latency"},
                     {**start, "key": "time.first-output.warm"}],
        "memory": {"vm": [{"name": "a", "bytes": 7}, {"name": "b", "bytes": 5}]},
        "isolation": {"scores": {"vm": {"total": 91.5}}},
        "portability": {
            "trials": [{"form": "vm", "works": False}, {"form": "vm-boot", "works": False},
                       {"form": "container", "works": True}],
            "needs": [{"what": "system calls refused",
                       "answers": {"container": "bpf, mount", "vm": "bpf"}}],
        }, **changes,
    }  # fmt: skip


def test_a_comparison_becomes_facts() -> None:
    found = {fact.key: fact.value for fact in measured.facts(report(), "r.json")}
    assert found == {
        "measured.start_ms.container": 21.0, "measured.start_ms.vm": 140.0,
        "measured.memory_bytes.vm": 12, "measured.isolation.vm": 91.5,
        "measured.work_ratio": 0.25, "seen.failed": ("vm",), "seen.syscalls": ("mount",),
    }  # fmt: skip
    wrongs: tuple[Any, ...] = ([], {"schema": "other"}, report(measures=[{}]), report(memory=3))
    for wrong in wrongs:
        with pytest.raises(Invalid):
            measured.facts(wrong, "r.json")


def test_every_report_that_can_be_written_can_be_read() -> None:
    for made in (reports.full(), reports.hostile(), reports.bare(), reports.long_names()):
        found = measured.facts(json.loads(compared.write(made)), "r.json")
        assert len({fact.key for fact in found}) == len(found)
    kinds = {fact.key for fact in measured.facts(json.loads(compared.write(reports.full())), "r")}
    assert kinds >= {key for key in KEYS if key.startswith("measured.")}


def test_measured_facts_weigh() -> None:
    def advice(**given: Value) -> Advice:
        return advise(facts(os__init="systemd", **given))

    assert advice(measured__work_ratio=0.3).score < advice().score
    assert advice(measured__isolation__vm=90.0, measured__isolation__container=50.0).score > (
        advice().score
    )
