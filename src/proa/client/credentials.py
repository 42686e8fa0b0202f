"""Logins of this user: Docker's own `config.json` and its credential helpers.

    $DOCKER_CONFIG/config.json, else ~/.docker/config.json    read and written, unknown keys kept
    $REGISTRY_AUTH_FILE, $XDG_RUNTIME_DIR/containers/auth.json, ~/.config/containers/auth.json
                                                               read only, after Docker's

A helper is the program `docker-credential-NAME`, asked on its standard input and output; one named
by the configuration is asked before the passwords in the file.
"""

from __future__ import annotations

import binascii  # `base64` and `pathlib` cost a command more than all the rest
import os

from proa.client import fastjson
from proa.errors import Corrupt, HostError, Invalid, NotFound, Timeout

TYPE_CHECKING = False
if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator
    from typing import Any

Login = dict[str, str]  # username and password, or identitytoken; Docker's AuthConfig
HUB = "docker.io"
HUB_KEY = "https://index.docker.io/v1/"
_HUB_HOSTS = frozenset({"docker.io", "index.docker.io", "registry-1.docker.io"})
FILE_BYTES = 4 << 20
HELPER_BYTES = 64 << 10
HELPER_SECONDS = 60.0
_TOKEN_USER = "<token>"  # what a helper calls the user of an identity token
_NOT_FOUND = "credentials not found in native keychain"


def key_of(registry: str) -> str:
    """The key a registry's login is kept under."""
    return HUB_KEY if _host(registry) in _HUB_HOSTS else _host(registry)


def normal(registry: str) -> str:
    """The registry a user means by a host or an address; Docker Hub has one name."""
    return HUB if _host(registry) in _HUB_HOSTS else _host(registry)


def registry_of(name: str) -> str:
    """The registry in an image's name, as Docker reads names."""
    first, slash, _ = name.partition("/")
    marked = "." in first or ":" in first or first == "localhost" or first != first.lower()
    registry = first if slash and marked else HUB
    return normal(registry)


def header(login: Login | None) -> str:
    """The value of `X-Registry-Auth` (of `X-Registry-Config` for a map of logins)."""
    return _base64(fastjson.dumps(login or {})).translate({ord("+"): "-", ord("/"): "_"})


def _base64(text: str) -> str:
    return binascii.b2a_base64(text.encode(), newline=False).decode()


def _host(key: str) -> str:
    return key.partition("://")[2 if "://" in key else 0].partition("/")[0].lower()


# -- finding --------------------------------------------------------------------------------------


def find(registry: str, name: str = "") -> Login | None:
    """The login for a registry; `name` (an image's) chooses among those of its namespaces.

    Raises Corrupt for a configuration that cannot be read, HostError for a failing helper.
    """
    for path in _files():
        document = _read(path)
        login = _from_helper(document, registry) or _from_file(document, registry, name)
        if login:
            return {**login, "serveraddress": key_of(registry)}
    return None


def all_logins() -> dict[str, Login]:
    """Every login there is, by key; for work that may ask many registries."""
    found: dict[str, Login] = {}
    for path in _files():
        document = _read(path)
        keys = [*_section(document, "auths"), *_section(document, "credHelpers")]
        if default := _text(document, "credsStore"):
            keys += _listed(default)
        for key in keys:
            registry = normal(key)
            if key_of(registry) not in found and (login := find(registry)):
                found[key_of(registry)] = login
    return found


def _files() -> Iterator[str]:
    yield config_file()
    if named := os.environ.get("REGISTRY_AUTH_FILE"):
        yield named
        return
    if runtime := os.environ.get("XDG_RUNTIME_DIR"):
        yield f"{runtime}/containers/auth.json"
    home = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    yield f"{home}/containers/auth.json"


def config_file() -> str:
    """Path of Docker's configuration of this user."""
    home = os.environ.get("DOCKER_CONFIG") or os.path.expanduser("~/.docker")
    return os.path.join(home, "config.json")


