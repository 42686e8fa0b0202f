"""`.dockerignore`: tables of moby's rules, and a slow reference for everything between."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proa.errors import Invalid
from proa.image.build.ignore import Ignore, file_names

TABLE = [
    ("**", "file", True), ("**", "dir/file", True), ("**/", "file", True), ("**/**", "a/b", True),
    ("dir/**", "dir/a", True), ("dir/**", "dir/a/b", True), ("dir/**", "dir", False),
    ("**/dir", "dir", True), ("**/dir", "dir/file", True), ("**/dir2/*", "dir/dir2/file", True),
    ("**file", "dir/otherfile", True), ("**/file", "dir/otherfile", False),
    ("**/file*txt", "dir/dir/file.txt", True), ("**/**/*.txt", "file.txt", True),
    ("a**/*.txt", "a/dir/file.txt", True), ("a/*.txt", "a/dir/file.txt", False),
    ("a[b-d]e", "ace", True), ("a[b-d]e", "aae", False), ("a[^b-d]e", "aze", True),
    (".*", ".foo", True), (".*", "foo", False), ("abc.def", "abcZdef", False),
    ("abc?def", "abcZdef", True), ("abc?def", "abc/def", False), ("a\\*b", "a*b", True),
    ("a\\*b", "axb", False), ("a\\\\", "a\\", True), ("**/.foo", "bar.foo", False),
    ("a(b)c/def", "a(b)c/def", True), ("a.|)$(}+{bc", "a.|)$(}+{bc", True), ("a", "a/b/c", True),
    ("a/", "a/b", True), ("/a", "a", True), ("./a", "a", True), ("a/../b", "b", True),
    ("*", "a/b", True), ("*/b", "a/b/c", True), ("b", "a/b", False), ("a b", "a b", True),
    ("é?", "éa", True), ("[", "a", None), ("[]a]", "a", None), ("[a-]", "a", None),
    ("a\\", "a", None), ("[b-a]", "a", None), ("!", "a", None),
]  # fmt: skip


@pytest.mark.parametrize(("pattern", "path", "expected"), TABLE)
def test_one_pattern(pattern: str, path: str, expected: bool | None) -> None:
    if expected is None:
        with pytest.raises(Invalid, match=re.escape(f"'{pattern}'")):
            Ignore(pattern.encode())
    else:
        assert Ignore(pattern.encode()).matches(path) is expected


@pytest.mark.parametrize(
    ("text", "path", "expected"),
    [
        ("docs\n!docs/README", "docs/README", False),
        ("docs\n!docs/README", "docs/other", True),
        ("!docs/README\ndocs", "docs/README", True),
        ("*\n!src\nsrc/x", "src/x/y", True),
        ("*\n!src\nsrc/x", "src/z", False),
        ("**\n!a/b", "a/b/c", False),
        ("# a\n#a\n\n  \n b \r\n", "b", True),
        ("# a", "# a", False),
        ("\\#a", "#a", True),
        ("*\n! /a", "a", False),
        ("d\n!d/f\nd", "d/f", False),  # a pattern not asked above is not remembered: moby's walk
        ("\ufeffa", "a", True),
    ],
)
def test_order_and_lines(text: str, path: str, expected: bool) -> None:
    assert Ignore(text.encode()).matches(path) is expected


def test_a_directory_that_is_out_may_hold_what_is_in() -> None:
    ignore = Ignore(b"*\n!src/app/**\n!docs/x\n")
    assert ignore.exceptions
    assert [one for one in ("src", "src/app", "docs", "bin", "sr") if ignore.may_hold(one)] == [
        "src", "src/app", "docs",
    ]  # fmt: skip
    assert Ignore(b"*\n!**/keep").may_hold("anything")
    assert not Ignore(b"*").may_hold("anything")
    assert not Ignore(b"") and not Ignore(b"").matches("a")


def test_names() -> None:
    assert file_names("build/web.Containerfile") == (
        "build/web.Containerfile.dockerignore", ".dockerignore",
    )  # fmt: skip
    assert Ignore.of(["*.md", "!a.md"]).matches("b.md")
    assert not Ignore.of(["*.md", "!a.md"]).matches("a.md")


def test_hostile_patterns_and_paths() -> None:
    """No pattern takes exponential time, no depth overflows a stack."""
    wild = Ignore(b"**/" + b"*a" * 60 + b"**/*b*/**/*c\n")
    assert not wild.matches("/".join(["a" * 200] * 15))
    assert Ignore(b"a").matches("/".join("a" * 2000))
    with pytest.raises(Invalid, match="bytes"):
        Ignore(b"a\n" * 600_000)


# -- a reference ----------------------------------------------------------------------------------


def _expression(pattern: str) -> str:
    """patternmatcher's own translation, for patterns without classes and escapes."""
    if pattern.startswith("**") and "*" not in pattern[2:] and "?" not in pattern:
        end = re.escape(pattern[2:])
        return f"(.*{end}|{end[1:]})" if pattern[2:3] == "/" else f".*{end}"
    found, position = "", 0
    while position < len(pattern):
        char = pattern[position]
        position += 1
        if char == "*" and pattern[position : position + 1] == "*":
            position += 1
            position += pattern[position : position + 1] == "/"
            found += ".*" if position == len(pattern) else "(.*/)?"
        else:
            found += {"*": "[^/]*", "?": "[^/]"}.get(char, re.escape(char))
    return found


def _reference(patterns: list[str], path: str) -> bool:
    """Directory by directory from the top, as a walk that remembers each pattern's answer."""
    above = [False] * len(patterns)
    names = path.split("/")
    matched = False
    for depth in range(len(names)):
        here = "/".join(names[: depth + 1])
        matched, answers = False, []
        for pattern, inherited in zip(patterns, above, strict=True):
            exception = pattern.startswith("!")
            answer = inherited
            if not answer and exception == matched:
                answer = bool(re.fullmatch(_expression(pattern.removeprefix("!")), here))
            if answer:
                matched = not exception
            answers.append(answer)
        above = answers
    return matched


PATTERN = st.lists(st.sampled_from(["a", "b", "ab", "*", "**", "?", "*b"]), min_size=1, max_size=4)
PATTERNS = st.lists(
    st.tuples(st.booleans(), PATTERN).map(lambda one: "!" * one[0] + "/".join(one[1])),
    min_size=1,
    max_size=4,
)
PATH = st.lists(st.text("ab", min_size=1, max_size=2), min_size=1, max_size=4).map("/".join)


@settings(max_examples=400)
@given(PATTERNS, st.lists(PATH, min_size=1, max_size=6))
def test_against_the_reference(patterns: list[str], paths: list[str]) -> None:
    ignore = Ignore("\n".join(patterns).encode())
    for path in paths:
        assert ignore.matches(path) == _reference(patterns, path), path
        if not ignore.matches(path):
            parts = path.split("/")
            above = ("/".join(parts[:depth]) for depth in range(1, len(parts)))
            assert all(not ignore.matches(one) or ignore.may_hold(one) for one in above)
