"""Users and groups as lines of passwd(5), group(5) and shadow(5)."""

from __future__ import annotations

from proa.errors import Invalid
from proa.image.packages.spec import Group, Spec, User

FILES = {"passwd": 0o644, "group": 0o644, "shadow": 0o640}
_ROOT = {
    "passwd": "root:x:0:0:root:/root:/bin/sh\n",
    "group": "root:x:0:\n",
    "shadow": "root:*:0:::::::\n",
}


class Accounts:
    """The accounts of an image: the text of its files, edited."""

    def __init__(self, texts: dict[str, str], days: int) -> None:
        self.texts = {name: texts.get(name) or _ROOT[name] for name in FILES}
        for name, text in self.texts.items():
            if not text.endswith("\n"):
                self.texts[name] = f"{text}\n"
        self._days = days

    def add(self, spec: Spec) -> None:
        """Make the declaration's groups, then its users.  Raises Invalid when one is taken."""
        for group in spec.groups:
            self._group(group)
        for user in spec.users:
            self._user(user)

    def owner(self, text: str) -> tuple[int, int]:
        """uid and gid of `user`, `user:group` or numbers.  Raises Invalid when one is unknown."""
        user, colon, group = text.partition(":")
        if user.isdigit():
            uid, gid = int(user), int(user) if not colon else 0
        else:
            fields = self._find("passwd", user)
            if fields is None:
                raise Invalid(f"the image has no user '{user}'", hint="declare it with [[users]]")
            uid, gid = int(fields[2]), int(fields[3])
        if group:
            gid = int(group) if group.isdigit() else self._gid(group)
        return uid, gid

    def _gid(self, name: str) -> int:
        fields = self._find("group", name)
        if fields is None:
            raise Invalid(f"the image has no group '{name}'", hint="declare it with [[groups]]")
        return int(fields[2])

    def _find(self, file: str, name: str) -> list[str] | None:
        for line in self.texts[file].splitlines():
            fields = line.split(":")
            if fields[0] == name and len(fields) > 3 and fields[2].isdigit():
                return fields
        return None

    def _group(self, group: Group) -> None:
        known = self._find("group", group.name)
        if known is not None and int(known[2]) != group.gid:
            raise Invalid(f"the group '{group.name}' has the number '{known[2]}' in the packages")
        if known is None:
            self.texts["group"] += f"{group.name}:x:{group.gid}:\n"

    def _user(self, user: User) -> None:
        known = self._find("passwd", user.name)
        if known is not None and int(known[2]) != user.uid:
            raise Invalid(f"the user '{user.name}' has the number '{known[2]}' in the packages")
        if known is None:
            if not user.group:
                self._group(Group(user.name, user.uid))
            gid = self._gid(user.group or user.name)
            line = f"{user.name}:x:{user.uid}:{gid}::{user.home}:{user.shell}\n"
            self.texts["passwd"] += line
            self.texts["shadow"] += f"{user.name}:!:{self._days}::::::\n"
        for group in user.groups:
            self._gid(group)
            self._join(group, user.name)

    def _join(self, group: str, user: str) -> None:
        lines = self.texts["group"].splitlines(keepends=True)
        for number, line in enumerate(lines):
            fields = line.rstrip("\n").split(":")
            if fields[0] == group and len(fields) > 3:
                members = [member for member in fields[3].split(",") if member]
                if user not in members:
                    fields[3] = ",".join([*members, user])
                lines[number] = ":".join(fields) + "\n"
        self.texts["group"] = "".join(lines)
