"""The plan's verbs are the same in Python, in C and in words."""

from __future__ import annotations

import dataclasses
import subprocess

from proa import plan
from tests.support.paths import NATIVE


def python_verbs() -> dict[str, type[plan.Step]]:
    """Every verb of plan.py by its name."""
    return {
        kind.verb: kind
        for kind in vars(plan).values()
        if isinstance(kind, type) and issubclass(kind, plan.Step) and kind is not plan.Step
    }


def native_verbs() -> dict[str, str]:
    """The table `proa-native verbs` prints: the verb, then its argument counts."""
    output = subprocess.run([NATIVE, "verbs"], check=True, capture_output=True, text=True).stdout
    rows = [line.split(maxsplit=1) for line in output.splitlines() if line.strip()]
    return {row[0]: row[1] if len(row) > 1 else "" for row in rows}


def test_both_sides_know_the_same_verbs() -> None:
    assert set(native_verbs()) == set(python_verbs())


def test_argument_counts_agree() -> None:
    for verb, counts in native_verbs().items():
        numbers = [int(n) for n in counts.split() if n.lstrip("-").isdigit()]
        if len(numbers) != 2:
            continue
        minimum, maximum = numbers
        fields = dataclasses.fields(python_verbs()[verb])
        fixed = [f for f in fields if not str(f.type).startswith("tuple")]
        assert minimum <= len(fixed) + (len(fixed) < len(fields)), verb
        assert maximum == -1 or len(fixed) <= maximum, verb
