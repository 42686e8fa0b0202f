"""A machine's screen, seen and used with tools nobody here wrote: GRUB is what is on it, netpbm
reads the pictures, gvnccapture is the VNC client."""

from __future__ import annotations

import os
import signal
import socket
import struct
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from proa.client.sdk import Client
from tests.conftest import need
from tests.support import grubs
from tests.support.engine import EngineProcess, engine
from tests.support.http import ApiError, Request, hijack
from tests.support.instances import Instance, Place, eventually, exactly
from tests.support.paths import PROA

PROMPT_PIXELS = range(60, 400)  # lit by "grub> " and the cursor, and by little else
HEAD = b"P6\n720 400\n255\n"  # VGA's text mode


@dataclass
class Screen:
    """A machine that shows GRUB's command line."""

    engine: EngineProcess
    instance: Instance

    def picture(self) -> bytes:
        """The picture by the API, decoded."""
        return decoded(self.engine.api.call("GET", f"/proa/instances/{self.instance.id}/screen"))

    def type(self, *words: str) -> None:
        """`proa keys`."""
        done = self.engine.proa("keys", "--delay", "30", self.instance.id, *words)
        assert (done.returncode, done.stderr) == (0, b"")

    def clear(self) -> bytes:
        """Nothing but a prompt, and its cursor or not."""

        def cleared() -> bytes:
            self.type("clear\\n")
            found = self.picture()
            return found if lit(found) in PROMPT_PIXELS else b""

        return bytes(eventually(cleared, 30, "no prompt"))

    def shows(self, wanted: bytes) -> bool:
        """Whether it comes to look exactly like that; the cursor blinks, so not at once."""
        return bool(eventually(lambda: self.picture() == wanted, 15, "it never looks like that"))

    def vnc(self) -> socket.socket:
        """A connection that speaks RFB, as the API hands it out."""
        path = f"/proa/instances/{self.instance.id}/vnc"
        return hijack(self.engine.api.socket, Request("GET", path))


def decoded(png: bytes) -> bytes:
    """A PPM, by netpbm."""
    return subprocess.run(["pngtopnm"], input=png, check=True, capture_output=True).stdout


def lit(ppm: bytes) -> int:
    """How many pixels of a text screen are not black."""
    pixels = ppm.removeprefix(HEAD)
    return len(pixels) // 3 - sum(pixels[n : n + 3] == b"\0\0\0" for n in range(0, len(pixels), 3))


@pytest.fixture(scope="module")
def screen(
    tmp_path_factory: pytest.TempPathFactory, require_program: Callable[[str], str]
) -> Iterator[Screen]:
    """The machine, in an engine of its own, which is killed once."""
    need(os.geteuid() == 0, "root", "machines need root")
    for program in ("grub-mkimage", "pngtopnm"):
        require_program(program)
    disk = grubs.disk(tmp_path_factory.mktemp("grub") / "grub.raw")
    with engine() as own:
        body = {
            "Image": "",
            "HostConfig": {"Isolation": "vm", "NetworkMode": "none", "Memory": 64 << 20},
            "Proa": {"Disk": str(disk), "Display": "std"},
        }
        made = Instance(
            own.api, own.api.json("POST", "/containers/create", body, name="grub")["Id"]
        )
        yield Screen(own, made.start())


def test_what_is_typed_is_seen(screen: Screen) -> None:
    prompt = screen.clear()
    screen.type("aaaaaaaaaaaaaaaaaaaaaaaa")
    eventually(lambda: lit(screen.picture()) > lit(prompt) + 300)
    screen.type(*["backspace"] * 24)
    assert screen.shows(prompt)


def test_keys_by_name_and_text_make_the_same_picture(screen: Screen) -> None:
    screen.clear()
    screen.type("--", 'echo Shifted: {AZ}_~|"?\\n')
    screen.clear()
    screen.type("up", "up")  # through the history: the former clear, the echo
    first = eventually(lambda: (found := screen.picture()) and lit(found) > 700 and found)
    screen.type("ctrl-a", "ctrl-k", "--", 'echo Shifted: {AZ}_~|"?')
    assert screen.shows(bytes(first))


def test_a_vnc_client_sees_the_same(
    screen: Screen, require_program: Callable[[str], str], tmp_path: Path
) -> None:
    client = require_program("gvnccapture")
    screen.clear()
    served = subprocess.Popen(
        [PROA, "screen", "grub", "--vnc"], env=screen.engine.variables(), stdout=subprocess.PIPE
    )
    assert served.stdout is not None
    port = int(served.stdout.readline().decode().rpartition(":")[2])

    def captured() -> bytes:
        words = [client, f"127.0.0.1:{port - 5900}", str(tmp_path / "vnc.png")]
        subprocess.run(words, check=True, capture_output=True, timeout=20)
        return decoded((tmp_path / "vnc.png").read_bytes())

    assert eventually(lambda: captured() == screen.picture(), 20)
    served.send_signal(signal.SIGINT)
    assert served.wait(10) == 130


