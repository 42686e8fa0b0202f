"""What concerns registries: pull, push, log in, look, remove."""

from __future__ import annotations

import sys

from proa.cli import format, session
from proa.cli.each import each
from proa.cli.image import split_name
from proa.cli.options import Command, Option, Values
from proa.client.connection import Answer, image_path, target
from proa.errors import Invalid

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

Query = dict[str, object]


def pull(values: Values, arguments: list[str]) -> int:
    """Have an image here."""
    name = arguments[0]
    if values.all_tags and _is_exact(name):
        raise Invalid(f"'{name}' has a tag already", hint="--all-tags wants a repository")
    fetch(name, values.platform, quiet=values.quiet, all_tags=values.all_tags)
    if not values.all_tags:
        print(_full(name))
    return 0


def fetch(
    name: str, platform: str | None = None, *, quiet: bool = False, all_tags: bool = False
) -> None:
    """Pull an image, with progress on standard error unless `quiet`."""
    from proa.cli.layers import follow

    if all_tags:
        query: Query = {"fromImage": name}
    elif "@" in name:
        bare, _, digest = name.partition("@")
        query = {"fromImage": bare, "tag": digest}
    else:
        repository, tag = split_name(name)
        query = {"fromImage": repository, "tag": tag}
    answer = ask("POST", target("/images/create", {**query, "platform": platform}), name)
    follow(answer.json_lines(), quiet)


def push(values: Values, arguments: list[str]) -> int:
    """Send an image to its registry."""
    from proa.cli.layers import follow

    name = arguments[0]
    query: Query = {"compression": values.compression}
    if values.all_tags:
        if _is_exact(name):
            raise Invalid(f"'{name}' has a tag already", hint="--all-tags wants a repository")
    elif "@" not in name:
        name, query["tag"] = split_name(name)
    answer = ask("POST", target(image_path(name, "/push"), query), name)
    pushed = follow(answer.json_lines(), values.quiet)
    if values.quiet:
        for item in pushed:
            print(f"{_full(name, with_tag=False)}:{item.get('Tag')}@{item.get('Digest')}")
    return 0


def ask(method: str, url: str, name: str) -> Answer:
    """A request about an image's registry, with this user's login for that."""
    from proa.client import credentials

    login = credentials.find(credentials.registry_of(name), name)
    headers = {"X-Registry-Auth": credentials.header(login)}
    return session.connect().request(method, url, None, headers)


def _is_exact(name: str) -> bool:
    return "@" in name or ":" in name.rpartition("/")[2]


def _full(name: str, with_tag: bool = True) -> str:
    """The name with its registry and tag, as Docker prints it."""
    from proa.client import credentials

    registry = credentials.registry_of(name)
    path = name
    first, slash, rest = name.partition("/")
    if slash and credentials.normal(first) == registry:
        path = rest
    if registry == credentials.HUB and "/" not in path:
        path = f"library/{path}"
    if with_tag and not _is_exact(path):
        path += ":latest"
    return f"{registry}/{path}"


# -- logging in -----------------------------------------------------------------------------------


def login(values: Values, arguments: list[str]) -> int:
    """Log in to a registry, and keep the login where Docker keeps it."""
    from proa.client import credentials

    registry = credentials.normal(arguments[0]) if arguments else credentials.HUB
    user, password = _asked(values, registry)
    request = {
        "username": user, "password": password, "serveraddress": credentials.key_of(registry),
    }  # fmt: skip
    token = (session.post("/auth", request) or {}).get("IdentityToken")
    kept = {"identitytoken": token} if token else {"username": user, "password": password}
    where = credentials.save(registry, kept)
    if where.endswith(".json"):
        sys.stderr.write(
            f"warning: the login is kept unencrypted in '{where}'; a helper avoids that\n"
        )
    print("Login Succeeded")
    return 0


