"""Images made from packages: repositories made on the spot, scripts run in places, bills read."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import need
from tests.support.bills import cyclonedx_purls, spdx_packages
from tests.support.engine import EngineProcess, engine
from tests.support.images import BUSYBOX
from tests.support.instances import Api, Place, eventually
from tests.support.paths import PEERS, PROA
from tests.support.repositories import run
from tests.support.shop import Shop, build, opened, proa, refused

APPLICATION = """
slim = true
[[users]]
name = "app"
uid = 1234
groups = ["daemon"]
[[directories]]
path = "/srv/data"
owner = "app:app"
mode = "0750"
[[files]]
path = "/etc/app.conf"
content = "answer = 42\\n"
owner = "root:daemon"
mode = "0640"
[[files]]
path = "/opt/app/run"
source = "run.sh"
mode = "0755"
[[links]]
path = "/usr/bin/app"
target = "/opt/app/run"
[run]
entrypoint = ["/opt/app/run"]
command = ["from the image"]
environment = { GREETING = "hello" }
user = "app"
directory = "/srv/data"
ports = ["80"]
labels = { purpose = "test" }
"""


@pytest.fixture(scope="module")
def shop() -> Iterator[Shop]:
    """The repositories, where an unprivileged user may read them."""
    for program in ("dpkg-deb", "apt-get", "rpmbuild", "createrepo_c", "dnf", "gpg", "rpmsign"):
        need(shutil.which(program), program, f"'{program}' is not installed")
    need(BUSYBOX.exists(), "busybox", "busybox is not installed")
    with opened() as made:
        yield made


@pytest.fixture(scope="module")
def built(session_engine: EngineProcess, shop: Shop) -> dict[str, str]:
    """Ids of the images `pk-deb:1` and `pk-rpm:1`."""
    return _build_both(session_engine, shop)


def _build_both(running: EngineProcess, shop: Shop) -> dict[str, str]:
    deb = shop.debian("deb.toml", 'packages = ["hello"]', APPLICATION)
    red = shop.red("rpm.toml", 'packages = ["hello"]')
    return {
        "deb": build(running, deb, "pk-deb:1"),
        "rpm": build(running, red, "pk-rpm:1"),
    }


def test_another_root_makes_the_same_images(built: dict[str, str], shop: Shop, api: Api) -> None:
    """Nothing is shared but the repositories: not caches, not the store, not the moment."""
    with engine() as other:
        assert _build_both(other, shop) == built
        for name in ("pk-deb:1", "pk-rpm:1"):
            theirs = other.api.json("GET", f"/images/{name}/json")
            ours = api.json("GET", f"/images/{name}/json")
            assert theirs["RootFS"] == ours["RootFS"]


def test_it_runs_as_declared(built: dict[str, str], place: Place) -> None:
    result = place.run("pk-deb:1")
    assert result.code == 0, result
    said = result.stdout.splitlines()
    assert said[0] == "hello from the image"
    assert said[1:] == ["1234", "answer = 42", "hello from a package"]


def test_an_rpm_image_runs(built: dict[str, str], container: Place) -> None:
    result = container.run("pk-rpm:1", "/bin/cat", "/usr/share/hello/text",
                           "/usr/share/hello/installed-by")  # fmt: skip
    assert result.stdout == "hello from a package\n0\n"


def test_owners_and_what_may_not_stay(built: dict[str, str], container: Place) -> None:
    script = """
        ls -ldn /srv/data /etc/app.conf /opt/app/run
        cat /usr/share/hello/installed-by
        ls /var/log /var/log/apt /var/cache/hello /usr/lib/python3 /usr/share/doc/hello
        ls -ln /etc/machine-id; cat /etc/shadow; cat /etc/group
    """
    said = container.run("pk-deb:1", script, Entrypoint=["/bin/sh", "-c"], User="0").stdout
    assert "drwxr-x---    2 1234     1234" in said
    assert "-rw-r-----    1 0        1 " in said
    assert "-rwxr-xr-x    1 0        0 " in said
    for trace in ("term.log", "dpkg.log", "index", "__pycache__", "README"):
        assert trace not in said
    assert "copyright" in said  # licences stay
    assert "\n0\n" in said  # the script ran as the place's root
    assert "-rw-r--r--    1 0        0                0 " in said  # no machine-id
    assert "hello:!:19675:0" in said  # the epoch's day, not today
    assert "daemon:x:1:app\n" in said


def test_the_configuration_says_what_was_declared(built: dict[str, str], api: Api) -> None:
    image = api.json("GET", "/images/pk-deb:1/json")
    config = image["Config"]
    assert config["Entrypoint"] == ["/opt/app/run"] and config["Cmd"] == ["from the image"]
    assert config["User"] == "app" and config["WorkingDir"] == "/srv/data"
    assert config["ExposedPorts"] == {"80/tcp": {}} and config["Labels"] == {"purpose": "test"}
    assert "GREETING=hello" in config["Env"]
    assert image["Architecture"] == "amd64"
    assert image["Created"].startswith("2023-11-14T22:13:20")
    assert len(image["RootFS"]["Layers"]) == 3


def test_a_second_image_shares_the_base_offline(
    built: dict[str, str], shop: Shop, session_engine: EngineProcess
) -> None:
    other = shop.debian("other.toml", 'packages = ["greeting"]\nslim = true')
    hidden = shop.root / "hidden"
    repository = Path(shop.deb.removeprefix("file:"))
    repository.rename(hidden)
    try:
        assert "cannot read the package lists" in refused(session_engine, other)
        done = proa(session_engine, "image", "from-packages", other, "-t", "pk-other:1",
                    "--offline")  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert "Base of 1 packages is there" in done.stderr
        never = shop.debian("never.toml", 'packages = ["bad"]\nslim = true')
        assert "was never downloaded" in refused(session_engine, never, "--offline")
    finally:
        hidden.rename(repository)
    layers = [
        session_engine.api.json("GET", f"/images/{name}/json")["RootFS"]["Layers"]
        for name in ("pk-deb:1", "pk-other:1")
    ]
    assert layers[0][0] == layers[1][0] and layers[0][1] != layers[1][1]


def test_distroless_runs_nothing(
    shop: Shop, session_engine: EngineProcess, container: Place
) -> None:
    head = 'packages = ["hello", "tiny-base"]\nexclude = ["greeting"]\ndistroless = true'
    build(session_engine, shop.debian("less.toml", head), "pk-less:1")
    said = container.run(
        "pk-less:1", "/bin/sh", "-c",
        "cd /usr/share/hello; echo *; cd /var/lib/dpkg; echo *; echo status.d/*; echo /bin/sh",
    ).stdout  # fmt: skip
    assert said.splitlines() == ["text", "status.d", "status.d/hello status.d/tiny-base", "/bin/sh"]
    rows = session_engine.api.json("GET", "/proa/images/pk-less:1/sbom", format="table")
    assert [row["Name"] for row in rows["Packages"]] == ["hello", "tiny-base"]


def test_a_stranger_may_not_sign(shop: Shop, session_engine: EngineProcess) -> None:
    deb = shop.debian("stranger.toml", 'packages = ["hello"]', key="wrong.asc")
    assert "is not signed" in refused(session_engine, deb)
    red = shop.red("stranger-rpm.toml", 'packages = ["hello"]', key="wrong.asc")
    assert "is not signed by a key of its repository" in refused(session_engine, red)


def test_a_changed_package_is_refused(shop: Shop) -> None:
    """Its name, size and signature are right, one byte of it is not."""
    package = Path(shop.deb.removeprefix("file:")) / "pool/hello_2.0-1_amd64.deb"
    right = package.read_bytes()
    wrong = right.replace(b"hello from a package", b"hello from a_package")
    assert wrong != right
    with engine() as fresh:
        package.write_bytes(wrong)
        try:
            head = 'packages = ["hello"]\ndistroless = true'
            said = refused(fresh, shop.debian("changed.toml", head))
        finally:
            package.write_bytes(right)
        assert "Hash Sum mismatch" in said or "SHA-256" in said


def test_a_failing_script_says_its_last_words(
    built: dict[str, str], shop: Shop, session_engine: EngineProcess
) -> None:
    said = refused(session_engine, shop.debian("bad.toml", 'packages = ["bad"]\nslim = true'))
    assert "it went wrong" in said and "exit code 1" in said
    images = session_engine.root / "images"
    assert not os.listdir(images / "tmp")


def test_a_hostile_script_stays_inside(
    built: dict[str, str], shop: Shop, session_engine: EngineProcess, container: Place
) -> None:
    """Links it left, where files are cleaned and made afterwards, lead nowhere on the host."""
    canary = shop.root / "canary"
    canary.mkdir()
    (canary / "file").write_text("alive:*:99999:0:99999:7:::\n")
    tail = '[[files]]\npath = "/srv/deep/file"\ncontent = "x"\n'
    evil = shop.debian("evil.toml", 'packages = ["evil"]\nslim = true', tail)
    assert "cannot make" in refused(session_engine, evil)  # /srv leads nowhere in the image
    assert os.listdir(canary) == ["file"]
    assert (canary / "file").read_text() == "alive:*:99999:0:99999:7:::\n"
    harmless = shop.debian("harmless.toml", 'packages = ["evil"]\nslim = true')
    build(session_engine, harmless, "pk-evil:1")
    assert os.listdir(canary) == ["file"]
    assert (canary / "file").read_text() == "alive:*:99999:0:99999:7:::\n"
    assert "alive" not in container.run("pk-evil:1", "/bin/cat", "/etc/shadow").stdout


def test_a_build_nobody_waits_for_ends(
    built: dict[str, str], shop: Shop, session_engine: EngineProcess
) -> None:
    slow = shop.debian("slow.toml", 'packages = ["slow"]\nslim = true')
    with subprocess.Popen(
        [PROA, "image", "from-packages", slow], env=session_engine.variables(),
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    ) as client:  # fmt: skip
        eventually(lambda: _commands("sleep 1000.25"), 30, "the script did not start")
        client.kill()
    eventually(lambda: not _commands("sleep 1000.25"), 10, "the script goes on")
    eventually(lambda: not os.listdir(session_engine.root / "images/tmp"), 10)


def _commands(wanted: str) -> list[str]:
    """Processes of this host with these words as their command line."""
    return [
        path.parent.name for path in Path("/proc").glob("[0-9]*/cmdline") if _words(path) == wanted
    ]


def _words(path: Path) -> str:
    try:
        return path.read_bytes().rstrip(b"\0").replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


@pytest.mark.parametrize("name", ["pk-deb:1", "pk-rpm:1"])
def test_bills_are_valid_and_attached(
    name: str, built: dict[str, str], session_engine: EngineProcess
) -> None:
    spdx = proa(session_engine, "image", "sbom", "--format", "spdx", name)
    assert spdx.stderr == ""  # attached when the image was made
    names = spdx_packages(spdx.stdout)
    assert names["hello"].startswith("2.0") and "tiny-base" in names
    cyclonedx = proa(session_engine, "image", "sbom", "--format", "cyclonedx", name)
    purls = cyclonedx_purls(cyclonedx.stdout)
    kind = name[3:6]
    assert any(purl.startswith(f"pkg:{kind}/") and "/hello@2.0" in purl for purl in purls)


def test_a_bill_is_made_on_demand_and_kept(session_engine: EngineProcess) -> None:
    probe = proa(session_engine, "image", "sbom", "busy:latest")
    assert probe.returncode == 0, probe.stderr
    assert "this one was made now" in probe.stderr
    kept = proa(session_engine, "image", "sbom", "--attach", "busy:latest")
    assert kept.stderr.count("attached: sha256:") == 2
    assert "made now" not in kept.stderr
    again = proa(session_engine, "image", "sbom", "--attach", "busy:latest")
    assert again.stderr == ""


def test_others_see_the_referrers(built: dict[str, str], api: Api, tmp_path: Path) -> None:
    need((PEERS / "oras").exists(), "oras", "oras is not here")
    layout = tmp_path / "layout"
    with tarfile.open(fileobj=io.BytesIO(api.call("GET", "/images/pk-deb:1/get"))) as archive:
        archive.extractall(layout, filter="data")
    index = json.loads((layout / "index.json").read_text())
    image = next(m for m in index["manifests"] if "artifactType" not in m)
    name = f"{layout}@{image['digest']}"
    found = json.loads(run(PEERS / "oras", "discover", "--oci-layout", "--format", "json", name))
    kinds = {item["artifactType"] for item in found.get("manifests") or found["referrers"]}
    assert kinds == {"application/spdx+json", "application/vnd.cyclonedx+json"}
