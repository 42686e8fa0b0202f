"""Where an engine lives and what its owner wants: environment and `/etc/proa/proa.toml`."""

from __future__ import annotations

import hashlib
import os
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from proa.errors import Invalid

DEFAULT_ROOT = Path("/var/lib/proa")
DEFAULT_RUN = Path("/run/proa")
CONFIG_FILE = Path("/etc/proa/proa.toml")


@dataclass(frozen=True)
class Config:
    """`root` holds what lasts, `run` sockets; `tag` tells this engine's host objects apart."""

    root: Path
    run: Path
    tag: str
    native: Path
    spare_places: int = 2
    vm: dict[str, Any] = field(default_factory=dict)
    admission: dict[str, Any] = field(default_factory=dict)  # see engine/admission.py
    registry: dict[str, Any] = field(default_factory=dict)  # see image/registry/hosts.py
    advice: dict[str, Any] = field(default_factory=dict)  # see engine/advise.py

    @property
    def socket(self) -> Path:
        """Where the API listens by default."""
        return self.run / "proa.sock"


def load(root: Path | None = None) -> Config:
    """The configuration of the engine at `root` (PROA_ROOT, else the system's).  Raises Invalid."""
    named = root or (Path(os.environ["PROA_ROOT"]) if os.environ.get("PROA_ROOT") else None)
    where = (named or DEFAULT_ROOT).absolute()
    run = where / "run" if named and where != DEFAULT_ROOT else DEFAULT_RUN
    file = where / "proa.toml" if named else CONFIG_FILE
    settings = _read(Path(os.environ.get("PROA_CONFIG") or file))
    return Config(
        root=where,
        run=run,
        tag=hashlib.sha256(os.fsencode(where)).hexdigest()[:6],
        native=native_program(),
        spare_places=int(settings.get("spare_places", 2)),
        vm=dict(settings.get("vm", {})),
        admission=dict(settings.get("admission", {})),
        registry=dict(settings.get("registry", {})),
        advice=dict(settings.get("advice", {})),
    )


def native_program() -> Path:
    """The static program: PROA_NATIVE, else built in the source tree, else installed."""
    if "PROA_NATIVE" in os.environ:
        return Path(os.environ["PROA_NATIVE"])
    built = Path(__file__).parents[3] / "build" / "proa-native"
    return built if built.exists() else Path("/usr/lib/proa/proa-native")


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise Invalid(f"the configuration '{path}' cannot be read: {error}") from error
