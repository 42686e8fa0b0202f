"""The house rules that imports and strings can break, checked by reading the source.

    layers   every package imports only what the table below allows (DESIGN §2: downward only)
    kinds    outside `isolation/` nobody compares an isolation's name
    edges    only the edges print and exit, and an `__init__.py` only exports

Run by `make check` and by tests/contract; prints one line per offence and exits 1 on any.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent.parent / "src" / "proa"

VOCABULARY = frozenset(
    {"errors", "spec", "resources", "costs", "plan", "compile", "capabilities", "printable"}
)
HOST = VOCABULARY | {"host"}
SERVICES = frozenset({"image", "network", "volume", "agent"})

# Top-level module of the package → (layer, what it may import besides itself).
TABLE: dict[str, tuple[int, frozenset[str]]] = {
    **dict.fromkeys(VOCABULARY, (0, VOCABULARY)),
    "host": (1, VOCABULARY),
    **dict.fromkeys(SERVICES, (2, HOST)),
    "isolation": (3, HOST | {"agent"}),
    "advice": (1, VOCABULARY),
    "engine": (4, HOST | SERVICES | {"isolation", "advice"}),
    "app": (5, VOCABULARY | {"engine"}),
    "api": (6, HOST | {"engine", "app", "advice"}),
    "client": (6, VOCABULARY),
    "compare": (7, HOST | {"client", "advice"}),
    "cli": (8, VOCABULARY | {"client", "compare", "advice"}),
}
FORMS = ("isolation/", "advice/", "compare/")  # whose subject the kinds are
KINDS = frozenset({"container", "vm"})
OPTION_TABLES = frozenset({"cli/config.py"})  # where `--vm` is spelt out
EDGES = ("cli/", "api/serve.py", "api/__main__.py")


def imported(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """(line, name below `proa`) for every import of this package, wherever it stands."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.startswith("proa."):
                    yield node.lineno, alias.name.split(".")[1]
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            if node.module == "proa":
                names = (alias.name for alias in node.names)
                yield from ((node.lineno, name) for name in names if name != "__version__")
            elif node.module.startswith("proa."):
                yield node.lineno, node.module.split(".")[1]
        elif isinstance(node, ast.ImportFrom) and node.level:
            yield node.lineno, "(a relative import)"


def layer_faults(relative: Path, tree: ast.AST) -> Iterator[str]:
    """Imports that the table does not allow."""
    owner = relative.parts[0].removesuffix(".py")
    if owner in {"__init__", "__main__"}:
        return
    if owner not in TABLE:
        yield f"{relative}: '{owner}' has no row in the layer table"
        return
    layer, allowed = TABLE[owner]
    for line, name in imported(tree):
        if name != owner and name not in allowed:
            yield f"{relative}:{line}: layer {layer} '{owner}' must not import '{name}'"


def mentions_kind(node: ast.AST) -> bool:
    """Whether an operand is an isolation's name, or a literal collection holding one."""
    if isinstance(node, ast.Tuple | ast.List | ast.Set):
        return any(mentions_kind(item) for item in node.elts)
    return isinstance(node, ast.Constant) and node.value in KINDS


def kind_faults(relative: Path, tree: ast.AST) -> Iterator[str]:
    """Comparisons, cases and tables keyed by an isolation's name outside `isolation/`."""
    if str(relative).startswith(FORMS) or str(relative) in OPTION_TABLES:
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare):
            if any(mentions_kind(part) for part in (node.left, *node.comparators)):
                yield f"{relative}:{node.lineno}: compares an isolation's name"
        elif isinstance(node, ast.MatchValue) and mentions_kind(node.value):
            yield f"{relative}:{node.value.lineno}: matches an isolation's name"
        elif isinstance(node, ast.Dict) and relative.parts[0] != "cli":
            keys = {key.value for key in node.keys if isinstance(key, ast.Constant)}
            if "vm" in keys:
                yield f"{relative}:{node.lineno}: a table keyed by an isolation's name"


def edge_faults(relative: Path, tree: ast.Module) -> Iterator[str]:
    """Printing and exiting below the edges; code in an `__init__.py`."""
    if relative.name == "__init__.py":
        allowed = (ast.Import, ast.ImportFrom, ast.Assign, ast.AnnAssign, ast.Expr, ast.If)
        for statement in tree.body:
            lazy = isinstance(statement, ast.FunctionDef) and statement.name == "__getattr__"
            if not lazy and not isinstance(statement, allowed):
                yield f"{relative}:{statement.lineno}: an __init__.py only exports"
    if str(relative).startswith(EDGES):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name | ast.Attribute):
            called = ast.unparse(node.func)
            if called in {"print", "exit", "quit", "sys.exit"}:
                yield f"{relative}:{node.lineno}: '{called}' belongs to the edges"


def faults(package: Path = PACKAGE) -> list[str]:
    """Every offence in the package, in file order."""
    found: list[str] = []
    for path in sorted(package.rglob("*.py")):
        relative = path.relative_to(package)
        tree = ast.parse(path.read_text(), filename=str(path))
        for check in (layer_faults, kind_faults, edge_faults):
            found.extend(check(relative, tree))
    return found


def main() -> int:
    """Print the offences; the exit code says whether there are any."""
    found = faults()
    print("\n".join(found) if found else "layers: every import points downward")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
