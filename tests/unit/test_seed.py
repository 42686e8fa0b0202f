"""The seed disk and its file system, held against tools nobody here wrote."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proa.errors import Invalid
from proa.isolation.vm.whole import iso, seed
from tests.conftest import need

SEED = seed.Seed("an-id", "a-host", b"\x7fELF" + b"program" * 1000, "ssh-ed25519 AAAA proa")


def _extracted(image: bytes, where: Path) -> dict[str, bytes]:
    path = where / "image.iso"
    path.write_bytes(image)
    command = ["xorriso", "-osirrox", "on", "-indev", str(path), "-extract", "/", str(where / "x")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return {found.name: found.read_bytes() for found in (where / "x").iterdir()}


def test_another_tool_reads_the_files_as_they_were_written(tmp_path: Path) -> None:
    need(shutil.which("xorriso"), "xorriso", "xorriso is not installed")
    files = {
        "meta-data": b"x", "empty": b"", "network-config": bytes(range(256)) * 100,
        "A.Name-with_CAPITALS.and.dots": b"1" * iso.SECTOR,
    }  # fmt: skip
    assert _extracted(iso.build("CIDATA", files), tmp_path) == files


def test_the_label_is_found_as_cloud_init_looks_for_it(tmp_path: Path) -> None:
    need(shutil.which("blkid"), "blkid", "blkid is not installed")
    image = tmp_path / "image.iso"
    image.write_bytes(seed.build(SEED))
    command = ["blkid", "-p", "-o", "export", str(image)]
    found = subprocess.run(command, capture_output=True, text=True, timeout=60).stdout.split("\n")
    assert "LABEL=CIDATA" in found and "TYPE=iso9660" in found


def test_a_seed_says_who_the_machine_is_and_leaves_the_users_data_alone(tmp_path: Path) -> None:
    need(shutil.which("xorriso"), "xorriso", "xorriso is not installed")
    users = "#cloud-config\nruncmd: [[touch, /x]]\n"
    made = seed.Seed("i" * 64, "näme", b"agent", "ssh-ed25519 AAAA proa", users, "version: 2\n")
    files = _extracted(seed.build(made), tmp_path)
    assert json.loads(files["meta-data"]) == {"instance-id": "i" * 64, "local-hostname": "näme"}
    assert files["user-data"].decode() == users and files["network-config"] == b"version: 2\n"
    assert files[seed.AGENT] == b"agent" and b"ssh-ed25519 AAAA proa" in files["vendor-data"]


def test_shares_are_mounted_by_the_hook_whatever_their_targets_are_called() -> None:
    targets = ("/srv/it's $HOME/deep", "/srv/it's $HOME", "/file")
    hook = seed.mounts(targets)
    stub = 'mount() { printf "%s|" "$@"; echo; }; mkdir() { :; }; grep() { return 1; }; '
    done = subprocess.run(
        ["sh", "-euc", stub + hook.replace(": >", ": #")], capture_output=True, text=True
    )
    assert done.stderr == ""
    bound = [line.split("|")[1:3] for line in done.stdout.splitlines() if "--bind" in line]
    shares = "/run/proa/shares"
    assert bound == [
        [f"{shares}/2", "/file"],
        [f"{shares}/1", "/srv/it's $HOME"],
        [f"{shares}/0", "/srv/it's $HOME/deep"],
    ]


def test_the_vendors_hook_is_a_shell_script_and_installs_what_it_should(tmp_path: Path) -> None:
    """Its function, with a system that has no systemd: the program is copied and started."""
    need(shutil.which("setsid"), "setsid", "setsid is not installed")
    program, place = tmp_path / "program", tmp_path / "bin" / "agent"
    program.write_text(
        f'#!/bin/sh\necho "$1" > {tmp_path}/ran.new; mv {tmp_path}/ran.new {tmp_path}/ran'
    )
    plain = seed.INSTALL.replace("/run/systemd/system", str(tmp_path / "none"))
    script = f"set -eu\n{plain}\ninstall_agent {program} {place}\nwait"
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "ran").read_text() == "guest\n"
    assert place.read_bytes() == program.read_bytes() and place.stat().st_mode & 0o777 == 0o755


@pytest.mark.parametrize("name", ["../x", "", "a/b", "ä", "x" * 49, ".hidden"])
def test_names_the_file_system_cannot_have_are_refused(name: str) -> None:
    with pytest.raises(Invalid):
        iso.build("CIDATA", {name: b""})


def test_the_same_content_makes_the_same_disk() -> None:
    assert seed.build(SEED) == seed.build(SEED)


@settings(max_examples=50, deadline=None)
@given(st.dictionaries(st.from_regex(r"[a-z][a-z0-9.-]{0,20}", fullmatch=True),
                       st.binary(max_size=5000), max_size=8))  # fmt: skip
def test_every_file_lies_whole_where_its_record_says(files: dict[str, bytes]) -> None:
    image = iso.build("X", files)
    assert len(image) % iso.SECTOR == 0
    assert int.from_bytes(image[16 * iso.SECTOR + 80 :][:4], "little") == len(image) // iso.SECTOR
    root = int.from_bytes(image[16 * iso.SECTOR + 158 :][:4], "little") * iso.SECTOR
    found, at = {}, root
    while image[at]:
        record = image[at : at + image[at]]
        start, size = (int.from_bytes(record[i : i + 4], "little") for i in (2, 10))
        names = record[33 + record[32] :].split(b"NM")
        if len(names) == 2:
            found[names[1][3 : names[1][0] - 2].decode()] = image[start * iso.SECTOR :][:size]
        at += image[at]
    assert found == files
