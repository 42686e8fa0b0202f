"""Where the checkout keeps what tests use."""

from __future__ import annotations

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
NATIVE = Path(os.environ.get("PROA_NATIVE", ROOT / "build" / "proa-native"))
PROBE = ROOT / "build" / "probe"
PROBER = NATIVE.with_name(NATIVE.name.replace("native", "probe"))  # proa-probe, as NATIVE is built
SOURCE = ROOT / "src"
PROA = ROOT / "bin" / "proa"
PEERS = ROOT / "build" / "peers" / "bin"  # tools/newer.sh
