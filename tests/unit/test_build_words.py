"""Words: quotes, escapes, variables, patterns; and which variables there are."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proa.errors import BuildError
from proa.image.build import containerfile, patterns, scope, words

VARIABLES = {
    "PWD": "/home",
    "x": "1",
    "null": "",
    "path": "a/b.tar.gz",
    "two": "a  b",
    "star": "a*b",
}

EXPANDED = [
    ("hello", "hello"),
    ("he'll'o", "hello"),
    ('"a b"', "a b"),
    (r"a\tb", "atb"),
    (r'"a\tb"', r"a\tb"),
    (r"'a\tb'", r"a\tb"),
    ("a\\", "a"),
    (r"a\\", "a\\"),
    ('"a\'b"', "a'b"),
    (r'"a\"b"', 'a"b'),
    ("$x", "1"),
    ("$x.", "1."),
    ("$.", "$."),
    ("$", "$"),
    (r"\$x", "$x"),
    (r'"\$x$x"', "$x1"),
    ("'$x'", "$x"),
    ("$xy", ""),
    ("${x}y", "1y"),
    ("$12x", "x"),
    ("$@$#$*$!$?$-$$", ""),
    ("${unset}", ""),
    ("${unset:-d}", "d"),
    ("${null:-d}", "d"),
    ("${null-d}", ""),
    ("${unset-d}", "d"),
    ("${x:-d}", "1"),
    ("${x:+y}", "y"),
    ("${null:+y}", ""),
    ("${null+y}", "y"),
    ("${unset+y}", ""),
    ("${x?}", "1"),
    ("${null?}", ""),
    ("${unset:-${PWD:+$x}}", "1"),
    ("${unset:-'a}b'}", "a}b"),
    (r"${unset:-a\}b}", "a}b"),
    ("${path#*/}", "b.tar.gz"),
    ("${path#*.}", "tar.gz"),
    ("${path##*.}", "gz"),
    ("${path%.*}", "a/b.tar"),
    ("${path%%.*}", "a/b"),
    ("${path#b}", "a/b.tar.gz"),
    ("${path%?z}", "a/b.tar."),
    (r"${star#a\*}", "b"),
    (r"${star%\*b}", "a"),
    ("${path/a/x}", "x/b.tar.gz"),
    ("${path//a/x}", "x/b.txr.gz"),
    (r"${path//\//-}", "a-b.tar.gz"),
    ("${path/.*/}", "a/b"),
    ("${path//?/x}", "xxxxxxxxxx"),
    ("${x//*/y}", "y"),
    ("${x//$unset/y}", "y1y"),
    ("${unset/a/b}", ""),
    ("a<<b", "a<<b"),
    ("한${x}국$x국", "한1국"),
]


@pytest.mark.parametrize(("text", "expected"), EXPANDED)
def test_words(text: str, expected: str) -> None:
    assert words.word(text, VARIABLES) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("he'llo", "single-quote"),
        ('"hello', "double-quote"),
        (r'"hello\"', "double-quote"),
        ("${", "missing '}'"),
        ("${}", "bad substitution"),
        ("${{x}", "bad substitution"),
        ("${:x}", "bad substitution"),
        ("${x", "missing '}'"),
        ("${x:-a", "missing '}'"),
        ("${x/a}", "missing '/'"),
        ("${x/a/b", "missing '}'"),
        ("${x:y}", "unsupported modifier (:y)"),
        ("${x!}", "unsupported modifier (!)"),
        ("${x:#a}", "unsupported modifier (:#)"),
        ("${unset?}", "unset: is not allowed to be unset"),
        ("${null:?}", "null: is not allowed to be empty"),
        ("${unset:?say it}", "unset: say it"),
        (r"${x#\a}", "invalid escape"),
        ("${x:-" * 100 + "}" * 100, "too deeply"),
    ],
)
def test_words_refused(text: str, message: str) -> None:
    with pytest.raises(BuildError, match=re.escape(message)):
        words.word(text, VARIABLES)


def test_a_backtick_can_be_the_escape() -> None:
    assert words.word("c:\\$x `$x", VARIABLES, "`") == "c:\\1 $x"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a b", ["a", "b"]),
        (' "a b"  c ', ["a b", "c"]),
        ("$two", ["a", "b"]),
        ('"$two"', ["a  b"]),
        ("x$two", ["xa", "b"]),
        (r"a\ b", ["a b"]),
        ("$null ''", []),
    ],
)
def test_splitting_comes_after_expanding(text: str, expected: list[str]) -> None:
    assert words.split(text, VARIABLES) == expected


def test_what_expands_where() -> None:
    text = """FROM a
