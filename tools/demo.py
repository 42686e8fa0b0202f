"""`make demo`: one real image, run as a container and as a vm, both answering HTTP at once.

Builds a Debian image with nginx from the packages of this machine's own Debian mirror, imports it
as `debian-web` (once: a second run finds it), starts it in both isolations, fetches a page from
each, and prints them side by side.  Safe to run again at any time.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from proa.client import spawn
from proa.client.connection import target
from proa.errors import NotFound, ProaError

ROOT = Path(__file__).resolve().parent.parent
PROA = ROOT / "bin" / "proa"
IMAGE = "debian-web"
ISOLATIONS = ("container", "vm")
PAGE = "one image, two hulls"
REPLY_TIMEOUT_SECONDS = 60.0
SLIM = ("doc", "man", "locale", "info", "lintian")


@dataclass
class Half:
    """One isolation's side of the table."""

    isolation: str
    id: str = ""
    port: int = 0
    began_ns: int = 0
    facts: dict[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The instance's name."""
        return f"demo-{self.isolation}"


def call(method: str, path: str, body: object = None, **query: object) -> Any:
    """One exchange with the engine, which is started when it is not running."""
    with spawn.connect() as connection:
        return connection.request(method, target(path, query), body).json()


def say(text: str) -> None:
    """Progress, at once."""
    print(text, flush=True)


def timed(text: str, work: Callable[[], object]) -> None:
    """Say what is being done, do it, and say how long it took."""
    print(f"{text} ... ", end="", flush=True)
    began = time.monotonic()
    work()
    say(f"{time.monotonic() - began:.1f} s")


def have_image() -> bool:
    """Whether an earlier run imported the image."""
    try:
        call("GET", f"/images/{IMAGE}/json")
    except NotFound:
        return False
    return True


def apt_sources() -> list[str]:
    """The files that say where this machine gets its Debian packages."""
    folder = Path("/etc/apt")
    found = [folder / "sources.list", *sorted((folder / "sources.list.d").glob("*"))]
    return [
        str(path)
        for path in found
        if path.suffix in {".list", ".sources"} and path.is_file() and "debian" in path.read_text()
    ]


def codename() -> str:
    """`bookworm` on Debian 12."""
    lines = Path("/etc/os-release").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line)["VERSION_CODENAME"]


def build_tree(tar: Path) -> None:
    """A minimal Debian with nginx as a tar, from packages."""
    exclude = [f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in SLIM]
    page = f"echo '<h1>{PAGE}</h1>' >\"$1\"/var/www/html/index.html"
    command = ["mmdebstrap", "--quiet", "--variant=minbase", "--include=nginx-light"]
    command += [*exclude, '--aptopt=Acquire::Languages "none"', f"--customize-hook={page}"]
    run([*command, codename(), str(tar), *apt_sources()])


def build_image() -> None:
    """Build and import `debian-web`."""
    with tempfile.TemporaryDirectory(prefix="proa-demo-") as folder:
        tar = Path(folder) / "tree.tar"
        timed("building a Debian image with nginx from packages", lambda: build_tree(tar))
        changes = ['CMD ["nginx", "-g", "daemon off;"]', "EXPOSE 80"]
        flags = [part for change in changes for part in ("--change", change)]
        timed(f"importing it as '{IMAGE}'", lambda: proa("import", *flags, str(tar), IMAGE))


def run(command: list[str]) -> str:
    """A program's output; its own words when it fails."""
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode != 0:
        words = (result.stderr or result.stdout).strip()
        raise SystemExit(f"'{command[0]}' failed with exit code {result.returncode}:\n{words}")
    return result.stdout.strip()


def proa(*arguments: str) -> str:
    """The command line, as its user would run it."""
    return run([str(PROA), *arguments])


def start(half: Half) -> None:
    """Run the image; an instance of an earlier demo makes room."""
    with contextlib.suppress(NotFound):
        call("DELETE", f"/containers/{half.name}", force=True, v=True)
    flags = ["--detach", "--name", half.name, "--isolation", half.isolation, "--publish", "80"]
    half.began_ns = time.monotonic_ns()
    half.id = proa("run", *flags, IMAGE)
    inspected = call("GET", f"/containers/{half.id}/json")
    half.port = int(inspected["NetworkSettings"]["Ports"]["80/tcp"][0]["HostPort"])


