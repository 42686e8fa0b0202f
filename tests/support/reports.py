"""Reports of comparisons, made by seed: a full one that could be real, and odd ones.

Figures are near what this engine was measured to do; nothing is measured here.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

from proa.compare.record import (
    Answer,
    AnswerChange,
    Change,
    Changes,
    Difference,
    Form,
    Interval,
    Isolation,
    Left,
    Line,
    Measure,
    Moment,
    Need,
    Portability,
    Report,
    Shared,
    Subject,
    Trial,
)
from proa.costs import Part
from tests.support import reports_findings as findings

Found = TypeVar("Found")
MB = 1_000_000
KINDS = ("container", "vm", "vm-boot")
FORMS = (
    Form("container", "Container", "container", "6.1.0-44-amd64"),
    Form("vm", "VM from a template", "vm", "6.1.0-44-cloud-amd64", "tcg", "template"),
    Form("vm-boot", "VM, full boot", "vm", "6.1.0-44-cloud-amd64", "tcg", "boot", True),
)
MACHINE = {
    "cpu model": "AMD EPYC 9R14",
    "processors": "2",
    "memory": "7.6 GiB",
    "kernel": "6.1.0-44-amd64",
    "distribution": "Debian GNU/Linux 12 (bookworm)",
    "virtualisation": "kvm guest, no nested kvm",
    "cgroup version": "2",
    "store's file system": "ext4",
    "accelerator": "tcg: no device answers to kvm",
}
VERSIONS = {"proa": "0.1.0", "qemu": "7.2.22", "guest kernel": "6.1.0-44-cloud-amd64"}


@dataclass(frozen=True)
class Row:
    """A measure to make up: its medians by form, and the spread of its samples."""

    key: str
    title: str
    unit: str
    better: str
    medians: tuple[float, ...]
    spread: float = 0.05
    how: str = "from the request's first byte to the moment, by the monotonic clock of the host"


ROWS = (
    Row("size.compressed", "Compressed", "bytes", "lower", (48.2e6, 48.2e6), 0,
        "bytes of the layers as a registry would send them"),
    Row("size.disk", "On disk", "bytes", "lower", (121e6, 214e6), 0,
        "blocks allocated to every file the form needs"),
    Row("time.exec.warm", "Until exec answers, warm", "ms", "lower", (21, 131, 1490)),
    Row("time.first-output.warm", "Until the first output, warm", "ms", "lower",
        (24, 197, 1640), 0.07),
    Row("time.first-reply.warm", "Until the first good reply, warm", "ms", "lower",
        (61, 344, 1905), 0.08),
    Row("time.first-output.cold", "Until the first output, cold", "ms", "lower",
        (88, 421, 2230), 0.18),
    Row("time.first-output.burst", "Until the first output, eight at once", "ms", "lower",
        (97, 1120), 0.2),
    Row("cost.memory", "Host memory of one, idle", "bytes", "lower", (4.9e6, 35.4e6), 0.02,
        "proportional set size of every process the form brings, and its page tables"),
    Row("cost.cpu", "Idle processor", "%", "lower", (0.02, 0.29), 0.3,
        "processor time of the form's cgroup over ten seconds of nothing"),
    Row("cost.density", "How many fit in 4 GiB", "count", "higher", (790, 112), 0,
        "started until 512 MiB were used; the rest is an extrapolation"),
    Row("work.cpu", "Processor", "rounds/s", "higher", (1820, 212), 0.03,
        "SHA-256 of a megabyte, again and again"),
    Row("work.memory", "Memory bandwidth", "bytes/s", "higher", (9.4e9, 2.1e9), 0.05,
        "copies of 64 MiB"),
    Row("work.syscalls", "System calls", "calls/s", "higher", (2.9e6, 0.41e6), 0.04,
        "getppid in a loop"),
    Row("work.disk-seq-write", "Disk, sequential writes", "bytes/s", "higher",
        (710e6, 655e6), 0.22),
    Row("work.disk-rand-read", "Disk, random reads", "operations/s", "higher",
        (61000, 17400), 0.1),
    Row("work.fsync", "Disk, fsync", "operations/s", "higher", (940, 1010), 0.25),
    Row("work.net-throughput", "Network, throughput", "bytes/s", "higher", (2.8e9, 0.62e9), 0.06),
    Row("work.net-requests", "Network, requests", "requests/s", "higher", (14800, 2950), 0.05),
    Row("work.net-latency-p50", "Network, median latency", "ms", "lower", (0.061, 0.31), 0.07),
    Row("work.net-latency-p99", "Network, 99th percentile", "ms", "lower", (0.19, 1.12), 0.2),
    Row("size.added", "What the form adds", "bytes", "lower", (0, 93e6), 0,
        "blocks allocated to what only this form needs"),
)  # fmt: skip


def full(seed: int = 1, forms: tuple[Form, ...] = FORMS, count: int = 12) -> Report:
    """A comparison with everything in it, of `forms`, with `count` samples of each measure."""
    chance = random.Random(seed)
    keys = tuple(form.key for form in forms)
    found = only(findings.MEMORY, keys)
    return Report(
        made="2026-11-23T16:02:41Z",
        subject=Subject("image", "debian-web:latest", "sha256:" + "7c" * 32, "linux/amd64",
                        ("nginx", "-g", "daemon off;"), 80),
        machine=MACHINE,
        versions=VERSIONS,
        forms=forms,
        rounds=count,
        confidence=0.95,
        seconds=94.3,
        measures=tuple(measure(row, keys, count, chance) for row in ROWS),
        ledgers=only(findings.LEDGERS, keys),
        memory=dict(reversed(found.items())),  # a mapping promises no order
        timelines={
            key: tuple(Moment(name, ms) for name, ms in moments)
            for key, moments in only(findings.TIMELINES, keys).items()
        },
        isolation=isolation(keys),
        portability=portability(keys),
        left=(
            Left("bursts of fully booted vms", "measured for their start alone"),
            Left("kvm", "this host has none; on one that has, vms work faster"),
        ),
    )  # fmt: skip


def measure(row: Row, keys: tuple[str, ...], count: int, chance: random.Random) -> Measure:
    """A row's samples around its medians, skewed as times are, and what follows from them."""
    samples: dict[str, tuple[float, ...]] = {}
    for key, median in zip(KINDS, row.medians, strict=False):
        if key in keys:
            many = 1 if row.spread == 0 else count
            samples[key] = tuple(median * math.exp(noise(chance, row.spread)) for _ in range(many))
    intervals = {key: interval(values, chance) for key, values in samples.items() if values}
    return Measure(
        key=row.key, group=row.key.split(".")[0], title=row.title, unit=row.unit,
        better=row.better, how=row.how, samples=samples, intervals=intervals,
        differences=differences(intervals),
        overhead=0.4 if row.unit == "ms" else None,
    )  # fmt: skip


