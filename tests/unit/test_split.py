"""Drafts of app files: what they say, that each guess says why, that they can be read."""

from __future__ import annotations

import re
from typing import Any

import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from proa.advice.compose import app, files
from proa.advice.compose.app import App, Service
from proa.advice.disk import machine, reading
from proa.advice.disk.machine import Found, Listening, Machine, Need
from proa.advice.disk.tree import of_texts
from proa.advice.split.draft import draft
from proa.advice.split.writer import scalar
from tests.support.case_disks import SIZE_MIB
from tests.support.cases import File, Link
from tests.support.labelled import disks
from tests.unit.test_disk_reading import enabled, link, read


def app_of(text: str) -> App:
    """A draft, read."""
    reading_ = files.Reading(lambda path: text, yaml)
    return app.read(reading_, ["draft.yaml"], files.place(reading_, ""))


def shop() -> Machine:
    """The machine of the labelled shop."""
    texts: dict[str, Any] = {}
    for path, what in disks.SHOP.items():
        if isinstance(what, Link):
            texts[f"/{path}"] = link(what.target)
        else:
            data = what.data if isinstance(what, File) else what
            texts[f"/{path}"] = data if isinstance(data, str) else data.decode("latin-1")
    return reading.of_tree(of_texts(texts), reading.Disk("shop.img", virtual_bytes=SIZE_MIB << 20))


def services(found: Machine, disk: str = "/images/old server.qcow2") -> dict[str, Service]:
    """The services of its draft."""
    return {item.name: item for item in app_of(draft(found, disk)).services}


def test_a_shop_is_taken_apart() -> None:
    found = services(shop())
    assert len(found) == 4
    web, store = found["nginx"], found["postgresql"]
    application = next(item for item in found.values() if item.command and "--bind" in item.command)
    job = next(item for item in found.values() if item.profiles == ("jobs",))
    assert (web.image, store.image) == ("nginx", "postgres:15")
    assert [port.published for port in web.ports] == ["80", "443"]
    assert store.expose == ("5433/tcp",) and not store.ports
    assert store.volumes[0].target == "/var/lib/postgresql/data"
    assert store.environment["POSTGRES_PASSWORD_FILE"] == "/run/secrets/postgresql-password"
    assert application.image == "old-server-files"
    assert application.command == ("/opt/shop/serve", "--bind", "0.0.0.0:8000")
    assert (application.user, application.depends_on) == ("shop", {"postgresql": "service_started"})
    assert application.environment["DB_HOST"] == "postgresql"
    assert application.environment["SECRET_KEY"] == ""
    assert application.name in web.depends_on
    assert job.command == ("sh", "-c", "/opt/shop/tidy --all")


def test_secrets_of_the_disk_are_not_in_the_draft() -> None:
    assert "hunter2" not in draft(shop(), "d.qcow2")
    text = draft(read(enabled(web=(
        "Environment=A_PASSWORD=hush DATABASE_URL=postgres://u:keepit@localhost API_KEY=nobody\n"
        "ExecStart=/opt/web"), postgresql="")), "d.img")  # fmt: skip
    assert not re.search("hush|keepit|nobody", text)
    assert "${A_PASSWORD:-}" in text and "${DATABASE_URL:-}" in text


def test_what_is_bound_to_the_kernel_stays_in_the_vm() -> None:
    found = read({**enabled(docker="", nginx="", web="Requires=docker.service\nExecStart=/opt/w"),
                  "/etc/hostname": "Old Server\n", "/etc/modules": "dummy\n"})  # fmt: skip
    text = draft(found, "/x/old.qcow2")
    inside = services(found, "/x/old.qcow2")
    vm = inside["old-server"]
    assert (vm.isolation, vm.build) == ("vm", ".")
    assert "docker" not in inside and inside["web"].depends_on == {"old-server": "service_started"}
    assert "docker stays: it makes containers itself (/lib/systemd/system/docker.service)" in text
    assert "systemctl disable nginx web" in text and "kernel module 'dummy'" in text
    inline = vm.node.get("build")
    assert inline is not None
    assert inline.plain()["dockerfile_inline"] == ('FROM scratch\nCOPY ["old.qcow2", "/disk/"]\n')


