"""A pull in a process of its own, to be killed, raced and measured."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.support.paths import ROOT, SOURCE

_PROGRAM = """
import sys
from pathlib import Path
from proa.image import reference
from proa.image.registry.client import Registry
from proa.image.registry.hosts import Hosts
from proa.image.registry.pull import pull
from proa.image.registry.transport import Transport
from proa.image.store import Images
wanted = reference.parse(sys.argv[1])
pull(Images(Path(sys.argv[2])), Registry(wanted.registry, Transport(Hosts())), wanted)
print(Path('/proc/self/status').read_text().split('VmHWM:')[1].split()[0])
"""


def pulling(name: str, root: Path) -> subprocess.Popen[str]:
    """Pulls `name` into the store at `root`; prints the most memory it had, in KB."""
    argv = [sys.executable, "-c", _PROGRAM, name, str(root)]
    environment = os.environ | {"PYTHONPATH": str(SOURCE)}
    return subprocess.Popen(argv, env=environment, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def holds(process: subprocess.Popen[str], folder: Path) -> bool:
    """Whether the process has a file open below a folder; fails when it has ended."""
    assert process.poll() is None
    fds = Path(f"/proc/{process.pid}/fd")
    links = []
    for name in os.listdir(fds):
        try:
            links.append(os.readlink(fds / name))
        except FileNotFoundError:
            continue
    return any(link.startswith(str(folder)) for link in links)
