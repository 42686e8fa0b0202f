"""An image for another processor, in both isolations: emulated, and otherwise like any other."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from proa.client.sdk import Client
from tests.conftest import need
from tests.support.engine import EngineProcess
from tests.support.http import ApiError
from tests.support.images import Layer, archive
from tests.support.instances import Api, Place
from tests.support.paths import NATIVE, ROOT

COMPILER = "aarch64-linux-gnu-gcc"
IMAGE = "probe:arm64"


@pytest.fixture(scope="module", autouse=True)
def image(session_engine: EngineProcess, tmp_path_factory: pytest.TempPathFactory) -> None:
    """The probe, built for arm64."""
    need(shutil.which(COMPILER), "arm64", f"'{COMPILER}' is not installed")
    need(shutil.which("qemu-aarch64-static"), "arm64", "'qemu-user-static' is not installed")
    need(shutil.which("qemu-system-aarch64"), "arm64", "'qemu-system-arm' is not installed")
    need(
        NATIVE.with_name("proa-native-arm64").exists(), "arm64", "'make native-arm64' was not done"
    )
    probe = tmp_path_factory.mktemp("arm64") / "probe"
    command = (COMPILER, "-std=gnu11", "-Os", "-D_GNU_SOURCE", "-static", "-s", "-o", str(probe),
               str(ROOT / "tests/native/probe.c"))  # fmt: skip
    subprocess.run(command, check=True)
    session_engine.api.load(probe_image(probe))


def probe_image(probe: Path) -> bytes:
    layer = Layer()
    layer.file("probe", probe.read_bytes(), 0o755)
    return archive(IMAGE, layer.bytes(), architecture="arm64", Entrypoint=["/probe"])


def test_its_programs_run(place: Place) -> None:
    instance = place.start(IMAGE, "sleep", "1000")
    assert instance.exec("/probe", "uname").stdout.split()[-1] == "aarch64"
    assert instance.exec("/probe", "exit", "7").code == 7
    instance.put("/", {"note": b"carried in"})
    assert instance.exec("/probe", "read", "/note").stdout == "carried in"
    instance.stop(0)
    assert instance.state()["ExitCode"] == 137


def test_streams_and_exit_codes_are_its_own(place: Place) -> None:
    result = place.run(IMAGE, "both", "to out", "to err")
    assert (result.code, result.stdout, result.stderr) == (0, "to out\n", "to err\n")
    assert place.run(IMAGE, "cat", stdin=b"through\n").stdout == "through\nend\n"
    assert place.run(IMAGE, "exit", "42").code == 42


def test_signals_reach_it(place: Place) -> None:
    instance = place.create(IMAGE, "trap", "15", "9")
    stream = instance.attach(stdin=0)
    instance.start()
    assert stream.recv(1)  # "ready" has begun to arrive
    instance.kill("TERM")
    assert instance.wait() == 9


def test_it_is_confined_like_any_other(place: Place) -> None:
    instance = place.start(IMAGE, "sleep", "1000")
    assert instance.exec("/probe", "seccomp", "unshare").stdout == "EPERM\n"
    assert instance.exec("/probe", "seccomp", "getpid").stdout == "0\n"


def test_what_is_emulated_is_told(place: Place, api: Api) -> None:
    instance = place.start(IMAGE, "sleep", "1000")
    facts = instance.inspect()["Proa"]
    assert facts["Platform"] == "linux/arm64"
    assert "qemu" in facts["EmulatedBy"]
    [row] = [item for item in api.json("GET", "/containers/json") if item["Id"] == instance.id]
    assert row["Proa"] == {"Platform": "linux/arm64"}


def test_it_runs_by_the_sdk(place: Place) -> None:
    with Client(f"unix://{place.api.socket}") as client:
        result = client.run(IMAGE, ["uname"], isolation=place.isolation, platform="linux/arm64")
    assert result.stdout.split()[-1] == b"aarch64"


def test_the_platform_of_the_image_must_be_the_one_asked_for(place: Place) -> None:
    body = {"Image": "probe", "HostConfig": {"Isolation": place.isolation}}
    with pytest.raises(ApiError, match="No such image"):
        place.api.json("POST", "/containers/create", body, platform="linux/arm64")


def test_a_program_for_another_processor_says_so(place: Place, tmp_path: Path) -> None:
    """What no handler is registered for: as many as there are beside the image's own."""
    layer = Layer()
    header = bytes.fromhex("7f454c4602010100" + "00" * 8 + "0200f300")  # riscv64, cut off
    layer.file("probe", header.ljust(128, b"\0"), 0o755)
    place.api.load(archive("strange", layer.bytes(), Entrypoint=["/probe"]))
    instance = place.create("strange", "x")
    with pytest.raises(ApiError, match="another processor"):
        instance.start()
    assert instance.state()["ExitCode"] == 126