def test_another_system_stays_whole() -> None:
    strange = Machine("d", "freebsd", "partition 1 of the table: a slice of 386BSD")
    text = draft(strange, "bsd.img")
    (only,) = app_of(text).services
    assert only.isolation == "vm" and "a slice of 386BSD" in text


def test_a_machine_without_services_is_an_empty_app() -> None:
    assert app_of(draft(read(enabled(ssh="")), "d.img")).services == ()


def test_every_guess_has_its_reason() -> None:
    text = draft(shop(), "d.img")
    guesses = [line.partition("GUESS: ")[2] for line in text.splitlines() if "GUESS: " in line]
    assert len(guesses) >= 12 and all(len(guess.split()) >= 4 for guess in guesses)
    for key in ("image:", "command:"):
        for number, line in enumerate(lines := text.splitlines()):
            if line.strip().startswith(key):
                assert "GUESS: " in line + lines[number - 1], line


def test_circles_are_broken_at_their_weakest() -> None:
    def item(name: str, *needs: Need) -> machine.Service:
        return machine.Service(name, "service", f"/{name}", "/x", needs=needs)

    found = Machine("d", "linux", "/", services=(
        item("a", Need("b", "After= of its unit", "/a:1", strict=False)),
        item("b", Need("c", "its settings", "/b:1")), item("c", Need("a", "its settings", "/c:1")),
    ))  # fmt: skip
    depends = {name: set(item.depends_on) for name, item in services(found).items()}
    assert depends == {"a": set(), "b": {"c"}, "c": {"a"}}


def test_dollars_and_specifiers() -> None:
    found = services(read(enabled(web="ExecStart=/opt/w $OPTS %n 'a b'\nEnvironment=A=$$B")))
    assert found["web"].command == ("sh", "-c", "exec /opt/w $OPTS %n 'a b'")
    assert "systemd replaces words with %" in draft(
        read(enabled(web="ExecStart=/opt/w %n")), "d.img"
    )


WILD = st.text(
    alphabet="aZ0:-#'\"\\\n\t$%{}[]&*!|>@` /.é\u2028\ufeff\U0001f600\x85\x00", max_size=30
)
FOUND = st.builds(Found, WILD, WILD)
PORT = st.builds(Listening, st.integers(1, 65535), st.sampled_from(["tcp", "udp"]),
                 st.sampled_from(["", "127.0.0.1", "10.0.0.1"]), WILD, st.booleans())  # fmt: skip


@given(
    st.lists(
        st.builds(
            machine.Service, WILD, st.sampled_from(machine.KINDS), WILD, WILD,
            st.sampled_from(["part", "machine"]),
            st.sampled_from(["", "nginx", "postgresql", "php-fpm", "postfix"]),
            st.none() | FOUND, WILD, st.lists(FOUND, max_size=2).map(tuple), WILD, WILD,
            ports=st.lists(PORT, max_size=2).map(tuple),
            data=st.lists(FOUND, max_size=2).map(tuple),
            environment=st.lists(st.builds(Found, st.builds("A{}={}".format, WILD, WILD), WILD),
                                 max_size=2).map(tuple),
            needs=st.lists(st.builds(Need, WILD, WILD, WILD, WILD), max_size=2).map(tuple),
        ),
        max_size=4, unique_by=lambda item: item.name,
    ),
    WILD,
)  # fmt: skip
@settings(max_examples=120, deadline=None)
def test_no_disk_breaks_the_draft(found: list[machine.Service], disk: str) -> None:
    text = draft(Machine("d", "linux", "/", hostname=disk, services=tuple(found)), disk)
    made = app_of(text)
    assert len(made.services) == sum(item.role == "part" for item in found)
    assert all(character.isprintable() or character == "\n" for character in text)


@given(st.text(max_size=40))
def test_any_text_is_a_scalar(text: str) -> None:
    found = yaml.safe_load(scalar(text, variables=True))
    assert found == "".join(letter if letter.isprintable() else " " for letter in text)
