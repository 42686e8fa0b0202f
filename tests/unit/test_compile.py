"""Launch plans: the same verbs in the same order, whatever runs them."""

from __future__ import annotations

import dataclasses

import pytest

from proa import capabilities, compile, plan
from proa.errors import Invalid
from proa.resources import Sources
from proa.spec import Mount, Process, Security, Spec

SPEC = Spec(image="i", isolation="container", process=Process(("/bin/x", "y")), hostname="h")
SOURCES = Sources(root="fd:0", shares=("fd:1", "fd:2"))


def verbs(steps: tuple[plan.Step, ...]) -> list[str]:
    return [step.verb for step in steps]


def test_the_process_is_restricted_before_it_runs() -> None:
    names = verbs(compile.main_plan(SPEC, SOURCES, compile.Files(hosts="x")))
    order = ["root", "cover", "env", "cwd", "caps", "nonewprivs", "user", "seccomp", "exec"]
    positions = [names.index(name) for name in order]
    assert positions == sorted(positions)
    assert names[-1] == "exec"


def test_mounts_go_in_parents_first_and_take_their_own_source() -> None:
    mounts = (Mount("bind", "/one", "/a/b"), Mount("bind", "/two", "/a", True))
    steps = compile.main_plan(dataclasses.replace(SPEC, mounts=mounts), SOURCES, compile.Files())
    attached = [step for step in steps if isinstance(step, plan.Attach)]
    assert attached == [plan.Attach("fd:2", "/a", "ro"), plan.Attach("fd:1", "/a/b", "")]


def test_a_mounted_hosts_file_is_not_covered() -> None:
    spec = dataclasses.replace(SPEC, mounts=(Mount("bind", "/h", "/etc/hosts"),))
    steps = compile.main_plan(spec, SOURCES, compile.Files(hosts="x", hostname="h"))
    covered = [step.path for step in steps if isinstance(step, plan.Cover)]
    assert covered == ["/etc/hostname"]


def test_readonly_root_comes_after_everything_that_writes_to_it() -> None:
    spec = dataclasses.replace(SPEC, security=Security(readonly_root=True))
    steps = compile.main_plan(spec, SOURCES, compile.Files(hosts="x"))
    last = max(n for n, step in enumerate(steps) if step.verb in ("cover", "cwd", "attach"))
    assert steps.index(plan.ReadOnly("/")) > last


def test_encoding_counts_arguments_and_refuses_nul() -> None:
    encoded = plan.encode((plan.Exec(("a", "")), plan.NoNewPrivileges()))
    assert encoded == b"exec\x002\x00a\x00\x00nonewprivs\x000\x00"
    with pytest.raises(Invalid, match="NUL"):
        plan.encode((plan.Exec(("a\0b",)),))
    with pytest.raises(Invalid, match="bytes"):
        plan.encode((plan.Exec(("x" * (plan.MAXIMUM_BYTES + 1),)),))


def test_capabilities_match_docker() -> None:
    assert capabilities.mask() == 0xA80425FB
    assert capabilities.mask(drop=("ALL",)) == 0
    assert capabilities.mask(add=("NET_ADMIN",), drop=("all",)) == 1 << 12
    assert capabilities.mask(add=("ALL",), drop=("CAP_CHOWN",)) == (1 << 41) - 2
    with pytest.raises(Invalid):
        capabilities.mask(add=("nothing",))
