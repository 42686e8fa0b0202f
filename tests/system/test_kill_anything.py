"""Kill the engine, a monitor, QEMU or the command line at any moment: nothing is lost or left.

Each round starts one operation, kills one victim after a random while, restarts the engine, and
then demands the truth.  PROA_SEED repeats a run, PROA_KILL_ROUNDS makes it longer.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.support.engine import EngineProcess, engine, leftovers
from tests.support.http import ApiError
from tests.support.images import busy_image
from tests.support.instances import Instance, Json, Place, eventually
from tests.support.paths import ROOT

SEED = int(os.environ.get("PROA_SEED", "20261"))
ROUNDS = int(os.environ.get("PROA_KILL_ROUNDS", "16"))
VICTIMS = ("engine", "monitor", "hull", "client")
OPERATIONS = ("start", "run", "stop", "rm")
FINISHER = ("sh", "-c", "echo begun; sleep 0.3; echo done; exit 3")
SLEEPER = ("sh", "-c", "trap 'exit 4' TERM; echo begun; sleep 1000 & wait")
LONGEST_SECONDS = {"container": 0.25, "vm": 0.8}


@dataclass
class Round:
    """One operation, one victim, one moment."""

    running: EngineProcess
    isolation: str
    operation: str
    victim: str
    delay: float
    place: Place = field(init=False)
    ids: set[str] = field(default_factory=set)
    places: set[str] = field(default_factory=set)
    struck: bool = False

    def __post_init__(self) -> None:
        self.place = Place(self.running.api, self.isolation)

    def __str__(self) -> str:
        return f"{self.isolation}: {self.operation}, {self.victim} killed after {self.delay:.3f} s"

    def client(self, *arguments: str) -> subprocess.Popen[bytes]:
        """The command line; without PROA_ROOT it starts no engine in place of a dead one."""
        environment = self.running.variables()
        del environment["PROA_ROOT"]
        return subprocess.Popen(
            [sys.executable, "-m", "proa", *arguments],
            env=environment,
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def begin(self, name: str) -> tuple[subprocess.Popen[bytes], str]:
        """Start the operation; the client and the name of the instance it concerns."""
        if self.operation == "run":
            run = ["run", "-d", "--name", name, "--isolation", self.isolation, "busy"]
            return self.client(*run, *FINISHER), name
        command = FINISHER if self.operation == "start" else SLEEPER
        instance = self.place.create("busy", *command, name=name)
        self.ids.add(instance.id)
        if self.operation != "start":
            instance.start()
            eventually(lambda: "begun" in instance.logs().stdout, 20)
        flags = {"start": ["start"], "stop": ["stop", "-t", "5"], "rm": ["rm", "-f"]}
        return self.client(*flags[self.operation], name), name

    def strike(self, client: subprocess.Popen[bytes], name: str) -> bool:
        """Kill the victim; whether there was one."""
        if self.victim == "engine":
            self.running.kill()
            return True
        if self.victim == "client":
            client.kill()
            return True
        pids = monitors(self.running.root, self.place_name(name))
        if self.victim == "hull":
            pids = [child for pid in pids for child in children(pid)]
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return bool(pids)

    def place_name(self, name: str) -> str:
        """The place the instance is in, empty when there is none yet or no longer."""
        with contextlib.suppress(ApiError):
            return str(Instance(self.running.api, name).inspect()["Proa"]["Place"] or "")
        return ""

    def rows(self) -> list[Json]:
        """The engine's list."""
        rows: list[Json] = self.running.api.json("GET", "/containers/json", all=1)
        return rows

    def play(self, name: str) -> None:
        """Operation, kill, restart, truth, removal, nothing left."""
        client, name = self.begin(name)
        time.sleep(self.delay)
        struck = self.struck = self.strike(client, name)
        if self.victim == "engine":
            self.running.start()
        with contextlib.suppress(subprocess.TimeoutExpired):
            client.wait(30)
        client.kill()
        client.wait()
        for row in self.rows():
            if f"/{name}" in row["Names"]:
                self.ids.add(row["Id"])
                self.places.add(self.place_name(name))
                self.truth(Instance(self.running.api, row["Id"]), struck)
        for identity in self.ids:
            with contextlib.suppress(ApiError):
                Instance(self.running.api, identity).remove()
        self.nothing_left()

    def truth(self, instance: Instance, struck: bool) -> None:
        """What the engine says of an instance is so."""
        if self.operation == "rm" and self.settled_gone(instance):
            return
        state = instance.state()
        broken = struck and self.victim in {"monitor", "hull"}
        if state["Status"] == "created":
            assert self.operation in {"start", "run"}
            return
        if self.operation in {"start", "run"}:
            code = instance.wait()
            if not broken:
                assert code == 3, instance.state()
                assert instance.logs().stdout == "begun\ndone\n"
            assert not instance.state()["Running"]
        elif not (state["Running"] and self.alive(instance)):
            state = instance.state()
            assert state["ExitCode"] in ({4, 137, 255} if broken else {4, 137}), state
            assert not state["Running"]
            assert instance.logs().stdout == "begun\n"
        assert instance.state()["Status"] in {"running", "exited"}

    def settled_gone(self, instance: Instance) -> bool:
        """Whether a removal under way goes through: the engine needs no client for it."""
        end = time.monotonic() + (0 if self.victim == "engine" else 10)
        while instance.id in self.running.api.ids():
            if time.monotonic() > end:
                return False
            time.sleep(0.05)
        return True

    def alive(self, instance: Instance) -> bool:
        """Whether it runs and answers; a stop under way may end it before it is asked."""
        try:
            return instance.exec("echo", "alive").stdout == "alive\n"
        except ApiError as refusal:
            assert refusal.status in {404, 409}, refusal
            return False

    def nothing_left(self) -> None:
        """No trace of the round's instances."""
        for identity in self.ids:
            assert not (self.running.root / "instances" / identity).exists()
        short = {identity[:8] for identity in self.ids} | (self.places - {""})
        end = time.monotonic() + 5
        while True:
            found = leftovers(self.running.root, frozenset(self.ids), patience=0)
            found = [line for line in found if any(name in line for name in short)]
            if not found or time.monotonic() > end:
                break
            time.sleep(0.1)
        assert not found, found


