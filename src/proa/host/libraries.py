"""Python libraries that are used when they are there, found without slowing the start.

The engine and the command run with `-I -S`: no site-packages is read until a library is wanted.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

from proa.errors import Unsupported


def find(name: str) -> ModuleType | None:
    """The library's module, imported now; None when it is not installed."""
    try:
        return importlib.import_module(name)
    except ImportError:
        pass
    missing = [path for path in _places() if path not in sys.path]
    if not missing:
        return None
    sys.path += missing
    importlib.invalidate_caches()
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


def need(name: str, why: str, package: str = "") -> ModuleType:
    """The library's module.  Raises Unsupported, naming what to install."""
    found = find(name)
    if found is None:
        raise Unsupported(
            f"{why} needs the python library '{name}'",
            hint=f"install it: pip install {package or name}",
        )
    return found


def _places() -> list[str]:
    """Directories of installed libraries: of the checkout's environment, then the system's."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    checkout = Path(__file__).resolve().parents[3]
    places = [
        checkout / ".venv" / "lib" / version / "site-packages",
        Path(sys.prefix) / "local" / "lib" / version / "dist-packages",
        Path(sys.prefix) / "lib" / version / "site-packages",
        Path(sys.prefix) / "lib" / "python3" / "dist-packages",
    ]
    return [str(place) for place in places if place.is_dir()]
