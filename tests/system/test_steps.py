"""RUN steps of builds in both isolations: what they see, what they leave, what ends them."""

from __future__ import annotations

import io
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from proa.engine import config, recovery
from proa.engine.core import Core
from proa.engine.steps import Steps
from proa.errors import Cancelled, Invalid, LaunchError, NotFound, Unsupported
from proa.image.build.step import Step, StepMount
from proa.image.layer import pack
from tests.support.engine import EngineProcess, leftovers
from tests.support.images import Layer, archive, busy_layer
from tests.support.instances import eventually
from tests.support.paths import PROBE, ROOT, SOURCE

ENVIRONMENT = ("PATH=/bin", "GIVEN=yes")
ISOLATIONS = ("container", "vm")


@dataclass
class Bench:
    """A core of its own and the layers of an image, topmost first."""

    core: Core
    layers: tuple[Path, ...]
    runs: list[Path] = field(default_factory=list)

    def upper(self) -> Path:
        """A new directory for a step's changes, on the store's file system."""
        made = Path(tempfile.mkdtemp(dir=self.core.config.root / "uppers"))
        for name in ("upper", "work"):
            (made / name).mkdir()
        return made

    def run(self, isolation: str, script: str, **options: Any) -> Ran:
        """Run a shell script as a step."""
        cancel = options.pop("cancel", None) or threading.Event()
        heard = options.pop("heard", lambda text: None)
        upper, said = self.upper(), {1: bytearray(), 2: bytearray()}

        def output(stream: int, data: bytes) -> None:
            said[stream] += data
            heard(said[1].decode())

        step = Step(("/bin/sh", "-c", script), ENVIRONMENT, isolation=isolation, **options)
        code = Steps(self.core).run(step, self.layers, upper, output, cancel)
        return Ran(code, said[1].decode(), said[2].decode(), upper / "upper")


@dataclass(frozen=True)
class Ran:
    """What a step said and left."""

    code: int
    out: str
    err: str
    upper: Path

    def left(self) -> list[str]:
        """Every path in its layer."""
        return sorted(str(path.relative_to(self.upper)) for path in self.upper.rglob("*"))

    def tar(self) -> bytes:
        """Its layer, whenever it was made."""
        sink = io.BytesIO()
        pack.pack(self.upper, sink, epoch_seconds=0)
        return sink.getvalue()


def crafted() -> bytes:
    """Busybox with links where mounts go, and nothing of what a place needs in /etc."""
    layer, top = busy_layer(), Layer()
    layer.file("etc/secret", "for root alone\n", 0o600)
    layer.symlink("escape", "/../../../../srv/inside")
    layer.symlink("absolute", "/srv/real")
    layer.directory("srv/real")
    layer.file("srv/real/file", "from a layer\n")
    layer.file("bin/suid", PROBE.read_bytes(), 0o4755)
    layer.directory("srv/tree")
    layer.file("srv/tree/old", "old\n")
    top.file("srv/top", "top\n")
    return archive("steps", layer.bytes(), top.bytes())


@pytest.fixture(scope="module")
def bench(session_engine: EngineProcess) -> Iterator[Bench]:
    """Beside the session's engine; what it has saved of virtual machines serves here too."""
    base = Path(tempfile.mkdtemp(prefix="proa-steps-", dir="/tmp"))
    root = base / "root"
    (root / "uppers").mkdir(parents=True)
    (root / "vm").symlink_to(session_engine.root / "vm")
    core = Core(config.load(root))
    loaded = core.images.load(io.BytesIO(crafted()))
    yield Bench(core, core.images.layers(loaded[0].image))
    close(core)
    left = leftovers(root)
    assert not left, left
    shutil.rmtree(base)


def close(core: Core) -> None:
    for isolation in core.isolations.values():
        isolation.close()
    core.places.close()
    core.networks.destroy()
    core.places.destroy()
    core.state.close()


@pytest.fixture(params=ISOLATIONS)
def isolation(request: pytest.FixtureRequest) -> str:
    """Either."""
    return str(request.param)


# -- what it is ------------------------------------------------------------------------------------


