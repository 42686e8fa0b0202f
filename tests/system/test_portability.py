"""Which hosts can run an image: gathered on a real engine, of images whose needs are known."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from proa.client import Client
from proa.compare import portability
from proa.compare.record import Form, Portability, Subject
from proa.errors import Invalid
from tests.conftest import need
from tests.support.engine import EngineProcess
from tests.support.images import Layer, archive

FORMS = (
    Form("container", "container", "container"),
    Form("vm", "vm", "vm", accelerator="tcg"),
    Form("vm-boot", "vm, booted", "vm", only_start=True),
)
# Says hello, asks for io_uring and for a call that is newer than any kernel, and adds 256 bits.
NEEDY = """
#include <immintrin.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>
__attribute__((target("avx2"))) static void add(int *to)
{
	__m256i sum = _mm256_add_epi32(_mm256_loadu_si256((__m256i *)to), _mm256_set1_epi32(1));
	_mm256_storeu_si256((__m256i *)to, sum);
}
int main(void)
{
	int numbers[8] = { 0 };
	syscall(SYS_io_uring_setup, 0, 0);
	syscall(1000);
	add(numbers);
	printf("hello %d\\n", numbers[7]);
	return 0;
}
"""


@pytest.fixture(scope="module")
def client(session_engine: EngineProcess) -> Iterator[Client]:
    with Client(f"unix://{session_engine.socket}") as made:
        yield made


@pytest.fixture(scope="module")
def needy(session_engine: EngineProcess, tmp_path_factory: pytest.TempPathFactory) -> str:
    """An image of that program alone."""
    work = tmp_path_factory.mktemp("needy")
    (work / "needy.c").write_text(NEEDY)
    compile_it = ["gcc", "-O1", "-static", "-o", str(work / "needy"), str(work / "needy.c")]
    subprocess.run(compile_it, check=True, timeout=60)
    layer = Layer()
    layer.file("/needy", (work / "needy").read_bytes(), 0o755)
    session_engine.api.load(archive("needy", layer.bytes(), Cmd=["/needy"]))
    return "needy"


@pytest.fixture(scope="module")
def kernels(session_engine: EngineProcess, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the guest's kernel as a package unpacked has it, and one that is none."""
    [prepared] = (session_engine.root / "vm" / "kernels").iterdir()
    need((prepared / "more/vmlinuz").is_file(), "kernel", "the guest's kernel has no vmlinuz")
    work = tmp_path_factory.mktemp("kernels")
    (work / "boot").mkdir()
    shutil.copy(prepared / "more/vmlinuz", work / "boot" / f"vmlinuz-{prepared.name}")
    shutil.copytree(prepared / "modules", work / "lib/modules" / prepared.name / "kernel")
    (work / "boot/vmlinuz-1.0").write_text("no kernel\n")
    return work


def gather(client: Client, image: str, *command: str, kernels: Path | None = None) -> Portability:
    subject = Subject("image", image, "", "linux/amd64", command)
    named = None if kernels is None else (str(kernels),)
    return portability.gather(client, portability.Options(subject, named), FORMS)


def test_a_program_that_needs_much(client: Client, needy: str, kernels: Path) -> None:
    heard = gather(client, needy, kernels=kernels)
    needs = {line.what: line.answers for line in heard.needs}
    assert set(needs["processor"]) == {"container", "vm"}
    assert needs["processor"]["container"].startswith("amd64")
    assert needs["processor level it worked on"]["vm"] == "x86-64-v3"
    assert needs["kernel features seen used"] == {"container": "io_uring", "vm": "io_uring"}
    assert "io_uring_setup" in needs["system calls refused"]["container"]
    tried = [(trial.form, trial.works, trial.said) for trial in heard.trials]
    hello = "exit code 0; not there: 1000; 'hello 1'"
    assert [(form, works) for form, works, _ in tried] == [
        ("container", True), ("vm", True),
        ("vm", False), ("vm", False), ("vm", True),  # three processors
        ("vm", False), ("vm", True),  # two kernels
    ]  # fmt: skip
    assert {said for _, works, said in tried if works} == {hello}
    assert "ended by signal 4" in tried[2][2], "an illegal instruction"
    assert heard.trials[5].kernel == "vmlinuz-1.0"
    assert str(kernels) not in heard.trials[5].said
    assert heard.trials[6].kernel == heard.trials[1].kernel


def test_what_cannot_be_asked(client: Client, needy: str, tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="no kernel at"):
        gather(client, needy, kernels=tmp_path)
    disk = portability.Options(Subject("disk", "/disk.raw", "", "linux/amd64", ()), ())
    with pytest.raises(Invalid, match="boots the kernel it holds"):
        portability.gather(client, disk, FORMS)


def test_a_program_that_is_not_there(client: Client, needy: str) -> None:
    heard = gather(client, needy, "/not-there")
    assert not any(trial.works for trial in heard.trials)
    assert "not-there" in heard.trials[0].said
