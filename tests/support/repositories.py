"""Package repositories made on the spot: a few packages of our own, signed by a key of our own.

`tiny-base` is a base that dpkg can work in: this host's dpkg and tar with their libraries, and
busybox for the rest.  What is made has fixed times, so that it is the same in every run.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import textwrap
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.images import BUSYBOX

EPOCH = 1_700_000_000
PASSWD = "root:x:0:0:root:/root:/bin/sh\ndaemon:x:1:1::/:/bin/false\n"
_PROGRAMS = ("dpkg", "dpkg-deb", "dpkg-query", "dpkg-split", "dpkg-trigger", "tar", "ldconfig")
_APPLETS = (
    "sh",
    "rm",
    "cat",
    "chmod",
    "diff",
    "start-stop-daemon",
    "date",
    "mkdir",
    "id",
    "ls",
    "ln",
    "sleep",
)


def run(*command: str | Path, **variables: str) -> str:
    """The output of a program that must succeed."""
    done = subprocess.run(
        [str(word) for word in command], env=os.environ | variables, capture_output=True, text=True
    )
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


@dataclass
class Key:
    """A key pair in a directory of its own."""

    home: Path
    name: str = "tests <tests@example.invalid>"

    def __post_init__(self) -> None:
        self.home.mkdir(mode=0o700)
        self.gpg("--passphrase", "", "--quick-gen-key", self.name, "rsa2048", "sign", "never")

    def gpg(self, *arguments: str | Path) -> str:
        """Run gpg with this key."""
        return run("gpg", "--homedir", self.home, "--batch", "--yes", "--pinentry-mode",
                   "loopback", *arguments)  # fmt: skip

    def public(self) -> bytes:
        """The public half, armoured."""
        return self.gpg("--armor", "--export").encode()

    def close(self) -> None:
        """End gpg's agent."""
        run("gpgconf", "--homedir", self.home, "--kill", "all")


@dataclass
class Deb:
    """A package under construction."""

    name: str
    version: str = "1.0"
    fields: dict[str, str] = field(default_factory=dict)
    files: dict[str, tuple[bytes, int]] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)
    scripts: dict[str, str] = field(default_factory=dict)

    def control(self) -> str:
        """The text of its control file."""
        fields = {
            "Package": self.name, "Version": self.version, "Architecture": "amd64",
            "Maintainer": "Tests <tests@example.invalid>", **self.fields,
            "Description": "made by a test",
        }  # fmt: skip
        return "".join(f"{key}: {value}\n" for key, value in fields.items())

    def build(self, root: Path, target: Path) -> Path:
        """Make the package below `target`."""
        tree = root / self.name
        (tree / "DEBIAN").mkdir(parents=True)
        (tree / "DEBIAN/control").write_text(self.control())
        for name, text in self.scripts.items():
            (tree / "DEBIAN" / name).write_text(f"#!/bin/sh\nset -e\n{textwrap.dedent(text)}")
            (tree / "DEBIAN" / name).chmod(0o755)
        for name, (data, mode) in self.files.items():
            file = tree / name.lstrip("/")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(data)
            file.chmod(mode)
        for name, link in self.links.items():
            (tree / name.lstrip("/")).parent.mkdir(parents=True, exist_ok=True)
            (tree / name.lstrip("/")).symlink_to(link)
        for path in [tree, *tree.rglob("*")]:
            os.utime(path, (EPOCH, EPOCH), follow_symlinks=False)
        made = target / f"{self.name}_{self.version}_amd64.deb"
        run("dpkg-deb", "-Znone", "--root-owner-group", "-b", tree, made,
            SOURCE_DATE_EPOCH=str(EPOCH))  # fmt: skip
        return made


def base() -> Deb:
    """An essential package with all that dpkg needs."""
    made = Deb("tiny-base", fields={"Essential": "yes"})
    for name in _PROGRAMS:
        path = shutil.which(name)
        assert path is not None
        made.files[f"/usr/bin/{name}"] = (Path(path).read_bytes(), 0o755)
        for line in run("ldd", path).splitlines() if name != "ldconfig" else ():
            for word in line.split():
                if word.startswith("/"):
                    made.files[word] = (Path(word).read_bytes(), 0o755)
    made.files["/bin/busybox"] = (BUSYBOX.read_bytes(), 0o755)
    made.links = {f"/bin/{name}": "busybox" for name in _APPLETS}
    made.files["/etc/passwd"] = (PASSWD.encode(), 0o644)
    made.files["/etc/group"] = (b"root:x:0:\ndaemon:x:1:\n", 0o644)
    made.files["/usr/lib/os-release"] = (b'ID=tiny\nVERSION_ID="1"\n', 0o644)
    return made


