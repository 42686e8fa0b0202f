"""The parts of a build that touch no file: wildcards, modes, the configuration, plans, keys."""

from __future__ import annotations

import pytest

from proa.errors import BuildError, Invalid
from proa.image import platforms
from proa.image.build import cache, containerfile, copy, modes, plan, words
from proa.image.build import wildcards as wild
from proa.image.build.config import Draft
from proa.image.build.request import BuildRequest


@pytest.mark.parametrize(
    ("pattern", "matches", "others"),
    [
        ("*.txt", ["a.txt", ".txt"], ["a.txtx", "d/a.txt"]),
        ("a?c", ["abc"], ["ac", "a/c"]),
        ("[a-c]x", ["ax", "cx"], ["dx"]),
        ("[^a]x", ["bx"], ["ax"]),
        (r"\*", ["*"], ["a"]),
        (r"[\]]", ["]"], ["["]),
        ("[z-a]", [], ["a", "z", "m"]),
        ("d*/f", ["d/f", "dir/f"], ["d/e/f"]),
    ],
)
def test_wildcards_are_those_of_go(pattern: str, matches: list[str], others: list[str]) -> None:
    found = wild.compiled(pattern)
    assert found is not None
    assert [text for text in [*matches, *others] if found.fullmatch(text)] == matches


@pytest.mark.parametrize("pattern", ["[", "[]", "[a", "[-]", "[a-]", "\\"])
def test_a_malformed_pattern_matches_nothing(pattern: str) -> None:
    assert wild.compiled(pattern) is None


@pytest.mark.parametrize(
    ("path", "parts"),
    [("a/b", ("a/b", "")), ("a/*/c", ("a", "*/c")), ("*", ("", "*")), (r"a\*b/c", (r"a\*b/c", ""))],
)
def test_a_pattern_begins_at_its_first_wildcard(path: str, parts: tuple[str, str]) -> None:
    assert wild.split(path) == parts


@pytest.mark.parametrize(
    ("text", "before", "after"),
    [
        ("755", 0o100600, 0o755), ("4755", 0o100600, 0o4755), ("0", 0o100777, 0),
        ("u=rwX,go=rX", 0o100600, 0o644), ("u=rwX,go=rX", 0o040600, 0o755),
        ("+x", 0o100644, 0o755), ("a-w", 0o100666, 0o444), ("g=u", 0o100640, 0o660),
        ("u+s,o-r", 0o100755, 0o4751), ("+t", 0o040755, 0o1755), ("o+t", 0o040755, 0o755),
        ("go=", 0o100777, 0o700), ("u+x-w", 0o100644, 0o544),
    ],
)  # fmt: skip
def test_modes_change_as_chmod_changes_them(text: str, before: int, after: int) -> None:
    assert oct(modes.parse(text)(before)) == oct(after)


@pytest.mark.parametrize("text", ["", "8", "99", "78", "77777", "u", "u=q", "=,", "x", "7x"])
def test_what_is_no_mode(text: str) -> None:
    with pytest.raises(Invalid, match="invalid mode"):
        modes.parse(text)


@pytest.mark.parametrize(
    ("directory", "text", "where"),
    [
        ("/", "a", "/a"), ("/w", "a", "/w/a"), ("/w", ".", "/w/"), ("/w", "./", "/w/"),
        ("/w", "/a/", "/a/"), ("/w", "a/.", "/w/a/"), ("/w", "../a", "/a"), ("/w", "/", "/"),
        ("/", "../../a", "/a"), ("/w", "", "/w/"),
    ],
)  # fmt: skip
def test_destinations(directory: str, text: str, where: str) -> None:
    assert copy.destination(directory, text) == where


# -- the configuration ----------------------------------------------------------------------------


def drafted(text: str, **config: object) -> Draft:
    draft = Draft({"config": config})
    for instruction in containerfile.parse(b"FROM x\n" + text.encode()).stages[0].instructions:
        draft.apply(words.expand(instruction, draft.environment))
    return draft


@pytest.mark.parametrize(
    ("text", "before", "after"),
    [
        ('ENTRYPOINT ["a"]', {"Cmd": ["x"]}, {"Entrypoint": ["a"]}),
        ('CMD ["c"]\nENTRYPOINT ["a"]', {}, {"Cmd": ["c"], "Entrypoint": ["a"]}),
        ("CMD []", {"Cmd": ["x"]}, {}),
        ('SHELL ["/bin/bash", "-ec"]\nCMD a b', {},
         {"Shell": ["/bin/bash", "-ec"], "Cmd": ["/bin/bash", "-ec", "a b"]}),
        ("WORKDIR a\nWORKDIR ../b", {"WorkingDir": "/w"}, {"WorkingDir": "/w/b"}),
        ("WORKDIR //a//b/", {}, {"WorkingDir": "/a/b"}),
        ("ENV A=$B B=2\nENV C=$B", {"Env": ["B=1", "D=4"]}, {"Env": ["B=2", "D=4", "A=1", "C=2"]}),
        ("EXPOSE 1-2/udp 2", {}, {"ExposedPorts": {"1/udp": {}, "2/udp": {}, "2/tcp": {}}}),
        ("LABEL a=1 b='2 3'", {"Labels": {"a": "0", "c": "4"}},
         {"Labels": {"a": "1", "b": "2 3", "c": "4"}}),
        ("HEALTHCHECK NONE", {}, {"Healthcheck": {"Test": ["NONE"]}}),
        ("HEALTHCHECK --interval=1m30s --start-interval=250ms --retries=2 CMD x", {},
         {"Healthcheck": {"Test": ["CMD-SHELL", "x"], "Interval": 90 * 10**9,
                          "StartInterval": 250 * 10**6, "Retries": 2}}),
        ("ONBUILD RUN a\nONBUILD COPY b c", {"OnBuild": ["RUN z"]},
         {"OnBuild": ["RUN z", "RUN a", "COPY b c"]}),
        ("USER a:b\nSTOPSIGNAL SIGRTMIN+3\nVOLUME /v", {},
         {"User": "a:b", "StopSignal": "SIGRTMIN+3", "Volumes": {"/v": {}}}),
    ],
)  # fmt: skip
def test_what_instructions_do(text: str, before: dict[str, object], after: object) -> None:
    assert drafted(text, **before).config == after


