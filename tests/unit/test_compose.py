"""App files: read with the place of every word, merged, bounded; what their services say."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from proa.advice.compose import app, document, files, variables
from proa.advice.compose.app import App
from proa.advice.compose.facts import combine, facts_of
from proa.advice.compose.values import Mount, Port
from proa.advice.facts import Fact, Facts
from proa.compare import appfile
from proa.errors import Invalid, NotFound, ProaError


def read(
    *texts: str, more: Mapping[str, str] | None = None, variables: Mapping[str, str] | None = None
) -> App:
    """The app of these files; `more` are further ones by name."""
    there = {f"{index}.yaml": text for index, text in enumerate(texts)} | dict(more or {})

    def load(path: str) -> str:
        if path not in there:
            raise NotFound(f"cannot open '{path}'")
        return there[path]

    reading = files.Reading(load, yaml, variables or {})
    where = files.place(reading, "", [".env"] if ".env" in there else [])
    return app.read(reading, list(there)[: len(texts)], where)


def one(text: str, **more: Any) -> app.Service:
    """The service `s` of a file."""
    found = read(text, **more)
    return next(item for item in found.services if item.name == "s")


def said(text: str, service: str = "s") -> dict[str, Fact]:
    """A service's facts by key."""
    found = read(text)
    chosen = next(item for item in found.services if item.name == service)
    return {fact.key: fact for fact in facts_of(found, chosen).all}


# -- YAML ------------------------------------------------------------------------------------------


def test_scalars_mean_what_compose_says() -> None:
    tree = document.read("a: [22:22, no, 0x10, 0o17, 1e3, 1.10, ~, '1', yes, true]", "f", yaml)
    assert tree.plain() == {"a": ["22:22", "no", 16, 15, 1000.0, 1.1, None, "1", "yes", True]}
    node = tree.get("a")
    assert node is not None and node.each()[5].text == "1.10"


def test_merge_keys_and_anchors() -> None:
    tree = document.read(
        "x: &x {a: 1, b: 2}\ny: &y {b: 3, c: 4}\nz: {<<: [*x, *y], a: 9}\nw: {<<: *y}", "f", yaml
    )
    assert tree.plain()["z"] == {"a": 9, "b": 2, "c": 4}
    assert tree.plain()["w"] == {"b": 3, "c": 4}


BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12)
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: b: c", "f:1:5: "),
        ("a: 1\na: 2", "f:2:1: the key 'a' is there twice"),
        ("a: 1\n---\nb: 2", "f:2:1: a second document"),
        ("", "f:1:1: the file is empty"),
        ("a: *b", "f:1:4: "),
        ("a: &a [*a]", "f:1:8: the anchor 'a' contains itself"),
        ("a: !!python/object/apply:os.system [id]", "f:1:4: unknown tag"),
        ("[a]: 1", "f:1:1: a list as a key"),
        ("<<: 3", "f:1:5: '<<' merges mappings"),
        ("a:\n\t- b", "f:2:1: "),
        ("[" * 60 + "]" * 60, "more than '48' levels"),
        (BOMB, "aliases counted"),
        ("a: " + "x" * (1 << 20), "characters"),
        ("a: \x07", "f:1:1: "),
    ],
)
def test_what_is_no_app_file_is_refused_with_its_place(text: str, message: str) -> None:
    with pytest.raises(Invalid, match=re.escape(message)):
        document.read(text, "f", yaml)


@given(st.text(alphabet="ab:-[]{}&*!<|>'\"#?, \n\t$0", max_size=60))
@settings(max_examples=300, deadline=None)
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        read(text)
    except ProaError as error:
        assert error.message.startswith("0.yaml:"), error.message


# -- variables -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("$A-${A}", "1-1"), ("$$A", "$A"), ("${B:-two}", "two"), ("${E:-x}", "x"), ("${E-x}", ""),
        ("${A:+yes}${B+no}", "yes"), ("${B:-${A}${C:-3}}", "13"), ("${B:-a}b}", "ab}"),
        ("$B.", "."), ("${B:-$$}", "$"),
    ],
)  # fmt: skip
def test_variables(text: str, result: str) -> None:
    known = variables.Variables({"A": "1", "E": ""})
    assert known.text(text, document.Mark("f", 1, 1)) == result