ENV $k=$v old='$v' "q $v"=x
COPY --chown=$k --exclude=$v --from=b $v <<E <<'F' /$k
$v "q" \\$v
E
$v
F
RUN --mount=type=cache,target=/x echo $v
CMD echo $v
EXPOSE $ports
USER ${k}:$v
"""
    stage = containerfile.parse(text.encode()).stages[0]
    known = {"k": "K", "v": "V", "ports": "80 81/udp"}
    env, copy, run, cmd, expose, user = (words.expand(one, known) for one in stage.instructions)
    assert env.pairs == (("K", "V"), ("old", "$v"), ("q V", "x"))
    assert [flag.value for flag in copy.flags] == ["K", "$v", "b"]
    assert copy.arguments == ("V", "/K")
    assert [heredoc.content for heredoc in copy.heredocs] == ['V "q" $v\n', "$v\n"]
    assert run.arguments == ("echo $v",) and cmd.arguments == ("echo $v",)
    assert expose.arguments == ("80", "81/udp")
    assert user.arguments == ("K:V",)


def test_a_bad_word_is_pointed_at() -> None:
    stage = containerfile.parse(b"FROM a\nENV a=b \\\n  c=${d").stages[0]
    with pytest.raises(BuildError, match="missing") as raised:
        words.expand(stage.instructions[0], {})
    assert (raised.value.line, raised.value.column, raised.value.source) == (3, 3, "  c=${d")


def test_variables_of_variables_do_not_grow_for_ever() -> None:
    """A billion laughs."""
    known = {"a": "ha" * 1000}
    with pytest.raises(BuildError, match="more than"):
        for _ in range(64):
            known["a"] = words.word("$a$a$a$a$a$a$a$a", known)
    with pytest.raises(BuildError, match="more than"):
        words.word("${a//h/" + "b" * 5000 + "}", {"a": "h" * 5000})


def test_patterns_take_linear_time() -> None:
    """Python's own regular expressions would not come back from this."""
    value = "a" * 20_000
    assert words.word("${a#" + "*a" * 40 + "*b}", {"a": value}) == value
    assert words.word("${a//" + "*a" * 40 + "*b/x}", {"a": value}) == value


def _reference(value: str, pattern: str, *, longest: bool) -> int:
    """The end of a match at the beginning, by trying every end."""
    body = "".join({"*": ".*", "?": "."}.get(char, re.escape(char)) for char in pattern)
    ends = [end for end in range(len(value) + 1) if re.fullmatch(body, value[:end])]
    return (max(ends) if longest else min(ends)) if ends else 0


@given(
    st.text("ab\n", max_size=8), st.text("ab*?", max_size=6), st.booleans()
)  # fmt: skip
def test_trimming_against_a_reference(value: str, pattern: str, longest: bool) -> None:
    end = _reference(value, pattern, longest=longest)
    assert patterns.trim_prefix(value, pattern, longest=longest) == value[end:]
    back = _reference(value[::-1], pattern[::-1], longest=longest)
    assert patterns.trim_suffix(value, pattern, longest=longest) == value[: len(value) - back]


@given(st.text("ab\n", max_size=8), st.text("ab*?", min_size=1, max_size=6))
def test_replacing_against_a_reference(value: str, pattern: str) -> None:
    body = "".join({"*": ".*", "?": "."}.get(char, re.escape(char)) for char in pattern)
    expected, last = [], -1
    for found in re.finditer(body, value):
        if not (found.start() == found.end() == last):  # Go skips an empty one behind another
            expected.append(found.span())
        last = found.end()
    assert patterns.matches(value, pattern, every=True) == expected
    assert patterns.matches(value, pattern, every=False) == expected[:1]


# -- which variables there are --------------------------------------------------------------------


def test_platform_variables() -> None:
    found = scope.platform_variables("linux/amd64", "linux/arm/v7", "web")
    assert found == {
        "BUILDPLATFORM": "linux/amd64", "BUILDOS": "linux", "BUILDARCH": "amd64",
        "BUILDVARIANT": "",
        "TARGETPLATFORM": "linux/arm/v7", "TARGETOS": "linux", "TARGETARCH": "arm",
        "TARGETVARIANT": "v7", "TARGETSTAGE": "web",
    }  # fmt: skip


def test_arguments_of_a_file_and_of_a_stage() -> None:
    text = b"ARG a=1 b=$a-2\nARG c d=${b}3 TARGETARCH=mine\nFROM x\n"
    text += b"ARG a b=own e=$a$b c\nARG BUILDOS\n"
    parsed = containerfile.parse(text)
    predefined = scope.platform_variables("linux/amd64", "linux/arm64")
    outer = scope.of_file(parsed, predefined, {"c": "given"})
    assert {name: outer[name] for name in ("a", "b", "c", "d")} == {
        "a": "1", "b": "1-2", "c": "given", "d": "1-23",
    }  # fmt: skip
    assert outer["TARGETARCH"] == "mine"
    first, second = parsed.stages[0].instructions
    assert scope.declared(first, {}, outer, {"c": "given"}) == [
        ("a", "1"), ("b", "own"), ("e", "1own"), ("c", "given"),
    ]  # fmt: skip
    assert scope.declared(second, {}, outer, {}) == [("BUILDOS", "linux")]
    assert scope.declared(first, {}, {}, {"b": "mine"})[:2] == [("a", None), ("b", "mine")]
    with pytest.raises(BuildError) as raised:
        scope.of_file(containerfile.parse(b"ARG a \\\n b=${x\nFROM x"), {}, {})
    assert (raised.value.line, raised.value.column) == (2, 2)


def test_proxies_need_no_declaration() -> None:
    found = scope.proxies({"http_proxy": "a", "NO_PROXY": "b", "other": "c"})
    assert found == {"HTTP_PROXY": "a", "http_proxy": "a", "NO_PROXY": "b", "no_proxy": "b"}
