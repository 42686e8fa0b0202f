"""Feed a reader of foreign bytes with damaged input until it misbehaves.

A target takes bytes and may raise `ProaError`, nothing else, and must be done soon.  Inputs that
fail in a new way (other lines of ours in the traceback) or succeed with another answer are kept
and mutated further, which leads ever deeper in without instrumenting anything.

    python -m tests.fuzz.layer --seconds 3600      for hours by hand
    python -m tests.fuzz.layer --input FILE        one input again
"""

from __future__ import annotations

import argparse
import hashlib
import random
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from proa.errors import ProaError

MAXIMUM_INPUT = 1 << 16
SLOW_SECONDS = 10.0
_NUMBERS = (0, 1, 0x20, 0x2F, 0x30, 0x37, 0x7F, 0x80, 0xFF)
_KEPT = 2000


@dataclass(frozen=True)
class Target:
    """What is fuzzed.  `check` gives something hashable that tells outcomes apart, or None.

    `seeds` are well-formed inputs; `words` are what its language is made of; `repair`, when it is
    given, makes a mutated input plausible again (a checksum, say) before half of the runs.
    """

    name: str
    check: Callable[[bytes], object]
    seeds: Sequence[bytes]
    words: Sequence[bytes] = ()
    repair: Callable[[bytes], bytes] | None = None


class Misbehaved(AssertionError):
    """An input made the target raise what it may not, or take too long."""


def run(target: Target, seconds: float, seed: int) -> int:
    """Fuzz for so long; how many inputs that were.  Raises Misbehaved, the input is kept."""
    chance = random.Random(seed)
    corpus = list(target.seeds)
    seen = {outcome(target, data) for data in corpus}
    end, rounds = time.monotonic() + seconds, 0
    while time.monotonic() < end:
        data = mutated(chance, corpus, target.words)
        if target.repair is not None and chance.random() < 0.7:
            data = target.repair(data)
        found = outcome(target, data)
        rounds += 1
        if found not in seen and len(corpus) < _KEPT:
            seen.add(found)
            corpus.append(data)
    return rounds


def outcome(target: Target, data: bytes) -> object:
    """How it ended: the answer, or where in our code it was refused."""
    try:
        with limited():
            return target.check(data)
    except ProaError as error:
        frames = traceback.extract_tb(error.__traceback__)
        return type(error), tuple((Path(item.filename).name, item.lineno) for item in frames)
    except Exception as error:
        raise Misbehaved(
            f"{target.name}: {error!r}; the input is '{keep(target, data)}'"
        ) from error


@contextmanager
def limited() -> Iterator[None]:
    """No input may take longer than this (a signal: only in the main thread)."""

    def late(number: int, frame: FrameType | None) -> None:
        raise TimeoutError(f"took more than {SLOW_SECONDS:g} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, SLOW_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def keep(target: Target, data: bytes) -> Path:
    """Write an input where it can be run again."""
    name = f"fuzz-{target.name}-{hashlib.sha256(data).hexdigest()[:12]}"
    path = Path(tempfile.gettempdir()) / name
    path.write_bytes(data)
    return path


# -- mutation -------------------------------------------------------------------------------------


def mutated(chance: random.Random, corpus: Sequence[bytes], words: Sequence[bytes]) -> bytes:
    """One of the corpus with a few things changed; the youngest ones more often."""
    index = max(chance.randrange(len(corpus)), chance.randrange(len(corpus)))
    data = bytearray(corpus[index])
    for _ in range(1 << chance.randrange(4)):
        chance.choice(_MUTATIONS)(chance, data, corpus, words)
    return bytes(data[:MAXIMUM_INPUT])


Mutation = Callable[[random.Random, bytearray, Sequence[bytes], Sequence[bytes]], None]


def _at(chance: random.Random, data: bytearray) -> int:
    return chance.randrange(len(data) + 1)


def _span(chance: random.Random, data: bytearray | bytes) -> slice:
    start = chance.randrange(len(data) + 1)
    return slice(start, start + (1 << chance.randrange(10)))


def _byte(
    chance: random.Random, data: bytearray, corpus: Sequence[bytes], words: Sequence[bytes]
) -> None:
    if data:
        at = chance.randrange(len(data))
        data[at] = chance.choice((*_NUMBERS, chance.randrange(256), data[at] ^ 1 << at % 8))


def _remove(
    chance: random.Random, data: bytearray, corpus: Sequence[bytes], words: Sequence[bytes]
) -> None:
    del data[_span(chance, data)]


def _repeat(
    chance: random.Random, data: bytearray, corpus: Sequence[bytes], words: Sequence[bytes]
) -> None:
    part = bytes(data[_span(chance, data)])
    at = _at(chance, data)
    data[at:at] = part * chance.choice((1, 1, 2, 64))


def _splice(
    chance: random.Random, data: bytearray, corpus: Sequence[bytes], words: Sequence[bytes]
) -> None:
    other = chance.choice(corpus)
    at = _at(chance, data)
    data[at:at] = other[_span(chance, other)]


def _word(
    chance: random.Random, data: bytearray, corpus: Sequence[bytes], words: Sequence[bytes]
) -> None:
    if words:
        at, word = _at(chance, data), chance.choice(words)
        data[at : at + chance.choice((0, len(word)))] = word


def _truncate(
    chance: random.Random, data: bytearray, corpus: Sequence[bytes], words: Sequence[bytes]
) -> None:
    if chance.random() < 0.2:
        del data[_at(chance, data) :]


_MUTATIONS: tuple[Mutation, ...] = (_byte, _byte, _remove, _repeat, _splice, _word, _truncate)


# -- by hand --------------------------------------------------------------------------------------


def main(target: Target) -> None:
    """The command line of a target's module."""
    parser = argparse.ArgumentParser(description=f"fuzz the {target.name} reader")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=None, help="default: another one each time")
    parser.add_argument("--input", type=Path, default=None, help="run this one input and stop")
    arguments = parser.parse_args()
    if arguments.input is not None:
        print(outcome(target, arguments.input.read_bytes()))
        return
    seed = random.SystemRandom().randrange(1 << 32) if arguments.seed is None else arguments.seed
    print(f"{target.name}: seed {seed}", flush=True)
    try:
        print(f"{run(target, arguments.seconds, seed)} inputs, nothing found")
    except Misbehaved as error:
        traceback.print_exc()
        sys.exit(str(error))
