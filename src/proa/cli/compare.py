"""`compare`: the same workload in several forms, side by side, and what changed since."""

from __future__ import annotations

import os
import sys

from proa.cli import config
from proa.cli.options import Command, Option, Values
from proa.errors import ImageNotFound, Invalid, NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from proa.compare.options import Options
    from proa.compare.progress import Progress
    from proa.compare.record import Changes, Report

# Exit code of `--baseline` when something changed beyond noise.
CHANGED = 3
WIDTH = 80

# Options of `run` that hold in every form alike.
_RUN = (
    "env", "env_file", "workdir", "user", "volume", "mount", "tmpfs", "publish", "entrypoint",
    "memory", "cpus", "pids_limit", "network", "read_only", "cap_add", "cap_drop", "platform",
)  # fmt: skip
OPTIONS = (
    Option("--forms", "text", "FORM,FORM...", "container, vm, vm-boot; one may be named twice"),
    Option("--only", "text", "PART,...", "size, time, cost, work, isolation, portability"),
    Option("--quick", "flag", "", "in half a minute: no cold starts, bursts, portability"),
    Option("--rounds", "integer", "NUMBER", "so many, however long they take and vary", 0),
    Option("--confidence", "number", "SHARE", "of intervals and tests", 0.95),
    Option("--budget", "duration", "TIME", "how long all of it should take, like 3m"),
    Option("--port", "integer", "PORT", "the port inside that is waited for", 0),
    Option("--ready", "text", "COMMAND", "run here until it succeeds; PROA_TARGET is the address"),
    Option("--load", "text", "COMMAND", "run here; its last number is measured, too"),
    Option("--burst", "integer", "NUMBER", "how many start at once; 0 or 1: no burst", 4),
    Option("--density-limit", "integer", "NUMBER", "start at most so many beside each other", 8),
    Option("--kernels", "list", "PATH|installed", "also run it as a vm on these kernels"),
    Option("--seed", "integer", "NUMBER", "of the order of the forms", 0),
    Option("--json", "text", "FILE", "write all of it, every sample; - for standard output"),
    Option("--html", "text", "FILE", "write a page"),
    Option("--baseline", "text", "FILE", "an earlier --json: say what changed, then exit with 3"),
    *(option for option in config.OPTIONS if option.key in _RUN),
)


def compare(values: Values, arguments: list[str]) -> int:
    """Measure, print the report or what changed; 0, or CHANGED against a baseline."""
    from proa.client.sdk import Client
    from proa.compare import document, session

    before = _baseline(values)
    _check_outputs(values)
    options = _options(values, arguments)
    _end_cleanly()
    from proa.compare.report.progress import Progress as Bar

    live = sys.stderr.isatty()
    with Client() as client, Bar(sys.stderr, live=live, width=_width()) as bar:

        def told(now: Progress) -> None:
            bar.at(max(now.round - 1, 0), now.rounds if live and now.round else 0, now.left_seconds)
            if live or now.begins or not now.round:
                bar.begin(_words(now, live))

        _ensure_image(client, options, values)
        report = session.compare(client, options, told)
    if values.json:
        _write(values.json, document.write(report))
    found = None
    if before is not None:
        from proa.compare import baseline

        found = baseline.changes(before, report)
    if values.html:
        _write(values.html, _page(report, found))
    return _show(values, report, found)


def _show(values: Values, report: Report, found: Changes | None) -> int:
    """Print for the reader, unless standard output has the JSON or the page."""
    quiet = "-" in (values.json, values.html)
    colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    if found is None:
        from proa.compare.report import terminal

        if not quiet:
            sys.stdout.write(terminal.render(report, _width(), colour))
        return 0
    from proa.compare import baseline
    from proa.compare.report import changes

    if not quiet:
        sys.stdout.write(changes.render(found, _width(), colour))
    return CHANGED if baseline.any_changed(found) else 0


def _page(report: Report, found: Changes | None) -> str:
    from proa.compare.report import changes, page

    return page.render(report) if found is None else changes.page(found)


def _words(now: Progress, live: bool) -> str:
    """What is shown; without a terminal one line a round, which says what is left, too."""
    if not now.round:
        return now.what
    of = f" of {now.rounds}" if now.rounds else ""
    if live:
        return f"round {now.round}{of}: {now.what}"
    left = f", about {now.left_seconds:.0f} s left" if now.left_seconds else ""
    return f"round {now.round}{of}{left}"