@pytest.mark.parametrize("text", ["${", "$", "${A", "a$ b", "${A!}", "${B:?where is it}", "${-}"])
def test_wrong_variables_are_told(text: str) -> None:
    with pytest.raises(Invalid, match=r"0\.yaml:1:"):
        read(f"services: {{s: {{image: '{text}'}}}}", variables={"A": "1"})


def test_env_files() -> None:
    text = (
        "# of old\nexport A=1\nB='$A #'\nC=\"a\\n${A}\"  # more\nD=${A}x # y\nE\nF: 2\n"
        'G="two\nlines"\n\nH='
    )
    found = variables.read_env(text, ".env", {"E": "given"})
    assert found == {
        "A": "1", "B": "$A #", "C": "a\n1", "D": "1x", "E": "given", "F": "2", "G": "two\nlines",
        "H": "",
    }  # fmt: skip
    assert variables.read_env('P="a\\$b"', ".env", {}) == {"P": "a$b"}
    for bad in ("= 1", "A='open", "A=${B:?no}"):
        with pytest.raises(Invalid, match=r"\.env:1:1"):
            variables.read_env(bad, ".env", {})
    doubling = (
        "A=" + "x" * 99 + "\n" + "".join(f"A{n}=${{A}}${{A}}\nA=${{A{n}}}\n" for n in range(40))
    )
    with pytest.raises(Invalid, match="characters"):
        variables.read_env(doubling, ".env", {})


def test_unset_variables_are_known() -> None:
    found = read("services: {s: {image: 'a:${TAG}'}}", more={".env": "OTHER=1"})
    assert str(found.unset["TAG"]) == "0.yaml:1" and found.services[0].image == "a:"


# -- files -----------------------------------------------------------------------------------------


def test_later_files_lie_over_earlier_ones() -> None:
    base = """
services:
  s:
    image: a
    command: [a, b]
    environment: [A=1, B=2]
    ports: ["80:80", "81:81"]
    volumes: ["one:/data", "./x:/x:ro"]
    cap_add: [SYS_TIME]
    networks: [back]
    labels: {l: "1"}
    depends_on: [t]
  t: {image: t, privileged: true}
networks: {back: {}}
volumes: {one: {}}
"""
    over = """
services:
  s:
    command: c d
    environment: {B: "3", C: ~}
    ports: ["81:81", "82:82"]
    volumes: ["two:/data"]
    cap_add: [SYS_TIME, NET_ADMIN]
    networks: {front: {aliases: [x]}}
    depends_on: {t: {condition: service_healthy}}
  t:
    privileged: !reset null
    image: !override u
networks: {front: {}}
volumes: {two: {}}
"""
    found = read(base, over)
    service, other = found.services
    assert service.command == ("c", "d")
    assert service.environment == {"A": "1", "B": "3", "C": None}
    assert [port.published for port in service.ports] == ["80", "81", "82"]
    assert service.volumes == (Mount("volume", "two", "/data"), Mount("bind", "./x", "/x", True))
    assert set(service.cap_add) == {"SYS_TIME", "NET_ADMIN"}
    assert set(service.networks) == {"back", "front"}
    assert service.depends_on == {"t": "service_healthy"}
    assert (other.image, other.privileged) == ("u", False)


