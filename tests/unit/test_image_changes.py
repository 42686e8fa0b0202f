"""`import --change` lines."""

from __future__ import annotations

import pytest

from proa.errors import Invalid
from proa.image import changes


def test_every_word() -> None:
    lines = [
        'CMD ["a", "b"]', "entrypoint run it", 'ENV A=1 B="two words"', "ENV C the rest",
        "ENV A=3", "WORKDIR /srv", "WORKDIR deep", "USER me:us", "EXPOSE 80 53/UDP",
        "LABEL x=y", 'VOLUME ["/a b"]', "VOLUME /c /d", "STOPSIGNAL SIGQUIT",
    ]  # fmt: skip
    assert changes.apply({}, lines) == {
        "Cmd": ["a", "b"],
        "Entrypoint": ["/bin/sh", "-c", "run it"],
        "Env": ["A=3", "B=two words", "C=the rest"],
        "WorkingDir": "/srv/deep",
        "User": "me:us",
        "ExposedPorts": {"80/tcp": {}, "53/udp": {}},
        "Labels": {"x": "y"},
        "Volumes": {"/a b": {}, "/c": {}, "/d": {}},
        "StopSignal": "SIGQUIT",
    }


def test_a_new_entrypoint_drops_an_inherited_command() -> None:
    assert changes.apply({"Cmd": ["x"]}, ['ENTRYPOINT ["y"]']) == {"Entrypoint": ["y"]}


@pytest.mark.parametrize(
    "line",
    ["", "RUN x", "CMD", "CMD  ", "EXPOSE 65536", "EXPOSE x", "EXPOSE 80/icmp",
     "ENV A='", "ENV A=1 B", "ENV =x", "USER a\0b", "EXPOSE " + "9" * 5000],
)  # fmt: skip
def test_nonsense_is_refused(line: str) -> None:
    with pytest.raises(Invalid):
        changes.apply({}, [line])
