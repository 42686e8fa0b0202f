"""Documentation that lists things is right, or a test says so."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

from proa import errors
from tests.support.paths import ROOT


def all_errors(kind: type[errors.ProaError] = errors.ProaError) -> Iterator[type[errors.ProaError]]:
    """Every exception below ProaError that the table in errors.py is about."""
    for child in kind.__subclasses__():
        if child.__module__ == errors.__name__:
            yield child
            yield from all_errors(child)


def test_every_error_is_documented_with_its_codes() -> None:
    lines = (errors.__doc__ or "").splitlines()
    for kind in all_errors():
        row = next((line for line in lines if re.search(rf"── {kind.__name__}\b", line)), None)
        assert row, f"{kind.__name__} is missing from the table in errors.py"
        if numbers := re.search(r"(\d{3})  exit ([\d/]+)", row):
            assert int(numbers[1]) == kind.http_status, row
            assert str(kind.exit_code) in numbers[2].split("/"), row


def test_error_codes_are_stable_tokens() -> None:
    codes = [kind.code for kind in all_errors()]
    assert len(set(codes)) == len(codes)
    assert all(re.fullmatch(r"[a-z]+(-[a-z]+)*", code) for code in codes)


def test_the_protocols_frames_are_the_headers() -> None:
    header = (ROOT / "native" / "proa.h").read_text()
    body = re.search(r"enum frame_type \{(.*?)\}", header, re.S)
    assert body
    number, declared = 0, {}
    for item in body[1].replace("\n", " ").split(","):
        name, _, value = (part.strip() for part in item.partition("="))
        if name:
            number = int(value) if value else number + 1
            declared[name.removeprefix("F_").replace("_", "")] = number
    table = (ROOT / "docs" / "protocol.md").read_text()
    documented = {
        name.replace("_", ""): int(n)
        for n, name in re.findall(r"^\| (\d+) ([A-Z_]+) \|", table, re.M)
    }
    assert documented == declared


def test_the_map_names_every_package() -> None:
    text = (ROOT / "docs" / "code.md").read_text()
    for path in (ROOT / "src" / "proa").iterdir():
        if path.name.startswith("_") or not (path.is_dir() or path.suffix == ".py"):
            continue
        name = f"{path.name}/" if path.is_dir() else path.name
        assert name in text, f"'{name}' is missing from docs/code.md"


def test_paths_in_the_documentation_exist() -> None:
    for document in (ROOT / "README.md", *(ROOT / "docs").rglob("*.md")):
        for target in re.findall(r"\]\(([^)#:]+)\)", document.read_text()):
            assert (document.parent / target).exists(), f"{document.name}: '{target}'"


def test_files_named_in_the_documentation_exist() -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    known = listed.stdout.split() or [str(p.relative_to(ROOT)) for p in ROOT.rglob("*")]
    for document in (ROOT / "docs" / "code.md", *(ROOT / "docs" / "decisions").glob("*.md")):
        for name in re.findall(r"`([\w/.*]+\.(?:py|c|md))`", document.read_text()):
            patterns = (name, f"*/{name}")
            assert any(fnmatch(path, p) for path in known for p in patterns), f"{document}: {name}"


def test_every_decision_is_listed() -> None:
    folder = ROOT / "docs" / "decisions"
    index = (folder / "README.md").read_text()
    for path in folder.glob("[0-9]*.md"):
        assert f"({path.name})" in index


def test_every_module_says_what_it_is() -> None:
    for folder in ("src", "tests", "tools", "benchmarks"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            tree = ast.parse(path.read_text())
            assert not tree.body or ast.get_docstring(tree), f"{path.relative_to(ROOT)}"


def test_no_path_of_one_machine_is_written_down() -> None:
    """What works in one checkout only is a mistake waiting."""
    here = str(ROOT)
    for pattern in ("*.py", "*.md", "*.c", "*.h", "*.toml", "Makefile", "*.sh"):
        for path in files(pattern):
            assert here not in path.read_text(), path.relative_to(ROOT)


def files(pattern: str) -> Iterator[Path]:
    """Our own files of a kind."""
    for folder in (".", "src", "native", "tests", "tools", "benchmarks", "docs"):
        top = ROOT / folder
        yield from (top.glob(pattern) if folder == "." else top.rglob(pattern))