def monitors(root: Path, place: str) -> list[int]:
    """Pids of native monitors that hold the place's directory."""
    directory = str(root / "places" / place)
    found = []
    for entry in Path("/proc").iterdir():
        if not place or not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError):
            if b"monitor" not in (entry / "cmdline").read_bytes():
                continue
            held = [os.readlink(path) for path in (entry / "fd").iterdir()]
            if any(target == directory for target in held):
                found.append(int(entry.name))
    return found


def children(pid: int) -> list[int]:
    """Direct children: a container's main process, a vm's QEMU."""
    with contextlib.suppress(OSError):
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
        return [int(child) for child in text.split()]
    return []


@pytest.fixture(scope="module")
def running() -> Iterator[EngineProcess]:
    """An engine made to be killed."""
    with engine("proa-kill-") as process:
        process.api.load(busy_image())
        yield process


def schedule(isolation: str) -> list[tuple[str, str, float]]:
    """Which operation, which victim, when: every pair before any is repeated."""
    chance = random.Random(f"{SEED} {isolation}")
    pairs = [(operation, victim) for operation in OPERATIONS for victim in VICTIMS]
    chance.shuffle(pairs)
    chosen = [pairs[n % len(pairs)] for n in range(ROUNDS)]
    return [(*pair, chance.uniform(0, LONGEST_SECONDS[isolation])) for pair in chosen]


@pytest.mark.parametrize("isolation", ["container", "vm"])
def test_nothing_is_lost_or_left(running: EngineProcess, isolation: str) -> None:
    bystander = Place(running.api, isolation).start("busy", *SLEEPER)
    pid = bystander.state()["Pid"]
    struck = Counter[str]()
    for number, (operation, victim, delay) in enumerate(schedule(isolation)):
        one = Round(running, isolation, operation, victim, delay)
        try:
            one.play(f"{isolation}-{number}")
        except BaseException as error:
            error.add_note(f"round {number} of seed {SEED}: {one}")
            raise
        struck[victim] += one.struck
        assert bystander.state()["Pid"] == pid, one
        assert bystander.exec("echo", "alive").stdout == "alive\n", one
    bystander.remove()
    assert struck["engine"] and struck["client"] and struck["monitor"] + struck["hull"], struck


@pytest.mark.parametrize("isolation", ["container", "vm"])
def test_an_instance_that_ends_while_the_engine_is_away(
    running: EngineProcess, isolation: str
) -> None:
    place = Place(running.api, isolation)
    instance = place.start("busy", "sh", "-c", "echo begun; sleep 2; echo done; exit 6")
    kept = place.start("busy", *SLEEPER)
    removed = place.start("busy", "sh", "-c", "sleep 1", host={"AutoRemove": True})
    running.kill()
    time.sleep(3)
    running.start()
    assert instance.wait() == 6
    assert instance.logs().stdout == "begun\ndone\n"
    assert kept.state()["Running"]
    assert kept.exec("echo", "alive").stdout == "alive\n"
    kept.stop(10)
    assert kept.state()["ExitCode"] == 4
    eventually(lambda: removed.id not in running.api.ids())
    place.close()


@pytest.mark.parametrize("isolation", ["container", "vm"])
def test_an_orderly_stop_of_the_engine_keeps_instances(
    running: EngineProcess, isolation: str
) -> None:
    place = Place(running.api, isolation)
    instance = place.start("busy", *SLEEPER)
    running.stop()
    running.start()
    assert instance.exec("echo", "alive").stdout == "alive\n"
    place.close()