def _asked(values: Values, registry: str) -> tuple[str, str]:
    """User and password: options, standard input, or the terminal."""
    if values.password is not None and values.password_stdin:
        raise Invalid("'--password' contradicts '--password-stdin'")
    user, password = values.username, values.password
    if values.password_stdin:
        if not user:
            raise Invalid("'--password-stdin' needs '--username'")
        password = sys.stdin.read(64 << 10).rstrip("\r\n")
    elif password is not None:
        sys.stderr.write("warning: others may see '--password'; use '--password-stdin'\n")
    if not user or password is None:
        if not sys.stdin.isatty():
            raise Invalid(
                f"no user and password for '{registry}'",
                hint="use '--username' and '--password-stdin', or a terminal",
            )
        user, password = _typed(user, password)
    if not user or not password:
        raise Invalid("user and password must not be empty")
    return user, password


def _typed(user: str | None, password: str | None) -> tuple[str, str]:
    from getpass import getpass

    return user or input("Username: ").strip(), password or getpass("Password: ")


def logout(values: Values, arguments: list[str]) -> int:
    """Forget a registry's login."""
    from proa.client import credentials

    registry = credentials.normal(arguments[0]) if arguments else credentials.HUB
    if credentials.erase(registry):
        print(f"Removing login credentials for {registry}")
    else:
        print(f"Not logged in to {registry}")
    return 0


# -- looking --------------------------------------------------------------------------------------


def tags(values: Values, arguments: list[str]) -> int:
    """List the tags of a repository in its registry."""
    name = arguments[0]
    answer = ask("GET", target("/proa/registry/tags", {"name": name}), name).json()
    rows = [{"Tag": tag, "Name": f"{answer['Name']}:{tag}"} for tag in sorted(answer["Tags"])]
    if values.format:
        sys.stdout.write(format.listing(rows, [format.Column("TAG", "Tag")], values.format))
    else:
        sys.stdout.write("".join(f"{row['Tag']}\n" for row in rows))
    return 0


def inspect(names: list[str], raw: bool, platform: str | None) -> list[Any]:
    """What registries say of images that need not be here."""
    found = []
    for name in names:
        query: Query = {"name": name, "platform": platform}
        if raw:
            answer = ask("GET", target("/proa/registry/manifest", query), name)
            sys.stdout.flush()
            sys.stdout.buffer.write(answer.read())
            sys.stdout.buffer.flush()
        else:
            item = ask("GET", target("/proa/registry/image", query), name).json()
            del item["Raw"]
            found.append(item)
    return found


def remove(names: list[str]) -> int:
    """Remove images from their registries."""

    def one(name: str) -> None:
        answer = ask("DELETE", target("/proa/registry/image", {"name": name}), name).json()
        if answer["Digest"]:
            bare = split_name(name.partition("@")[0])[0]
            print(f"deleted: {bare}@{answer['Digest']}, with all its tags")
        else:
            print(f"untagged: {name}")

    return each(names, one, echo=False)


_QUIET = Option("-q, --quiet", "flag", "", "print only the name")

COMMANDS = {
    "pull": Command(
        "[OPTIONS] NAME[:TAG|@DIGEST]", "Get an image from a registry", pull,
        (
            Option("-a, --all-tags", "flag", "", "every tag of the repository"),
            Option("--platform", "text", "OS/ARCH", "another platform than this machine's"),
            _QUIET,
        ),
        arguments=(1, 1),
    ),
    "push": Command(
        "[OPTIONS] NAME[:TAG]", "Send an image to a registry", push,
        (
            Option("-a, --all-tags", "flag", "", "every tag of the repository that is here"),
            Option("--compression", "text", "gzip|zstd", "for layers that are not compressed yet"),
            _QUIET,
        ),
        arguments=(1, 1),
    ),
    "login": Command(
        "[OPTIONS] [REGISTRY]", "Log in to a registry (Docker Hub without one)", login,
        (
            Option("-u, --username", "text", "NAME", "user"),
            Option("-p, --password", "text", "PASSWORD", "password; better: --password-stdin"),
            Option("--password-stdin", "flag", "", "read the password from standard input"),
        ),
        arguments=(0, 1),
    ),
    "logout": Command(
        "[REGISTRY]", "Forget the login of a registry (Docker Hub without one)", logout,
        arguments=(0, 1),
    ),
    "tags": Command(
        "[OPTIONS] NAME", "List the tags of a repository in its registry", tags,
        (Option("--format", "text", "FORMAT", "table, json, or a template like {{.Name}}"),),
        arguments=(1, 1),
    ),
}  # fmt: skip
