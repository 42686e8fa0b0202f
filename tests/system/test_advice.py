"""Advice on labelled subjects: those written down, and those drawn by seed that nobody tuned on."""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from random import Random
from typing import Any

import pytest

from tests.support.advising import ask
from tests.support.cases import Case
from tests.support.engine import EngineProcess

SEED = int(os.environ.get("PROA_ADVICE_SEED", "20261123"))
FLOOR = 0.85  # of the held-out cases; docs/concepts/advice.md says why
DRAWN = {"images": 20, "apps": 6, "disks": 4}
HERE = Path(__file__).resolve().parent.parent / "support"


def modules(folder: str) -> dict[str, Any]:
    """A folder's modules by name."""
    return {
        path.stem: importlib.import_module(f"tests.support.{folder}.{path.stem}")
        for path in sorted((HERE / folder).glob("[a-z]*.py"))
    }


VISIBLE: tuple[Case, ...] = tuple(
    case for module in modules("labelled").values() for case in module.CASES
)
HELD_OUT: tuple[Case, ...] = tuple(
    module.draw(random, number)
    for name, module in modules("drawn").items()
    for random in (Random(f"{SEED} {name}"),)
    for number in range(DRAWN[name])
)


def told(case: Case, advice: dict[str, Any]) -> str:
    """What a reader of a failure wants to see."""
    reasons = "\n".join(
        f"  {one['Form']:9} {one['Weight']:4} {one['Rule']}: {one['Words']}"
        for one in advice["Reasons"]
    )
    return (
        f"{case.name} is labelled {case.label} ({case.principle}: {case.why}), advised was "
        f"{advice['Form']} ({advice['Strength']})\n{reasons}"
    )


@pytest.mark.parametrize("case", VISIBLE, ids=lambda case: case.name)
def test_visible_cases_are_advised_as_labelled(
    session_engine: EngineProcess, tmp_path: Path, case: Case
) -> None:
    advice = ask(session_engine, case, tmp_path)
    assert advice["Form"] == case.label, told(case, advice)
    assert all(fact["Source"] for one in advice["Reasons"] for fact in one["Facts"])


def test_held_out_cases_agree(
    session_engine: EngineProcess, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = []
    for case in HELD_OUT:
        advice = ask(session_engine, case, tmp_path)
        if advice["Form"] != case.label:
            wrong.append(told(case, advice))
    agreement = 1 - len(wrong) / len(HELD_OUT)
    with capsys.disabled():
        print(
            f"\nadvice: {agreement:.0%} of {len(HELD_OUT)} held-out cases agree with their labels "
            f"(seed {SEED}, floor {FLOOR:.0%})"
        )
        print("\n".join(wrong))
    assert agreement >= FLOOR


def test_the_labelled_set_is_what_it_claims() -> None:
    documented = (HERE.parent.parent / "docs" / "concepts" / "advice.md").read_text()
    cases = VISIBLE + HELD_OUT
    assert len({case.name for case in cases}) == len(cases) >= 60
    assert 0.25 < len(HELD_OUT) / len(cases) < 0.4
    for case in cases:
        assert f"**{case.principle}**" in documented, case.name
        assert case.why
    assert {"container", "vm"} == {case.label for case in HELD_OUT}
