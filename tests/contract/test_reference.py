"""The lists of docs/reference.md are the code's."""

from __future__ import annotations

import ast
import dataclasses
import json
import re
from pathlib import Path

from proa.api.answer import API_VERSION, API_VERSION_MINIMUM
from proa.api.table import ROUTES
from proa.cli import advise, engine, main
from proa.compare import work
from proa.engine import config
from proa.errors import ProaError
from proa.isolation.vm.settings import Settings
from tests.support.paths import ROOT, SOURCE

TEXT = (ROOT / "docs" / "reference.md").read_text()


def table(heading: str) -> dict[str, list[str]]:
    """Rows of the table below a heading: first cell without its backquotes, and the others."""
    section = TEXT.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    rows = [line.strip("|").split("|") for line in section.splitlines() if line.startswith("|")]
    return {row[0].strip().strip("`"): [cell.strip() for cell in row[1:]] for row in rows[2:]}


def test_configuration() -> None:
    source = Path(config.__file__).read_text()
    keys = re.findall(r'settings\.get\("(\w+)"', source)
    plain: dict[str, object] = {
        field.name: {} if field.default_factory is dict else field.default
        for field in dataclasses.fields(config.Config)
    }
    known = {key: plain[key] for key in keys if key != "vm"}
    known |= {f"vm.{name}": value for name, value in dataclasses.asdict(Settings()).items()}
    listed = {key: json.loads(row[0].strip("`")) for key, row in table("Configuration").items()}
    assert listed == known


def test_environment() -> None:
    files = [*SOURCE.rglob("*.py")]
    words = (node for file in files for node in ast.walk(ast.parse(file.read_text())))
    used = {
        node.value
        for node in words
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and re.fullmatch("PROA_[A-Z]+", node.value)
    }
    assert set(table("Environment")) == used


def test_kinds_of_work() -> None:
    told = {name: [row.unit, row.title, row.how] for name, row in work.TABLE.items()}
    assert table("Kinds of work") == told


def test_exit_codes() -> None:
    codes = {engine.EXIT_NOT_RUNNING, main.EXIT_INTERRUPTED, main.EXIT_BROKEN_PIPE}
    codes |= {advise.VIOLATED, advise.CONTRADICTED, advise.IMPOSSIBLE}
    codes |= {ProaError.exit_code, 126, 127}  # the latter two are Docker's, per LaunchError
    assert {int(code) for code in table("Exit codes of the command")} == codes


def test_additions_to_the_api() -> None:
    ours = {
        f"{route.method} {route.template}"
        for route in ROUTES
        if route.template.startswith("/proa/")
    }
    assert set(table("API")) == ours
    versions = (API_VERSION_MINIMUM, API_VERSION)
    first, last = (".".join(map(str, version)) for version in versions)
    assert f"versions {first} to {last}" in TEXT
