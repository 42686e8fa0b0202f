"""Progress of layers: drawn in place on a terminal, plain lines elsewhere; streams that fail."""

from __future__ import annotations

import io
import threading
from typing import Any

import pytest

from proa.api.feed import Feed, stream
from proa.cli.layers import Display, follow
from proa.errors import Cancelled, Conflict, ImageNotFound, RegistryError, Unauthorized
from proa.image.progress import Step

LAYER = "0123456789ab"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def moving(current: int, identity: str = LAYER) -> dict[str, Any]:
    detail = {"current": current, "total": 100}
    return {"id": identity, "status": "Downloading", "progressDetail": detail}


STREAM: list[dict[str, Any]] = [
    {"id": "latest", "status": "Pulling from a/b"},
    {"id": LAYER, "status": "Waiting", "progressDetail": {}},
    moving(10),
    moving(90),
    {"id": LAYER, "status": "Pull complete", "progressDetail": {}},
    {"status": "Digest: sha256:0"},
]


def test_a_pipe_gets_a_line_per_change() -> None:
    out = io.StringIO()
    with Display(out) as display:
        for message in STREAM:
            display.show(message)
    assert out.getvalue() == (
        f"latest: Pulling from a/b\n{LAYER}: Pull complete\nDigest: sha256:0\n"
    )


def test_a_terminal_has_one_line_per_layer_drawn_in_place() -> None:
    out = Terminal()
    with Display(out) as display:
        for message in STREAM:
            display.show(message)
    text = out.getvalue()
    assert text.startswith("latest: Pulling from a/b\n") and text.endswith("Digest: sha256:0\n")
    drawn = text.removeprefix("latest: Pulling from a/b\n").removesuffix("Digest: sha256:0\n")
    assert "Pull complete" in drawn and drawn.count("\x1b[1A") == drawn.count("\n") - 1


def test_two_layers_stay_in_their_lines() -> None:
    out = Terminal()
    with Display(out) as display:
        for message in (moving(1), moving(2, "ba" * 6), moving(3)):
            display.show(message)
    last = out.getvalue().rpartition("\x1b[2A")[2].rstrip("\n").split("\n")
    assert [line.removeprefix("\r\x1b[K")[:12] for line in last] == [LAYER, "ba" * 6]


@pytest.mark.parametrize("total", [0, -1, "x", None, 1 << 80])
def test_strange_sizes_do_no_harm(total: Any) -> None:
    out = Terminal()
    with Display(out) as display:
        detail = {"current": 5, "total": total}
        display.show({"id": LAYER, "status": "Pushing", "progressDetail": detail})
    assert LAYER in out.getvalue()


def test_a_message_of_failure_ends_the_stream_with_its_kind() -> None:
    failed = {"error": "no", "errorDetail": {"message": "no"}, "code": "unauthorized"}
    with pytest.raises(Unauthorized, match="no"):
        follow([*STREAM, failed], quiet=True)
    assert follow([{"aux": {"Digest": "x"}}], quiet=True) == [{"Digest": "x"}]


# -- the engine's side ----------------------------------------------------------------------------


def body(feed: Feed) -> bytes:
    return b"".join(piece or b"" for piece in feed.pieces())


def test_quick_steps_of_a_layer_become_one_message() -> None:
    feed = Feed()
    for done in range(1, 1001):
        feed.told(Step("Downloading", LAYER, done, 1000))
    feed.run(lambda feed: [{"status": "end"}])
    first, last = body(feed).splitlines()
    assert b'"current":1000' in first and b'"end"' in last


def test_an_early_failure_has_a_status_a_late_one_a_message() -> None:
    def early(feed: Feed) -> list[dict[str, Any]]:
        feed.told(Step("Pulling from x", "latest"))
        raise ImageNotFound("gone")

    def late(feed: Feed) -> list[dict[str, Any]]:
        feed.told(Step("Pulling from x", "latest"))
        feed.told(Step("Waiting", LAYER))
        raise RegistryError("broke off", hint="try again")

    with pytest.raises(ImageNotFound):
        stream(early, "test")
    *_, last = b"".join(piece or b"" for piece in stream(late, "test").pieces).splitlines()
    assert b'"errorDetail":{"message":"broke off\\ntry again"}' in last
    assert b'"code":"registry-failed"' in last


def test_a_refused_login_is_a_message_lest_docker_asks_for_one() -> None:
    def work(feed: Feed) -> list[dict[str, Any]]:
        raise Unauthorized("wants a login")

    assert b"wants a login" in b"".join(piece or b"" for piece in stream(work, "test").pieces)


def test_work_ends_when_the_client_has_left() -> None:
    ended: list[BaseException] = []
    left = threading.Event()

    def work(feed: Feed) -> list[dict[str, Any]]:
        try:
            feed.told(Step("a"))
            feed.told(Step("b"))
            assert left.wait(10) and feed.cancelled()
            feed.told(Step("c"))
        except BaseException as error:
            ended.append(error)
            raise
        return []

    pieces = stream(work, "test").pieces
    assert next(pieces)
    pieces.close()  # type: ignore[attr-defined]
    left.set()
    for thread in threading.enumerate():
        if thread.name == "test":
            thread.join(10)
    assert [type(error) for error in ended] == [Cancelled]


def test_an_unexpected_failure_tells_nothing_of_itself() -> None:
    def work(feed: Feed) -> list[dict[str, Any]]:
        feed.told(Step("a"))
        feed.told(Step("b"))
        raise ZeroDivisionError("secret")

    said = b"".join(piece or b"" for piece in stream(work, "test").pieces)
    assert b"internal error" in said and b"secret" not in said


def test_other_errors_keep_their_kind_on_the_way() -> None:
    with pytest.raises(Conflict):
        follow([{"error": "x", "code": "conflict"}], quiet=True)