def test_extends_and_includes() -> None:
    main = """
include: [more/part.yaml]
services:
  s:
    extends: {file: more/base.yaml, service: base}
    environment: {A: "2"}
"""
    more = {
        "more/base.yaml": """
services:
  root: {image: r, volumes: ["./d:/d"], profiles: [x], cap_add: [SYS_TIME]}
  base:
    extends: root
    environment: {A: "1", B: "1"}
""",
        "more/part.yaml": "services: {p: {image: p}}\nvolumes: {v: {}}",
    }
    found = read(main, more=more)
    service = one(main, more=more)
    assert {item.name for item in found.services} == {"s", "p"} and found.volumes == ("v",)
    assert (service.image, service.cap_add) == ("r", ("SYS_TIME",))
    assert service.environment == {"A": "2", "B": "1"} and service.profiles == ("x",)
    assert service.volumes == (Mount("bind", "./more/d", "/d"),)
    assert service.source("cap_add").startswith("more/base.yaml:3 services.s.cap_add")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("services: {s: {image: a, prots: [80]}}", "0.yaml:1:26: unknown key 'prots'"),
        ("servces: {}", "0.yaml:1:1: unknown key 'servces'"),
        ("- a", "0.yaml:1:1: an app file is a mapping"),
        ("services: [a]", "0.yaml:1:1: 'services' is a mapping"),
        ("services: {s: 3}", "0.yaml:1:12: a service is a mapping"),
        ("services: {s: {extends: s}}", "extends itself"),
        ("services: {s: {extends: t}, t: {extends: s}}", "extends itself"),
        ("services: {s: {extends: none}}", "no service 'none'"),
        ("services: {s: {extends: {file: f}}}", "'extends' without a service"),
        (
            "services: {s: {privileged: perhaps}}",
            "0.yaml:1:16: 'perhaps' is neither true nor false",
        ),
        ("services: {s: {mem_limit: lots}}", "'lots' is no size"),
        ("services: {s: {ports: [70000]}}", "'70000' is no port"),
        ("services: {s: {ports: ['1-3:4-5']}}", "ranges of different lengths"),
        ("services: {s: {ports: 80}}", "a list is wanted"),
        ("services: {s: {volumes: ['a:b:c:d']}}", "is no volume"),
        ("services: {s: {cap_add: {a: b}}}", "a list is wanted, this is a mapping"),
        ("services: {s: {depends_on: {t: {condition: never}}}}", "unknown condition 'never'"),
        ("services: {s: {depends_on: [t]}}", "0.yaml:1:16: the app has no service 't'"),
        ("services: {s: {volumes: ['v:/v']}}", "0.yaml:1:16: the app has no volume 'v'"),
        ("services: {s: {networks: [n]}}", "0.yaml:1:16: the app has no network 'n'"),
        ("services: {s: {command: 'a \"b'}}", "no closing quotation"),
        ("services: {s: {stop_grace_period: soon}}", "'soon' is no duration"),
        ("services: {s: {image: [a]}}", "a text is wanted, this is a list"),
        ("include: [0.yaml]", "more than '64' files"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(text: str, message: str) -> None:
    with pytest.raises(Invalid, match=re.escape(message)):
        read(text)


def test_services_that_multiply_are_refused() -> None:
    chain = "".join(
        f"  s{n}: {{extends: s0, environment: [{', '.join(f'A{n}_{i}=1' for i in range(9))}]}}\n"
        for n in range(1, 500)
    )
    chain += f"  s0: {{labels: [{', '.join(f'l{n}=1' for n in range(500))}]}}\n"
    with pytest.raises(Invalid, match="the services are too large"):
        read(f"services:\n{chain}")


# -- values ----------------------------------------------------------------------------------------


def test_ports_of_every_form() -> None:
    service = one("""
services:
  s:
    ports:
      - 3000
      - "8000:80"
      - "9090-9091:8080-8081"
      - "127.0.0.1:8001:8001"
      - "127.0.0.1::53/udp"
      - "::1:6000:6000"
      - "[::1]:6001:6001"
      - {target: 443, published: "8443", protocol: tcp, host_ip: 0.0.0.0, mode: host}
""")
    assert service.ports == (
        Port(3000), Port(80, published="8000"), Port(8080, published="9090"),
        Port(8081, published="9091"), Port(8001, "tcp", "8001", "127.0.0.1"),
        Port(53, "udp", "", "127.0.0.1"), Port(6000, "tcp", "6000", "::1"),
        Port(6001, "tcp", "6001", "::1"), Port(443, "tcp", "8443", "0.0.0.0"),
    )  # fmt: skip


def test_profiles_choose_services() -> None:
    found = read("services: {a: {image: a}, b: {image: b, profiles: [x]}, c: {profiles: [y]}}")
    assert [item.name for item in found.active()] == ["a"]
    assert [item.name for item in found.active(["x"])] == ["a", "b"]
    assert [item.name for item in found.active(["*"])] == ["a", "b", "c"]


# -- facts -----------------------------------------------------------------------------------------


def test_every_wish_is_a_fact_with_its_place() -> None:
    found = said("""
services:
  s:
    image: registry:5000/lib/postgres:16@sha256:00
    privileged: true
    cap_add: [cap_net_admin, ALL]
    devices: ["/dev/kvm:/dev/kvm", {source: /dev/fuse, target: /dev/fuse}]
    network_mode: host
    pid: host
    volumes:
      - data:/data
      - /run/docker.sock:/s
      - /lib/modules/:/lib/modules:ro
    sysctls: [net.ipv4.ip_forward=1, vm.swappiness=1]
    security_opt: ["seccomp:unconfined", "no-new-privileges:true"]
    isolation: vm
    platform: linux/arm64/v8
    stop_signal: SIGINT
    user: "1000"
    healthcheck: {test: ["NONE"]}
    deploy: {replicas: 3, resources: {limits: {cpus: "1.5", memory: 1g}}}
    labels: {x-proa-trust: known}
    x-proa: {lifetime: years}
volumes: {data: {}}
""")
    assert {key: fact.value for key, fact in found.items()} == {
        "stated.lifetime": "years", "stated.trust": "known", "os.kind": "linux",
        "os.architecture": "arm64", "database": ("postgres",), "run.isolation": "vm",
        "run.user": "1000", "run.volumes": ("/data", "/lib/modules"), "run.stop_signal": "SIGINT",
        "run.replicas": 3, "run.privileged": True, "run.capabilities": ("NET_ADMIN", "ALL"),
        "run.devices": ("/dev/kvm", "/dev/fuse"), "run.host_namespaces": ("network", "pid"),
        "run.engine_socket": True, "run.host_paths": ("/lib/modules",),
        "run.sysctls": ("vm.swappiness",), "run.security_off": ("seccomp:unconfined",),
        "run.memory_bytes": 1 << 30, "run.cpus": 1.5,
    }  # fmt: skip
    assert found["run.privileged"].source == "0.yaml:5 services.s.privileged"
    assert found["run.engine_socket"].source == "0.yaml:12 services.s.volumes.1"
    assert found["stated.trust"].source == "0.yaml:22 services.s.labels.x-proa-trust"


def test_what_is_not_said_is_no_fact() -> None:
    assert not said("services: {s: {image: a, privileged: false, network_mode: bridge}}")


def test_work_that_others_wait_for_ends() -> None:
    found = said(
        "services: {s: {image: a}, t: {image: b, depends_on: "
        "{s: {condition: service_completed_successfully}}}}"
    )
    assert found["run.one_shot"].source == "0.yaml:1 services.t.depends_on.s"
    assert found["app.services"].value == 2


def test_statements_are_checked_where_they_stand() -> None:
    with pytest.raises(Invalid, match=r"0\.yaml:1:26: 'perhaps' cannot be stated of"):
        said("services: {s: {image: a, x-proa-trust: perhaps}}")
    with pytest.raises(Invalid, match=r"0\.yaml:1:1: 'colour' cannot be stated"):
        said("x-proa-colour: red\nservices: {s: {image: a}}")


def test_what_the_app_file_says_counts_before_the_image() -> None:
    service = Facts("service", "s", (Fact("run.user", "5", "f:1"),))
    image = Facts("image", "i", (Fact("run.user", "", "config"), Fact("libc", "musl", "/lib")))
    both = combine(service, image)
    assert [(fact.key, fact.value) for fact in both.all] == [("run.user", "5"), ("libc", "musl")]
    assert combine(service, None) is service


# -- on this machine -------------------------------------------------------------------------------


def test_a_directory_has_its_files(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "compose.yaml").write_text("services: {s: {image: 'a:${T}'}, b: {build: .}}")
    (tmp_path / "compose.override.yaml").write_text("services: {s: {privileged: true}}")
    (tmp_path / ".env").write_text("T=7\n")
    assert appfile.is_app_file(".") and not appfile.is_app_file("/nowhere")
    first, second = appfile.subjects(["."], environment={})
    assert (first.image, second.image) == ("a:7", "")
    privileged = first.facts.get("run.privileged")
    assert privileged is not None and "compose.override.yaml:1 " in privileged.source
    given = next(appfile.subjects(["."], environment={"T": "8"}))
    assert given.image == "a:8"


def test_files_that_are_none_are_refused(tmp_path: Any) -> None:
    cases = {"latin.yaml": b"a: \xff", "dir.yaml": None, "gone.yaml": b""}
    for name, data in cases.items():
        path = tmp_path / name
        if data is None:
            path.mkdir()
        elif data:
            path.write_bytes(data)
        with pytest.raises((Invalid, NotFound), match=name):
            appfile.load(str(path))
    with pytest.raises(Invalid, match="no regular file"):
        appfile.load("/dev/zero")