def noise(chance: random.Random, spread: float) -> float:
    """Mostly near the median, with a tail to the right."""
    return chance.gauss(0, spread) + (chance.expovariate(1 / spread) - spread if spread else 0) / 2


def interval(values: tuple[float, ...], chance: random.Random) -> Interval:
    """A median and the 95 % of its resamples."""
    resamples = sorted(median(chance.choices(values, k=len(values))) for _ in range(200))
    return Interval(median(values), resamples[5], resamples[-6], len(values))


def median(values: tuple[float, ...] | list[float]) -> float:
    """The middle one."""
    return sorted(values)[len(values) // 2]


def differences(intervals: Mapping[str, Interval]) -> tuple[Difference, ...]:
    """Every form against the first; a difference where the intervals lie apart."""
    first, *others = intervals or [""]
    return tuple(difference(other, first, intervals) for other in others)


def difference(form: str, other: str, intervals: Mapping[str, Interval]) -> Difference:
    """One form against another."""
    ours, theirs = intervals[form], intervals[other]
    if not theirs.median:
        ratio, verdict = (0.0, "higher") if ours.median else (1.0, "no difference")
        return Difference(form, other, ratio, ratio, ratio, 1.0, verdict)
    if min(ours.count, theirs.count) < 5:
        verdict, p = "too few samples", 1.0
    elif ours.high < theirs.low or theirs.high < ours.low:
        verdict, p = ("lower" if ours.median < theirs.median else "higher"), 0.0004
    else:
        verdict, p = "no difference", 0.41
    low, high = ours.low / theirs.high, ours.high / theirs.low
    return Difference(form, other, ours.median / theirs.median, low, high, p, verdict)


def only(by_form: Mapping[str, Found], keys: tuple[str, ...]) -> dict[str, Found]:
    """What is known of these forms."""
    return {key: value for key, value in by_form.items() if key in keys}


def isolation(keys: tuple[str, ...]) -> Isolation:
    """The probes' answers of these forms, with scores weighed from them."""
    lines = tuple(
        Line(*row[:5], {f: answer for f, answer in zip(KINDS, row[5:], strict=False) if f in keys})
        for row in findings.LINES
    )
    scores: dict[str, dict[str, float]] = {}
    for form in [key for key in keys if any(key in line.answers for line in lines)]:
        by_axis: dict[str, list[tuple[float, float]]] = {}
        for line in lines:
            by_axis.setdefault(line.axis, []).append((line.answers[form].score, line.weight))
        scores[form] = {
            axis: 100 * sum(s * w for s, w in pairs) / sum(w for _, w in pairs)
            for axis, pairs in by_axis.items()
        }
        scores[form]["total"] = sum(scores[form].values()) / len(scores[form])
    shared = tuple(
        Shared(what, how, {f: a for f, a in zip(KINDS, answers, strict=False) if f in keys})
        for what, how, *answers in findings.SHARED
    )
    return Isolation(lines, scores, shared)


def portability(keys: tuple[str, ...]) -> Portability:
    """Needs and trials of these forms."""
    needs = tuple(
        Need(what, how, {f: a for f, a in zip(KINDS, answers, strict=False) if f in keys})
        for what, how, *answers in findings.NEEDS
    )
    return Portability(needs, tuple(Trial(*trial) for trial in findings.TRIALS))


def bare() -> Report:
    """Nothing could be measured."""
    whole = full(count=1, forms=FORMS[:2])
    return Report(whole.made, whole.subject, {}, {}, whole.forms, 0, 0.95, 0.8,
                  left=(Left("everything", "the image's program ended at once, with code 127"),),
                  )  # fmt: skip


def unsampled() -> Report:
    """Measures that were planned, of which no sample came."""
    whole = full(forms=FORMS[:2])
    empty = tuple(
        replace(m, samples=dict.fromkeys(m.samples, ()), intervals={}, differences=())
        for m in whole.measures
    )
    return replace(whole, measures=empty, memory={}, timelines={}, ledgers={})


def long_names() -> Report:
    """Names that fill any width."""
    whole = full(seed=5)
    name = "registry.example/" + "a-team-with-a-long-name/" * 6 + "x" * 120 + ":" + "9" * 60
    forms = tuple(replace(form, title=form.title + " of the " + "very" * 30) for form in FORMS)
    measures = tuple(replace(m, title=m.title + " " + "w" * 90) for m in whole.measures)
    return replace(whole, subject=replace(whole.subject, name=name), forms=forms, measures=measures,
                   machine={**MACHINE, "cpu flags": "avx512" * 60})  # fmt: skip


PAYLOADS = (
    "<script>window.taken=1</script>",
    "\"><img src=x onerror='window.taken=1'>",
    "</style><script>window.taken=1</script>",
    "</title></svg><svg onload=window.taken=1>",
    "javascript:window.taken=1",
    "\x1b[2J\x1b]0;taken\x07\x00\u202e<b>",
)


def hostile() -> Report:
    """Every text of it is somebody's attempt to run a script or move a cursor."""
    whole = full(seed=3)
    said = " ".join(PAYLOADS)
    lines = tuple(
        replace(line, title=said, how=said, axis=line.axis,
                answers={f: replace(a, evidence=said) for f, a in line.answers.items()})
        for line in whole.isolation.lines
    )  # fmt: skip
    return replace(
        whole,
        subject=replace(whole.subject, name=said, id=said, platform=said, command=(said,)),
        machine={said: said}, versions={said: said},
        forms=tuple(replace(f, title=said, kernel=said, accelerator=said) for f in whole.forms),
        measures=tuple(replace(m, title=said, how=said, unit=said) for m in whole.measures),
        ledgers={said: (Part(said, 5 * MB, note=said),)},
        memory={key: (Part(said, 5 * MB, True, said),) for key in whole.memory},
        timelines={key: (Moment(said, 5.0),) for key in whole.timelines},
        isolation=replace(whole.isolation, lines=lines,
                          shared=(Shared(said, said, {"vm": ("no", said)}),)),
        portability=Portability((Need(said, said, {"vm": said}),),
                                (Trial(said, "vm", False, said),)),
        left=(Left(said, said),),
    )  # fmt: skip


def alike() -> Report:
    """Two forms between which no difference was found."""
    whole = full(forms=FORMS[:2])
    measures = tuple(
        replace(m, differences=tuple(
            replace(d, ratio=1.01, low=0.97, high=1.06, p=0.6, verdict="no difference")
            for d in m.differences)) for m in whole.measures
    )  # fmt: skip
    return replace(whole, measures=measures)


# Name → how it is made.
CASES: dict[str, Callable[[], Report]] = {
    "full": full,
    "two forms": lambda: full(seed=2, forms=FORMS[:2]),
    "one form": lambda: full(seed=4, forms=FORMS[:1]),
    "one sample": lambda: full(seed=6, count=1),
    "no samples": unsampled,
    "nothing": bare,
    "no difference": alike,
    "long names": long_names,
    "hostile": hostile,
}


def changes(seed: int = 1) -> Changes:
    """An earlier report against a later one: a slower start, the rest as it was."""
    whole = full(seed)
    chance = random.Random(seed)
    found = []
    for m in whole.measures:
        for form, now in m.intervals.items():
            factor = {"time.first-output.warm": 0.71, "cost.memory": 1.19}.get(m.key, 1.01)
            before = Interval(now.median * factor, now.low * factor, now.high * factor, now.count)
            tested = difference("now", "before", {"now": now, "before": before})
            shift = chance.uniform(0.995, 1.005)
            found.append(
                Change(m.key, m.group, m.title, m.unit, m.better, form, before, now,
                       tested.ratio * shift, tested.low * shift, tested.high * shift, tested.p,
                       tested.verdict)
            )  # fmt: skip
    answer = whole.isolation.lines[0].answers["container"]
    return Changes(
        whole.subject, "2026-11-02T09:12:00Z", whole.made, whole.confidence, whole.forms,
        tuple(found),
        (AnswerChange("keys", "host kernel", "The kernel's keyrings answer", "container", answer,
                      Answer("closed", "refused: EPERM", 1.0)),),
        (("qemu", "7.2.11", "7.2.22"),),
        (Left("work.net-requests", "only in the later report"),),
    )  # fmt: skip
