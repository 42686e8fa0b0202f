"""Which file server there is, and which way a machine gets its shares."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from proa.errors import Unsupported
from proa.isolation.vm import folders, plans, qemu
from proa.isolation.vm.layers import Opened
from proa.resources import Launch, Share
from proa.spec import Hardware
from tests.support.paths import ROOT

GUEST = ("virtio_pci", "virtiofs")


@dataclass(frozen=True)
class NoRootfs:
    """An image nobody looks at."""

    image_id: str = ""
    layers: tuple[Path, ...] = ()
    upper: Path = ROOT

    def disk(self) -> Path:
        """None."""
        raise AssertionError


def launch(wanted: str = "", *, shares: bool = True) -> Launch:
    """One that shares something."""
    shared = (Share(ROOT, "/s"),) if shares else ()
    return Launch("i", ROOT, NoRootfs(), shares=shared, hardware=Hardware(shares=wanted))


def program(path: Path, help: str, code: int = 0) -> str:
    """A program that says this of itself."""
    path.write_text(f"#!/bin/sh\ncat <<'END'\n{help}\nEND\nexit {code}\n")
    path.chmod(0o755)
    return str(path)


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Where virtiofsd is looked for: nothing is there yet."""
    monkeypatch.setattr(folders, "PROGRAMS", (str(tmp_path / "virtiofsd"),))
    return tmp_path / "virtiofsd"


def test_the_later_server_is_known_by_its_help(installed: Path) -> None:
    program(installed, "      --shared-dir <SHARED_DIR>  Shared directory path")
    server = folders.find()
    assert server.rust
    assert f"--shared-dir={qemu.SHARES_PATH}" in server.arguments(7)
    assert "--fd=7" in server.arguments(7)


def test_the_one_of_old_is_known_by_its_help(installed: Path) -> None:
    program(installed, "    -o source=PATH             shared directory tree")
    server = folders.find()
    assert not server.rust
    assert f"source={qemu.SHARES_PATH}" in server.arguments(7)


def test_without_a_server_only_a_demand_is_an_error(installed: Path) -> None:
    assert folders.kind(launch(), GUEST) == "9p"
    with pytest.raises(Unsupported, match="no virtiofsd"):
        folders.kind(launch("virtiofs"), GUEST)


def test_something_else_of_that_name_is_none(installed: Path) -> None:
    program(installed, "usage: something else", 1)
    assert folders.kind(launch(), GUEST) == "9p"


def test_what_is_asked_for_is_used(installed: Path) -> None:
    program(installed, "-o source=PATH")
    assert folders.kind(launch(), GUEST) == "virtiofs"
    assert folders.kind(launch("auto"), GUEST) == "virtiofs"
    assert folders.kind(launch("9p"), GUEST) == "9p"
    assert folders.kind(launch(), ("virtio_pci",)) == "9p"
    assert folders.kind(launch(shares=False), GUEST) == "9p"


def test_shared_memory_goes_with_virtiofs_alone() -> None:
    machine = qemu.Machine(256 << 20)
    files = qemu.Files(3, 4, 5, Opened.single(6))
    boot = qemu.Boot("k", "i")
    with_9p = " ".join(qemu.arguments(machine, files, boot))
    assert "share=on" not in with_9p and "virtio-9p-pci" in with_9p
    served = qemu.Files(3, 4, 5, Opened.single(6), folders=9)
    with_virtiofs = " ".join(qemu.arguments(machine, served, boot))
    assert "memory-backend-memfd" in with_virtiofs and "vhost-user-fs-pci" in with_virtiofs
    assert "9p" not in with_virtiofs


@pytest.mark.parametrize("virtiofs", [False, True])
def test_the_guest_mounts_what_the_machine_has(virtiofs: bool) -> None:
    found = plans.sources((), (Share(ROOT, "/s"),), "id", virtiofs=virtiofs)
    kinds = [step.arguments()[0] for step in found.before if step.verb == "mount"]
    assert ("virtiofs" in kinds, "9p" in kinds) == (virtiofs, not virtiofs)