def test_history_has_buildkits_words() -> None:
    draft = drafted(
        'ENV A=1 B="2 3"\nCMD ["a", "b\\"c"]\nCMD x\nEXPOSE 90 80\nVOLUME /a /b\nUSER u\n'
        "HEALTHCHECK --interval=1500ms CMD x\nWORKDIR /w\nONBUILD RUN x\nLABEL l=m\nWORKDIR /"
    )
    assert [(entry["created_by"], "empty_layer" in entry) for entry in draft.history] == [
        ("ENV A=1 B=2 3", True),
        ('CMD ["a" "b\\"c"]', True),
        ('CMD ["/bin/sh" "-c" "x"]', True),
        ("EXPOSE [80/tcp 90/tcp]", True),
        ("VOLUME [/a /b]", True),
        ("USER u", True),
        ('HEALTHCHECK &{["CMD-SHELL" "x"] "1.5s" "0s" "0s" "0s" \'\\x00\'}', True),
        ("WORKDIR /w", False),
        ("LABEL l=m", True),
        ("WORKDIR /", True),
    ]


# -- the plan -------------------------------------------------------------------------------------

STAGES = """\
ARG BASE=x
FROM scratch AS a
FROM $BASE AS b
COPY --from=a /f /f
FROM b AS c
RUN --mount=from=d,target=/m true
FROM a AS unused
FROM scratch AS last
COPY --from=1 /f /f
"""


def planned(text: str, **options: object) -> plan.Plan:
    request = BuildRequest(text.encode(), **options)  # type: ignore[arg-type]
    return plan.make(containerfile.parse(text.encode()), request)


@pytest.mark.parametrize(
    ("target", "needed"),
    [("", (0, 1, 4)), ("a", (0,)), ("B", (0, 1)), ("c", (0, 1, 2)), ("unused", (0, 3))],
)
def test_only_what_the_target_needs(target: str, needed: tuple[int, ...]) -> None:
    assert planned(STAGES, target=target).needed == needed


def test_bases_are_stages_images_and_contexts() -> None:
    nodes = planned(STAGES, contexts={"x": "/host", "unused": "docker-image://y"}).nodes
    assert nodes[0].base.nothing
    assert nodes[1].base.directory == "/host"
    assert nodes[2].base.stage == 1
    assert (nodes[3].base.image, nodes[3].replaced) == ("y", True)


@pytest.mark.parametrize(
    ("text", "options", "said"),
    [
        ("FROM $NOTHING", {}, "is empty"),
        ("FROM UPPER", {}, "invalid image name"),
        ("FROM --platform=$P x", {}, "is empty"),
        ("FROM --platform=a/b/c/d x", {}, "invalid platform"),
        ("FROM x", {"target": "y"}, "'y' is not in"),
    ],
)
def test_plans_that_cannot_be(text: str, options: dict[str, object], said: str) -> None:
    with pytest.raises(BuildError, match=said):
        planned(text, **options)


def test_a_context_is_a_directory_or_an_image() -> None:
    for text in ("relative", "https://example.test/x.git", "oci-layout://x"):
        with pytest.raises(Invalid, match="as a build context"):
            plan.context(text)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("linux/amd64", "linux/amd64"), ("LINUX/x86_64", "linux/amd64"), ("arm64", "linux/arm64"),
        ("linux/arm64/v8", "linux/arm64"), ("linux/arm/v6", "linux/arm/v6"),
        ("linux/armhf", "linux/arm/v7"),
    ],
)  # fmt: skip
def test_platforms(text: str, found: str) -> None:
    assert str(platforms.parse(text)) == found


def test_keys_tell_everything_apart() -> None:
    keys = [
        cache.key("RUN", "a", "b"), cache.key("RUN", "ab"), cache.key("RUN", ["a", "b"]),
        cache.key("RUN", "a", "b", None), cache.key("RUN", {"a": "b"}), cache.key("COPY", "a", "b"),
    ]  # fmt: skip
    assert len(set(keys)) == len(keys)
    assert cache.key("RUN", {"a": 1, "b": 2}) == cache.key("RUN", {"b": 2, "a": 1})
