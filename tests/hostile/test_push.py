"""Registries that cut, forget, garble and lie while they are pushed to."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from proa.errors import Corrupt, ProaError, RegistryError
from proa.image.registry import sending
from proa.image.registry.auth import Authorizer
from proa.image.registry.client import Registry
from proa.image.registry.credentials import Credentials, Login
from proa.image.registry.hosts import Hosts
from proa.image.registry.sending import Parcel, Target, deliver
from proa.image.registry.transport import Transport
from tests.support.receiver import Receiver, digest_of, receiver

SIZE = 3 << 20
DATA = random.Random(7).randbytes(SIZE)


@pytest.fixture
def server() -> Iterator[Receiver]:
    with receiver() as made:
        yield made


@pytest.fixture
def parcel(tmp_path: Path) -> Parcel:
    (tmp_path / "blob").write_bytes(DATA)
    return Parcel(digest_of(DATA), SIZE, tmp_path / "blob")


def target(server: Receiver, chunk_bytes: int = sending.CHUNK_BYTES) -> Target:
    registry = Registry(server.host, Transport(Hosts()))
    return Target(registry, "a/b", chunk_bytes, pause=lambda seconds: None)


def send(target: Target, parcel: Parcel, *sources: str) -> str:
    return deliver(target, parcel, sources, lambda done: None)


def test_a_blob_goes_in_one_request_and_only_once(server: Receiver, parcel: Parcel) -> None:
    assert send(target(server), parcel) == "sent"
    assert server.blobs == {parcel.digest: DATA}
    assert send(target(server), parcel) == "present"
    assert server.received() == SIZE and len(server.paths("PUT")) == 1


@pytest.mark.parametrize("cut", [2, SIZE // 2, SIZE - 1])
def test_a_cut_upload_goes_on_where_the_registry_is(
    server: Receiver, parcel: Parcel, cut: int
) -> None:
    server.cuts = [cut]
    assert send(target(server), parcel) == "sent"
    assert server.blobs == {parcel.digest: DATA} and server.received() == SIZE
    (resumed,) = [item for item in server.asked if item.method == "PATCH"]
    assert resumed.headers["Content-Range"] == f"{cut}-{SIZE - 1}"


def test_one_byte_is_told_like_none_and_sent_again(server: Receiver, parcel: Parcel) -> None:
    server.cuts = [1]
    assert send(target(server), parcel) == "sent"
    assert server.blobs == {parcel.digest: DATA} and len(server.paths("POST")) == 2


def test_many_cuts_are_survived_while_it_comes_further(server: Receiver, parcel: Parcel) -> None:
    server.cuts = [100_000] * 12
    assert send(target(server), parcel) == "sent"
    assert server.blobs == {parcel.digest: DATA} and server.received() == SIZE


def test_chunks_come_in_order_and_end_with_the_digest(server: Receiver, parcel: Parcel) -> None:
    assert send(target(server, 1 << 20), parcel) == "sent"
    ranges = [item.headers["Content-Range"] for item in server.asked if item.method == "PATCH"]
    assert ranges == ["0-1048575", "1048576-2097151", "2097152-3145727"]
    assert server.blobs == {parcel.digest: DATA}


def test_a_forgotten_upload_begins_again(server: Receiver, parcel: Parcel) -> None:
    server.cuts, server.forgets = [SIZE // 2], True
    assert send(target(server), parcel) == "sent"
    assert server.blobs == {parcel.digest: DATA} and len(server.paths("POST")) == 2


def test_a_garbled_rest_is_not_trusted(server: Receiver, parcel: Parcel) -> None:
    server.cuts, server.garbles = [SIZE // 2], True
    assert send(target(server), parcel) == "sent"
    assert server.blobs == {parcel.digest: DATA} and len(server.paths("POST")) == 2


def test_a_registry_that_always_cuts_is_given_up(server: Receiver, parcel: Parcel) -> None:
    server.cuts, server.forgets = [1000] * 100, True
    with pytest.raises(RegistryError):
        send(target(server), parcel)
    assert server.blobs == {} and len(server.paths("POST")) == sending.ATTEMPTS


def test_another_digest_than_the_sent_is_noticed(server: Receiver, parcel: Parcel) -> None:
    server.lies = True
    with pytest.raises(Corrupt, match="was sent"):
        send(target(server), parcel)


def test_a_refused_mount_becomes_the_upload(server: Receiver, parcel: Parcel) -> None:
    assert send(target(server), parcel, "other/repository") == "sent"
    (begun,) = server.paths("POST")
    assert "from=other%2Frepository" in begun and server.blobs == {parcel.digest: DATA}


def test_a_login_does_not_follow_an_upload_to_another_host(
    server: Receiver, parcel: Parcel
) -> None:
    with receiver() as elsewhere:
        server.upload_host = elsewhere.host
        elsewhere.uploads["0"] = bytearray()
        held = Credentials({server.host: Login("anna", "s3cret")})
        authorizer = Authorizer(held, lambda *asked: (500, b""))
        authorizer.header_for(server.host, "a/b", "pull,push", 'Basic realm="x"')
        registry = Registry(server.host, Transport(Hosts()), authorizer)
        assert send(Target(registry, "a/b"), parcel) == "sent"
        assert elsewhere.blobs == {parcel.digest: DATA}
        (begun,) = [item for item in server.asked if item.method == "POST"]
        assert "Authorization" in begun.headers
        assert not any("Authorization" in item.headers for item in elsewhere.asked)


def test_a_file_that_shrinks_is_noticed(server: Receiver, parcel: Parcel) -> None:
    def told(done: int) -> None:
        parcel.path.write_bytes(DATA[: 1 << 20])

    with pytest.raises(ProaError):
        deliver(target(server), parcel, (), told)
    assert server.blobs == {}
