"""A comparison from its beginning to its report.

    report = compare(client, Options("web"), told=print)

What it makes is gone when it returns, whatever happens meanwhile.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from statistics import median

from proa.client.sdk import Client
from proa.compare import (
    cost,
    evidence,
    gathered,
    rounds,
    sizes,
    statistics,
    subjects,
)
from proa.compare.fleet import Fleet
from proa.compare.forms import Way
from proa.compare.gathered import Gathered
from proa.compare.options import GROUPS, Options
from proa.compare.progress import Course, Told
from proa.compare.record import Form, Isolation, Portability, Report, Subject
from proa.compare.trial import Trial
from proa.costs import Part
from proa.errors import Invalid, ProaError

VERSIONS = ("proa", "python", "qemu", "guest_kernel")
_PINGS = 20


def compare(client: Client, options: Options, told: Told) -> Report:
    """Run it in every form, side by side.

    Raises Invalid for what cannot be asked, Unsupported without the library of statistics,
    ImageNotFound, and the error of the last form when it works in none.
    """
    options.check()
    statistics.ready()
    with Fleet(client) as fleet, ExitStack() as stack:
        return Session(client, fleet, stack, options, told).run()


class Session:
    """One comparison under way."""

    def __init__(
        self, client: Client, fleet: Fleet, stack: ExitStack, options: Options, told: Told
    ) -> None:
        self.begun = time.monotonic()
        self.client, self.fleet, self.stack = client, fleet, stack
        self.seed = options.seed or secrets.randbelow(1 << 31) + 1
        self.options = options
        self.groups = frozenset(options.groups)
        self.found = Gathered()
        self.course = Course(told)
        self.trial = Trial(fleet, options, self.found, self.course)
        self.loads: list[float] = []

    def run(self) -> Report:
        """All of it."""
        self.loads.append(os.getloadavg()[0])
        subject = subjects.subject(self.client, self.options)
        if self.options.load and not subject.port:
            raise Invalid("--load has no port to work on", hint="name it with --port")
        self._name_what_is_left()
        asked = subjects.ways(self.fleet, self.options, subject, self.found)
        ways = self.trial.warm_up(asked, subject.port)
        if not ways:
            raise ProaError(f"'{subject.name}' works in no form: {self.found.left[-1].why}")
        staying = [way for way in ways if not way.form.only_start]
        with ExitStack() as probes:
            if {"work", "cost"} & self.groups:
                self.trial.keep_probes(ways, probes)
            made = self._rounds(ways) if {"time", "cost", "work"} & self.groups else 0
        if "cost" in self.groups:
            self._costs(staying)
        ledgers = self._sizes(ways)
        isolation = self._isolation(staying)
        portability = self._portability(subject, staying)
        return self._report(subject, ways, made, (ledgers, isolation, portability))

    # -- parts -------------------------------------------------------------------------------------

    def _name_what_is_left(self) -> None:
        for group in GROUPS:
            if group not in self.groups:
                self.found.leave(group, "not asked for")
        if self.options.quick:
            self.found.leave("cold starts, bursts, most kinds of work", "--quick was given")

    def _rounds(self, ways: Sequence[Way]) -> int:
        """Make as many rounds as it takes (see `rounds`), the forms in a new order each time."""
        by_key = {way.key: way for way in ways}
        self.course.expect(self._after(ways))
        self.course.rounds = self.options.rounds
        for number, order in enumerate(rounds.orders(list(by_key), self.seed), 1):
            self.course.begin_round(number)
            self.trial.round([by_key[key] for key in order])
            self.loads.append(os.getloadavg()[0])
            if number == 1:
                self.trial.fit(ways, self.options.least_rounds - 1, self._left())
            if not self.course.rounds and number == rounds.PILOT:
                self.course.rounds = self._enough()
            if number == self.course.rounds:
                break
        self.course.end_rounds()
        return self.course.rounds

    def _enough(self) -> int:
        each = sum(
            median(taken[1:] or taken)
            for key, taken in self.trial.seconds.items()
            if key not in self.trial.spared
        )
        return rounds.enough(self.found.samples, self.options.confidence, each, self._left())

    def _left(self) -> float:
        """Seconds there are for further rounds."""
        elapsed = time.monotonic() - self.begun
        return self.options.seconds - elapsed - self.course.after_seconds()

    def _after(self, ways: Sequence[Way]) -> dict[str, int]:
        staying = sum(not way.form.only_start for way in ways)
        image = self.options.kind == "image"
        parts = {
            "idle": "cost" in self.groups,
            "density": "cost" in self.groups and self.options.density > 1,
            "isolation": "isolation" in self.groups,
            "portability": "portability" in self.groups and image,
        }
        return {name: staying for name, wanted in parts.items() if wanted}

    def _costs(self, ways: Sequence[Way]) -> None:
        command = self.options.command if self.trial.stays else None
        self.course.part("idle", "idle processor time")
        cost.idle_processor(self.fleet, ways, command, self.found)
        if self.options.density > 1:
            self.course.part("density", "starting more and more")
            for way in ways:
                cost.density(self.fleet, way, command, self.options.density, self.found)
        if not self.trial.stays:
            self.found.leave(
                "memory and idle processor time of the program itself",
                "it ends by itself; they are of an instance in which a program only waits",
            )

    def _sizes(self, ways: Sequence[Way]) -> dict[str, tuple[Part, ...]]:
        if "size" not in self.groups:
            return {}
        self.course.say("sizes")
        return sizes.gather(self.client, ways, self.found)

    def _isolation(self, ways: Sequence[Way]) -> Isolation:
        if "isolation" not in self.groups:
            return Isolation()
        self.course.part("isolation", "isolation")
        for way in ways:
            if way.key in self.trial.mute:
                self.found.leave(f"isolation of {way.form.title}", "no probe answers in it")
        asked = [way for way in ways if way.key not in self.trial.mute]
        return evidence.isolation(self.fleet, asked, self.found, self.course.say)

    def _portability(self, subject: Subject, ways: Sequence[Way]) -> Portability:
        if "portability" not in self.groups:
            return Portability()
        self.course.part("portability", "portability")
        found = [self._form(way) for way in ways]
        try:
            return evidence.portability(self.fleet, subject, self.options, found, self.course.say)
        except ProaError as error:
            self.found.leave("portability", error.message)
            return Portability()

    # -- the report --------------------------------------------------------------------------------

    def _report(
        self,
        subject: Subject,
        ways: Sequence[Way],
        made: int,
        findings: tuple[dict[str, tuple[Part, ...]], Isolation, Portability],
    ) -> Report:
        self.course.say("statistics")
        keys = [way.key for way in ways]
        cost_ms = self._overhead_ms()
        measures = [
            replace(m, overhead=cost_ms) if m.group == "time" else m
            for m in self.found.measures(keys)
        ]
        ledgers, isolation, portability = findings
        host = self.client.host()
        return Report(
            made=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            subject=subject,
            machine=self._machine(host),
            versions={name: host[name] for name in VERSIONS if name in host},
            forms=tuple(self._form(way) for way in ways),
            rounds=made,
            confidence=self.options.confidence,
            seconds=round(time.monotonic() - self.begun, 1),
            measures=statistics.differences(
                sorted(measures, key=gathered.place), self.options.confidence
            ),
            ledgers=ledgers,
            memory={key: cost.typical(found) for key, found in self.trial.memory.items()},
            timelines=gathered.timelines(self.found.samples, keys),
            isolation=isolation,
            portability=portability,
            left=tuple(self.found.left),
        )

    def _machine(self, host: dict[str, str]) -> dict[str, str]:
        told = {name: value for name, value in host.items() if name not in VERSIONS}
        middle = median(self.loads)
        told["load"] = f"{min(self.loads):.2f} to {max(self.loads):.2f}, median {middle:.2f}"
        told["seed"] = str(self.seed)
        if self.trial.cooled:
            told["cached after cooling"] = f"{100 * median(self.trial.cooled):.0f} %"
        return told

    def _form(self, way: Way) -> Form:
        """The form with the proof of what it was; counts when starts were made in several ways."""
        by = self.trial.started_by.get(way.key, [])
        counted = {name: by.count(name) for name in dict.fromkeys(by) if name}
        several = len(counted) > 1
        start = ", ".join(f"{n} {c}" if several else n for n, c in counted.items())
        facts = self.trial.facts.get(way.key, {})
        return replace(
            way.form, kernel=facts.get("Kernel", ""), accelerator=facts.get("Accelerator", ""),
            start=start,
        )  # fmt: skip

    def _overhead_ms(self) -> float:
        """What asking the engine something takes: a share of every time measured."""
        taken = []
        for _ in range(_PINGS):
            begin = time.monotonic_ns()
            self.client.call("GET", "/version")
            taken.append((time.monotonic_ns() - begin) / 1e6)
        return median(taken)