def hello() -> Deb:
    """A package whose script leaves traces that differ each time, and some that may not."""
    return Deb(
        "hello", "2.0-1", {"Depends": "greeting"},
        {"/usr/share/hello/text": (b"hello from a package\n", 0o644),
         "/usr/share/doc/hello/README": (b"long\n", 0o644),
         "/usr/share/doc/hello/copyright": (b"free\n", 0o644),
         "/usr/lib/python3/__pycache__/x.cpython-311.pyc": (b"compiled\n", 0o644)},
        scripts={"postinst": """
            id -u > /usr/share/hello/installed-by
            mkdir -p /var/log/apt /var/cache/hello
            date > /var/log/apt/term.log
            cat /proc/sys/kernel/random/uuid > /etc/machine-id
            cat /proc/sys/kernel/random/uuid > /var/cache/hello/index
            echo "hello:!:$(($(date +%s) / 86400)):0:99999:7:::" > /etc/shadow
        """},
    )  # fmt: skip


def apt_repository(root: Path, key: Key | None, *debs: Deb) -> str:
    """A repository `tiny main` below `root`; gives its URL."""
    pool, lists = root / "pool", root / "dists/tiny/main/binary-amd64"
    pool.mkdir(parents=True)
    lists.mkdir(parents=True)
    index = []
    for deb in debs:
        data = deb.build(root / "trees", pool).read_bytes()
        name = f"pool/{deb.name}_{deb.version}_amd64.deb"
        index.append(
            f"{deb.control()}Filename: {name}\nSize: {len(data)}\n"
            f"SHA256: {hashlib.sha256(data).hexdigest()}\n"
        )
    packages = "\n".join(index).encode()
    (lists / "Packages").write_bytes(packages)
    release = root / "dists/tiny/Release"
    release.write_text(
        "Origin: tests\nSuite: tiny\nCodename: tiny\nArchitectures: amd64\nComponents: main\n"
        "Date: Tue, 14 Nov 2023 22:13:20 UTC\nSHA256:\n"
        f" {hashlib.sha256(packages).hexdigest()} {len(packages)} main/binary-amd64/Packages\n"
    )
    if key is not None:
        key.gpg("--clearsign", "-o", release.parent / "InRelease", release)
    return f"file:{root}"


_SPEC = """\
Name: {name}
Version: 2.0
Release: 3
Summary: made by a test
License: MIT
BuildArch: x86_64
AutoReqProv: no
{fields}
%description
Made by a test.
%install
{install}
{scripts}
%files
{files}
"""


def rpm_repository(root: Path, key: Key | None) -> str:
    """A repository of the packages `tiny-base` and `hello`; gives its URL."""
    top, repository = root / "rpmbuild", root / "repository"
    repository.mkdir(parents=True)
    shell = _SPEC.format(
        name="tiny-base", fields="Provides: /bin/sh", scripts="", files="/bin/*",
        install=f"mkdir -p %{{buildroot}}/bin; cp {BUSYBOX} %{{buildroot}}/bin/busybox; "
        + " ".join(f"ln -s busybox %{{buildroot}}/bin/{name};" for name in _APPLETS),
    )  # fmt: skip
    greets = _SPEC.format(
        name="hello", fields="Requires: tiny-base\nRequires(post): /bin/sh",
        install="mkdir -p %{buildroot}/usr/share/hello\n"
        "echo hello from a package > %{buildroot}/usr/share/hello/text",
        files="/usr/share/hello",
        scripts="%post\nid -u > /usr/share/hello/installed-by\ndate > /var/log/dnf.log || :\n",
    )  # fmt: skip
    for number, text in enumerate((shell, greets)):
        spec = root / f"{number}.spec"
        spec.write_text(text)
        defines = {
            "_topdir": top, "_rpmdir": repository, "_buildhost": "tests", "_build_id_links": "none",
            "use_source_date_epoch_as_buildtime": "1", "clamp_mtime_to_source_date_epoch": "1",
            "_binary_payload": "w1.gzdio", "debug_package": "%{nil}", "__os_install_post": "%{nil}",
        }  # fmt: skip
        options = [w for name, value in defines.items() for w in ("--define", f"{name} {value}")]
        run("rpmbuild", "-bb", "--quiet", *options, spec, SOURCE_DATE_EPOCH=str(EPOCH))
    if key is not None:
        run("rpmsign", "--define", f"_gpg_name {key.name}", "--define", f"_gpg_path {key.home}",
            "--define", f"__gpg {shutil.which('gpg')}",
            "--addsign", *repository.rglob("*.rpm"))  # fmt: skip
    run("createrepo_c", "-q", repository)
    return f"file:{repository}"