def test_a_step_runs_as_asked(bench: Bench, isolation: str) -> None:
    ran = bench.run(
        isolation,
        "echo $(id -u) $(id -g) $(id -G | tr ' ' '\\n' | sort -n); pwd; echo $GIVEN $HOME;"
        "echo wrong >&2; grep example /etc/hosts; exit 7",
        user="alice", directory="/srv", hosts=("example:192.0.2.7",),
    )  # fmt: skip
    assert ran.code == 7
    assert ran.out.splitlines() == [
        "1000 1000 44 50 1000",
        "/srv",
        "yes /home/alice",
        "192.0.2.7\texample",
    ]
    assert ran.err == "wrong\n"
    assert ran.left() == []


def test_what_a_step_changes_is_the_same_in_either(bench: Bench) -> None:
    script = """
    echo new >/made; ln /made /made2; ln -s x /link; mkfifo /pipe; mkdir -p /d/e; echo f >/d/e/f
    rm /srv/top; rm -r /srv/tree; mkdir /srv/tree; echo n >/srv/tree/n; chmod 4711 /srv/real/file
    chown 1000:50 /d; rm -r /srv/real; echo file >/srv/real; chmod 1700 /var
    /probe setxattr /d/e/f user.x 00ff; mkdir /root/x; rmdir /root/x
    """
    layers = [bench.run(isolation, script) for isolation in ISOLATIONS]
    assert [ran.code for ran in layers] == [0, 0]
    assert layers[0].left() == layers[1].left()
    assert layers[0].tar() == layers[1].tar()
    assert os.getxattr(layers[1].upper / "d/e/f", "user.x") == b"\0\xff"


def test_capabilities_and_seccomp_are_those_of_a_run(bench: Bench, isolation: str) -> None:
    ran = bench.run(isolation, "grep -E 'Cap(Inh|Eff|Bnd)|Seccomp:' /proc/self/status")
    found = dict(line.split(":\t") for line in ran.out.splitlines())
    assert found == {
        "CapInh": "0" * 16, "CapEff": "00000000a80425fb", "CapBnd": "00000000a80425fb",
        "Seccomp": "2",
    }  # fmt: skip


