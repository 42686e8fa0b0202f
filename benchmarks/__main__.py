"""`make bench`: run the rounds, keep every sample, print medians, spread and ratios."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Set
from pathlib import Path

from benchmarks import (
    builds,
    clones,
    copies,
    density,
    diskio,
    first,
    loads,
    machines,
    peers,
    pulls,
    rows,
    shares,
)
from benchmarks.measure import Row, play, summary
from tests.support.engine import engine
from tests.support.images import busy_image, busy_layer
from tests.support.instances import Place

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
VM_SETTINGS = {"clone": "spares = 0", "warm": "warm = true", "boot": "template = false\nspares = 0"}
IMAGE_ROWS = (builds, loads, pulls, shares, machines)
LIMITS: dict[str, float] = {
    "proa monitor": 300,
    "qemu, unused (private)": 20 * 1024,
    **clones.LIMITS,
    **copies.LIMITS,
    **density.LIMITS,
    **first.LIMITS,
}


@contextlib.contextmanager
def field() -> Iterator[rows.Field]:
    """Our engine and every peer that can run here, on one image."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="proa-peers-")))
        archive = folder / "busy.tar"
        archive.write_bytes(busy_image())
        running = stack.enter_context(engine("proa-bench-"))
        vms = {}
        for name, settings in VM_SETTINGS.items():
            file = folder / f"{name}.toml"
            file.write_text(f"[vm]\n{settings}\n")
            vms[name] = stack.enter_context(engine(f"proa-{name}-", PROA_CONFIG=str(file)))
        for each in (running, *vms.values()):
            each.api.load(archive.read_bytes())
        found = rows.Field(running, vms, ROOT / "bin" / "proa")
        for name in ("docker", "podman", "runc"):
            (folder / name).mkdir()
        try:
            found.docker = stack.enter_context(peers.docker(folder / "docker", archive))
        except peers.Absent as why:
            found.absent["dockerd"] = str(why)
        try:
            pid = found.docker.pid if found.docker else os.getpid()
            found.podman = stack.enter_context(peers.podman(folder / "podman", archive, pid))
        except peers.Absent as why:
            found.absent["podman"] = str(why)
        try:
            found.runc = peers.bundle(folder / "runc", busy_layer().bytes())
        except peers.Absent as why:
            found.absent["runc"] = str(why)
        yield found


def environment() -> dict[str, str]:
    """Where the numbers come from."""
    model = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    facts = {
        "kernel": platform.release(),
        "processors": f"{len(model)} x {model[0] if model else 'unknown'}",
        "python": platform.python_version(),
        "load at the start": f"{os.getloadavg()[0]:.2f}",
    }
    for name in ("docker", "dockerd", "podman", "runc", "qemu-system-x86_64"):
        with contextlib.suppress(peers.Absent, OSError):
            facts[name] = peers.run([peers.program(name), "--version"]).splitlines()[0]
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True
    )
    return facts | {"commit": commit.stdout.strip()}


def accelerator(found: rows.Field) -> str:
    """What the vms run on here; also makes the template before anything is measured."""
    place = Place(found.vms["clone"].api, "vm")
    try:
        return str(place.start(peers.IMAGE, "true").inspect()["Proa"]["Accelerator"])
    finally:
        place.close()


def report(row: Row) -> Iterator[str]:
    """One row in words: each contestant's numbers, then the budgets."""
    yield f"\n{row.key}: {row.title}"
    for name, samples in row.samples.items():
        if not samples:
            yield f"  {name:36}no such process was found"
            continue
        s = summary(samples)
        numbers = (
            f"{s.median:9.1f} {row.unit}  (p10 {s.low:.1f}, p90 {s.high:.1f}, min {s.minimum:.1f}"
        )
        yield f"  {name:36}{numbers}, n {s.count})"
        if name in LIMITS:
            verdict = "kept" if s.median <= LIMITS[name] else "MISSED"
            yield f"    budget: at most {LIMITS[name]:g} {row.unit}: {verdict}"
    for name, why in row.absent.items():
        yield f"  {name:36}could not run: {why}"
    for budget in row.budgets:
        peers_ = [summary(row.samples[p]).median for p in budget.peers if p in row.samples]
        if budget.ours not in row.samples or not peers_:
            yield f"    budget: {budget.factor:.2f} of {' or '.join(budget.peers)}: not measured"
            continue
        ratio = summary(row.samples[budget.ours]).median / min(peers_)
        verdict = "kept" if ratio <= budget.factor else "MISSED"
        yield f"    ratio {ratio:.3f}, budget {budget.factor:.3f}: {verdict}"


def save(played: list[Row], absent: dict[str, str], facts: dict[str, str]) -> Path:
    """Every sample as JSON."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / time.strftime("%Y%m%d-%H%M%S.json")
    document = {
        "environment": facts,
        "absent": absent,
        "rows": [
            {
                "key": row.key,
                "title": row.title,
                "unit": row.unit,
                "samples": row.samples,
                "absent": row.absent,
                "budgets": [dataclasses.asdict(budget) for budget in row.budgets],
            }
            for row in played
        ],
    }
    path.write_text(json.dumps(document, indent=1) + "\n")
    return path


def timed_rows(found: rows.Field, wanted: set[str], stack: contextlib.ExitStack) -> Iterator[Row]:
    """Everything measured by the clock; what a row needs is made when it is wanted."""
    yield from rows.timed_rows(found)
    for module in IMAGE_ROWS:
        if not wanted or wanted & module.KEYS:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="proa-rows-"))
            yield from stack.enter_context(module.rows(found, Path(folder)))
    if not wanted or wanted & first.KEYS:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="proa-first-"))
        yield from first.rows(Path(folder))


def watched_rows(found: rows.Field, wanted: set[str], stack: contextlib.ExitStack) -> Iterator[Row]:
    """Everything that is not one job again and again."""

    def chosen(keys: Set[str]) -> bool:
        return not wanted or bool(wanted & keys)

    def folder() -> Path:
        return Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="proa-rows-")))

    if chosen(diskio.KEYS):
        yield from diskio.rows(folder())
    if chosen(copies.KEYS):
        yield from copies.rows(found.vms["clone"])
    if chosen(clones.KEYS):
        yield from clones.rows(folder())
    if chosen(density.KEYS):
        yield from density.rows(found.vms["clone"])


def main() -> int:
    """Parse, measure, print, keep."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--rows", default="", help="comma list of row names")
    chosen = parser.parse_args()
    wanted = set(filter(None, chosen.rows.split(",")))
    if os.geteuid() != 0:
        raise SystemExit("the benchmark needs root")
    facts = environment()
    print("\n".join(f"{key}: {value}" for key, value in facts.items()), flush=True)
    played = []
    with field() as found:
        facts["vm accelerator"] = accelerator(found)
        print(f"vm accelerator: {facts['vm accelerator']}")
        for name, why in found.absent.items():
            print(f"{name} cannot run here: {why}", flush=True)
        with contextlib.ExitStack() as stack:
            for row in timed_rows(found, wanted, stack):
                if not wanted or row.key in wanted:
                    play(row, chosen.rounds)
                    played.append(row)
                    print("\n".join(report(row)), flush=True)
        for key, measure in (("memory", rows.container_memory), ("vm-memory", rows.vm_memory)):
            if not wanted or key in wanted:
                played.append(measure(found))
                print("\n".join(report(played[-1])), flush=True)
        with contextlib.ExitStack() as stack:
            for row in watched_rows(found, wanted, stack):
                played.append(row)
                print("\n".join(report(row)), flush=True)
        path = save(played, found.absent, facts)
    print(f"\nevery sample: {path.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