def _read(path: str) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:
            data = file.read(FILE_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise HostError(
            f"cannot read '{path}': {(error.strerror or str(error)).lower()}"
        ) from error
    if not data.strip():
        return {}
    try:
        value = fastjson.loads(data) if len(data) <= FILE_BYTES else None
    except (Corrupt, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise Corrupt(f"'{path}' is not a json object", hint="repair it, or move it away")
    return value


def _section(document: dict[str, Any], name: str) -> dict[str, Any]:
    value = document.get(name)
    return value if isinstance(value, dict) else {}


def _text(document: dict[str, Any], name: str) -> str:
    value = document.get(name)
    return value if isinstance(value, str) else ""


def _from_file(document: dict[str, Any], registry: str, name: str) -> Login | None:
    """The entry of the longest beginning of the name (containers' way), else the registry's."""
    auths = _section(document, "auths")
    path = name.partition("@")[0]
    while "/" in path:
        if path in auths:
            return _entry(auths[path], path)
        path = path.rpartition("/")[0]
    for key in (key_of(registry), registry, *auths):
        whole = "://" in key or "/" not in key  # not a namespace of the registry
        if key in auths and whole and key_of(key) == key_of(registry):
            return _entry(auths[key], key)
    return None


def _entry(entry: Any, key: str) -> Login | None:
    if not isinstance(entry, dict):
        raise Corrupt(f"the login of '{key}' is not a json object")
    if token := _text(entry, "identitytoken"):
        return {"identitytoken": token}
    if auth := _text(entry, "auth"):
        try:
            pair = binascii.a2b_base64(auth, strict_mode=True).decode()
        except (ValueError, binascii.Error):
            pair = ""
        user, colon, password = pair.partition(":")
        if not colon:
            raise Corrupt(f"the login of '{key}' is not base64 of 'user:password'")
        return {"username": user, "password": password.rstrip("\0")}
    if user := _text(entry, "username"):
        return {"username": user, "password": _text(entry, "password")}
    return None


# -- changing -------------------------------------------------------------------------------------


def save(registry: str, login: Login) -> str:
    """Keep a login; where: the helper's name, or the file's path."""
    document, key = _read(config_file()), key_of(registry)
    kept = {
        name: login[name] for name in ("username", "password", "identitytoken") if name in login
    }
    if helper := _helper(document, registry):
        token = kept.get("identitytoken")
        user = _TOKEN_USER if token else kept.get("username", "")
        secret = {"ServerURL": key, "Username": user, "Secret": token or kept.get("password", "")}
        _ask(helper, "store", fastjson.dumps(secret))
        entry: dict[str, Any] = {}  # Docker's mark that the helper has it
    elif kept.get("identitytoken"):
        entry = {"identitytoken": kept["identitytoken"]}
    else:
        pair = f"{kept.get('username', '')}:{kept.get('password', '')}"
        entry = {"auth": _base64(pair)}
    _write({**document, "auths": {**_section(document, "auths"), key: entry}})
    return f"docker-credential-{helper}" if helper else config_file()


def erase(registry: str) -> bool:
    """Forget a login; whether there was one."""
    document, key = _read(config_file()), key_of(registry)
    auths = _section(document, "auths")
    left = {name: entry for name, entry in auths.items() if key_of(name) != key}
    known = len(left) < len(auths)
    if helper := _helper(document, registry):
        try:
            known = bool(_from_helper(document, registry)) or known
            _ask(helper, "erase", key)
        except NotFound:
            pass
    if len(left) < len(auths):
        _write({**document, "auths": left})
    return known


def _write(document: dict[str, Any]) -> None:
    import json
    from pathlib import Path

    path = Path(os.path.realpath(config_file()))  # a link stays one
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
        with open(descriptor, "w", encoding="utf-8") as file:
            os.fchmod(descriptor, 0o600)
            json.dump(document, file, indent="\t", ensure_ascii=False)
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise HostError(
            f"cannot write '{path}': {(error.strerror or str(error)).lower()}"
        ) from error


# -- helpers --------------------------------------------------------------------------------------


def _helper(document: dict[str, Any], registry: str) -> str:
    """The helper that keeps this registry's login; empty when the file does."""
    special = _section(document, "credHelpers")
    chosen = special.get(key_of(registry), special.get(registry)) or _text(document, "credsStore")
    if not isinstance(chosen, str) or not chosen.replace("-", "").replace("_", "").isalnum():
        if not chosen:
            return ""
        raise Invalid(f"'{str(chosen)[:60]}' cannot be the name of a credential helper")
    return chosen


def _from_helper(document: dict[str, Any], registry: str) -> Login | None:
    helper = _helper(document, registry)
    if not helper:
        return None
    try:
        answer = _ask(helper, "get", key_of(registry))
    except NotFound:
        return None
    value = _answer(helper, answer)
    user, secret = _text(value, "Username"), _text(value, "Secret")
    if user == _TOKEN_USER:
        return {"identitytoken": secret}
    return {"username": user, "password": secret}


def _listed(helper: str) -> list[str]:
    try:
        return list(_answer(helper, _ask(helper, "list", "")))
    except NotFound:
        return []


def _answer(helper: str, data: bytes) -> dict[str, Any]:
    try:
        value = fastjson.loads(data)
    except (Corrupt, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise HostError(f"the credential helper '{helper}' did not answer with a json object")
    return value


def _ask(helper: str, verb: str, text: str) -> bytes:
    """One question to a helper.  Raises NotFound when it has no such login.

    Its answer is never part of an error: it may hold the secret.
    """
    import subprocess

    program = f"docker-credential-{helper}"
    try:
        child = subprocess.Popen([program, verb], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    except OSError as error:
        raise HostError(
            f"cannot run the credential helper '{program}': {(error.strerror or '').lower()}",
            hint="install it, or take it out of Docker's config.json",
        ) from error
    try:
        output = _converse(child, text.encode(), program)
    finally:
        child.kill()
        child.wait()
    if child.returncode == 0:
        return output
    words = output.decode("utf-8", "replace").strip()
    if _NOT_FOUND in words:
        raise NotFound(f"'{program}' has no such login")
    told = f": {' '.join(words.split())[:200]}" if verb != "get" else ""
    raise HostError(f"'{program} {verb}' failed with exit code {child.returncode}{told}")


def _converse(child: subprocess.Popen[bytes], question: bytes, program: str) -> bytes:
    """Write the question, read the bounded answer, see it end; all within HELPER_SECONDS."""
    import select
    import time

    assert child.stdin is not None and child.stdout is not None
    end = time.monotonic() + HELPER_SECONDS
    if len(question) > HELPER_BYTES // 2:  # fits into a pipe: writing cannot wait
        raise Invalid(f"a login of '{len(question)}' bytes is too long for a credential helper")
    try:
        with child.stdin as pipe:
            pipe.write(question)
    except BrokenPipeError:
        pass  # it did not want to know: its answer counts
    poll, output = select.poll(), b""
    poll.register(child.stdout, select.POLLIN)
    while len(output) <= HELPER_BYTES:
        if not poll.poll(max(0.0, end - time.monotonic()) * 1000):
            raise Timeout(f"'{program}' did not answer in {HELPER_SECONDS:.0f} seconds")
        data = os.read(child.stdout.fileno(), HELPER_BYTES)
        if not data:
            break
        output += data
    else:
        raise HostError(f"'{program}' answered with more than {HELPER_BYTES} bytes")
    child.stdout.close()
    try:
        child.wait(max(0.1, end - time.monotonic()))
    except Exception as error:
        raise Timeout(f"'{program}' did not end in {HELPER_SECONDS:.0f} seconds") from error
    return output