def _options(values: Values, arguments: list[str]) -> Options:
    """What is asked, in the terms of the comparison.  Raises Invalid."""
    from proa.compare import options

    name, *command = arguments
    kind = "disk" if config.is_disk(name) else "image"
    if kind == "disk":
        if not os.path.isfile(name):
            raise NotFound(f"there is no disk '{name}'")
        name = os.path.abspath(name)
    groups = options.QUICK_GROUPS if values.quick else options.GROUPS
    usual = options.QUICK_SECONDS if values.quick else options.BUDGET_SECONDS
    found = options.Options(
        name=name, kind=kind, command=tuple(command),
        forms=_listed(values.forms) if values.forms is not None else (),
        groups=_listed(values.only) if values.only is not None else groups,
        rounds=values.rounds, confidence=values.confidence, quick=values.quick,
        port=values.port, ready=values.ready or "", load=values.load or "",
        burst=values.burst, density=values.density_limit, kernels=_kernels(values.kernels),
        seed=values.seed, seconds=values.budget / 1e9 if values.budget else usual,
        create=_create(values, name),
    )  # fmt: skip
    found.check()
    return found


def _listed(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(",") if word.strip())


def _kernels(paths: list[str]) -> tuple[str, ...] | None:
    """None: none; (): those installed."""
    if not paths:
        return None
    return tuple(os.path.abspath(path) for path in paths if path != "installed")


def _create(values: Values, name: str) -> dict[str, Any]:
    """The options of `run` as those of the SDK; ports are published on free ones, since several
    instances run at a time."""
    every = Values(config.OPTIONS)
    for key in _RUN:
        setattr(every, key, getattr(values, key))
    every.given |= values.given & set(_RUN)
    request = config.body(every, [name])
    host = dict(request["HostConfig"])
    bindings = host.pop("PortBindings", {})
    found: dict[str, Any] = {
        "environment": config.pairs(request.get("Env", [])),
        "directory": request.get("WorkingDir"),
        "user": request.get("User"),
        "entrypoint": request.get("Entrypoint"),
        "platform": values.platform,
        "network": host.pop("NetworkMode", None),
        "ports": {int(port.partition("/")[0]): 0 for port in bindings if port.endswith("/tcp")},
        "more": host,
    }
    return {key: value for key, value in found.items() if value}


def _ensure_image(client: Any, options: Options, values: Values) -> None:
    from proa.client.connection import image_path

    if options.kind != "image":
        return
    try:
        client.call("GET", image_path(options.name, "/json"))
    except ImageNotFound:
        from proa.cli.registry import fetch

        sys.stderr.write(f"Unable to find image '{options.name}' locally\n")
        fetch(options.name, values.platform)


def _baseline(values: Values) -> Report | None:
    """The earlier report, read before anything is measured."""
    if not values.baseline:
        return None
    from pathlib import Path

    from proa.compare import document

    return document.read(Path(values.baseline))


def _check_outputs(values: Values) -> None:
    """Raises Invalid for a file that could not be written at the end."""
    if values.json == values.html == "-":
        raise Invalid("'--json -' contradicts '--html -'")
    for path in (values.json, values.html):
        if path and path != "-":
            folder = os.path.dirname(os.path.abspath(path))
            if not os.path.isdir(folder) or os.path.isdir(path):
                raise Invalid(f"'{path}' cannot be written", hint="name a file in a directory")


def _write(path: str, text: str) -> None:
    if path == "-":
        sys.stdout.write(text)
        return
    from proa.client import partial

    with partial.written(path) as file:
        file.write(text.encode())


def _end_cleanly() -> None:
    """What ends a session ends a comparison as Ctrl-C does: its instances go first."""
    import signal

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupt)


def _width() -> int:
    from proa.cli.terminal import size

    found = size() if sys.stdout.isatty() or sys.stderr.isatty() else None
    return found[1] if found else WIDTH


COMMANDS = {
    "compare": Command(
        "[OPTIONS] IMAGE|DISK [-- COMMAND [ARGUMENT...]]",
        "Run it as container and as vm, side by side, and measure",
        compare, OPTIONS, arguments=(1, None),
    ),
}  # fmt: skip
