"""Declarations: what they say, and how their mistakes are told; files of users; what is cleaned."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import pytest

from proa.errors import Corrupt, Invalid
from proa.image.packages import archive, cache, normalise
from proa.image.packages.apt import _ordered
from proa.image.packages.reader import parse
from proa.image.packages.spec import Spec
from proa.image.packages.users import Accounts

HEAD = 'distribution = "debian"\nrelease = "bookworm"\npackages = ["nginx"]\n'


def spec(text: str = "", head: str = HEAD) -> Spec:
    """A declaration that is right."""
    return parse((head + text).encode(), "web.toml")


def fault(text: str = "", head: str = HEAD) -> str:
    """Message and hint of one that is wrong."""
    with pytest.raises(Invalid) as caught:
        spec(text, head)
    assert caught.value.message.startswith("web.toml: ")
    return f"{caught.value.message} ({caught.value.hint})"


def test_the_least_declaration() -> None:
    found = spec()
    assert found.format == "deb" and found.packages == ("nginx",)
    assert not (found.recommends or found.distroless or found.slim)
    assert found.epoch_seconds is None and found.repositories == ()


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("date = 2024-05-01", 1714521600),
        ("date = 2024-05-01T02:00:00+02:00", 1714521600),
        ("date = 2024-05-01T00:00:00", 1714521600),
        ("date = 7", 7),
    ],
)
def test_dates(text: str, seconds: int) -> None:
    assert spec(text).epoch_seconds == seconds


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("slimm = true", "'slimm' is not known (did you mean 'slim'?)"),
        ("[run]\nenviroment = {}", "'run.enviroment' is not known (did you mean 'environment'?"),
        ("slim = 1", "'slim' must be true or false, not '1'"),
        ("date = true", "'date' is not a date: 'True'"),
        ("date = -1", "'date' is not a date: '-1'"),
        ('exclude = ["-oDir=/"]', "'-oDir=/' is not a package"),
        ('exclude = ["a b"]', "'a b' is not a package"),
        ('locales = ["../x"]', "'../x' is not a locale"),
        ('[[repositories]]\nurl = "ssh://x"', "'repositories[1].url' must begin with http://"),
        ('[[repositories]]\nurl = "http://x] y"', "'repositories[1].url' must begin"),
        ('[[repositories]]\nurl = "http://x"', "'repositories[1].suite' is missing"),
        ('[[repositories]]\nurl="http://x"\nsuite="s"\nkey="../k"', "must be a file beside this"),
        ('[[files]]\npath = "x"\ncontent = ""', "'files[1].path' must be an absolute path"),
        ('[[files]]\npath = "/x/../y"\ncontent = ""', "'files[1].path' must be an absolute path"),
        ('[[files]]\npath = "/"\ncontent = ""', "'files[1].path' must be an absolute path"),
        ('[[files]]\npath = "/x"', "'files[1].content' or 'source' must be given"),
        ('[[files]]\npath="/x"\ncontent=""\nsource="y"', "or 'source' must be given, one of them"),
        ('[[files]]\npath="/x"\nsource="/etc/shadow"', "must be a file beside this one"),
        ('[[files]]\npath="/x"\ncontent=""\nmode="999"', "is not a file's mode: '999'"),
        ('[[files]]\npath="/x"\ncontent=""\nmode=true', "is not a file's mode: 'True'"),
        ('[[files]]\npath="/x"\ncontent=""\nowner="a:b:c"', "'files[1].owner' is malformed"),
        ('[[users]]\nname = "a"', "'users[1].uid' is missing (give a number"),
        ('[[users]]\nname = "a\\nroot"\nuid = 1', "must be one line of printable text"),
        ('[[users]]\nname = "a"\nuid = 4294967295', "must be from 0 to 4294967294"),
        ('[[users]]\nname = "a"\nuid = 1\nhome = "/x:0"', "may not contain a colon"),
        ('[[groups]]\nname = "a"\nid = 1', "'groups[1].gid' is missing (there is"),
        ('[run]\nports = ["x"]', "'x' is not a port"),
        ('[run]\nenvironment = { "A=B" = "c" }', "has a malformed name: 'A=B'"),
        ("[run]\nenvironment = { A = 1 }", "'run.environment.A' must be a text"),
        ('[run]\nvolumes = ["x"]', "must hold absolute paths"),
        ("files = 3", "'files' must be a list, not '3'"),
        ("files = [3]", "'files[1]' must be a table, not '3'"),
        ("x = [", "not TOML"),
    ],
)
def test_mistakes_name_file_and_key(text: str, said: str) -> None:
    assert said in fault(text)


def test_what_must_be_there() -> None:
    assert "'packages' is missing (there is 'pakages')" in fault(
        head='distribution = "debian"\nrelease = "x"\npakages = ["a"]\n'
    )
    assert "'distribution' is not known: 'plan9'" in fault(
        head='distribution = "plan9"\nrelease = "x"\npackages = ["a"]\n'
    )
    assert "'distribution' is missing" in fault(head="")
    deep = "[" * 100_000
    assert "not TOML" in fault(f"x = {deep}")


def test_another_distribution_says_its_format() -> None:
    found = spec(head='distribution="plan9"\nformat="rpm"\nrelease="4"\npackages=["a-1.0"]\n')
    assert found.format == "rpm"


def test_accounts_are_added_once() -> None:
    texts = {"passwd": "root:x:0:0::/:/bin/sh\nweb:x:9:9::/:/x", "group": "root:x:0:\nweb:x:9:\n"}
    accounts = Accounts(texts, days=100)
    wanted = '[[users]]\nname="web"\nuid=9\ngroups=["root"]\n[[users]]\nname="app"\nuid=10\n'
    accounts.add(spec(wanted))
    assert accounts.texts["passwd"].splitlines()[2] == "app:x:10:10::/nonexistent:/usr/sbin/nologin"
    assert accounts.texts["group"] == "root:x:0:web\nweb:x:9:\napp:x:10:\n"
    assert accounts.texts["shadow"].endswith("app:!:100::::::\n")
    assert accounts.owner("app") == (10, 10)
    assert accounts.owner("7") == (7, 7)
    assert accounts.owner("app:0") == (10, 0)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[[users]]\nname="root"\nuid=5\n', "the user 'root' has the number '0'"),
        ('[[groups]]\nname="root"\ngid=5\n', "the group 'root' has the number '0'"),
        ('[[users]]\nname="a"\nuid=5\ngroup="none"\n', "the image has no group 'none'"),
        ('[[users]]\nname="a"\nuid=5\ngroups=["none"]\n', "the image has no group 'none'"),
    ],
)
def test_accounts_that_contradict_the_packages(text: str, said: str) -> None:
    with pytest.raises(Invalid, match=said):
        Accounts({}, days=0).add(spec(text))


def test_cleaning(tmp_path: Path) -> None:
    gone = (
        "var/log/dpkg.log", "var/log/apt/history.log", "var/cache/x/y", "run/lock/a", "tmp/.hidden",
        "var/lib/dpkg/status-old", "etc/passwd-", "usr/lib/a/__pycache__/b.pyc", "usr/lib/c.pyo",
        "usr/share/man/man1/a.1", "usr/share/doc/a/README", "usr/share/locale/fr/x.mo",
        "etc/ssh/ssh_host_rsa_key", "dev/null",
    )  # fmt: skip
    kept = (
        "var/lib/dpkg/status", "etc/passwd", "usr/share/doc/a/copyright",
        "usr/share/locale/de/x.mo",
        "usr/share/locale/de_AT/x.mo", "usr/lib/x.py", "var/cache/debconf/config.dat", "srv/tmp/x",
    )  # fmt: skip
    for name in gone + kept + ("var/log/wtmp", "etc/machine-id"):
        path = tmp_path / "root" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("content")
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "x").write_text("alive")
    (tmp_path / "root/var/cache/link").symlink_to(outside)
    (tmp_path / "root/var/log/link").symlink_to(outside / "x")
    normalise.clean(tmp_path / "root", spec('slim = true\nlocales = ["de"]'))
    left = {
        os.path.relpath(os.path.join(folder, name), tmp_path / "root")
        for folder, _, names in os.walk(tmp_path / "root")
        for name in names
    }
    assert left == {*kept, "var/log/wtmp", "var/log/link", "etc/machine-id"}
    assert (tmp_path / "root/var/log/wtmp").read_text() == ""
    assert (tmp_path / "root/etc/machine-id").read_text() == ""
    assert (outside / "x").read_text() == "alive"
    assert not (tmp_path / "root/usr/share/man/man1").exists()
    assert (tmp_path / "root/var/cache/x").is_dir()


def test_the_newest_file_of_a_package(tmp_path: Path) -> None:
    for name, seconds in (("a", 100), ("b", 300), ("c", 5000)):
        (tmp_path / name).write_text("")
        os.utime(tmp_path / name, (seconds, seconds))
    assert normalise.newest(tmp_path, 1000) == 300


def test_what_nobody_used_for_long_goes(tmp_path: Path) -> None:
    for name in ("bases/a", "bases/b", "deb/archives/a.deb", "deb/archives/b.deb", "deb/x/lists",
                 "rpm/y/cache", "deb/lock"):  # fmt: skip
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    for path in [*tmp_path.rglob("*")]:
        os.utime(path, (1000, 1000))
    for name in ("bases/b", "deb/archives/b.deb", "rpm/y"):
        cache.used(tmp_path / name)
    assert cache.expire(tmp_path) == 3
    left = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert left == {"bases/b", "deb/archives/b.deb", "rpm/y/cache", "deb/lock"}
    assert cache.expire(tmp_path / "none") == 0


def test_order_of_apt() -> None:
    order, steps = _ordered(
        "Reading package lists...\nInst libc6 (2.36-9 Debian:12/stable [amd64]) []\n"
        "Inst a:i386 [1.0] (2.0 x)\nConf libc6 (2.36-9 Debian)\nInst b (3 x)\nConf b (3 x)\n"
    )
    assert order == [("libc6", "2.36-9"), ("a:i386", "2.0"), ("b", "3")]
    assert steps == (
        ("unpack", ("libc6", "a:i386")), ("configure", ("libc6",)), ("unpack", ("b",)),
        ("configure", ("b",)),
    )  # fmt: skip
    for line in (
        "Inst ../../x (1 y)",
        "Inst a;reboot (1 y)",
        "Inst ab (1/../2 y)",
        "Conf -x (1 y)",
    ):
        with pytest.raises(Corrupt, match="malformed name"):
            _ordered(f"{line}\n")
    with pytest.raises(Invalid, match="'dpkg' would be removed"):
        _ordered("Remv dpkg [1.0]\n")


def deb(*members: tuple[bytes, bytes]) -> bytes:
    """An ar archive."""
    data = b"!<arch>\n"
    for name, content in members:
        head = b"%-16s%-12d%-6d%-6d%-8o%-10d`\n" % (name, 0, 0, 0, 0o644, len(content))
        data += head + content + b"\n" * (len(content) % 2)
    return data


def packed(name: str, content: bytes) -> bytes:
    """A tar of one file."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:xz") as file:
        member = tarfile.TarInfo(name)
        member.size = len(content)
        file.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def test_a_package_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.deb"
    path.write_bytes(deb(
        (b"debian-binary", b"2.0"), (b"control.tar.xz", packed("./control", b"Package: a\n")),
        (b"data.tar.xz/", packed("./etc/a", b"text")),
    ))  # fmt: skip
    assert archive.control(path) == "Package: a\n"
    with archive.data(path) as data:
        assert data.read(6) == b"./etc/"


@pytest.mark.parametrize(
    "data",
    [
        b"", b"!<arch>\n", b"not an archive", b"!<arch>\nshort",
        deb((b"debian-binary", b"2.0")),
        deb((b"control.tar", b"x" * 512)),
        deb((b"control.tar.xz", packed("other", b""))),
        deb((b"control.tar.xz", packed("control", b"x" * (2 << 20)))),
        deb((b"control.tar.xz", packed("control", b"x" * 5000)))[:-600],
        deb((b"x", b"")).replace(b"0         `", b"-5        `"),
    ],
)  # fmt: skip
def test_a_broken_package(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "a.deb"
    path.write_bytes(data)
    with pytest.raises(Corrupt):
        archive.control(path)
