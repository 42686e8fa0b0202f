"""One round: every form started cold, warm and many at once, and its work sampled."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from statistics import median

from proa.compare import cost, gathered, load, starts, work
from proa.compare.fleet import Fleet
from proa.compare.forms import Way
from proa.compare.gathered import Described, Gathered
from proa.compare.options import Options
from proa.compare.probe import Probe
from proa.compare.progress import Course
from proa.compare.starts import Expected, Look, Started
from proa.costs import Memory
from proa.errors import ProaError

WARM_UPS = 5
PASSING = "template"  # until the image has one of its own
COLD, WARM, BURST, MEMORY = "cold starts", "starts", "bursts", "readings of memory"
STARTS, BURSTS, WORKS = range(3)  # phases of a round; a warm start comes right after a cold one
Act = tuple[int, str, Callable[[Way], None]]  # phase, what it is, what is done
WORK_MS, QUICK_WORK_MS = 100, 60
QUICK_WORK = ("cpu", "memory", "syscalls", "disk-rand-read", "fsync", "net-requests")
LOAD_SECONDS = 120.0
LITTLE_SECONDS = 1.5  # what takes less in all is not left out for time

Key = tuple[str, str]  # form, what it is


def _together(names: Iterable[str]) -> list[tuple[str, ...]]:
    """Works that are figures of one run, together."""
    runs: dict[tuple[str, ...], tuple[str, ...]] = {}
    for name in names:
        words = work.TABLE[name].words
        runs[words] = (*runs.get(words, ()), name)
    return list(runs.values())


@dataclass
class Trial:
    """The forms at work: what each start is waited for, the probes that stay, what was found."""

    fleet: Fleet
    options: Options
    found: Gathered
    course: Course
    expected: Expected = field(default_factory=Expected)
    stays: bool = True  # in no form the program ends by itself
    probes: dict[str, Probe] = field(default_factory=dict)
    mute: set[str] = field(default_factory=set)  # forms in which no probe answers
    memory: dict[str, list[Memory]] = field(default_factory=dict)
    started_by: dict[str, list[str]] = field(default_factory=dict)
    seconds: dict[Key, list[float]] = field(default_factory=dict)
    spared: set[Key] = field(default_factory=set)  # the same, left out for time
    refused: set[tuple[str, str]] = field(default_factory=set)  # (form, work)
    facts: dict[str, Mapping[str, str]] = field(default_factory=dict)  # `Proa` of inspect
    cooled: list[float] = field(default_factory=list)  # share still cached afterwards

    # -- before the rounds -------------------------------------------------------------------------

    def warm_up(self, ways: Sequence[Way], port: int) -> list[Way]:
        """Start every form until it starts as it did before; those that work.

        What is made once (templates, disks) is made here, and what a start shows is found out.
        """
        working: list[Way] = []
        shown: list[Started] = []
        for way in ways:
            self.course.say(f"{way.form.title}: first start")
            try:
                missed = frozenset(name for one in shown for name in one.missed)
                last = self._first(way, Look(port, missed))
                self._settle(way, last, port)
            except ProaError as error:
                self.found.leave(way.form.title, error.message)
                continue
            working.append(way)
            self.facts[way.key] = last.facts
            shown.append(last)
            self._tell_missed(way, last)
        if shown:
            self.expected = starts.expectation(shown, port, self.options.ready)
            if not self.expected.port and not self.expected.ready:
                self._tell_unknown(working)
            self.stays = not any(starts.END in one.moments for one in shown)
        return working

    def _tell_unknown(self, ways: Sequence[Way]) -> None:
        for way in ways:
            if not way.image:
                why = "only a port or a readiness command tells; see --port and --ready"
                self.found.leave(f"when {way.form.title} has booted, and what it takes then", why)

    def _first(self, way: Way, look: Look) -> Started:
        with starts.started(self.fleet, way, self.options.command, look) as one:
            return one

    def _settle(self, way: Way, last: Started, port: int) -> None:
        """Again, while the engine still prepares better ways of starting it."""
        expected = starts.expectation([last], port, "")
        by = last.started_by
        for _ in range(WARM_UPS if by else 0):
            with starts.started(self.fleet, way, self.options.command, expected) as again:
                if again.started_by == by != PASSING:
                    return
                by = again.started_by

    def _tell_missed(self, way: Way, one: Started) -> None:
        for milestone, why in one.missed.items():
            if why:
                what = f"time until {starts.TITLES[milestone]}"
                self.found.leave(what, f"{way.form.title}: {why}")

    def keep_probes(self, ways: Sequence[Way], stack: ExitStack) -> None:
        """An instance with the probe in each form whose work is measured."""
        for way in ways:
            wanted = "work" in self.options.groups or (not self.stays and way.image)
            if way.form.only_start or not wanted:
                continue
            self.course.say(f"{way.form.title}: the probe")
            try:
                self.probes[way.key] = stack.enter_context(self.fleet.probe(way))
            except ProaError as error:
                self.found.leave(f"work of {way.form.title}", error.message)
                self.mute.add(way.key)

    # -- a round -----------------------------------------------------------------------------------

    def round(self, ways: Sequence[Way]) -> None:
        """All that is sampled round by round, every phase with the forms in this order.

        What is done to one form alone (a burst that others have no time for) is in a phase of its
        own, so that it does not always disturb the same other form's start.
        """
        for phase in (STARTS, BURSTS, WORKS):
            for way in ways:
                for of_phase, kind, act in self._acts(way):
                    if of_phase == phase and (way.key, kind) not in self.spared:
                        self._do(way, kind, act)

    def _do(self, way: Way, kind: str, act: Callable[[Way], None]) -> None:
        self.course.say(f"{way.form.title}: {kind}")
        begin = time.monotonic()
        try:
            act(way)
        except ProaError as error:
            self.found.leave(f"some {kind} of {way.form.title}", error.message)
        self.seconds.setdefault((way.key, kind), []).append(time.monotonic() - begin)

    def _acts(self, way: Way) -> Iterator[Act]:
        """What a round does with a form, in order."""
        options, groups = self.options, set(self.options.groups)
        timed, image = "time" in groups, options.kind == "image"
        if timed and options.cold and way.image:
            yield STARTS, COLD, self._cold
        if timed or "cost" in groups or options.load:
            yield STARTS, WARM, self._warm
        if timed and image and options.burst > 1 and not options.quick:
            yield BURSTS, BURST, self._burst
        if way.key not in self.probes:
            return
        if "cost" in groups and not self.stays and way.image:
            yield STARTS, MEMORY, self._probe_memory
        if "work" in groups:
            for names in _together(QUICK_WORK if options.quick else work.NAMES):
                yield WORKS, work.TITLES[names[0]], partial(self._work, names)

    def fit(self, ways: Sequence[Way], rounds: int, left_seconds: float) -> None:
        """Leave out of all further rounds what would take too long, going by the time it took: the
        longest bursts first, then cold starts, then the longest works that are not of the quick
        ones; but for bursts of every form or of none.  What is left out is said."""
        each = {key: median(taken) for key, taken in self.seconds.items()}
        for keys in self._sparable(each):
            if rounds * sum(each.values()) <= left_seconds:
                return
            seconds = rounds * sum(each[key] for key in keys)
            if seconds < LITTLE_SECONDS:
                continue
            each = {key: taken for key, taken in each.items() if key not in keys}
            self.spared.update(keys)
            titles = ", ".join(way.form.title for way in ways if (way.key, keys[0][1]) in keys)
            self.found.leave(
                f"more {keys[0][1]}: {titles}",
                f"{rounds} rounds would take {seconds:.0f} s, more than there is time for; "
                "see --budget",
            )

    def _sparable(self, each: Mapping[Key, float]) -> list[list[Key]]:
        """What goes together, the first to go first."""
        kept = {WARM, MEMORY, *(work.TITLES[name] for name in QUICK_WORK)}
        kinds: dict[str, list[Key]] = {}
        for key in each:
            if key[1] not in kept:
                kinds.setdefault(key[1], []).append(key)
        bursts = sorted(kinds.pop(BURST, []), key=lambda key: -each[key])
        cold = kinds.pop(COLD, None)
        works = sorted(kinds.values(), key=lambda keys: -sum(each[key] for key in keys))
        return [*([key] for key in bursts), *([cold] if cold else []), *works]

    def _cold(self, way: Way) -> None:
        cooled = self.fleet.client.cool(way.image)
        if cooled.before:
            self.cooled.append(cooled.after / cooled.before)
        with starts.started(self.fleet, way, self.options.command, self.expected) as one:
            self._add(way, one, "cold")

    def _warm(self, way: Way) -> None:
        with starts.started(self.fleet, way, self.options.command, self.expected) as one:
            if "time" in self.options.groups:
                self._add(way, one, "warm")
            self.started_by.setdefault(way.key, []).append(one.started_by)
            if "cost" in self.options.groups and (self.stays or not way.image):
                self._remember(way, one.instance.memory())
            if self.options.load and not way.form.only_start:
                self._load(way, one)

    def _add(self, way: Way, one: Started, condition: str) -> None:
        for milestone, moment in one.moments.items():
            if milestone == "exec" and not way.image:
                continue  # that of QEMU: the machine has yet to boot
            key, described = gathered.started(milestone, condition)
            self.found.described[key] = described
            self.found.add(key, way.key, moment)

    def _remember(self, way: Way, memory: Memory) -> None:
        cost.remember(memory, way, self.found)
        self.memory.setdefault(way.key, []).append(memory)

    def _load(self, way: Way, one: Started) -> None:
        target = f"{starts.address(one.instance)}:{self.expected.port}"
        figure = load.run(self.options.load, target, way.key, LOAD_SECONDS)
        self.found.described["work.load"] = Described(
            "the load command's figure", figure.unit, "higher",
            f"what '{self.options.load}' printed, run on this host against the instance",
        )  # fmt: skip
        self.found.add("work.load", way.key, figure.value)

    def _burst(self, way: Way) -> None:
        """Several at the same moment, each in a thread with a connection of its own."""
        count, last = self.options.burst, self.expected.last
        gate, done = threading.Barrier(count), threading.Barrier(count)
        moments: list[float] = []
        errors: list[ProaError] = []

        def one() -> None:
            gate.wait()
            try:
                with starts.started(self.fleet, way, self.options.command, self.expected) as found:
                    moments.append(found.moments[last])
                    done.wait()
            except ProaError as error:
                errors.append(error)
                done.abort()
            except threading.BrokenBarrierError:
                return  # another one failed

        threads = [threading.Thread(target=one, daemon=True) for _ in range(count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if errors:
            raise errors[0]
        key, described = gathered.started(last, "burst", count)
        self.found.described[key] = described
        self.found.add(key, way.key, max(moments))

    def _work(self, names: tuple[str, ...], way: Way) -> None:
        """A sample of each work; one that cannot be done in a form is not tried there again."""
        probe, quick = self.probes[way.key], self.options.quick
        names = tuple(name for name in names if (way.key, name) not in self.refused)
        for name, taken in work.each(probe, names, QUICK_WORK_MS if quick else WORK_MS):
            if isinstance(taken, ProaError):
                self.refused.add((way.key, name))
                self.found.leave(f"{work.TITLES[name]} of {way.form.title}", taken.message)
                continue
            key = f"work.{name}"
            self.found.described[key] = Described(
                work.TITLES[name], work.UNITS[name], work.BETTER[name], work.HOW[name]
            )
            self.found.add(key, way.key, taken.value, taken.overhead)

    def _probe_memory(self, way: Way) -> None:
        self._remember(way, self.probes[way.key].instance.memory())
