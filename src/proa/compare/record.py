"""What a comparison found: every sample, what was made of it, and how it was found.

A `Report` is the JSON document `proa compare --json` writes (`schema` names its version) and all
that the terminal's table, the page and `--baseline` are made of.  A *form* is one way the workload
was run; the keys of its forms (`container`, `vm`, `vm-boot`) are the keys of every mapping here.
Units: `ms`, `bytes`, `%` (of one processor), `count`, or a rate ending in `/s`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from proa.costs import Part

SCHEMA = "proa.compare/1"

GROUPS = ("size", "time", "cost", "work")
VERDICTS = ("lower", "higher", "no difference", "too few samples")
OUTCOMES = ("closed", "partly", "open", "not tried")  # of an isolation probe
AXES = (
    "host kernel",  # system calls that reach it
    "devices",  # devices and kernel files that answer
    "privileges",  # capabilities, users, what can be gained
    "sight",  # what it learns of the host and of its neighbours
    "exhaustion",  # what a neighbour feels
    "escapes",  # first steps of published ones
)


@dataclass(frozen=True)
class Subject:
    """What was compared; `kind` is `image` or `disk`, `port` the one that was waited for, or 0."""

    kind: str
    name: str
    id: str
    platform: str
    command: tuple[str, ...]
    port: int = 0


@dataclass(frozen=True)
class Form:
    """One way to run it, and the proof of which: `kernel` is `uname -r` inside.

    `start` is how each start was made (`StartedBy` of inspect: template, boot, spare ..., empty for
    a container).  A form with `only_start` was measured for its start alone.
    """

    key: str
    title: str
    isolation: str
    kernel: str = ""
    accelerator: str = ""
    start: str = ""
    only_start: bool = False


@dataclass(frozen=True)
class Interval:
    """A median and where it lies with the report's confidence (bootstrap); of `count` samples."""

    median: float
    low: float
    high: float
    count: int


@dataclass(frozen=True)
class Difference:
    """`form` against `other`: ratio of medians with its interval, and what may be said.

    `p` is of a two-sided test, corrected for the number of measures; `verdict` is one of VERDICTS,
    of `form`'s value compared with the other's.
    """

    form: str
    other: str
    ratio: float
    low: float
    high: float
    p: float
    verdict: str


@dataclass(frozen=True)
class Measure:
    """One figure: samples by form, as they were taken; `key` is like `time.first-output.warm`.

    `better` is `lower`, `higher` or empty; `how` says in a sentence how it was measured, `overhead`
    what measuring took, in the measure's unit (None: not known).
    """

    key: str
    group: str
    title: str
    unit: str
    better: str
    how: str
    samples: Mapping[str, tuple[float, ...]]
    intervals: Mapping[str, Interval] = field(default_factory=dict)
    differences: tuple[Difference, ...] = ()
    overhead: float | None = None


@dataclass(frozen=True)
class Moment:
    """When a start reached a milestone, in milliseconds since the request: the median."""

    milestone: str
    ms: float


@dataclass(frozen=True)
class Answer:
    """What one form answered to a probe: one of OUTCOMES, the evidence in words, 0 (open) to 1."""

    outcome: str
    evidence: str
    score: float


@dataclass(frozen=True)
class Line:
    """One isolation probe, asked of every form alike; `weight` is its share of its axis."""

    key: str
    axis: str
    title: str
    how: str
    weight: float
    answers: Mapping[str, Answer]


@dataclass(frozen=True)
class Shared:
    """Whether it is shared with the host, by form: `yes`, `no` or `partly`, and the finding."""

    what: str
    how: str
    answers: Mapping[str, tuple[str, str]]


@dataclass(frozen=True)
class Isolation:
    """The probes, and for each form 0 to 100 by axis, with `total`."""

    lines: tuple[Line, ...] = ()
    scores: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    shared: tuple[Shared, ...] = ()


@dataclass(frozen=True)
class Need:
    """Something a host must have to run a form, and how that was found."""

    what: str
    how: str
    answers: Mapping[str, str]


@dataclass(frozen=True)
class Trial:
    """The image tried on one kernel: did it work, and what was said."""

    kernel: str
    form: str
    works: bool
    said: str


@dataclass(frozen=True)
class Portability:
    """Which hosts can run it in which form."""

    needs: tuple[Need, ...] = ()
    trials: tuple[Trial, ...] = ()


@dataclass(frozen=True)
class Left:
    """What was not measured, and why."""

    what: str
    why: str


@dataclass(frozen=True)
class Report:
    """All of it; `made` is UTC in ISO 8601, `machine` and `versions` are names and values."""

    made: str
    subject: Subject
    machine: Mapping[str, str]
    versions: Mapping[str, str]
    forms: tuple[Form, ...]
    rounds: int
    confidence: float
    seconds: float
    measures: tuple[Measure, ...] = ()
    ledgers: Mapping[str, tuple[Part, ...]] = field(default_factory=dict)
    memory: Mapping[str, tuple[Part, ...]] = field(default_factory=dict)
    timelines: Mapping[str, tuple[Moment, ...]] = field(default_factory=dict)
    isolation: Isolation = Isolation()
    portability: Portability = Portability()
    left: tuple[Left, ...] = ()
    schema: str = SCHEMA


@dataclass(frozen=True)
class Change:
    """One measure of one form, now and in an earlier report (`--baseline`).

    `ratio` is of the medians, now over before; `p` and `verdict` (one of VERDICTS) are of the value
    now, compared with the one before, corrected for the number of changes that were tested.
    """

    key: str
    group: str
    title: str
    unit: str
    better: str
    form: str
    before: Interval
    now: Interval
    ratio: float
    low: float
    high: float
    p: float
    verdict: str


@dataclass(frozen=True)
class AnswerChange:
    """An isolation probe that a form answers otherwise than before."""

    key: str
    axis: str
    title: str
    form: str
    before: Answer
    now: Answer


@dataclass(frozen=True)
class Changes:
    """A report against an earlier one: `before` and `now` are when they were made.

    `unlike` says what else differs between them (name, before, now): a machine, a version, an
    image, a kernel; `left` what only one of them has.  `forms` are those of both.
    """

    subject: Subject
    before: str
    now: str
    confidence: float
    forms: tuple[Form, ...]
    measures: tuple[Change, ...] = ()
    answers: tuple[AnswerChange, ...] = ()
    unlike: tuple[tuple[str, str, str], ...] = ()
    left: tuple[Left, ...] = ()
