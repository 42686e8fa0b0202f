"""Logins of a user: Docker's config file, others' files, and helpers that answer badly."""

from __future__ import annotations

import base64
import json
import stat
from pathlib import Path
from typing import Any

import pytest

from proa.client import credentials
from proa.errors import Corrupt, HostError, Invalid, ProaError, Timeout

SECRET = "s3cr:et"
PAIR = base64.b64encode(f"anna:{SECRET}".encode()).decode()


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An own Docker configuration (not there yet); no other file of logins."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    for name in ("REGISTRY_AUTH_FILE", "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "docker" / "config.json"


def write(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(value if isinstance(value, str) else json.dumps(value))


def helper(config: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """`docker-credential-test`, a shell script, on the PATH and in the configuration."""
    program = config.parent / "docker-credential-test"
    write(program, f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{config.parent}:/usr/bin:/bin")
    write(config, {"credsStore": "test"})


@pytest.mark.parametrize("registry", ["docker.io", "registry.example", "localhost:5000", "[::1]:5"])
def test_a_saved_login_is_found_until_it_is_erased(config: Path, registry: str) -> None:
    credentials.save(registry, {"username": "anna", "password": SECRET})
    found = credentials.find(registry)
    assert found is not None and (found["username"], found["password"]) == ("anna", SECRET)
    assert stat.S_IMODE(config.stat().st_mode) == 0o600
    assert credentials.find("other.example") is None
    assert credentials.erase(registry) and not credentials.erase(registry)
    assert credentials.find(registry) is None


def test_docker_hub_is_kept_under_its_old_key(config: Path) -> None:
    credentials.save("docker.io", {"username": "anna", "password": SECRET})
    assert json.loads(config.read_text())["auths"] == {
        "https://index.docker.io/v1/": {"auth": PAIR}
    }


def test_what_others_wrote_into_the_file_stays(config: Path) -> None:
    others = {"auths": {"a.example": {"auth": PAIR, "x": 1}}, "psFormat": "{{.ID}}", "n": None}
    write(config, others)
    credentials.save("b.example", {"identitytoken": "tok"})
    credentials.erase("b.example")
    assert json.loads(config.read_text()) == others


def test_a_linked_configuration_stays_a_link(config: Path) -> None:
    real = config.parent.parent / "real.json"
    write(real, {})
    config.parent.mkdir()
    config.symlink_to(real)
    credentials.save("a.example", {"username": "anna", "password": SECRET})
    assert config.is_symlink() and "a.example" in real.read_text()


def test_identity_tokens_and_old_keys_are_read(config: Path) -> None:
    write(
        config,
        {"auths": {"https://old.example/v1/": {"auth": PAIR}, "t": {"identitytoken": "tok"}}},
    )
    assert (credentials.find("old.example") or {})["password"] == SECRET
    assert (credentials.find("t") or {})["identitytoken"] == "tok"


def test_the_longest_namespace_of_containers_own_file_wins(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def auth(user: str) -> dict[str, str]:
        return {"auth": base64.b64encode(f"{user}:x".encode()).decode()}

    monkeypatch.setenv("REGISTRY_AUTH_FILE", str(tmp_path / "auth.json"))
    entries = {"r.example": auth("all"), "r.example/team": auth("team"), "r.example/t": auth("t")}
    write(tmp_path / "auth.json", {"auths": entries})
    users = [
        (credentials.find("r.example", name) or {})["username"]
        for name in ("r.example/team/app:1", "r.example/other", "r.example/team@sha256:0", "")
    ]
    assert users == ["team", "all", "team", "all"]


@pytest.mark.parametrize(
    "content",
    [
        "[]", "{", "\xff", '"x"', "[" * 100_000, '{"auths": {"r.example": 1}}',
        '{"auths": {"r.example": {"auth": "%%%"}}}', '{"auths": {"r.example": {"auth": "YQ=="}}}',
    ],
)  # fmt: skip
def test_a_malformed_configuration_is_a_typed_error(config: Path, content: str) -> None:
    write(config, content)
    with pytest.raises(Corrupt) as caught:
        credentials.find("r.example")
    assert "%%%" not in str(caught.value)


@pytest.mark.parametrize("content", ['{"auths": []}', '{"auths": null}', '{"credHelpers": 3}', ""])
def test_sections_of_another_type_hold_no_login(config: Path, content: str) -> None:
    write(config, content)
    assert credentials.find("r.example") is None


def test_a_helper_is_asked_and_told(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = """
        file="$(dirname "$0")/kept"
        case $1 in
        store) cat > "$file" ;;
        erase) read -r key; echo "$key" > "$file.erased"; rm "$file" ;;
        get) test -f "$file" && cat "$file" && exit 0
             echo "credentials not found in native keychain"; exit 1 ;;
        list) echo '{"https://index.docker.io/v1/": "anna"}' ;;
        esac"""
    helper(config, monkeypatch, script)
    assert credentials.save("docker.io", {"username": "anna", "password": SECRET}).endswith("test")
    assert SECRET not in config.read_text() and PAIR not in config.read_text()
    assert (credentials.find("docker.io") or {})["password"] == SECRET
    assert list(credentials.all_logins()) == ["https://index.docker.io/v1/"]
    assert credentials.erase("docker.io")
    assert (config.parent / "kept.erased").read_text().strip() == "https://index.docker.io/v1/"
    assert credentials.find("docker.io") is None


def test_a_helper_keeps_identity_tokens_under_a_special_user(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    helper(config, monkeypatch, """echo '{"Username": "<token>", "Secret": "tok"}'""")
    assert (credentials.find("r.example") or {})["identitytoken"] == "tok"


@pytest.mark.parametrize(
    ("script", "kind"),
    [
        ("echo SECRET; exit 1", HostError),
        ("echo SECRET", HostError),
        ("echo '[]'", HostError),
        ("exec cat /dev/zero", HostError),
        ("kill -9 $$", HostError),
        ("sleep 60", Timeout),
        ("exec >&-; exec sleep 60", Timeout),
    ],
)
def test_a_hostile_helper_is_a_typed_error_without_its_words(
    config: Path, monkeypatch: pytest.MonkeyPatch, script: str, kind: type[ProaError]
) -> None:
    monkeypatch.setattr(credentials, "HELPER_SECONDS", 0.3)
    helper(config, monkeypatch, script)
    with pytest.raises(kind) as caught:
        credentials.find("r.example")
    assert "SECRET" not in str(caught.value)


@pytest.mark.parametrize("name", ["../x", "a/b", "x y", "-", ["x"], {}])
def test_a_helper_is_a_plain_name(config: Path, name: Any) -> None:
    write(config, {"credHelpers": {"r.example": name}})
    if name == {}:
        assert credentials.find("r.example") is None
        return
    with pytest.raises(Invalid):
        credentials.find("r.example")


def test_a_missing_helper_is_named(config: Path) -> None:
    write(config, {"credsStore": "nobody-has-this"})
    with pytest.raises(HostError, match="docker-credential-nobody-has-this"):
        credentials.find("r.example")


@pytest.mark.parametrize(
    ("name", "registry"),
    [
        ("debian", "docker.io"), ("a/b", "docker.io"), ("docker.io/a/b", "docker.io"),
        ("index.docker.io/a", "docker.io"), ("localhost/a", "localhost"),
        ("r.example/a", "r.example"), ("h:5000/a:b", "h:5000"), ("a:tag", "docker.io"),
    ],
)  # fmt: skip
def test_the_registry_in_a_name(name: str, registry: str) -> None:
    assert credentials.registry_of(name) == registry
