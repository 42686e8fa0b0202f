"""Detached mounts on the real kernel: ids, devices, and nothing left behind."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from proa.errors import HostError
from proa.host import mounts
from tests.conftest import need

BASE, COUNT = 0x4000_0000, 65536


@pytest.fixture(autouse=True)
def root() -> None:
    need(os.geteuid() == 0, "root", "mounts need root")


@pytest.fixture(params=["detached", "attached"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways to assemble an overlay: of this kernel, and of those before 6.15."""
    monkeypatch.setattr(mounts, "_layers_must_be_attached", request.param == "attached")


@pytest.fixture
def namespace() -> Iterator[int]:
    fd = mounts.user_namespace(BASE, COUNT)
    yield fd
    os.close(fd)


@pytest.fixture
def layers(tmp_path: Path) -> tuple[Path, ...]:
    """Two layers owned by root on disk; the upper one hides a file and brings a device node."""
    top, bottom = tmp_path / "top", tmp_path / "bottom"
    for layer in (top, bottom):
        layer.mkdir()
        (layer / "same").write_text(layer.name)
        (layer / layer.name).write_text("")
    os.chown(bottom / "bottom", 33, 44)
    os.mknod(top / "null", 0o20666, os.makedev(1, 3))
    os.mknod(top / "bottom", 0o20000, os.makedev(0, 0))  # a whiteout
    return top, bottom


@pytest.fixture
def writable(tmp_path: Path) -> Path:
    directory = tmp_path / "instance"
    for name in ("upper", "work"):
        (directory / name).mkdir(parents=True)
    return directory


# Joins the user namespace argv[2] as its root and attaches the mount argv[1] in a mount namespace.
_INSIDE = """
import os, sys
sys.path.insert(0, sys.argv[3])
from proa.host import kernel, mounts
kernel.checked(kernel.libc().setns(int(sys.argv[2]), 0x10000000))
kernel.unshare(mounts.CLONE_NEWNS)
os.setgid(0)
os.setuid(0)
mounts.attach(int(sys.argv[1]), "/mnt")
os.chdir("/mnt")
"""


def inside(fd: int, namespace: int, code: str) -> str:
    """What `code` prints as root of the user namespace, in the mount attached there."""
    source = str(Path(mounts.__file__).parents[2])
    command = [sys.executable, "-c", _INSIDE + code, str(fd), str(namespace), source]
    done = subprocess.run(command, pass_fds=[fd, namespace], stdout=subprocess.PIPE, check=True)
    return done.stdout.decode()


def mount_count() -> int:
    return len(Path("/proc/self/mountinfo").read_text().splitlines())


@pytest.mark.usefixtures("way")
def test_ids_are_the_images_inside_and_on_disk(
    layers: tuple[Path, ...], writable: Path, namespace: int
) -> None:
    before = mount_count()
    fd = mounts.layered(layers, writable, namespace)
    said = inside(
        fd,
        namespace,
        """
print(open("same").read(), os.path.exists("bottom"), os.stat("same").st_uid)
open("new", "w").write("made inside")
os.chown("new", 33, 44)
os.remove("top")
with open("same", "a") as file: file.write("+")
os.mkdir("directory"); os.rename("directory", "renamed")
print(sorted(os.listdir(".")))
""",
    )
    os.close(fd)
    assert said == "top False 0\n['new', 'null', 'renamed', 'same']\n"
    new = (writable / "upper" / "new").stat()
    assert (new.st_uid, new.st_gid) == (33, 44)
    copied = (writable / "upper" / "same").stat()
    assert (copied.st_uid, (writable / "upper" / "same").read_text()) == (0, "top+")
    assert (writable / "upper" / "renamed").stat().st_uid == 0
    assert (layers[0] / "same").read_text() == "top"
    assert mount_count() == before


