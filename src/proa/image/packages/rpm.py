"""rpm packages installed: by this host's rpm, in a place, never on this host.

dnf resolves and downloads as nobody; every package must be signed by a key of its repository.  The
place sees rpm with its libraries at `TOOLS` and runs it on its own root, so nothing of it ends in
the image, and scripts find /proc and /dev as in any instance.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import shutil
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from proa.errors import Corrupt, HostError, Invalid, Unsupported
from proa.host import files, process
from proa.image.layer import tree
from proa.image.packages import cache, resolve_rpm, sandbox
from proa.image.packages.sandbox import HERE
from proa.image.packages.spec import Spec
from proa.image.packages.work import (
    PACKAGES,
    TOOLS,
    Call,
    Made,
    Origin,
    Shown,
    Work,
    fresh,
    link_packages,
    now_seconds,
    run_in_place,
    seal,
)

_RPM = "/usr/bin/rpm"
_CONFIGURATION = Path("/usr/lib/rpm")
_SYSIMAGE = "/usr/lib/sysimage/rpm"
_DATABASES = {"fedora": _SYSIMAGE, "opensuse": _SYSIMAGE}  # others: /var/lib/rpm
_LOADER = "lib/loader"


@dataclass(frozen=True)
class Package:
    """One package; `built` is when, in seconds since 1970, `repository` its repository's number."""

    name: str
    file: Path
    built: int
    repository: int


def install(work: Work) -> list[Made]:
    """The layer of the declaration's packages."""
    spec = work.spec
    _check(spec)
    found = _resolve(work)
    work.say(f"Installing {len(found)} packages")
    began = now_seconds()
    epoch = max(package.built for package in found)
    directory = fresh(work, "packages")
    packages = link_packages(work, "new-packages", [package.file for package in found])
    shown = (Shown(PACKAGES, packages), Shown(TOOLS, _tools(work)))
    nothing = work.workspace / "nothing"
    nothing.mkdir(mode=0o755)
    environment = {
        "RPM_CONFIGDIR": f"{TOOLS}/rpm",
        "SOURCE_DATE_EPOCH": str(epoch if spec.epoch_seconds is None else spec.epoch_seconds),
    }
    run_in_place(work, Call(_command(spec, found), (nothing,), shown, environment), directory)
    origin = Origin(began, epoch, f"packages: {' '.join(spec.packages)}")
    return [seal(work, directory, origin)]


def _check(spec: Spec) -> None:
    if not spec.repositories:
        raise Invalid(
            f"no repository is known for '{spec.distribution}'", hint="name it: [[repositories]]"
        )
    for repository in spec.repositories:
        if not repository.key and not repository.trusted:
            raise Invalid(
                f"the repository '{repository.url}' has no 'key'",
                hint="give the file with the keys that sign its packages",
            )
    if _architecture(spec) != platform.machine() and not spec.distroless:
        raise Unsupported(
            f"scripts of packages for '{_architecture(spec)}' cannot run on this host",
            hint="set distroless = true to unpack them only",
        )
    if shutil.which(_RPM) is None:
        raise Unsupported("this host has no 'rpm'", hint="install 'rpm' and 'python3-dnf'")


def _architecture(spec: Spec) -> str:
    return spec.architecture or platform.machine()


# -- resolving ------------------------------------------------------------------------------------


def _resolve(work: Work) -> list[Package]:
    """Every package that is needed, downloaded and its signature checked."""
    spec = work.spec
    root = sandbox.own(work.cache / "rpm")
    identity = repr((spec.repositories, spec.release, _architecture(spec)))
    name = hashlib.sha256(identity.encode()).hexdigest()[:24]
    home = sandbox.own(root / name)
    with files.Lock(root / "lock"):
        cache.used(home)
        work.say("Resolving packages")
        found = _ask_dnf(work, root, name)
        _verify(work, home, name, found)
    return found