def first_reply(half: Half) -> None:
    """Fetch the page as soon as it answers."""
    deadline = time.monotonic() + REPLY_TIMEOUT_SECONDS
    while True:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{half.port}/", timeout=5) as page:
                if PAGE in page.read().decode():
                    half.facts["first HTTP reply"] = since(half, time.monotonic_ns())
                    return
        except OSError as error:
            if time.monotonic() > deadline:
                raise SystemExit(
                    f"'{half.name}' does not answer on port {half.port}: {error}\n"
                    f"hint: see '{PROA} logs {half.name}'"
                ) from None
        time.sleep(0.002)


def since(half: Half, moment_ns: int) -> str:
    """A moment as milliseconds after `proa run` was called."""
    return f"{(moment_ns - half.began_ns) / 1e6:.0f} ms"


def learn(half: Half) -> None:
    """Fill in the table's column."""
    inspected = call("GET", f"/containers/{half.id}/json")
    reply = half.facts.pop("first HTTP reply")
    half.facts["uname -r inside"] = proa("exec", half.name, "uname", "-r")
    half.facts["accelerator"] = inspected["Proa"].get("Accelerator") or "none needed"
    size = call("GET", f"/images/{IMAGE}/json")["Size"]
    half.facts["image size"] = f"{size / 1e6:.0f} MB"
    for row in call("GET", f"/proa/instances/{half.id}/trace")["Milestones"]:
        half.facts[f"to {row['Milestone']}"] = since(half, row["Nanoseconds"])
    half.facts["to first HTTP reply"] = reply
    pss = sum(pss_bytes(pid) for pid in family(inspected["State"]["Pid"]))
    half.facts["host memory (PSS)"] = f"{pss / 1e6:.1f} MB"
    half.facts["published at"] = f"http://127.0.0.1:{half.port}/"


def family(pid: int) -> list[int]:
    """The instance's processes on the host: its monitor and everything below it."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            parents[int(entry.name)] = int(fields[1])
    top = pid
    while parents.get(top, 1) > 1 and is_monitor(parents[top]):
        top = parents[top]
    members = [top]
    for member in members:
        members.extend(child for child, parent in parents.items() if parent == member)
    return members


def is_monitor(pid: int) -> bool:
    """Whether this process is the native program."""
    command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    return b"monitor" in command[1:2] or b"proa-native" in command[0]


def pss_bytes(pid: int) -> int:
    """Its proportional share of memory; nothing when it has just ended."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) << 10 for line in lines if line.startswith("Pss:")), 0)


def table(halves: list[Half]) -> str:
    """The halves side by side."""
    rows = [["", *(half.isolation for half in halves)]]
    labels = list(dict.fromkeys(label for half in halves for label in half.facts))
    rows += [[label, *(half.facts.get(label, "-") for half in halves)] for label in labels]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def main() -> None:
    """The demo."""
    if os.geteuid() != 0:
        raise SystemExit("the demo needs root\nhint: run 'sudo make demo'")
    if have_image():
        say(f"image '{IMAGE}' is here already")
    else:
        build_image()
    halves = [Half(isolation) for isolation in ISOLATIONS]
    for half in halves:
        if half.isolation == "vm":
            timed("making the vm's disk and template (first time only)", warm)
        start(half)
        first_reply(half)
    for half in halves:
        learn(half)
    say(f"\nboth run '{IMAGE}' and answer at once:\n\n{table(halves)}\n")
    say(f"they keep running; remove them with\n  {PROA} rm -f {' '.join(h.name for h in halves)}")
    say(f"'proa' is at {PROA}; put it on PATH with\n  ln -s {PROA} /usr/local/bin/proa")


def warm() -> None:
    """One short vm, so that what is made once is not counted as starting."""
    proa("run", "--rm", "--isolation", "vm", IMAGE, "true")


if __name__ == "__main__":
    try:
        main()
    except ProaError as error:
        hint = f"\nhint: {error.hint}" if error.hint else ""
        sys.exit(f"{error.message}{hint}")
