"""Docker's reference grammar."""

from __future__ import annotations

import random

import pytest

from proa.errors import Corrupt, Invalid
from proa.image import reference

DIGEST = "sha256:" + "a1" * 32


@pytest.mark.parametrize(
    ("text", "full", "familiar"),
    [
        ("debian", "docker.io/library/debian:latest", "debian:latest"),
        ("debian:12", "docker.io/library/debian:12", "debian:12"),
        ("docker.io/debian", "docker.io/library/debian:latest", "debian:latest"),
        ("index.docker.io/a/b", "docker.io/a/b:latest", "a/b:latest"),
        ("library/x", "docker.io/library/x:latest", "x:latest"),
        ("library/x/y", "docker.io/library/x/y:latest", "library/x/y:latest"),
        ("localhost/x", "localhost/x:latest", "localhost/x:latest"),
        ("localhost:5000/x:T_1.2-3", "localhost:5000/x:T_1.2-3", "localhost:5000/x:T_1.2-3"),
        ("[::1]:5000/x", "[::1]:5000/x:latest", "[::1]:5000/x:latest"),
        ("a.b/c__d/e--f", "a.b/c__d/e--f:latest", "a.b/c__d/e--f:latest"),
        (f"x@{DIGEST}", f"docker.io/library/x@{DIGEST}", f"x@{DIGEST}"),
        (f"x:1@{DIGEST}", f"docker.io/library/x:1@{DIGEST}", f"x:1@{DIGEST}"),
    ],
)
def test_names_are_normalised(text: str, full: str, familiar: str) -> None:
    parsed = reference.parse(text)
    assert str(parsed) == full
    assert parsed.familiar == familiar
    assert reference.parse(familiar) == parsed
    assert reference.parse(full) == parsed


@pytest.mark.parametrize(
    "text",
    ["", "UPPER", "a//b", "/a", "a/", "a:", "a:b:c", ".a", "a..b/c d", "a/../b", "a\nb", "a:-x",
     "a:" + "x" * 129, "a" * 256, "a@sha256:12", f"a@{DIGEST.upper()}", "a@", f"@{DIGEST}",
     "a1" * 32, "../x", "a b", "ä", "a:ä", "a:1\n", f"x@{DIGEST}\n", "host:port/x", "-a", "a-"],
)  # fmt: skip
def test_bad_names_are_refused(text: str) -> None:
    with pytest.raises(Invalid):
        reference.parse(text)


@pytest.mark.parametrize(
    "text",
    ["sha256:../../x", "sha256:" + "a" * 63, DIGEST.upper(), "sha512:" + "a" * 128,
     DIGEST + "\n", f" {DIGEST}", "", None, 1, [], DIGEST[7:]],
)  # fmt: skip
def test_bad_digests_are_refused(text: object) -> None:
    """CVE-2024-3727."""
    with pytest.raises(Corrupt):
        reference.hexadecimal(text)


def test_random_text_is_parsed_or_refused() -> None:
    chance = random.Random(7)
    alphabet = "ab0-_./:@[]A \n\0é" + "sha256"
    for _ in range(5000):
        text = "".join(chance.choices(alphabet, k=chance.randrange(40)))
        try:
            parsed = reference.parse(text)
        except Invalid:
            continue
        assert reference.parse(str(parsed)) == parsed
        assert not {"..", ""} & set(parsed.path.split("/"))


@pytest.mark.parametrize("path", ["a.example/x", "localhost/x", "library/" + "f" * 64, "a:1/x"])
def test_the_hub_is_named_where_its_path_looks_like_something_else(path: str) -> None:
    full = f"docker.io/{path}"
    if ":" in path:
        with pytest.raises(Invalid):
            reference.parse(full)
        return
    assert reference.parse(full).familiar == f"{full}:latest"
    assert reference.parse(reference.parse(full).familiar) == reference.parse(full)
