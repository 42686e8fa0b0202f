"""Size limits: what does not fit a screen is not understood at a glance.

    a file           600 lines, a warning from 300
    a function       60 lines, in Python and in C
    a signature      5 parameters (self and cls aside); more become a dataclass
    native/          7,500 lines in all; native/probe 4,000 of its own

Run by `make check` and by tests/contract; warnings are printed, offences exit 1.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PYTHON_FOLDERS = ("src", "tests", "tools", "benchmarks")
FILE_LINES, FILE_LINES_WANTED = 600, 300
FUNCTION_LINES = 60
PARAMETERS = 5
NATIVE_LINES = {"native": 7500, "native/probe": 4000}

C_DEFINITION = re.compile(r"^[a-z_][\w \t*]*?\**(\w+)\(.*")


@dataclass
class Findings:
    """What is refused and what is only worth a look."""

    faults: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def parameters(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """How many a caller may pass; an error's own fields (keyword-only) are its data."""
    arguments = function.args
    named = [a.arg for a in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]
    if function.name == "__init__" and {"errno", "hint"} & set(named):
        named = [a.arg for a in (*arguments.posonlyargs, *arguments.args)]
    return len([name for name in named if name not in {"self", "cls"}])


def python_functions(path: Path) -> Iterator[tuple[str, int, int, int]]:
    """(name, line, length, parameters) of every function, nested ones too."""
    for node in ast.walk(ast.parse(path.read_text(), filename=str(path))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            yield node.name, node.lineno, length, parameters(node)


def c_functions(path: Path) -> Iterator[tuple[str, int, int]]:
    """(name, line, length) of every function; relies on definitions starting in column 0."""
    name, start = "", 0
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if match := C_DEFINITION.match(line):
            if not line.rstrip().endswith(";"):
                name, start = match[1], number
        elif line.startswith("}") and name:
            yield name, start, number - start + 1
            name = ""


def check_python(findings: Findings) -> None:
    """Files, functions and signatures of all Python code."""
    for folder in PYTHON_FOLDERS:
        for path in sorted((ROOT / folder).rglob("*.py")):
            shown = path.relative_to(ROOT)
            check_file(shown, len(path.read_text().splitlines()), findings)
            for name, line, length, count in python_functions(path):
                if length > FUNCTION_LINES:
                    findings.faults.append(f"{shown}:{line}: '{name}' has {length} lines")
                if count > PARAMETERS:
                    findings.faults.append(f"{shown}:{line}: '{name}' has {count} parameters")


def check_native(findings: Findings, folder: str, limit: int) -> None:
    """Files, functions and the sum of a native program."""
    total = 0
    for path in sorted((ROOT / folder).glob("*.[ch]")):
        shown = path.relative_to(ROOT)
        lines = len(path.read_text().splitlines())
        total += lines
        check_file(shown, lines, findings)
        for name, line, length in c_functions(path):
            if length > FUNCTION_LINES:
                findings.faults.append(f"{shown}:{line}: '{name}' has {length} lines")
    if total >= limit:
        findings.faults.append(f"{folder}/: {total} lines, the limit is {limit}")


def check_file(shown: Path, lines: int, findings: Findings) -> None:
    """One file's length."""
    if lines > FILE_LINES:
        findings.faults.append(f"{shown}: {lines} lines, the limit is {FILE_LINES}")
    elif lines > FILE_LINES_WANTED:
        findings.warnings.append(f"{shown}: {lines} lines, wanted at most {FILE_LINES_WANTED}")


def examine() -> Findings:
    """All limits over the whole repository."""
    findings = Findings()
    check_python(findings)
    for folder, limit in NATIVE_LINES.items():
        check_native(findings, folder, limit)
    return findings


def main() -> int:
    """Print warnings and offences; the exit code says whether there are offences."""
    findings = examine()
    for line in findings.warnings:
        print(f"warning: {line}")
    for line in findings.faults:
        print(line)
    if not findings.faults:
        print("sizes: everything fits")
    return 1 if findings.faults else 0


if __name__ == "__main__":
    sys.exit(main())
