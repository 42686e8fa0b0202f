"""Isolation and portability of the forms, by the parts that know about them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from proa.compare import isolation as isolations
from proa.compare import portability as portabilities
from proa.compare.fleet import Fleet
from proa.compare.forms import Way
from proa.compare.gathered import Gathered
from proa.compare.options import Options
from proa.compare.record import Answer, Form, Isolation, Portability, Subject
from proa.errors import ProaError


def isolation(
    fleet: Fleet, ways: Sequence[Way], found: Gathered, told: Callable[[str], None]
) -> Isolation:
    """The same probes in every way, each with a neighbour of its own form."""
    answers: dict[str, Mapping[str, Answer]] = {}
    for way in ways:
        told(f"isolation: {way.form.title}")
        limited = _limited(way)
        try:
            with fleet.probe(limited) as probe, fleet.probe(limited) as neighbour:
                answers[way.key] = isolations.gather(probe, neighbour, way.form)
        except ProaError as error:
            found.leave(f"isolation of {way.form.title}", error.message)
    return isolations.judge(answers) if answers else Isolation()


def _limited(way: Way) -> Way:
    """Limits of an owner's own count more than the usual ones; a machine keeps its memory."""
    if not way.image:
        return way
    more = {**isolations.LIMITS, **way.options.get("more", {})}
    return replace(way, options={**way.options, "more": more})


def portability(
    fleet: Fleet,
    subject: Subject,
    options: Options,
    ways: Sequence[Form],
    told: Callable[[str], None],
) -> Portability:
    """What hosts need, and trials on kernels when they were asked for."""
    asked = portabilities.Options(subject, options.kernels, create=fleet.labelled(options.create))
    return portabilities.gather(
        fleet.client, asked, ways, lambda what: told(f"portability: {what}")
    )
