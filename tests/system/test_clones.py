"""Clones of a vm template are machines of their own."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.support.engine import EngineProcess
from tests.support.instances import Place

PAGE_BYTES = 1 << 16  # a multiple of any page
FACTS = """
    head -c 16 /dev/urandom | hexdump -e '16/1 "%02x"'; echo
    head -c 16 /dev/random | hexdump -e '16/1 "%02x"'; echo
    cat /proc/sys/kernel/random/boot_id /proc/sys/kernel/random/uuid
    cat /etc/machine-id
    cat /sys/class/net/eth0/address
    hostname
"""


def test_no_two_clones_draw_the_same(vm: Place) -> None:
    with ThreadPoolExecutor(2) as pool:
        runs = list(pool.map(lambda _: vm.run("busy", "sh", "-c", FACTS), range(4)))
    columns = list(zip(*(run.stdout.split() for run in runs), strict=True))
    assert len(columns) == 7
    for column in columns:
        assert len(set(column)) == len(runs), column
    assert all(re.fullmatch("[0-9a-f]{32}", value) for value in columns[4])


def test_the_first_bytes_of_the_first_process_differ(vm: Place) -> None:
    """Drawn by pid 1 at once, before anything else could have stirred the generator."""
    command = ("head", "-c", "32", "/dev/urandom")
    drawn = {vm.run("busy", "sh", "-c", " ".join(command) + " | md5sum").stdout for _ in range(3)}
    assert len(drawn) == 3


def test_the_clock_is_the_hosts(vm: Place) -> None:
    before = int(time.time())
    inside = int(vm.run("busy", "date", "+%s").stdout)
    assert before <= inside <= time.time() + 1


def test_a_clone_says_what_it_is(vm: Place) -> None:
    found = vm.start("busy", "sleep", "1000").inspect()["Proa"]
    assert found["Accelerator"] in {"kvm", "tcg"}
    assert re.match(r"\d+\.\d+", found["Kernel"])


def test_no_clone_changes_its_template(vm: Place, session_engine: EngineProcess) -> None:
    vm.run("busy", "true")
    before = template_digests(session_engine.root)
    assert before, "no template was made"
    vm.run("busy", "dd", "if=/dev/zero", "of=/dev/null", "bs=64M", "count=1")
    vm.run("busy", "sh", "-c", "dd if=/dev/zero of=/dev/shm/fill bs=1M count=16 2>/dev/null")
    assert template_digests(session_engine.root) == before


def template_digests(root: Path) -> dict[str, str]:
    """Digest of every template file."""
    found = {}
    for path in sorted((root / "vm" / "templates").rglob("*")):
        if path.is_file():
            found[str(path)] = _digest(path)
    return found


def _digest(path: Path) -> str:
    """Of all that is not zero and where it lies; most of a template's memory is holes."""
    digest, size, end = hashlib.blake2b(), path.stat().st_size, 0
    digest.update(str(size).encode())
    with path.open("rb") as file:
        while end < size:
            try:
                start = os.lseek(file.fileno(), end, os.SEEK_DATA)
            except OSError as error:
                if error.errno == errno.ENXIO:  # nothing but a hole from here
                    break
                raise
            end = os.lseek(file.fileno(), start, os.SEEK_HOLE)
            for offset in range(start, end, PAGE_BYTES):
                page = os.pread(file.fileno(), PAGE_BYTES, offset)
                if any(page):
                    digest.update(b"%d:" % offset + page)
    return digest.hexdigest()


def test_a_shape_without_a_template_looks_the_same(vm: Place) -> None:
    """A machine too large for a template boots fully; its user sees no difference."""
    seen = {}
    for ways, memory_bytes in (({"template", "spare"}, 0), ({"boot"}, 2200 << 20)):
        instance = vm.create("busy", "sh", "-c", LOOK, host={"Memory": memory_bytes})
        instance.start().wait()
        assert instance.inspect()["Proa"]["StartedBy"] in ways
        seen[memory_bytes] = instance.logs().stdout.replace(instance.id[:12], "ID")
    assert len(set(seen.values())) == 1, seen


LOOK = """
    echo $$ $(hostname) $(pwd) $(id -u)
    env | grep -v HOSTNAME | sort
    cut -d' ' -f2-4 /proc/mounts | sort
    ls /dev /sys/class/net
    uname -a | sed "s/$(hostname)//"
"""