def test_vnc_by_a_unix_socket(screen: Screen, tmp_path: Path) -> None:
    path = tmp_path / "vnc.sock"
    served = subprocess.Popen(
        [PROA, "screen", "grub", "--vnc", f"unix:{path}"],
        env=screen.engine.variables(), stdout=subprocess.PIPE,
    )  # fmt: skip
    assert served.stdout is not None
    assert served.stdout.readline() == f"unix:{path}\n".encode()
    assert path.stat().st_mode & 0o777 == 0o600
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
        assert exactly(client, 12) == b"RFB 003.008\n"
    served.send_signal(signal.SIGINT)
    served.wait(10)
    assert not path.exists()


def greeted(client: socket.socket) -> tuple[int, int, str]:
    """RFB 3.8 without authentication (RFC 6143): the screen's size, the desktop's name."""
    client.settimeout(20)
    client.sendall(exactly(client, 12))
    kinds = exactly(client, exactly(client, 1)[0])
    assert 1 in kinds
    client.sendall(b"\1")
    assert exactly(client, 4) == bytes(4)
    client.sendall(b"\1")  # shared
    width, height = struct.unpack(">HH", exactly(client, 4))
    exactly(client, 16)
    return width, height, exactly(client, struct.unpack(">I", exactly(client, 4))[0]).decode()


def test_a_connection_outlives_the_engine(screen: Screen) -> None:
    with screen.vnc() as client:
        assert greeted(client)[:2] == (720, 400)
        screen.engine.kill()
        client.sendall(struct.pack(">BBHHHH", 3, 0, 0, 0, 720, 400))
        assert exactly(client, 1) == b"\0"  # FramebufferUpdate
        screen.engine.start()
        assert screen.picture().startswith(HEAD)


def test_many_look_at_once(screen: Screen) -> None:
    screen.clear()
    with ThreadPoolExecutor(8) as pool:
        pictures = list(pool.map(lambda _: screen.picture(), range(24)))
        names = list(pool.map(lambda _: _name(screen), range(8)))
    assert all(lit(picture) in PROMPT_PIXELS for picture in pictures)
    assert len(set(names)) == 1


def _name(screen: Screen) -> str:
    with screen.vnc() as client:
        return greeted(client)[2]


def test_by_the_sdk(screen: Screen) -> None:
    screen.clear()
    with Client(str(screen.engine.socket)) as client:
        machine = client.get("grub")
        assert decoded(machine.screenshot()).startswith(HEAD)
        machine.keys("x", "backspace", delay_ms=20)
        machine.click(719, 399, "right")
        connection, said = machine.vnc()
        with connection:
            assert said + exactly(connection, 12 - len(said)) == b"RFB 003.008\n"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["keys", "grub", "caf\u00e9"], "no key of a US keyboard types '\\xe9'"),
        (["keys", "grub", "ctrl-nosuch"], "unknown key 'nosuch'"),
        (["keys", "grub", "\\q"], "unknown escape"),
        (["keys", "--delay", "0", "grub", "x"], "a delay of '0' ms"),
        (["screen", "grub", "--click", "720,0"], "beyond the screen's 720x400 pixels"),
        (["screen", "grub", "--click", "here"], "'here' is no place on a screen"),
        (["screen", "grub", "--click", "1,1", "--button", "fourth"], "unknown button 'fourth'"),
        (["screen", "grub", "--vnc", "nowhere"], "'nowhere' is no address for VNC"),
        (["screen", "nosuch"], "No such container"),
    ],
)
def test_what_cannot_be(screen: Screen, words: list[str], said: str) -> None:
    done = screen.engine.proa(*words)
    assert done.returncode != 0
    assert said in done.stderr.decode()


def test_a_paused_machine_is_seen_but_not_typed_into(screen: Screen) -> None:
    screen.clear()
    assert screen.engine.proa("pause", "grub").returncode == 0
    try:
        assert screen.picture().startswith(HEAD)
        for words in (("keys", "grub", "x"), ("screen", "grub", "--click", "1,1")):
            done = screen.engine.proa(*words)
            assert (done.returncode, b"is paused" in done.stderr) == (125, True)
    finally:
        screen.engine.proa("unpause", "grub")


@pytest.mark.parametrize(("verb", "method"), [("screen", "GET"), ("vnc", "GET")])
def test_what_has_no_screen_says_so(place: Place, verb: str, method: str) -> None:
    instance = place.create("busy", "sleep", "1000")
    path = f"/proa/instances/{instance.id}/{verb}"
    with pytest.raises(ApiError) as refusal:
        instance.api.call(method, path)
    assert refusal.value.status == 409
    instance.start()
    with pytest.raises(ApiError) as refusal:
        instance.api.call(method, path)
    wanted = "has no screen" if place.isolation == "vm" else "has no use for a screen"
    assert wanted in str(refusal.value)
