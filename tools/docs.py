"""`make docs`: the concept pages' runs, figures and numbers, made anew on this machine.

Runs `proa compare` on a few images of ours, keeps the reports in docs/concepts/figures, draws their
figures there and writes their numbers into the pages.  `--keep` draws and writes from the reports
that are kept.  KERNELS is a directory with kernels to try, BUDGET how long the longest comparison
should take.  The engine is one of its own, below build/docs.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from proa.compare import document
from proa.compare.record import Report
from proa.errors import ProaError
from tools import demo, docs_figures, docs_numbers

ROOT = Path(__file__).resolve().parent.parent
PAGES = ROOT / "docs" / "concepts"
FIGURES = PAGES / "figures"
ENGINE = ROOT / "build" / "docs"
PREPARED = ROOT / "build" / "test-kernels"
KERNELS = os.environ.get("KERNELS", "")
BUDGET = os.environ.get("BUDGET", "4m")  # so that each round has its burst and its cold start
DRAWN = "web"  # the report whose figures the pages show
RUN_SECONDS = 1200.0
SHORT = 4  # a host's name of so few letters is a word of every report


@dataclass(frozen=True)
class Run:
    """One comparison: an image, made when it is not there, and what `proa compare` is told."""

    image: str
    make: Callable[[], None]
    arguments: tuple[str, ...] = ()
    command: tuple[str, ...] = ()


def small() -> None:
    """One static program of 2 MB, with a name for each of its uses."""
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder, "tree")
        (tree / "bin").mkdir(parents=True)
        (tree / "bin/busybox").write_bytes(Path("/bin/busybox").read_bytes())
        (tree / "bin/busybox").chmod(0o755)
        for name in ("sh", "echo", "true", "sleep", "ls", "cat"):
            (tree / "bin" / name).symlink_to("busybox")
        tar = Path(folder, "tree.tar")
        subprocess.run(["tar", "-C", tree, "--owner=0", "--group=0", "-cf", tar, "."], check=True)
        demo.proa("import", "--change", 'CMD ["echo", "hello"]', str(tar), "small")


def web() -> None:
    """Debian with nginx, as `make demo` builds it."""
    demo.build_image()


RUNS: dict[str, Run] = {
    "small": Run("small", small, ("--only", "size,time", "--quick")),
    "web": Run(demo.IMAGE, web, ("--budget", BUDGET, *(("--kernels", KERNELS) if KERNELS else ()))),
}


@contextlib.contextmanager
def engine() -> Iterator[None]:
    """An engine of our own, stopped at the end; its images are kept for the next time."""
    root = ENGINE / "root"
    if PREPARED.is_dir() and not (root / "vm/kernels").exists():
        (root / "vm").mkdir(parents=True, exist_ok=True)
        subprocess.run(["cp", "-r", PREPARED, root / "vm/kernels"], check=True)
    os.environ["PROA_ROOT"] = str(root)
    os.environ.pop("PROA_HOST", None)
    try:
        yield
    finally:
        demo.proa("engine", "stop")


def measure(name: str, run: Run) -> None:
    """Compare, and keep the report."""
    here = demo.run([str(demo.PROA), "images", "--quiet", run.image])
    if not here:
        run.make()
    began = time.monotonic()
    target = FIGURES / f"{name}.json"
    words = [*run.arguments, "--json", str(target), run.image]
    command = ["--", *run.command] if run.command else []
    demo.say(f"comparing '{run.image}' ...")
    done = subprocess.run([str(demo.PROA), "compare", *words, *command], timeout=RUN_SECONDS)
    if done.returncode != 0:
        raise SystemExit(f"'proa compare {run.image}' failed with exit code {done.returncode}")
    told = private(target.read_text("utf-8"))
    if told:
        raise SystemExit(f"the report '{target.name}' names what is this machine's own: {told}")
    demo.say(f"  {time.monotonic() - began:.0f} s")


def private(text: str) -> str:
    """What of a kept report nobody else should read, or nothing: paths here, this host's name."""
    host = socket.gethostname()
    own = [str(ROOT), tempfile.gettempdir() + "/", host if len(host) > SHORT else ""]
    return ", ".join(word for word in own if word and word in text)


def reports() -> dict[str, Report]:
    """The kept ones."""
    return {path.stem: document.read(path) for path in sorted(FIGURES.glob("*.json"))}


def write(found: dict[str, Report]) -> None:
    """Figures, and the numbers of the pages."""
    for name, text in docs_figures.draw(found[DRAWN]).items():
        (FIGURES / f"{name}.svg").write_text(text, "utf-8")
    faults = []
    for page in sorted(PAGES.glob("containers-and-vms*.md")):
        text = page.read_text("utf-8")
        for expression in docs_numbers.marks(text):
            try:
                docs_numbers.value(expression, found)
            except docs_numbers.Untrue as error:
                faults.append(f"{page.name}: {error}")
        if not faults:
            page.write_text(docs_numbers.fill(text, found), "utf-8")
    if faults:
        raise SystemExit("\n".join(["what the pages say is not so:", *faults]))


def main() -> None:
    """Run what is asked for, then draw and write."""
    parser = argparse.ArgumentParser(prog="make docs", description="the concept pages' numbers")
    parser.add_argument("--keep", action="store_true", help="run nothing; use the kept reports")
    parser.add_argument("--only", choices=RUNS, help="run one comparison only")
    chosen = parser.parse_args()
    FIGURES.mkdir(parents=True, exist_ok=True)
    if not chosen.keep:
        if os.geteuid() != 0:
            raise SystemExit("the comparisons need root\nhint: run 'sudo make docs'")
        with engine():
            for name, run in RUNS.items():
                if chosen.only in (None, name):
                    measure(name, run)
    write(reports())


if __name__ == "__main__":
    try:
        main()
    except ProaError as error:
        hint = f"\nhint: {error.hint}" if error.hint else ""
        sys.exit(f"{error.message}{hint}")
