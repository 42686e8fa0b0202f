"""Builds whose steps run: in containers, and one in a vm of its own."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from proa.errors import BuildError, Cancelled
from proa.image.build.request import Output, Vertex
from tests.support.building import Builds, running_builds
from tests.support.engine import EngineProcess


@pytest.fixture(scope="module")
def builds(session_engine: EngineProcess) -> Iterator[Builds]:
    """Beside the session's engine; what it has saved of virtual machines serves here too."""
    with running_builds(session_engine.root / "vm") as made:
        yield made


def test_many_stages(builds: Builds) -> None:
    built = builds.build(
        """\
ARG WHO=world
FROM busy AS one
ARG WHO
RUN echo hello $WHO > /hello && ln /hello /twin
FROM busy AS two
WORKDIR /made/here
RUN pwd > where
FROM two
COPY --from=one /hello /twin /got/
RUN rm -r /home && echo $((6 * 7)) > /answer
USER alice
RUN id -u > /tmp/me
CMD ["cat", "/answer"]
""",
        arguments={"WHO": "proa"},
    )
    assert built.content("/got/hello") == "hello proa\n"
    assert built.content("/made/here/where") == "/made/here\n"
    assert (built.content("/answer"), built.content("/tmp/me")) == ("42\n", "1000\n")
    assert "/home/alice" not in built.files
    assert [text for text, empty in built.held.history if not empty][-2:] == [
        "RUN /bin/sh -c rm -r /home && echo $((6 * 7)) > /answer # buildkit",
        "RUN /bin/sh -c id -u > /tmp/me # buildkit",
    ]
    assert "WHO" not in " ".join(built.held.config["Env"])


def test_a_step_in_a_vm_leaves_the_same_layer(builds: Builds) -> None:
    text = "FROM busy\nRUN uname -n; mkdir -p /new/dir && echo x > /new/dir/f && rm -r /home"
    found = []
    for isolation in ("container", "vm"):
        built = builds.build(text, isolation=isolation, epoch_seconds=0)
        assert built.said() == "build\n"
        found.append(built.image.manifest_digest)
    assert found[0] == found[1]


def test_the_same_digest_with_steps(builds: Builds) -> None:
    text = "FROM busy\nWORKDIR /w\nRUN echo x > a; mkdir d; ln a d/b; rm /etc/group; touch /etc/n"
    first = builds.build(text, epoch_seconds=10**9)
    second = builds.build(text, epoch_seconds=10**9, use_cache=False)
    assert second.states() == ["cached", "done", "done"]
    assert first.image.manifest_digest == second.image.manifest_digest


def test_a_step_that_changes_nothing_gives_the_empty_layer(builds: Builds) -> None:
    built = builds.build("FROM busy\nRUN true\nRUN --mount=type=tmpfs,target=/a/b true")
    assert built.image.diff_ids[1] == built.image.diff_ids[2]
    assert "/a" not in built.files


def test_scratch_with_a_program(builds: Builds) -> None:
    built = builds.build('FROM scratch\nCOPY --from=busy /probe /p\nRUN ["/p", "echo", "hi"]')
    assert set(built.files) == {"/p"}


def test_heredocs_and_shells(builds: Builds) -> None:
    built = builds.build(
        """\
FROM busy
RUN <<END
echo one
false
echo two > /two
END
RUN <<-END
\t#!/bin/sh -e
\techo "$0" > /name
END
SHELL ["/bin/sh", "-ec"]
RUN cat <<A > /a; echo $PATH > /path
text
A
"""
    )
    assert (built.content("/two"), built.content("/a")) == ("two\n", "text\n")
    assert built.content("/name") == "/dev/pipes/END\n"
    assert built.content("/path") == "/bin:/usr/bin\n"
    assert "/dev/pipes" not in built.files


MOUNTS = """\
FROM busy AS other
RUN echo other > /srv/file
FROM busy
RUN --mount=type=bind,source=d,target=/m,rw cat /m/f > /f; echo changed > /m/f; ! cat /m/no
RUN --mount=from=other,source=/srv,target=/o cat /o/file > /o.txt; ! touch /o/x
RUN --mount=type=cache,target=/c,uid=1000,mode=700 stat -c '%u %a' /c > /c.txt; echo n >> /c/n
RUN --mount=type=cache,target=/c,uid=1000,mode=700 cat /c/n > /n; echo m >> /c/n
RUN --mount=type=cache,id=seeded,from=other,source=/srv,target=/s cat /s/file > /s.txt
"""


