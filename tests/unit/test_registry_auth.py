"""Challenges of registries, the tokens they lead to, and logins as clients send them."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proa.errors import Invalid, ProaError, RegistryError, Unauthorized
from proa.image.registry import auth
from proa.image.registry import credentials as logins
from proa.image.registry.auth import Authorizer
from proa.image.registry.credentials import Credentials, Login

ANNA = Login("anna", "s3cret")
REALM = "https://auth.example/token"
BEARER = f'Bearer realm="{REALM}",service="reg",scope="repository:a/b:pull"'


class Server:
    """A token server: what it was asked, and what it answers."""

    def __init__(self, *answers: tuple[int, object]) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[str, str, Mapping[str, str], bytes]] = []

    def __call__(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes
    ) -> tuple[int, bytes]:
        self.asked.append((method, url, headers, body))
        status, answer = self.answers.pop(0)
        return status, answer if isinstance(answer, bytes) else json.dumps(answer).encode()

    def query(self, number: int = -1) -> dict[str, list[str]]:
        return parse_qs(urlsplit(self.asked[number][1]).query)


def held(login: Login = ANNA, host: str = "reg.example") -> Credentials:
    return Credentials({host: login})


# -- challenges -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (
            [f'Bearer realm="{REALM}",scope="a:b,c"'],
            [("bearer", {"realm": REALM, "scope": "a:b,c"})],
        ),
        (['Basic realm="x, \\"y\\""'], [("basic", {"realm": 'x, "y"'})]),
        (
            ['Basic realm="a", Bearer realm=https://b/c , Service=z'],
            [("basic", {"realm": "a"}), ("bearer", {"realm": "https://b/c", "service": "z"})],
        ),
        (
            ['BASIC realm="a"', "Bearer\trealm=b"],
            [("basic", {"realm": "a"}), ("bearer", {"realm": "b"})],
        ),
        (["Negotiate abc==, Basic"], [("negotiate", {}), ("basic", {})]),
        (["Basic realm = a ,, , Digest"], [("basic", {"realm": "a"}), ("digest", {})]),
        (["", "=,", '"', "\0", "===="], []),
    ],
)  # fmt: skip
def test_challenges_are_read_as_the_rfc_has_them(
    values: list[str], expected: list[tuple[str, dict[str, str]]]
) -> None:
    assert [(c.scheme, dict(c.parameters)) for c in auth.parse(values)] == expected


@given(st.lists(st.text(alphabet='aB1 ,="\\/:.\t\0é', max_size=60), max_size=4))
def test_no_challenge_breaks_the_parser(values: list[str]) -> None:
    found = auth.parse(values)
    assert len(found) <= auth.MAXIMUM_CHALLENGES
    assert all(challenge.scheme == challenge.scheme.lower() for challenge in found)


def test_endless_challenges_are_bounded() -> None:
    (first, *_) = auth.parse(["Basic " + "".join(f"a{n}=b," for n in range(10_000))])
    assert len(first.parameters) <= auth.MAXIMUM_PARAMETERS
    assert len(auth.parse(["Basic, " * 10_000])) == auth.MAXIMUM_CHALLENGES


# -- answers --------------------------------------------------------------------------------------


def test_basic_is_answered_with_the_registrys_own_login_only() -> None:
    authorizer = Authorizer(held(), Server())
    header = authorizer.header_for("reg.example", "a/b", "pull", 'Basic realm="x"')
    assert base64.b64decode(header.removeprefix("Basic ")) == b"anna:s3cret"
    with pytest.raises(Unauthorized, match="wants a login"):
        authorizer.header_for("evil.example", "a/b", "pull", 'Basic realm="x"')


def test_a_token_is_fetched_once_and_kept() -> None:
    server = Server((200, {"token": "T1", "expires_in": 300}))
    authorizer = Authorizer(held(), server)
    assert authorizer.header_for("reg.example", "a/b", "pull,push", "") == ""
    for challenge in (BEARER, BEARER, ""):
        assert authorizer.header_for("reg.example", "a/b", "pull,push", challenge) == "Bearer T1"
    assert authorizer.header_for("reg.example", "a/c", "pull,push", "") == ""
    assert len(server.asked) == 1
    assert server.query()["scope"] == ["repository:a/b:pull,push"]
    assert server.query()["service"] == ["reg"] and server.query()["account"] == ["anna"]
    assert server.asked[0][2]["Authorization"] == auth.basic(ANNA)


def test_anonymous_tokens_carry_no_login() -> None:
    server = Server((200, {"access_token": "T1"}))
    Authorizer(held(host="other"), server).header_for("reg.example", "a/b", "pull", BEARER)
    assert "Authorization" not in server.asked[0][2] and "account" not in server.query()


def test_a_refused_token_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auth, "JUST_MADE_SECONDS", 0)
    authorizer = Authorizer(held(), Server((200, {"token": "T1"}), (200, {"token": "T2"})))
    answers = [authorizer.header_for("reg.example", "a", "pull", BEARER) for _ in range(2)]
    assert answers == ["Bearer T1", "Bearer T2"]


def test_a_refused_login_is_said() -> None:
    with pytest.raises(Unauthorized, match="refuses the login"):
        Authorizer(held(), Server((401, b""))).header_for("reg.example", "a", "pull", BEARER)


def test_identity_tokens_go_by_post_never_in_an_address() -> None:
    server = Server((200, {"access_token": "T1"}))
    login = Login(identity_token="idtok")
    Authorizer(held(login), server).header_for("reg.example", "a/b", "pull", BEARER)
    method, url, _, body = server.asked[0]
    fields = parse_qs(body.decode())
    assert (method, url) == ("POST", REALM)
    assert fields["grant_type"] == ["refresh_token"] and fields["refresh_token"] == ["idtok"]
    assert fields["scope"] == ["repository:a/b:pull"]


def test_scopes_of_mounts_are_left_out_when_they_are_refused() -> None:
    server = Server((403, b""), (200, {"token": "T"}))
    authorizer = Authorizer(held(), server, more=("repository:other:pull",))
    assert authorizer.header_for("reg.example", "a/b", "pull,push", BEARER) == "Bearer T"
    assert len(server.query(0)["scope"]) == 2 and len(server.query(1)["scope"]) == 1


@pytest.mark.parametrize(
    "realm",
    [
        "http://auth.example/token", "ftp://a/b", "", "nonsense", "https://", "file:///etc/passwd",
        "https://u:p@auth.example/t", "http://127.0.0.1:5001/token", "https://[", "http://127.evil/",
    ],
)  # fmt: skip
def test_a_login_goes_to_no_realm_in_the_clear(realm: str) -> None:
    server = Server()
    with pytest.raises(RegistryError):
        Authorizer(held(), server).header_for(
            "reg.example", "a", "pull", f'Bearer realm="{realm}",service="x"'
        )
    assert server.asked == []


@pytest.mark.parametrize("realm", ["http://127.0.0.1:5001/token", "http://localhost/token"])
def test_a_loopback_registry_may_name_a_loopback_realm(realm: str) -> None:
    server = Server((200, {"token": "T"}))
    authorizer = Authorizer(held(host="127.0.0.1:5000"), server)
    assert authorizer.header_for("127.0.0.1:5000", "a", "pull", f'Bearer realm="{realm}"')


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (200, b""), (200, b"[]"), (200, b"{}"), (200, b'{"token": 1}'), (200, b"[" * 100_000),
        (200, b'{"token": "a\\r\\nX-Evil: 1"}'), (200, b'{"token": "a b"}'), (500, b"{}"),
        (302, b""), (200, b"\xff\xfe"),
    ],
)  # fmt: skip
def test_a_hostile_token_server_is_a_typed_error(status: int, body: bytes) -> None:
    authorizer = Authorizer(held(), Server((status, body)))
    with pytest.raises(RegistryError) as caught:
        authorizer.header_for("reg.example", "a/b", "pull", BEARER)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("life", [-1, 0, "60", None, [], 1e300, True])
def test_a_strange_life_of_a_token_does_no_harm(life: object) -> None:
    authorizer = Authorizer(held(), Server((200, {"token": "T", "expires_in": life})))
    assert authorizer.header_for("reg.example", "a/b", "pull", BEARER) == "Bearer T"


def test_a_login_is_never_shown() -> None:
    login = Login("anna", "s3cret", "idtok", "regtok")
    assert not any(secret in repr(login) for secret in ("s3cret", "idtok", "regtok"))


# -- logins in headers ----------------------------------------------------------------------------


def encoded(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode()


def test_logins_in_headers_are_read_as_docker_writes_them() -> None:
    header = encoded({"username": "anna", "password": "s3>?cret", "serveraddress": "x"})
    for text in (header, header.rstrip("="), header.replace("-", "+").replace("_", "/")):
        assert logins.decode(text) == Login("anna", "s3>?cret")
    hub = logins.for_registry("docker.io", header)
    assert hub.get("registry-1.docker.io") == hub.get("docker.io") == Login("anna", "s3>?cret")
    assert hub.get("reg.example") is None
    pair = base64.b64encode(b"bob:x:y").decode()
    many = logins.for_all(encoded({"https://index.docker.io/v1/": {"auth": pair}, "r:5": {}}))
    assert many.get("docker.io") == Login("bob", "x:y") and many.get("r:5") is None


@pytest.mark.parametrize("header", ["", "  ", "e30=", encoded(None), encoded({"username": ""})])
def test_an_empty_login_is_nobodys(header: str) -> None:
    assert not logins.decode(header)


@pytest.mark.parametrize(
    "header",
    ["%%%", "e", encoded([]), encoded("x"), encoded({"password": 1}), encoded({"auth": "%"})],
)
def test_a_malformed_login_is_refused_without_its_content(header: str) -> None:
    with pytest.raises(Invalid):
        logins.decode(header)


@given(st.text(max_size=200))
def test_any_header_is_a_login_or_a_typed_error(header: str) -> None:
    try:
        assert isinstance(logins.decode(header), Login)
    except ProaError as error:
        assert isinstance(error, Invalid)
