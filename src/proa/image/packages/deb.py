"""Debian packages installed: by dpkg itself, in a place, never on this host.

The base (what is Essential, and what that needs) is a layer of its own, which every image of the
same packages shares, and the next build takes from the store.  Its files are unpacked here, as no
shell is there before them; over that dpkg installs the same packages in the place, with their
scripts.  What was asked for is installed in a second place over the base, in apt's order.
A distroless image is unpacked only, and its packages are noted in `status.d`.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
from collections.abc import Sequence
from pathlib import Path

from proa.errors import Corrupt
from proa.host import files
from proa.image.layer import tar, tree, unpack
from proa.image.layer.tar import Entry
from proa.image.packages import apt, archive, cache
from proa.image.packages.apt import Apt, Package, Plan
from proa.image.packages.work import (
    PACKAGES,
    Made,
    Origin,
    Work,
    fresh,
    link_packages,
    now_seconds,
    run_script,
    seal,
)

_FORMAT = 1  # of a base: another number, another layer
_MERGED = ("bin", "sbin", "lib")
_MERGED_64 = {"amd64": ("lib64",), "ppc64el": ("lib64",), "s390x": (), "arm64": ()}
_DPKG = "/usr/bin/dpkg"  # a shell may have a dpkg of its own (busybox)
_POLICY = "#!/bin/sh\nexit 101\n"  # no service is started
_MAXIMUM_STATUS_BYTES = 64 << 20
_UNMERGED = re.compile(rb"(?:\./)?(bin|sbin|lib|lib64|lib32|libx32|libo32)/")


def install(work: Work) -> list[Made]:
    """The layers of the declaration's packages, lowest first."""
    resolver = Apt(work.cache / "deb", work.spec, work.request.sources)
    if not work.request.offline:
        work.say("Reading package lists")
        resolver.refresh()
    if work.spec.distroless:
        return [_distroless(work, resolver)]
    base = _base(work, resolver)
    return [base, *_application(work, resolver, base)]


# -- the base -------------------------------------------------------------------------------------


def _base(work: Work, resolver: Apt) -> Made:
    plan = resolver.plan(apt.BASE, barred=work.spec.exclude)
    note = work.cache / "bases" / f"{_key(work, plan)}.json"
    made_by = f"{work.spec.distribution} {work.spec.release}: {len(plan.packages)} base packages"
    known = _noted(work, note, made_by)
    if known is not None:
        work.say(f"Base of {len(plan.packages)} packages is there", known.layer.diff_id[7:19])
        return known
    resolver.plan([*apt.BASE, *work.spec.packages], barred=work.spec.exclude)  # is there a way?
    work.say(f"Installing the base: {len(plan.packages)} packages")
    resolver.fetch(plan, work.request.offline)
    began = now_seconds()
    unpacked = work.workspace / "unpacked"
    unpacked.mkdir(mode=0o755)
    _prepare(unpacked, plan, resolver.architecture)
    for package in plan.packages:
        _unpack(work, package, unpacked)
    packages = link_packages(work, "base-packages", [item.file for item in plan.packages])
    names = " ".join(f"./{item.file.name}" for item in plan.packages)
    script = f"cd {PACKAGES}\n{_DPKG} --force-depends --install {names}\n{_DPKG} --configure -a\n"
    directory = fresh(work, "base")
    run_script(work, script, directory, [unpacked], packages)
    made = seal(work, directory, Origin(began, 0, made_by), unpacked)
    note.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    files.atomic_write(
        note, json.dumps({"diff_id": made.layer.diff_id, "epoch": made.epoch_seconds}).encode()
    )
    return made


def _key(work: Work, plan: Plan) -> str:
    spec = work.spec
    said = [_FORMAT, spec.slim, spec.locales, spec.epoch_seconds]
    said += [(item.name, item.version, item.architecture, item.sha256) for item in plan.packages]
    return hashlib.sha256(json.dumps(said).encode()).hexdigest()


def _noted(work: Work, note: Path, made_by: str) -> Made | None:
    """The base an earlier build made, when the store still has it."""
    try:
        found = json.loads(note.read_bytes())
        layer = work.assembly.layer(str(found["diff_id"]))
        cache.used(note)
        return Made(layer, int(found["epoch"]), made_by) if layer is not None else None
    except (OSError, ValueError, KeyError, Corrupt):
        return None


def _prepare(upper: Path, plan: Plan, architecture: str) -> None:
    """What must be there before the first package: nobody else has written here yet."""
    if any(package.name == "usr-is-merged" for package in plan.packages):
        for name in _MERGED + _MERGED_64.get(architecture, ()):
            (upper / "usr" / name).mkdir(mode=0o755, parents=True)
            (upper / name).symlink_to(f"usr/{name}")
    for name in ("usr/sbin", "var/lib/dpkg/info", "var/lib/dpkg/updates", "var/lib/dpkg/triggers"):
        (upper / name).mkdir(mode=0o755, parents=True, exist_ok=True)
    (upper / "var/lib/dpkg/status").touch()
    _deny_services(upper)


