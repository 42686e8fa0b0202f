"""The table of comparisons: what each row runs, and the budget of DESIGN §7 it answers to."""

from __future__ import annotations

import itertools
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import memory
from benchmarks.measure import Budget, Contestant, Row
from benchmarks.peers import IMAGE, Docker, Podman, run
from proa.client import Client
from tests.support.engine import EngineProcess
from tests.support.instances import Place

REST_SECONDS = 3.0  # in which the pool makes its next machine
SMALL_VM_BYTES = 160 << 20  # what a machine of 256 MiB leaves to its instance
IDLE_INSTANCES = 10
SPARE_SECONDS = 5.0  # in which an image's template and a spare of it are made


@dataclass
class Field:
    """Everything there is to compare; a peer that cannot run is None, its reason in `absent`."""

    engine: EngineProcess
    vms: dict[str, EngineProcess]  # by their setting: clone, warm, boot
    proa: Path
    docker: Docker | None = None
    podman: Podman | None = None
    runc: list[str] | None = None
    absent: dict[str, str] = field(default_factory=dict)
    numbers: Iterator[int] = field(default_factory=itertools.count)

    def docker_to(self, engine: EngineProcess, *flags: str) -> list[str]:
        """The same docker client, pointed at an engine of ours."""
        client = self.docker.client[0] if self.docker else "docker"
        config = str(self.engine.root.parent / "docker-config")
        host = f"unix://{engine.socket}"
        return [client, "--config", config, "-H", host, "run", "--rm", *flags, IMAGE, "true"]

    def command(
        self, name: str, argv: list[str], engine: EngineProcess | None = None, rest: float = 0
    ) -> Contestant:
        """A contestant that runs a program with the environment of an engine of ours."""
        environment = (engine or self.engine).variables()
        return Contestant(name, lambda: run(argv, env=environment), rest)

    def proa_run(self, *flags: str) -> list[str]:
        """`proa run --rm ... true`."""
        return [str(self.proa), "run", "--rm", *flags, IMAGE, "true"]


def docker_row(field_: Field, network: str) -> Row:
    """The docker client against both engines."""
    title = f"docker client, run --rm true, network {network}"
    ours = field_.command(
        "docker client → proa", field_.docker_to(field_.engine, "--network", network)
    )
    row = Row(f"docker-{network}", title, [ours])
    if field_.docker:
        argv = field_.docker.run("--network", network)
        row.contestants.append(field_.command("docker client → dockerd", argv))
        row.budgets.append(Budget(ours.name, ("docker client → dockerd",), 1 / 5))
    return row


def cli_row(field_: Field, network: str) -> Row:
    """Each engine's own command."""
    ours = field_.command("proa run", field_.proa_run("--network", network))
    row = Row(f"cli-{network}", f"own client, run --rm true, network {network}", [ours])
    if field_.docker:
        row.contestants.append(
            field_.command("docker run", field_.docker.run("--network", network))
        )
    if field_.podman:
        row.contestants.append(
            field_.command("podman run", field_.podman.run("--network", network))
        )
    row.budgets.append(Budget(ours.name, ("docker run", "podman run"), 1 / 4))
    return row


def sdk_row(field_: Field) -> Row:
    """A whole life through the SDK against `runc run` of the same files."""
    client = Client(str(field_.engine.socket))

    def life() -> None:
        instance = client.create(IMAGE, ["true"], network="none")
        instance.start()
        code = instance.wait()
        instance.remove()
        if code != 0:
            raise RuntimeError(f"exit code {code}")

    row = Row("sdk", "create, start, wait, remove; no network", [Contestant("proa SDK", life)])
    if field_.runc:
        argv = field_.runc

        def peer() -> None:
            run([*argv, f"bench-{next(field_.numbers)}"])

        row.contestants.append(Contestant("runc run", peer))
        row.budgets.append(Budget("proa SDK", ("runc run",), 1.0))
    return row


def vm_row(field_: Field) -> Row:
    """A vm against dockerd's container, the same client: cloned on demand, and from the pool."""
    flags = ("--isolation", "vm")
    clone, warm = field_.vms["clone"], field_.vms["warm"]
    ours = field_.command("docker client → proa vm, clone", field_.docker_to(clone, *flags))
    pool = field_.command(
        "docker client → proa vm, pool", field_.docker_to(warm, *flags), warm, REST_SECONDS
    )
    row = Row("vm", "a vm's run --rm true against a container's, bridged", [ours, pool])
    row.contestants.append(field_.command("proa run --vm, clone", field_.proa_run("--vm"), clone))
    if field_.docker:
        peer = field_.command("docker client → dockerd container", field_.docker.run())
        row.contestants.append(peer)
        row.budgets.append(Budget(ours.name, (peer.name,), 0.8))
        row.budgets.append(Budget(pool.name, (peer.name,), 0.4))
    return row