def test_set_id_programs_work_and_the_hosts_environment_is_not_seen(
    bench: Bench, isolation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with `docker build`; CVE-2021-3602: the builder's own environment is a secret."""
    monkeypatch.setenv("MARKER", "of-the-host")
    ran = bench.run(
        isolation,
        "/bin/suid stat /srv >/dev/null; /bin/suid read /etc/secret; cat /etc/secret 2>&1;"
        "cat /proc/*/environ 2>/dev/null | grep -c of-the-host",
        user="alice",
    )
    refused = "cat: can't open '/etc/secret': Permission denied"
    assert ran.out.splitlines() == ["for root alone", refused, "0"]


def test_what_cannot_start_says_so(bench: Bench, isolation: str) -> None:
    steps, never = Steps(bench.core), threading.Event()
    step = Step(("/not/there",), ENVIRONMENT, isolation=isolation)
    with pytest.raises(LaunchError) as caught:
        steps.run(step, bench.layers, bench.upper(), lambda stream, data: None, never)
    assert caught.value.exit_code == 127
    with pytest.raises(LaunchError, match="unable to find user"):
        bench.run(isolation, "true", user="nobody-here")


def test_no_network_and_what_is_refused(bench: Bench) -> None:
    assert bench.run("container", "ls /sys/class/net", network="none").out.split() == ["lo"]
    assert bench.run("container", "ls /sys/class/net").out.split() == ["eth0", "lo"]
    with pytest.raises(Unsupported, match="network 'host'"):
        bench.run("container", "true", network="host")
    with pytest.raises(Invalid, match="extra host 'nonsense'"):
        bench.run("container", "true", hosts=("nonsense",))


def test_disks_of_layers_in_between_do_not_pile_up(bench: Bench) -> None:
    first = bench.run("vm", "echo one >/one")
    bench = Bench(bench.core, (first.upper, *bench.layers))
    disks = bench.core.config.root / "images" / "disks"
    before = set(os.listdir(disks))
    second = bench.run("vm", "cat /one; echo two >/two")
    assert (second.out, second.left()) == ("one\n", ["two"])
    assert set(os.listdir(disks)) == before


# -- mounts ----------------------------------------------------------------------------------------


def test_mounts_are_there_and_leave_nothing(bench: Bench, isolation: str, tmp_path: Path) -> None:
    cache, secret, context = tmp_path / "cache", tmp_path / "secret", tmp_path / "context"
    cache.mkdir()
    secret.write_bytes(b"hush\0\xff")
    (context / "sub").mkdir(parents=True)
    (context / "sub/file").write_text("from the context\n")
    mounts = (
        StepMount("cache", "/deep/er/cache", cache),
        StepMount("secret", "/run/secrets/id", secret, readonly=True, uid=1000, gid=50, mode=0o440),
        StepMount("tmpfs", "/scratch", size_bytes=1 << 20),
        StepMount("bind", "/ctx", layers=(context,), subpath="sub", readonly=True),
        StepMount("bind", "/other", layers=bench.layers, subpath="/srv"),
    )
    ran = bench.run(
        isolation,
        "set -e; cat /ctx/file; echo kept >/deep/er/cache/c; echo gone >/scratch/s;"
        "stat -c '%a %u %g %s' /run/secrets/id; cat /other/top /other/real/file;"
        "echo thrown >/other/away; rm /other/top; ls /other;"
        "echo x >/run/secrets/id || echo refused; echo x >/ctx/no || echo readonly;"
        "df /scratch | tail -n 1; echo mine >/srv/mine",
        mounts=mounts,
    )  # fmt: skip
    lines = ran.out.splitlines()
    assert lines[:4] == ["from the context", "440 1000 50 6", "top", "from a layer"], ran
    assert lines[4:8] == ["away", "real", "tree", "refused"] and lines[8] == "readonly"
    assert lines[9].split()[1] == "1024"
    assert (cache / "c").read_text() == "kept\n"
    assert ran.left() == ["srv", "srv/mine"]
    assert not (bench.layers[0] / "srv/away").exists() and (bench.layers[0] / "srv/top").exists()
    assert b"hush" not in ran.tar()


def test_links_at_mount_targets_stay_inside(bench: Bench, isolation: str, tmp_path: Path) -> None:
    """CVE-2018-15664's kin: `escape` leads above the root, `absolute` elsewhere in it."""
    (tmp_path / "file").write_text("shared\n")
    mounts = (
        StepMount("cache", "/escape", tmp_path),
        StepMount("cache", "/absolute/below", tmp_path),
    )
    ran = bench.run(
        isolation, "cat /srv/inside/file /srv/real/below/file; ls -d /escape/", mounts=mounts
    )
    assert ran.out.splitlines() == ["shared", "shared", "/escape/"]
    assert ran.left() == []


def test_a_mount_point_replaced_by_a_link_removes_nothing_else(
    bench: Bench, isolation: str, tmp_path: Path
) -> None:
    """CVE-2024-23652: the stub's parent is a link to a canary when stubs are removed."""
    canary = tmp_path / "canary" / "x"
    canary.mkdir(parents=True)
    source = tmp_path / "source"
    source.mkdir()
    ran = bench.run(
        isolation,
        f"mkdir /side /side/x; mv /new /moved; ln -s {canary.parent} /new; ln -s side /new2",
        mounts=(StepMount("cache", "/new/x", source), StepMount("cache", "/new2/x", source)),
    )
    assert ran.code == 0 or ran.err
    assert canary.is_dir()
    assert {"side", "side/x"} <= set(ran.left())


def test_a_bind_out_of_its_layers_is_not_found(bench: Bench, tmp_path: Path) -> None:
    """CVE-2024-1753: the source is a link to /, to be found on the host or not at all."""
    (tmp_path / "root").symlink_to("/")
    (tmp_path / "up").symlink_to("../../../../../../../..")
    (tmp_path / "own").write_text("own\n")
    for subpath in ("root", "up", "/../.."):
        mount = StepMount("bind", "/bound", layers=(tmp_path,), subpath=subpath, readonly=True)
        assert bench.run("container", "ls /bound", mounts=(mount,)).out.split() == [
            "own", "root", "up",
        ]  # fmt: skip
    lost = StepMount("bind", "/bound", layers=(tmp_path,), subpath="root/etc/passwd")
    with pytest.raises(NotFound, match="no 'root/etc/passwd' to bind"):
        bench.run("container", "true", mounts=(lost,))


def test_an_ssh_agent_is_reached_by_a_container_only(bench: Bench, tmp_path: Path) -> None:
    with ExitStack() as stack:
        listener = stack.enter_context(closing(socket.socket(socket.AF_UNIX)))
        listener.bind(str(tmp_path / "agent"))
        listener.listen()

        def answer() -> None:
            client, _ = listener.accept()
            with client:
                client.sendall(b"agent heard " + client.recv(100))

        thread = threading.Thread(target=answer)
        thread.start()
        mount = StepMount("ssh", "/run/agent", tmp_path / "agent", uid=1000, gid=1000, mode=0o600)
        ran = bench.run(
            "container",
            "stat -c '%a %u' /run/agent; /probe unix /run/agent hello",
            mounts=(mount,), user="alice",
        )  # fmt: skip
        thread.join(10)
        assert ran.out.split("\n")[0] == "600 1000"
        assert "agent heard hello" in ran.out
        with pytest.raises(Unsupported, match="does not reach into a virtual machine"):
            bench.run("vm", "true", mounts=(mount,))


# -- ends ------------------------------------------------------------------------------------------


def nothing_left(bench: Bench) -> bool:
    root = bench.core.config.root
    spare = {place.name for place in bench.core.places._spares}
    places = set(os.listdir(root / "places")) - spare
    berths = len(places) <= 1  # a hull made ahead for the next vm
    return not os.listdir(root / "instances") and berths


def test_cancelling_ends_it_at_once(bench: Bench, isolation: str) -> None:
    cancel = threading.Event()

    def heard(text: str) -> None:
        if "begun" in text:
            cancel.set()

    with pytest.raises(Cancelled):
        bench.run(isolation, "echo begun; sleep 1000", cancel=cancel, heard=heard)
    eventually(lambda: nothing_left(bench), 10, "a cancelled step left something")


def test_what_runs_on_ends_with_the_step(bench: Bench, isolation: str) -> None:
    ran = bench.run(isolation, "(while :; do echo more >>/grows; done) & sleep 0.1; echo done")
    assert (ran.code, ran.out) == (0, "done\n")
    size = (ran.upper / "grows").stat().st_size
    assert size > 0
    eventually(lambda: nothing_left(bench), 10, "a step left something")
    assert (ran.upper / "grows").stat().st_size == size


def test_output_comes_while_it_runs(bench: Bench, isolation: str) -> None:
    seen = threading.Event()
    cache = bench.upper()

    def heard(text: str) -> None:
        if "first" in text and not seen.is_set():
            seen.set()
            (cache / "go").touch()

    ran = bench.run(
        isolation,
        "echo first; while ! test -e /cache/go; do sleep 0.05; done; echo second",
        mounts=(StepMount("cache", "/cache", cache),), heard=heard,
    )  # fmt: skip
    assert ran.out == "first\nsecond\n"


KILLED = """
import sys, threading
from pathlib import Path
from proa.engine import config
from proa.engine.core import Core
from proa.engine.steps import Steps
from proa.image.build.step import Step
core = Core(config.load(Path(sys.argv[1])))
layers = core.images.layers(core.images.get("steps"))
step = Step(("/bin/sh", "-c", "echo begun; sleep 1000"), ("PATH=/bin",))
Steps(core).run(step, layers, Path(sys.argv[2]), lambda s, d: print("begun", flush=True),
                threading.Event())
"""


def test_a_killed_engine_leaves_nothing_after_its_next_start(tmp_path: Path) -> None:
    base = Path(tempfile.mkdtemp(prefix="proa-killed-", dir="/tmp"))
    root, upper = base / "root", base / "upper"
    for path in (root, upper / "upper", upper / "work"):
        path.mkdir(parents=True)
    core = Core(config.load(root))
    core.images.load(io.BytesIO(crafted()))
    core.state.close()
    core.places.close()
    child = subprocess.Popen(
        [sys.executable, "-c", KILLED, root, upper], stdout=subprocess.PIPE, cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(SOURCE)},
    )  # fmt: skip
    assert child.stdout is not None and child.stdout.readline() == b"begun\n"
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdout.close()
    assert os.listdir(root / "instances")
    again = Core(config.load(root))
    recovery.recover(again)
    assert not os.listdir(root / "instances")
    close(again)
    assert leftovers(root) == []
    shutil.rmtree(base)