@pytest.mark.usefixtures("way")
def test_device_nodes_of_an_image_do_not_open(
    layers: tuple[Path, ...], writable: Path, namespace: int
) -> None:
    fd = mounts.layered(layers, writable, namespace)
    try:
        with pytest.raises(PermissionError):
            os.open("null", os.O_RDONLY, dir_fd=fd)
    finally:
        os.close(fd)


@pytest.mark.usefixtures("way")
def test_without_an_upper_layer_it_is_read_only(layers: tuple[Path, ...], namespace: int) -> None:
    fd = mounts.layered(layers, None, namespace)
    try:
        with pytest.raises(OSError, match="Read-only"):
            os.mkdir("new", dir_fd=fd)
    finally:
        os.close(fd)


def test_one_layer_alone_is_read_only(layers: tuple[Path, ...], namespace: int) -> None:
    fd = mounts.layered(layers[1:], None, namespace)
    said = inside(fd, namespace, 'print(open("same").read(), os.stat("bottom").st_uid)')
    os.close(fd)
    assert said == "bottom 33\n"


@pytest.mark.usefixtures("way")
def test_a_hundred_layers_and_no_descriptor_left(tmp_path: Path, namespace: int) -> None:
    layers = [tmp_path / f"layer{number}" for number in range(100)]
    for layer in layers:
        layer.mkdir()
        (layer / layer.name).touch()
    before = len(os.listdir("/proc/self/fd"))
    fd = mounts.layered(layers, None, namespace)
    directory = os.open(".", os.O_RDONLY, dir_fd=fd)
    assert len(os.listdir(directory)) == 100
    os.close(directory)
    os.close(fd)
    assert len(os.listdir("/proc/self/fd")) <= before  # another test's may be collected meanwhile


def test_a_refused_overlay_says_why(tmp_path: Path, namespace: int, writable: Path) -> None:
    (writable / "work").rmdir()
    with pytest.raises((HostError, FileNotFoundError)):
        mounts.layered([tmp_path], writable, namespace)
    with pytest.raises(HostError, match=r"'tmpfs' at 'size=plenty': .*size"):
        mounts.fs("tmpfs", {"size": "plenty"})
    with pytest.raises(HostError, match="cannot mount file system 'nonesuchfs' at 'fsopen'"):
        mounts.fs("nonesuchfs")


def test_a_share_shows_its_ids_and_can_be_read_only(tmp_path: Path, namespace: int) -> None:
    (tmp_path / "file").write_text("x")
    os.chown(tmp_path / "file", 5, 6)
    fd = mounts.open_tree(tmp_path, recursive=True)
    mounts.set_attributes(fd, idmap_fd=namespace, readonly=True, nodev=True, recursive=True)
    said = inside(
        fd,
        namespace,
        """
found = os.stat("file"); print(found.st_uid, found.st_gid)
try: open("new", "w")
except OSError as error: print(error.strerror)
""",
    )
    os.close(fd)
    assert said == "5 6\nRead-only file system\n"


def test_errors_name_the_path(tmp_path: Path, namespace: int) -> None:
    with pytest.raises(HostError, match="cannot open the tree at '/nowhere'"):
        mounts.open_tree("/nowhere")
    fd = mounts.open_tree("/proc")
    try:
        with pytest.raises(HostError, match="cannot map the ids of '/'") as caught:
            mounts.set_attributes(fd, idmap_fd=namespace)
        assert "idmapped" in caught.value.hint
    finally:
        os.close(fd)
    with pytest.raises(HostError, match="cannot attach a mount at '/nowhere'"):
        mounts.attach(mounts.fs("tmpfs"), "/nowhere")


def test_new_file_system_with_options() -> None:
    fd = mounts.fs("tmpfs", {"size": "1m", "mode": "0711"}, attributes=mounts.ATTR_NOEXEC)
    try:
        assert os.fstat(fd).st_mode & 0o777 == 0o711
        assert os.fstatvfs(fd).f_blocks * os.fstatvfs(fd).f_frsize == 1 << 20
        assert os.fstatvfs(fd).f_flag & os.ST_NOEXEC
    finally:
        os.close(fd)
