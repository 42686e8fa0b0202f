"""Directories a build takes files from: its context, and named ones."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from proa.errors import HostError, Invalid
from proa.host import files
from proa.image.build import ignore
from proa.image.build.ignore import Ignore
from proa.image.build.walk import Filter, Memory, Tree, Walker
from proa.image.layer import tree


class Context:
    """One directory, as an image sees it: everything is root's, and some of it is ignored."""

    def __init__(self, directory: Path, memory: Memory, name: str, patterns: bytes | None) -> None:
        """`name` is the Containerfile's, whose own patterns come first.  Raises HostError."""
        try:
            self._fd = os.open(directory, tree.DIRECTORY)
        except OSError as error:
            raise HostError(f"cannot read the context '{directory}': {error.strerror}") from error
        try:
            patterns = self._patterns(name) if patterns is None else patterns
            found = Ignore(patterns)
        except BaseException:
            os.close(self._fd)
            raise
        ignored = Filter(found.matches, found.may_hold) if found else None
        self._tree = Tree(self._fd, ignored, root_owned=True, remember=memory)

    def close(self) -> None:
        """Let go of the directory."""
        os.close(self._fd)

    @contextmanager
    def walker(self) -> Iterator[Walker]:
        """A reader for one thread."""
        with Walker(self._tree) as walker:
            yield walker

    def _patterns(self, name: str) -> bytes:
        for path in ignore.file_names(name):
            try:
                fd = files.open_in_root(self._fd, path, os.O_RDONLY | os.O_NONBLOCK)
            except OSError:
                continue
            try:
                if not stat.S_ISREG(os.fstat(fd).st_mode):
                    raise Invalid(f"'{path}' is no regular file")
                return os.read(fd, ignore.MAXIMUM_BYTES + 1)
            finally:
                os.close(fd)
        return b""