def _ask_dnf(work: Work, root: Path, name: str) -> list[Package]:
    spec = work.spec
    request = {
        "home": f"{HERE}/{name}", "urls": [_url(item.url) for item in spec.repositories],
        "packages": [package.replace("=", "-") for package in spec.packages],
        "exclude": [] if spec.distroless else list(spec.exclude),
        "recommends": spec.recommends, "release": spec.release,
        "architecture": _architecture(spec), "offline": work.request.offline,
    }  # fmt: skip
    program = Path(resolve_rpm.__file__).read_text()
    command = ["/usr/bin/python3", "-I", "-c", program, json.dumps(request)]
    try:
        answer = json.loads(sandbox.run(root, command, bounds=sandbox.NETWORK))
    except HostError as error:
        reason = error.message.partition("failed: ")[2]
        raise Invalid(f"cannot resolve the packages: {reason}") from error
    found = []
    for item in answer:
        if spec.distroless and item["name"] in spec.exclude:
            continue
        file = _taken(work, root / name, str(item["file"]))
        found.append(Package(item["name"], file, int(item["built"]), int(item["repository"])))
    if not found:
        raise Invalid("there is no package to install")
    return found


def _url(url: str) -> str:
    return re.sub(r"^file:/+", "file:///", url)


def _taken(work: Work, home: Path, path: str) -> Path:
    """A copy of a package that nobody else can change any more; what dnf says is not believed."""
    name = Path(path).name
    copy = work.workspace / name
    top = os.open(home, tree.DIRECTORY)
    try:
        fd = files.open_in_root(top, path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        hint = "build once without --offline" if work.request.offline else ""
        raise Invalid(f"the package '{name}' was never downloaded", hint=hint) from error
    finally:
        os.close(top)
    with open(fd, "rb") as source, copy.open("xb") as target:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise Corrupt(f"the package '{name}' is not a file")
        shutil.copyfileobj(source, target)
    copy.chmod(0o644)
    return copy


def _verify(work: Work, home: Path, name: str, found: Sequence[Package]) -> None:
    """Signature and digests of each package, by the key of its own repository alone."""
    for number, repository in enumerate(work.spec.repositories):
        packages = [package for package in found if package.repository == number]
        if repository.trusted or not packages:
            continue
        files.remove_tree(home / "check")
        check = sandbox.own(home / "check")
        files.atomic_write(check / "key", work.request.sources[repository.key], mode=0o644)
        keys = ["rpmkeys", "--dbpath", f"{HERE}/keys", "--define", "_pkgverify_level all"]
        sandbox.own(check / "keys")
        sandbox.run(check, [*keys, "--import", f"{HERE}/key"])
        for package in packages:
            os.link(package.file, check / package.file.name)
        try:
            names = [f"{HERE}/{package.file.name}" for package in packages]
            sandbox.run(check, [*keys, "--checksig", *names])
        except HostError as error:
            raise Corrupt(
                f"a package is not signed by a key of its repository: {error.message}"
            ) from error


# -- installing -----------------------------------------------------------------------------------


def _tools(work: Work) -> Path:
    """This host's rpm with what it needs to run anywhere: its loader, libraries, configuration."""
    tools = work.workspace / "tools"
    (tools / "lib").mkdir(mode=0o755, parents=True)
    shutil.copy(_RPM, tools / "lib/rpm")
    for line in process.run(["ldd", _RPM]).splitlines():
        words = line.split()
        path = words[2] if "=>" in words and len(words) > 2 else words[0]
        if path.startswith("/"):
            loader = "=>" not in words
            shutil.copy(path, tools / (_LOADER if loader else f"lib/{Path(words[0]).name}"))
    shutil.copytree(_CONFIGURATION, tools / "rpm", symlinks=True)
    return tools


def _command(spec: Spec, found: Sequence[Package]) -> tuple[str, ...]:
    options = ["--install", "--nosignature", "--noplugins"]
    options += [f"--dbpath={_DATABASES.get(spec.distribution, '/var/lib/rpm')}"]
    if spec.distroless:
        options += ["--noscripts", "--notriggers", "--nodeps", "--ignorearch"]
    if spec.slim:
        options += ["--excludedocs"]
    loader = (f"{TOOLS}/{_LOADER}", "--library-path", f"{TOOLS}/lib", f"{TOOLS}/lib/rpm")
    names = sorted(f"{PACKAGES}/{package.file.name}" for package in found)
    return (*loader, *options, *names)
