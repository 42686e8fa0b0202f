"""Samples as they come in, and what each measure is called."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

from proa.compare import starts
from proa.compare.record import GROUPS, Left, Measure, Moment

CONDITIONS = {
    "warm": ("", "the files it reads are in the page cache"),
    "cold": (", cold cache", "its files were dropped from the page cache before (posix_fadvise)"),
    "burst": (", {count} at once", "the slowest of {count} started at the same moment"),
}  # fmt: skip


@dataclass(frozen=True)
class Described:
    """All of a measure but its samples."""

    title: str
    unit: str
    better: str
    how: str


COSTS: dict[str, Described] = {
    "cost.memory": Described(
        "host memory of one", "bytes", "lower",
        "proportional set size (smaps) of every process the form brings, page tables and kernel "
        "memory of its cgroup, everything counted once; read when the start is over",
    ),
    "cost.memory-private": Described(
        "host memory of one, unshared", "bytes", "lower", "the same without pages others map too",
    ),
    "cost.cpu": Described(
        "idle processor time", "%", "lower",
        "processor time of every process the form brings while nothing is asked of it, all forms "
        "in the same windows; of one processor",
    ),
    "cost.further": Described(
        "host memory of each further one", "bytes", "lower",
        "growth of the sum over all of them as one more is started",
    ),
    "cost.density": Described(
        "how many fit", "count", "higher",
        "an extrapolation: {started} were started, and the memory available then is divided by "
        "what a further one takes",
    ),
}  # fmt: skip

SIZES: dict[str, Described] = {
    "size.compressed": Described(
        "compressed", "bytes", "lower", "the layers' blobs, plain ones as a push has them",
    ),
    "size.unpacked": Described("unpacked", "bytes", "lower", "the files of all layers"),
    "size.unique": Described(
        "unpacked, of no other image", "bytes", "lower", "layers that no other image has",
    ),
    "size.added": Described(
        "what the form adds on disk", "bytes", "lower",
        "blocks (st_blocks) of kernel, initramfs, the image as a disk, template, writable disk",
    ),
    "size.disk": Described(
        "on disk in all", "bytes", "lower", "the unpacked layers and what the form adds",
    ),
}  # fmt: skip


@dataclass
class Gathered:
    """Everything measured so far; `samples` by key, by form, in the order they were taken."""

    samples: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    described: dict[str, Described] = field(default_factory=dict)
    left: list[Left] = field(default_factory=list)
    costs: dict[str, list[float]] = field(default_factory=dict)  # overheads by key

    def add(self, key: str, form: str, value: float, overhead: float | None = None) -> None:
        """One more sample."""
        self.samples.setdefault(key, {}).setdefault(form, []).append(value)
        if overhead is not None:
            self.costs.setdefault(key, []).append(overhead)

    def leave(self, what: str, why: str) -> None:
        """Something is not measured; said once."""
        found = Left(what, why)
        if found not in self.left:
            self.left.append(found)

    def measures(self, forms: Sequence[str]) -> Iterator[Measure]:
        """The measures, forms in their order."""
        for key, by_form in self.samples.items():
            row = self.described[key]
            taken = {form: tuple(by_form[form]) for form in forms if form in by_form}
            cost = median(self.costs[key]) if key in self.costs else None
            yield Measure(
                key=key, group=key.split(".")[0], title=row.title, unit=row.unit,
                better=row.better, how=row.how, samples=taken, overhead=cost,
            )  # fmt: skip


def started(milestone: str, condition: str, count: int = 1) -> tuple[str, Described]:
    """Key and description of a start's milestone."""
    suffix, how = (text.format(count=count) for text in CONDITIONS[condition])
    title = f"until {starts.TITLES[milestone]}{suffix}"
    described = Described(
        title, "ms", "lower", f"from before the request to create; {starts.HOW[milestone]}; {how}"
    )
    return f"time.{milestone}.{condition}", described


def place(measure: Measure) -> tuple[int, int, int]:
    """Where a measure stands among others: by group, then as starts go, warm before cold."""
    group, name, *rest = measure.key.split(".")
    milestone = starts.MILESTONES.index(name) if name in starts.MILESTONES else 0
    condition = list(CONDITIONS).index(rest[0]) if rest else 0
    return GROUPS.index(group), condition, milestone


def timelines(
    samples: Mapping[str, Mapping[str, Sequence[float]]], forms: Sequence[str]
) -> dict[str, tuple[Moment, ...]]:
    """For each form the medians of its warm starts' milestones, in the order they were reached."""
    found: dict[str, tuple[Moment, ...]] = {}
    for form in forms:
        moments = [
            Moment(name.replace("-", " "), median(by_form[form]))
            for name in starts.MILESTONES
            if (by_form := samples.get(f"time.{name}.warm", {})).get(form)
        ]
        found[form] = tuple(sorted(moments, key=lambda moment: moment.ms))
    return {form: moments for form, moments in found.items() if moments}