def boot_row(field_: Field) -> Row:
    """A template clone against a full boot of the same machine."""
    argv = field_.proa_run("--vm", "--network", "none")
    clone = field_.command("vm by template", argv, field_.vms["clone"])
    full = field_.command("vm by full boot", argv, field_.vms["boot"])
    row = Row("boot", "proa run --rm --vm true, template clone and full boot", [clone, full])
    row.budgets.append(Budget(clone.name, (full.name,), 1 / 10))
    return row


def burst_row(field_: Field) -> Row:
    """Twenty detached containers, one after the other."""

    def many(argv: list[str], remove: list[str]) -> Callable[[], None]:
        def work() -> None:
            names = [f"burst-{next(field_.numbers)}" for _ in range(20)]
            for name in names:
                run([*argv, "--name", name, IMAGE, "sleep", "1000"], env=environment)
            run([*remove, *names], env=environment)

        return work

    environment = field_.engine.variables()
    proa = str(field_.proa)
    row = Row("burst", "20 detached containers started and removed", [])
    row.contestants.append(Contestant("proa", many([proa, "run", "-d"], [proa, "rm", "-f"])))
    if field_.docker:
        client = field_.docker.client
        docker = many([*client, "run", "-d"], [*client, "rm", "-f"])
        row.contestants.append(Contestant("docker", docker))
    return row


def timed_rows(field_: Field) -> list[Row]:
    """Everything measured by the clock."""
    return [
        docker_row(field_, "bridge"),
        docker_row(field_, "none"),
        cli_row(field_, "bridge"),
        cli_row(field_, "none"),
        sdk_row(field_),
        vm_row(field_),
        boot_row(field_),
        burst_row(field_),
    ]


# -- memory --------------------------------------------------------------------------------------


def container_memory(field_: Field) -> Row:
    """What each engine keeps resident for one idle container beside its own process."""
    row = Row("memory", "host memory per idle container beyond its process (PSS)", [], unit="KB")
    place = Place(field_.engine.api, "container")
    try:
        pids = [place.start(IMAGE, "sleep", "1000").state()["Pid"] for _ in range(IDLE_INSTANCES)]
        row.samples["proa monitor"] = [float(value) for value in keepers(pids, "proa-native")]
    finally:
        place.close()
    if field_.docker:
        row.samples["containerd-shim"] = peer_keepers(
            field_.docker.idle(), [*field_.docker.client, "rm", "-f"], "containerd-shim"
        )
    if field_.podman:
        row.samples["conmon"] = peer_keepers(
            field_.podman.idle(), [*field_.podman.command, "rm", "-f"], "conmon"
        )
    return row


def keepers(pids: list[int], name: str) -> list[int]:
    """Memory of the ancestor called `name` of each process."""
    table = memory.processes()
    found = []
    for pid in pids:
        parents = [p for p in memory.ancestors(pid, table) if name in table[p][1].split(" ")[0]]
        found.append(memory.pss_kilobytes(parents[:1]))
    return found


def peer_keepers(start: list[str], remove: list[str], name: str) -> list[float]:
    """The same for a peer; its keeper may not be an ancestor, so take all of that name."""
    before = {pid for pid, (_, line) in memory.processes().items() if name in line.split(" ")[0]}
    ids = [run(start).strip() for _ in range(IDLE_INSTANCES)]
    try:
        table = memory.processes()
        pids = [pid for pid, (_, line) in table.items() if name in line.split(" ")[0]]
        return [float(memory.pss_kilobytes([pid])) for pid in pids if pid not in before]
    finally:
        subprocess.run([*remove, *ids], capture_output=True)


def vm_memory(field_: Field) -> Row:
    """Private memory of clones: one that waits unused, and some that run an idle program."""
    row = Row("vm-memory", "host memory per vm clone of 256 MiB", [], unit="KB")
    for engine, count, use in ((field_.engine, 2, "unused"), (field_.vms["clone"], 4, "idle")):
        place = Place(engine.api, "vm")
        try:
            for _ in range(count):
                place.start(IMAGE, "sleep", "1000", host={"Memory": SMALL_VM_BYTES})
                time.sleep(SPARE_SECONDS)
            if use == "unused":
                place.close()  # what is left is the spare, which has run nothing yet
            machines = machines_of(str(engine.root))
            for what, measure in (
                ("private", memory.private_kilobytes),
                ("PSS", memory.pss_kilobytes),
            ):
                row.samples[f"qemu, {use} ({what})"] = [float(measure([pid])) for pid in machines]
        finally:
            place.close()
    return row


def machines_of(directory: str) -> list[int]:
    """QEMU processes of the engine that keeps its state there."""
    table = memory.processes()
    return [
        pid
        for pid, (_, line) in table.items()
        if "qemu-system" in line.split(" ")[0] and memory.holds(pid, directory)
    ]
