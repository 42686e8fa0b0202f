"""Where `cp` puts things, and that an archive from an instance cannot put them elsewhere."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from proa.cli.copy import Place, destination, split
from proa.cli.pack import pack
from proa.cli.unpack import unpack
from proa.errors import Corrupt, Invalid, ProaError


def directory(path: str) -> Place:
    return Place(path, exists=True, is_directory=True)


def file(path: str) -> Place:
    return Place(path, exists=True, is_directory=False)


def nothing(path: str) -> Place:
    return Place(path, exists=False, is_directory=False)


@pytest.mark.parametrize(
    ("source", "to", "result"),
    [
        (file("/a/f"), nothing("/b/g"), ("/b", "g")),
        (file("/a/f"), file("/b/g"), ("/b", "g")),
        (file("/a/f"), directory("/b"), ("/b", "f")),
        (file("f"), nothing("g"), (".", "g")),
        (directory("/a/d"), nothing("/b/e"), ("/b", "e")),
        (directory("/a/d"), nothing("/b/e/"), ("/b", "e")),
        (directory("/a/d"), directory("/b"), ("/b", "d")),
        (directory("/a/d/"), directory("/b"), ("/b", "d")),
        (directory("/a/d/."), directory("/b"), ("/b", "")),
        (directory("/a/d/."), nothing("/b/e"), ("/b", "e")),
        (directory("."), directory("/b/"), ("/b/", "")),
        (directory("/"), directory("/b"), ("/b", "")),
    ],
)
def test_where_things_land(source: Place, to: Place, result: tuple[str, str]) -> None:
    assert destination(source, to) == result


def test_what_docker_refuses() -> None:
    with pytest.raises(Invalid):
        destination(directory("/a"), file("/b"))
    with pytest.raises(Invalid):
        destination(file("/a"), nothing("/b/"))


def test_which_end_is_the_instance() -> None:
    assert split("web:/etc") == ("web", "/etc")
    assert split("/odd:name") == ("", "/odd:name")
    assert split("./odd:name") == ("", "./odd:name")
    assert split("plain") == ("", "plain")
    assert split("-") == ("", "-")


def entry(
    name: str, kind: bytes = tarfile.REGTYPE, link: str = "", mode: int = 0o644
) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode = kind, link, mode
    return info


def archive(*entries: tarfile.TarInfo) -> io.BytesIO:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for info in entries:
            content = info.name.encode() if info.isreg() else b""
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    buffer.seek(0)
    return buffer


def take(tar: io.BytesIO, to: Path, name: str = "got") -> None:
    unpack(tar, str(to), name, keep_owner=False)


def test_a_tree_comes_out_renamed(tmp_path: Path) -> None:
    tar = archive(
        entry("d", tarfile.DIRTYPE, mode=0o750),
        entry("d/f", mode=0o640),
        entry("d/s", tarfile.SYMTYPE, "f"),
        entry("d/h", tarfile.LNKTYPE, "d/f"),
    )
    take(tar, tmp_path)
    assert (tmp_path / "got/f").read_text() == "d/f"
    assert (tmp_path / "got/s").readlink() == Path("f")
    assert (tmp_path / "got/h").stat().st_ino == (tmp_path / "got/f").stat().st_ino
    assert (tmp_path / "got").stat().st_mode & 0o777 == 0o750
    assert (tmp_path / "got/f").stat().st_mode & 0o777 == 0o640


def test_contents_only(tmp_path: Path) -> None:
    take(archive(entry("d", tarfile.DIRTYPE), entry("d/f")), tmp_path, "")
    assert [path.name for path in tmp_path.iterdir()] == ["f"]


@pytest.mark.parametrize(
    "entries",
    [
        [entry("d/../../out")],
        [entry("d/../out")],
        [entry("d", tarfile.DIRTYPE), entry("d/l", tarfile.SYMTYPE, ".."), entry("d/l/out")],
        [entry("d", tarfile.SYMTYPE, ".."), entry("d/out")],
        [entry("d/l", tarfile.SYMTYPE, "/tmp"), entry("d/l", tarfile.DIRTYPE), entry("d/l/out")],
        [entry("d/h", tarfile.LNKTYPE, "d/../../secret")],
        [entry("d/h", tarfile.LNKTYPE, "d/missing")],
    ],
)
def test_nothing_leaves_the_destination(tmp_path: Path, entries: list[tarfile.TarInfo]) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    (tmp_path / "secret").write_text("secret")
    with pytest.raises((Corrupt, OSError)):
        take(archive(*entries), inside)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["inside", "secret"]


def test_an_absolute_name_lands_inside(tmp_path: Path) -> None:
    take(archive(entry("/d", tarfile.DIRTYPE), entry("/d/f")), tmp_path)
    assert (tmp_path / "got/f").exists()


def test_a_file_replaces_a_link_and_not_what_it_leads_to(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("precious")
    (tmp_path / "got").symlink_to("precious")
    take(archive(entry("f")), tmp_path)
    assert (tmp_path / "precious").read_text() == "precious"
    assert (tmp_path / "got").read_text() == "f" and not (tmp_path / "got").is_symlink()


def test_set_user_id_bits_and_devices_stay_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    device = entry("d/null", tarfile.CHRTYPE)
    device.devmajor, device.devminor = 1, 3
    take(
        archive(entry("d", tarfile.DIRTYPE, mode=0o755), entry("d/su", mode=0o6755), device),
        tmp_path,
    )
    assert (tmp_path / "got/su").stat().st_mode & 0o7777 == 0o755
    assert [path.name for path in (tmp_path / "got").iterdir()] == ["su"]
    assert "device 'd/null'" in capsys.readouterr().err


def test_a_directory_in_the_way_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "got").mkdir()
    with pytest.raises(ProaError):
        take(archive(entry("f")), tmp_path)


def test_a_cut_archive_is_corrupt(tmp_path: Path) -> None:
    data = archive(entry("d", tarfile.DIRTYPE), entry("d/f")).getvalue()
    with pytest.raises(Corrupt):
        take(io.BytesIO(data[:1025]), tmp_path)


def test_pack_renames_and_takes_root_as_owner(tmp_path: Path) -> None:
    (tmp_path / "d/e").mkdir(parents=True)
    (tmp_path / "d/e/f").write_text("x")
    (tmp_path / "d/l").symlink_to("e")
    for name, names in (("new", ["new", "new/e", "new/e/f", "new/l"]), ("", ["e", "e/f", "l"])):
        buffer = io.BytesIO()
        pack(buffer, str(tmp_path / "d"), name, follow=False, keep_owner=False)  # type: ignore[arg-type]
        buffer.seek(0)
        with tarfile.open(fileobj=buffer) as tar:
            members = tar.getmembers()
        assert [member.name for member in members] == names
        assert {(member.uid, member.gid, member.uname) for member in members} == {(0, 0, "")}