def test_mounts(builds: Builds) -> None:
    context = builds.context({"d/f": "bound", "d/no": "", ".dockerignore": "d/no"})
    built = builds.build(MOUNTS, context)
    assert (built.content("/f"), built.content("/o.txt")) == ("bound", "other\n")
    assert (built.content("/c.txt"), built.content("/n")) == ("1000 700\n", "n\n")
    assert built.content("/s.txt") == "other\n"
    assert not {"/m", "/o", "/c", "/s"} & set(built.files)
    assert (context / "d/f").read_text() == "bound"
    assert set(builds.build(MOUNTS, context).states()) == {"cached"}
    (context / "d/f").write_text("other")
    assert "done" in builds.build(MOUNTS, context).states()


def test_locked_and_private_caches_exclude(builds: Builds) -> None:
    """Two steps in the same locked cache never overlap; private ones have a cache each."""
    one = "RUN --mount=type=cache,id={id},sharing={how},target=/c {script}"
    alone = "mkdir /c/busy && sleep 0.2 && rmdir /c/busy && touch /done"
    locked = one.format(id="l", how="locked", script=alone)
    built = builds.build(
        f"FROM busy AS a\n{locked}\nFROM busy AS b\n{locked}; true\n"
        "FROM busy\nCOPY --from=a /done /a\nCOPY --from=b /done /b"
    )
    assert {"/a", "/b"} <= set(built.files)
    script = "[ ! -e /c/busy ] && touch /c/busy && sleep 0.3 && rm /c/busy && touch /done"
    private = one.format(id="p", how="private", script=script)
    built = builds.build(
        f"FROM busy AS a\n{private}\nFROM busy AS b\n{private}; true\n"
        "FROM busy\nCOPY --from=a /done /a\nCOPY --from=b /done /b"
    )
    assert {"/a", "/b"} <= set(built.files)


def test_stages_run_side_by_side(builds: Builds) -> None:
    """Each waits for the other's sign in a shared cache: one after the other they would fail."""
    wait = "for i in $(seq 100); do [ -e /c/{other} ] && touch /ok && exit; sleep 0.1; done; false"
    mount = "--mount=type=cache,id=meet,target=/c"
    built = builds.build(
        f"FROM busy AS a\nRUN {mount} touch /c/a; {wait.format(other='b')}\n"
        f"FROM busy AS b\nRUN {mount} touch /c/b; {wait.format(other='a')}\n"
        "FROM busy\nCOPY --from=a /ok /a\nCOPY --from=b /ok /b"
    )
    assert {"/a", "/b"} <= set(built.files)


def test_arguments_count_and_proxies_do_not(builds: Builds) -> None:
    text = "FROM busy\nARG A\nRUN echo $A $http_proxy > /out"
    first = builds.build(text, arguments={"A": "1", "http_proxy": "http://proxy.test"})
    assert first.content("/out") == "1 http://proxy.test\n"
    assert "proxy.test" not in str(first.held.history)
    again = builds.build(text, arguments={"A": "1", "http_proxy": "http://other.test"})
    assert again.states() == ["cached", "cached"]
    assert builds.build(text, arguments={"A": "2"}).states() == ["cached", "done"]


def test_what_a_failing_step_says(builds: Builds) -> None:
    text = "FROM busy\nRUN for i in $(seq 20); do echo line $i; done; echo last >&2; exit 7"
    with pytest.raises(BuildError) as caught:
        builds.build(text)
    error = caught.value
    assert (error.step_exit, error.line, error.source) == (7, 2, text.split("\n")[1])
    assert "did not complete successfully: exit code: 7" in error.message
    assert "line 20" in error.hint and "last" in error.hint and "line 3\n" not in error.hint
    with pytest.raises(BuildError, match="exit code: 127"):
        builds.build('FROM busy\nRUN ["/nothing"]')
    assert builds.clean()


def test_a_cancelled_step_ends(builds: Builds) -> None:
    cancel = threading.Event()
    caught: list[BaseException] = []

    def run() -> None:
        try:
            builds.build("FROM busy\nRUN echo up; sleep 100", cancel=cancel)
        except Cancelled as error:
            caught.append(error)

    builds.events = []
    thread = threading.Thread(target=run)
    thread.start()
    while not any(isinstance(event, Output) for event in builds.events):
        assert thread.is_alive()
        thread.join(0.02)
    cancel.set()
    thread.join(10)
    assert caught and builds.clean()
    last = [event for event in builds.events if isinstance(event, Vertex)][-1]
    assert last.state == "cancelled"


def test_a_squashed_image_holds_the_same(builds: Builds) -> None:
    text = "FROM busy\nRUN mkdir /d; echo 1 > /d/a; echo 2 > /d/b\nRUN rm /d/a; rm -r /home\n"
    text += "RUN rm -r /d; mkdir /d; touch /d/c; mkdir /home"
    plain, squashed = builds.build(text), builds.build(text, squash=True)
    assert squashed.files == plain.files
    assert (plain.held.layers, squashed.held.layers) == (4, 2)
    assert "/home/alice" not in squashed.files and "/d/b" not in squashed.files
