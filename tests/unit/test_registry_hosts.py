"""Where registries are, what is trusted there, which platform is meant: pure answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from proa.errors import ImageNotFound, Invalid, ProaError, RegistryError
from proa.image import platforms
from proa.image.manifest import Descriptor
from proa.image.platforms import Platform
from proa.image.registry import proxies, transport
from proa.image.registry.hosts import Hosts, is_loopback

DIGEST = "sha256:" + "a" * 64


def urls(settings: dict[str, Any], registry: str) -> list[str]:
    return [place.url for place in Hosts(settings).endpoints(registry)]


def test_docker_hub_has_another_address_and_mirrors_come_first() -> None:
    settings = {"docker.io": {"mirrors": ["mirror.example", "https://other.example:5/sub/"]}}
    hub = "https://registry-1.docker.io"
    assert urls(settings, "docker.io") == [
        "https://mirror.example",
        "https://other.example:5/sub",
        hub,
    ]
    assert urls({}, "docker.io") == [hub]
    assert [place.login for place in Hosts(settings).endpoints("docker.io")] == [
        "mirror.example",
        "other.example:5",
        "docker.io",
    ]
    assert urls(settings, "quay.example") == ["https://quay.example"]


@pytest.mark.parametrize(
    ("host", "plain"),
    [
        ("localhost", True), ("localhost:5000", True), ("127.0.0.1:5000", True), ("[::1]:80", True),
        ("127.1.2.3", True), ("registry.example", False), ("localhost.example", False),
        ("10.0.0.1:5000", False), ("127.0.0.1.example", False), ("open.example:80", True),
        ("open.example", False),
    ],
)  # fmt: skip
def test_the_clear_is_for_this_machine_and_who_is_named(host: str, plain: bool) -> None:
    assert Hosts({"open.example:80": {"insecure": True}}).plain(host) is plain


@pytest.mark.parametrize(
    "settings",
    [
        {"a.example": {"mirror": []}}, {"a.example": {"mirrors": "x"}}, {"a.example": 3},
        {"a.example": {"mirrors": [1]}}, {"a.example": {"mirrors": ["ftp://x"]}},
        {"a.example": {"mirrors": ["http://b.example"]}}, {"a.example": {"insecure": "yes"}},
        {"a.example": {"mirrors": ["https://me:pw@b.example"]}}, {"a.example": {"cert": "/x"}},
        {"a.example": {"mirrors": ["https://b.example:99999"]}}, {"no host": {}},
    ],
)  # fmt: skip
def test_mistakes_show_at_once(settings: dict[str, Any]) -> None:
    with pytest.raises(Invalid):
        Hosts(settings)


def test_certificates_of_the_usual_directories(tmp_path: Path) -> None:
    for name in ("docker/reg.example:5/ca.crt", "docker/reg.example:5/me.cert",
                 "docker/reg.example:5/me.key", "containers/reg.example:5/more.crt",
                 "docker/docker.io/hub.crt", "docker/half.example/me.cert"):  # fmt: skip
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    hosts = Hosts(
        {"reg.example:5": {"ca": "/own.crt"}}, [tmp_path / "docker", tmp_path / "containers"]
    )
    found = hosts.trust("reg.example:5")
    assert [path.name for path in found.authorities] == ["own.crt", "ca.crt", "more.crt"]
    assert [path.name for path in found.identity or ()] == ["me.cert", "me.key"]
    hub = hosts.trust("registry-1.docker.io")
    assert [path.name for path in hub.authorities] == ["hub.crt"]
    assert hosts.trust("reg.example").authorities == ()
    assert hosts.trust("reg.example").verify
    with pytest.raises(Invalid, match="has no key"):
        hosts.trust("half.example")


# -- addresses ------------------------------------------------------------------------------------


@given(some.text(max_size=60))
def test_a_location_is_an_address_or_refused(text: str) -> None:
    try:
        url = transport.absolute("https://registry.example/v2/a/blobs/x", text)
    except RegistryError as error:
        assert "\n" not in error.message
        return
    assert url.startswith(("https://", "http://"))
    assert url.isascii() and url.isprintable() and " " not in url


@given(some.text(max_size=40))
def test_no_text_names_this_machine_by_accident(text: str) -> None:
    try:
        found = is_loopback(text)
    except ValueError:
        return
    assert not found or "127." in text or "localhost" in text.lower() or ":" in text


@pytest.mark.parametrize(
    ("host", "direct"),
    [("a.example", True), ("b.a.example", True), ("example", False), ("ba.example", False),
     ("c.test", True), ("d.example", True), ("e.example", False)],
)  # fmt: skip
def test_no_proxy(monkeypatch: pytest.MonkeyPatch, host: str, direct: bool) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HTTPS_PROXY", "http://me:p%40ss@proxy.example:3128")
    monkeypatch.setenv("NO_PROXY", "a.example, *.test ,d.example:443,e.example:5")
    found = proxies.proxy_for("https", host, 443)
    assert found is None if direct else found
    if found:
        assert found == ("proxy.example", 3128, "Basic bWU6cEBzcw==")
    assert proxies.proxy_for("https", "127.0.0.1", 443) is None
    assert proxies.proxy_for("http", host, 80) is None


# -- platforms ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("linux/amd64", Platform("linux", "amd64")), ("amd64", Platform("linux", "amd64")),
        ("x86_64", Platform("linux", "amd64")), ("linux/arm64/v8", Platform("linux", "arm64")),
        ("linux/aarch64", Platform("linux", "arm64")), ("armhf", Platform("linux", "arm", "v7")),
        ("Linux/ARM/v6", Platform("linux", "arm", "v6")), ("linux", platforms.here()),
        ("windows/amd64", Platform("windows", "amd64")),
        ("linux/amd64/v3", Platform("linux", "amd64", "v3")), ("", platforms.here()),
    ],
)  # fmt: skip
def test_platforms_as_people_write_them(text: str, meant: Platform) -> None:
    assert platforms.parse(text) == meant


@given(some.text(max_size=40))
def test_any_text_is_a_platform_or_refused(text: str) -> None:
    try:
        assert "\n" not in str(platforms.parse(text))
    except ProaError as error:
        assert isinstance(error, Invalid)


def item(words: str, **annotations: str) -> Descriptor:
    names = ("os", "architecture", "variant")
    platform = dict(zip(names, words.split("/"), strict=False)) if words else {}
    return Descriptor("", DIGEST, len(words), annotations, platform)


@pytest.mark.parametrize(
    ("wanted", "offered", "chosen"),
    [
        ("linux/arm/v7", ["linux/arm/v5", "linux/arm/v6"], "linux/arm/v6"),
        ("linux/arm", ["linux/arm/v6", "linux/arm"], "linux/arm"),
        ("linux/arm/v6", ["linux/arm/v7", "linux/arm/v5"], "linux/arm/v5"),
        ("linux/amd64", ["linux/amd64/v2", "linux/amd64"], "linux/amd64"),
        ("linux/amd64/v3", ["linux/amd64", "linux/amd64/v2"], "linux/amd64/v2"),
        ("linux/arm64", ["linux/arm64/v8"], "linux/arm64/v8"),
        ("linux/amd64", [""], ""),
        ("linux/386", ["unknown/unknown", "linux/386"], "linux/386"),
    ],
)
def test_the_best_that_runs_is_chosen(wanted: str, offered: list[str], chosen: str) -> None:
    found = platforms.choose([item(words) for words in offered], platforms.parse(wanted), "x")
    assert found == item(chosen)


@pytest.mark.parametrize(
    "offered", [["linux/arm/v7"], ["linux/amd64/v2"], [], ["windows/amd64"], ["", ""]]
)
def test_what_does_not_run_is_not_chosen(offered: list[str]) -> None:
    wanted = Platform("linux", "amd64")
    with pytest.raises(ImageNotFound) as caught:
        platforms.choose([item(words) for words in offered], wanted, "x")
    assert caught.value.hint


def test_notes_of_a_build_are_no_images() -> None:
    note = item("linux/amd64", **{"vnd.docker.reference.type": "attestation-manifest"})
    with pytest.raises(ImageNotFound):
        platforms.choose([note, item("unknown/unknown")], Platform("linux", "amd64"), "x")
