"""The declaration's users, directories, files and links, made in the merged file system."""

from __future__ import annotations

import os
import posixpath
import stat
from collections.abc import Mapping
from contextlib import suppress

from proa.errors import Invalid
from proa.host import files
from proa.image.layer import tree
from proa.image.layer.stream import write_all
from proa.image.packages.spec import Spec
from proa.image.packages.users import FILES, Accounts

_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_MAXIMUM_TEXT_BYTES = 4 << 20
_DAY_SECONDS = 86400
# What programs expect of any root, whatever the packages brought.
_EXPECTED = (("etc", 0o755), ("tmp", 0o1777), ("var/tmp", 0o1777), ("run", 0o755), ("root", 0o700),
             ("proc", 0o755), ("sys", 0o755), ("dev", 0o755))  # fmt: skip


def configure(root: int, spec: Spec, sources: Mapping[str, bytes], epoch_seconds: int) -> None:
    """Bring the declaration's own parts into the file system `root`."""
    directories = tree.Directories(root)
    try:
        _Configuration(root, directories, sources).apply(spec, epoch_seconds)
    except OSError as error:
        path = os.fsdecode(error.filename or "")
        raise Invalid(f"cannot make '{path}' in the image: {error.strerror}") from error
    finally:
        directories.close()


class _Configuration:
    def __init__(
        self, root: int, directories: tree.Directories, sources: Mapping[str, bytes]
    ) -> None:
        self._root = root
        self._directories = directories
        self._sources = sources

    def apply(self, spec: Spec, epoch_seconds: int) -> None:
        for name, mode in _EXPECTED:
            if not self._is_there(name):
                self._directory(name, mode, (0, 0))
        accounts = self._accounts(spec, epoch_seconds // _DAY_SECONDS)
        for user in spec.users:
            home = user.home.lstrip("/")
            if home != "nonexistent" and not self._is_there(home):
                self._directory(home, 0o755, accounts.owner(user.name))
        for item in spec.directories:
            self._directory(item.path.lstrip("/"), item.mode, accounts.owner(item.owner))
        for file in spec.files:
            content = self._sources[file.source] if file.content is None else file.content.encode()
            self._file(file.path, content, file.mode, accounts.owner(file.owner))
        for link in spec.links:
            parent, name = self._place(link.path)
            os.symlink(link.target, name, dir_fd=parent)

    def _accounts(self, spec: Spec, days: int) -> Accounts:
        before = {name: self._read(f"etc/{name}") for name in FILES}
        accounts = Accounts(before, days)
        accounts.add(spec)
        for name, text in accounts.texts.items():
            if text == before[name]:
                continue
            owner = accounts.owner("0:shadow") if _has_shadow(name, text, accounts) else (0, 0)
            self._file(f"/etc/{name}", text.encode(), FILES[name], owner)
        return accounts

    def _read(self, path: str) -> str:
        """A small text; empty when it is not there."""
        try:
            fd = files.open_in_root(self._root, path, os.O_RDONLY | os.O_NONBLOCK)
        except OSError:
            return ""
        with open(fd, "rb") as file:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise Invalid(f"'/{path}' of the packages is not a file")
            return file.read(_MAXIMUM_TEXT_BYTES).decode(errors="replace")

    def _is_there(self, path: str) -> bool:
        try:
            self._directories.existing(os.fsencode(path))
        except OSError:
            return False
        return True

    def _directory(self, path: str, mode: int, owner: tuple[int, int]) -> None:
        fd = self._directories.made(os.fsencode(path))
        os.fchown(fd, *owner)
        os.fchmod(fd, mode)

    def _place(self, path: str) -> tuple[int, str]:
        """The parent of a path, made when missing, and the name, free now."""
        above, name = posixpath.split(path)
        parent = self._directories.made(os.fsencode(above.lstrip("/")))
        with suppress(FileNotFoundError):
            os.unlink(name, dir_fd=parent)
        return self._directories.only(os.fsencode(above.lstrip("/")), parent), name

    def _file(self, path: str, content: bytes, mode: int, owner: tuple[int, int]) -> None:
        parent, name = self._place(path)
        fd = os.open(name, _NEW, 0o600, dir_fd=parent)
        try:
            write_all(fd, content)
            os.fchown(fd, *owner)
            os.fchmod(fd, mode)
        finally:
            os.close(fd)


def _has_shadow(name: str, text: str, accounts: Accounts) -> bool:
    return name == "shadow" and "\nshadow:" in accounts.texts["group"]
