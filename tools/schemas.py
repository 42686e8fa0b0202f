"""Writes docs/schemas/ from the types the documents are made of: `python -m tools.schemas`."""

from __future__ import annotations

import json
from pathlib import Path

from proa.compare import document

FOLDER = Path(__file__).resolve().parent.parent / "docs" / "schemas"


def main() -> None:
    """Write every schema."""
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / "compare.json").write_text(json.dumps(document.schema(), indent=1) + "\n")


if __name__ == "__main__":
    main()