def _deny_services(upper: Path) -> None:
    policy = upper / "usr/sbin/policy-rc.d"
    policy.write_text(_POLICY)
    policy.chmod(0o755)


def _unpack(work: Work, package: Package, root: Path) -> None:
    """Unpack a package's files safely, through the links of a merged /usr."""
    links = {os.fsencode(name) for name in os.listdir(root) if (root / name).is_symlink()}

    def accept(entry: Entry) -> bool:
        if entry.kind == tar.DIRECTORY and _plain(entry.name) in links:
            return False
        entry.name = _merged(entry.name, links)
        if entry.kind == tar.HARDLINK:
            entry.link = _merged(entry.link, links)
        return True

    trash = work.workspace / f"trash-{package.file.name}"
    trash.mkdir(mode=0o700)
    with archive.data(package.file) as data:
        unpack.unpack(data, root, trash, accept)


def _plain(name: bytes) -> bytes:
    return name.removeprefix(b"./").strip(b"/")


def _merged(name: bytes, links: set[bytes]) -> bytes:
    match = _UNMERGED.match(name)
    return b"usr/" + name[match.start(1) :] if match and match[1] in links else name


# -- what was asked for ---------------------------------------------------------------------------


def _application(work: Work, resolver: Apt, base: Made) -> list[Made]:
    status = _read(base.layer.root, b"var/lib/dpkg/status")
    plan = resolver.plan(work.spec.packages, status, work.spec.exclude)
    if not plan.packages:
        return []
    work.say(f"Downloading {len(plan.packages)} packages")
    resolver.fetch(plan, work.request.offline)
    work.say(f"Installing {len(plan.packages)} packages")
    began = now_seconds()
    directory = fresh(work, "packages")
    packages = link_packages(work, "new-packages", [item.file for item in plan.packages])
    run_script(work, _script(plan), directory, [base.layer.root], packages)
    made_by = f"packages: {' '.join(work.spec.packages)}"
    return [seal(work, directory, Origin(began, base.epoch_seconds, made_by))]


def _script(plan: Plan) -> str:
    """dpkg's calls, in the order apt found."""
    by_name = {item.name: item.file.name for item in plan.packages}
    by_name |= {f"{item.name}:{item.architecture}": item.file.name for item in plan.packages}
    lines = [
        f"cd {PACKAGES}",
        f"printf '%s' '{_POLICY}' > /usr/sbin/policy-rc.d",
        "chmod 755 /usr/sbin/policy-rc.d",
    ]
    for verb, names in plan.steps:
        words = [f"./{by_name[name]}" if verb == "unpack" else name for name in names]
        lines.append(f"{_DPKG} --{verb} {' '.join(words)}")
    return "\n".join([*lines, f"{_DPKG} --configure -a"])


def _read(root: Path, path: bytes) -> str:
    """dpkg's database, as packages' scripts left it."""
    directory, _, name = path.rpartition(b"/")
    top = os.open(root, tree.DIRECTORY)
    try:
        parent = tree.open_directory(top, directory)
    finally:
        os.close(top)
    try:
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=parent)
    finally:
        os.close(parent)
    with open(fd, "rb") as file:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode) or status.st_size > _MAXIMUM_STATUS_BYTES:
            raise Corrupt(f"'/{path.decode()}' of the base is not a file of reasonable size")
        return file.read().decode(errors="replace")


# -- distroless -----------------------------------------------------------------------------------


def _distroless(work: Work, resolver: Apt) -> Made:
    plan = resolver.plan(work.spec.packages, resolver.absent(work.spec.exclude))
    work.say(f"Downloading {len(plan.packages)} packages")
    resolver.fetch(plan, work.request.offline)
    work.say(f"Unpacking {len(plan.packages)} packages")
    began = now_seconds()
    directory = fresh(work, "packages")
    upper = directory / "upper"
    _link_usr(upper, resolver.architecture)
    for package in plan.packages:
        _unpack(work, package, upper)
    _note_packages(upper, plan.packages)
    made_by = f"packages, unpacked: {' '.join(work.spec.packages)}"
    return seal(work, directory, Origin(began, 0, made_by))


def _link_usr(upper: Path, architecture: str) -> None:
    """/bin and its like as links into /usr: every release we know has merged them."""
    for name in _MERGED + _MERGED_64.get(architecture, ()):
        (upper / "usr" / name).mkdir(mode=0o755, parents=True)
        (upper / name).symlink_to(f"usr/{name}")


def _note_packages(upper: Path, packages: Sequence[Package]) -> None:
    """What is in the image, where scanners look for it: one control file each."""
    top = os.open(upper, tree.DIRECTORY)
    directories = tree.Directories(top)
    try:
        parent = directories.made(b"var/lib/dpkg/status.d")
        for package in packages:
            first, _, rest = archive.control(package.file).partition("\n")
            text = f"{first}\nStatus: install ok installed\n{rest}"
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
            fd = os.open(package.name, flags, 0o644, dir_fd=parent)
            with open(fd, "wb") as file:
                file.write(text.encode())
    finally:
        directories.close()
        os.close(top)
