"""Readers of facts: what a file system says, and what images and requests ask for."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proa.advice import asked
from proa.advice.facts import KEYS, Fact, Value
from proa.advice.files import Start, binaries, command, facts
from tests.support import programs as p
from tests.support.case_tree import CaseTree
from tests.support.cases import File, Link, Tree


def found(tree: Tree, *words: str, entrypoint: tuple[str, ...] = ()) -> dict[str, Value]:
    """The facts of a tree by key; each has a source and a key that is known."""
    made = facts(CaseTree(tree), "amd64", Start(entrypoint, words, source="Cmd"))
    assert all(fact.source and fact.key in KEYS for fact in made)
    assert len({fact.key for fact in made}) == len(made)
    return {fact.key: fact.value for fact in made}


def test_an_empty_image_has_facts_of_what_is_not_in_it() -> None:
    known = found({})
    assert known["os.init"] == "" and known["services"] == () and known["os.distroless"] is True
    assert not {"os.kernel", "os.kind", "libc", "database"} & set(known)


@pytest.mark.parametrize(
    ("tree", "words", "init"),
    [
        (p.systemd(), ("/sbin/init",), "systemd"),
        (p.systemd(), ("/lib/systemd/systemd",), "systemd"),
        (p.systemd(), (), "systemd"),
        (p.systemd(), ("nginx",), ""),
        ({"sbin/init": Link("/bin/busybox"), "bin/busybox": p.static()}, (), "busybox init"),
        ({"sbin/init": p.static(), "etc/inittab": "x"}, (), "sysvinit"),
        ({"sbin/openrc-init": p.static()}, ("openrc-init",), "openrc"),
        ({"init": File("#!/bin/sh"), "etc/s6-overlay/x": ""}, ("/init",), ""),
        (p.systemd(), ("sh", "-c", "exec /sbin/init"), "systemd"),
    ],
)
def test_the_init_that_would_be_process_1(tree: Tree, words: tuple[str, ...], init: str) -> None:
    assert found(tree, *words)["os.init"] == init


def test_a_system_says_what_it_is() -> None:
    tree: Tree = {
        **p.systemd("sshd", "nginx", "systemd-resolved"), **p.release("debian", "12"),
        "boot/vmlinuz-6.1.0-18-amd64": b"MZ", "boot/grub/grub.cfg": "x",
        "lib/modules/6.1.0-18-amd64/modules.dep": "x", "etc/modules": "# none\nloop\nwireguard\n",
        "etc/modules-load.d/a.conf": "zfs # pool\n", "usr/bin/sudo": File(b"x", 0o4755),
        "usr/bin/gnome-shell": p.static(), "usr/sbin/mysqld": p.static(),
        "usr/bin/plain": p.static(), "usr/sbin/iptables": p.static(),
        "var/lib/dpkg/status": "Package: a\nStatus: install ok installed\n\n"
        "Package: b\nStatus: deinstall ok config-files\n",
    }  # fmt: skip
    assert found(tree) | {"libc": ""} == {
        "os.init": "systemd", "os.name": "debian", "os.version": "12", "os.kind": "linux",
        "os.architecture": "amd64", "os.foreign": False, "libc": "",
        "kernel.minimum": found(tree)["kernel.minimum"], "os.kernel": "6.1.0-18-amd64",
        "os.bootloader": True, "os.modules": ("6.1.0-18-amd64",),
        "os.modules_loaded": ("wireguard", "zfs"), "os.distroless": False, "packages.count": 1,
        "programs.setuid": ("/usr/bin/sudo",), "programs.interesting": ("iptables",),
        "desktop": "gnome-shell", "database": ("mysql",), "services": ("nginx", "sshd"),
    }  # fmt: skip


def test_services_by_run_level_supervisor_and_script() -> None:
    sysv = found({"etc/rc2.d/S01apache2": "", "etc/rc2.d/K01x": "", "etc/rc2.d/S03cron": ""})
    assert sysv["services"] == ("apache2", "cron")
    supervised = found(p.supervised("web", "db"), "supervisord", "-n")
    assert supervised["supervisor"] == "supervisord"
    assert supervised["services.started"] == ("web", "db")
    runit = found({"etc/service/a/run": "", "etc/service/b/run": ""}, "runsvdir", "/etc/service")
    assert runit["services.started"] == ("a", "b")
    text = "service nginx start && /etc/init.d/mysql start; redis-server &\n wait"
    assert found(p.shell(), "sh", "-c", text)["services.started"] == (
        "nginx", "mysql", "redis-server",
    )  # fmt: skip
    script: Tree = {"run.sh": File("#!/bin/sh\nsystemctl start cron\nexec app\n")}
    assert found(script, "/run.sh")["services.started"] == ("cron",)


@pytest.mark.parametrize(
    ("entrypoint", "words", "main"),
    [
        ([], ["nginx", "-g"], ["nginx", "-g"]),
        (["/sbin/tini", "--"], ["app", "-x"], ["app", "-x"]),
        (["/docker-entrypoint.sh"], ["redis-server"], ["redis-server"]),
        (["/docker-entrypoint.sh"], ["--flag"], ["/docker-entrypoint.sh", "--flag"]),
        ([], ["sh", "-c", "cd /a && exec make all"], ["make", "all"]),
        (["gosu", "app", "serve"], [], ["serve"]),
        (["env", "A=b", "python3", "x.py"], [], ["python3", "x.py"]),
        ([], ["sh", "-c", "echo 'unclosed"], []),
        ([], ["bash", "/start"], ["/start"]),
        ([], [], []),
    ],
)
def test_the_main_program_behind_its_wrappers(
    entrypoint: list[str], words: list[str], main: list[str]
) -> None:
    assert command.main(entrypoint, words) == tuple(main)


def test_work_that_ends() -> None:
    assert command.one_shot(["/usr/bin/make", "all"])
    assert not command.one_shot(["npm", "start"]) and not command.one_shot(["nginx"])


def test_programs_tell_their_system_processor_and_kernel() -> None:
    windows = binaries.read(p.windows().data)  # type: ignore[arg-type]
    assert windows and (windows.system, windows.architecture) == ("windows", "amd64")
    cases = {
        p.elf(183): ("linux", "arm64", ()), p.elf(62, 9): ("freebsd", "amd64", ()),
        p.elf(62, 0, "/libexec/ld-elf.so.1"): ("freebsd", "amd64", ()),
        p.needing((6, 6, 1)): ("linux", "amd64", (6, 6, 1)),
    }  # fmt: skip
    for file, wanted in cases.items():
        program = binaries.read(file.data)  # type: ignore[arg-type]
        assert program and (program.system, program.architecture, program.kernel) == wanted
    assert found({"a": p.needing((6, 6, 1))}, "/a")["kernel.minimum"] == "6.6.1"
    foreign = found({"a": p.elf(183)}, "/a")
    assert (foreign["os.foreign"], foreign["os.architecture"]) == (True, "arm64")
    assert found({"a": p.elf(3)}, "/a")["os.foreign"] is False  # 32 bits run as they are


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=300), st.booleans())
def test_any_bytes_are_survived(data: bytes, headed: bool) -> None:
    program = binaries.read(b"\x7fELF\x02\x01\x01" + data if headed else data)
    assert program is None or isinstance(program.architecture, str)


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(st.sampled_from(
    ["etc/os-release", "etc/modules", "var/lib/dpkg/status", "sbin/init", "etc/supervisord.conf",
     "lib/apk/db/installed", "usr/lib/os-release", "bin/sh"]), st.binary(max_size=200)),
    st.lists(st.text(max_size=20), max_size=4))  # fmt: skip
def test_any_files_are_survived(tree: dict[str, bytes], words: list[str]) -> None:
    for value in found(tree, *words).values():
        texts = value if isinstance(value, tuple) else (str(value),)
        assert all(text.isprintable() for text in texts)


def test_names_that_nobody_should_print_are_made_printable() -> None:
    tree: Tree = {"a\x1b[2J": p.static(), "etc/service/\udcff\x07/run": "",
                  "etc/modules-load.d/\x1b.conf": "m\x1b[1m"}  # fmt: skip
    for words in (("/a\x1b[2J",), ("runsvdir", "/\x1b")):
        for fact in facts(CaseTree(tree), "amd64", Start((), words, source="Cmd\n")):
            shown = (*fact.value, "") if isinstance(fact.value, tuple) else (str(fact.value),)
            assert all(text.isprintable() for text in (*shown, fact.source)), fact


# -- configuration and request ---------------------------------------------------------------------


def by_key(made: Any) -> dict[str, Value]:
    """Facts by key."""
    return {fact.key: fact.value for fact in made if isinstance(fact, Fact)}


def test_an_images_configuration() -> None:
    document = {
        "os": "linux", "architecture": "arm64",
        "config": {"User": "app", "ExposedPorts": {"80/tcp": {}}, "Volumes": {"/data": {}},
                   "StopSignal": "SIGQUIT", "Healthcheck": {"Test": ["CMD", "x"]},
                   "Labels": {"x-proa-trust": "own"}},
    }  # fmt: skip
    assert by_key(asked.of_image(document, "amd64")) == {
        "os.architecture": "arm64", "os.foreign": True, "run.user": "app",
        "run.ports": ("80/tcp",), "run.volumes": ("/data",), "run.stop_signal": "SIGQUIT",
        "run.healthcheck": True,
    }  # fmt: skip  # its labels state nothing


def test_a_create_request() -> None:
    host = {
        "Privileged": True, "CapAdd": ["CAP_SYS_ADMIN", "net_admin"], "NetworkMode": "host",
        "Devices": [{"PathOnHost": "/dev/fuse"}], "DeviceRequests": [{"Driver": "gpu"}],
        "Sysctls": {"net.ipv4.ip_forward": "1", "vm.swappiness": "1"}, "Memory": 5,
        "SecurityOpt": ["seccomp=unconfined", "no-new-privileges"],
        "Binds": ["/var/run/docker.sock:/s", "/etc:/e:ro", "name:/v"],
        "Mounts": [{"Type": "bind", "Source": "/srv//x"}, {"Type": "volume", "Source": "v"}],
    }  # fmt: skip
    machine = {"Platform": "linux/amd64", "Tpm": False, "Accelerator": "tcg"}
    body = {
        "HostConfig": host,
        "Proa": machine,
        "Labels": {"x-proa-trust": "untrusted", "other": "x"},
    }
    assert by_key(asked.of_request(body)) == {
        "stated.trust": "untrusted", "run.privileged": True,
        "run.capabilities": ("SYS_ADMIN", "NET_ADMIN"), "run.devices": ("/dev/fuse", "gpu"),
        "run.host_namespaces": ("network",), "run.sysctls": ("vm.swappiness",),
        "run.security_off": ("seccomp=unconfined",), "run.engine_socket": True,
        "run.host_paths": ("/etc", "/srv/x"), "run.memory_bytes": 5,
        "run.machine": ("Accelerator",),
    }  # fmt: skip
    assert not list(asked.of_request({"HostConfig": {"Mounts": 3, "CapAdd": None}}))


@pytest.mark.parametrize("text", ["\n" * 65000, "a/" * 32000, "service " * 8000, "&" * 65000,
                                  "(" * 65000, " &" * 30000, "[program:" * 7000])  # fmt: skip
def test_scripts_made_to_stall_are_read(text: str) -> None:
    script: Tree = {"run.sh": File("#!/bin/sh\n" + text), "etc/supervisord.conf": text}
    assert found(script, "/run.sh")["run.command"] == "/run.sh"
    assert found(script, "supervisord")["supervisor"] == "supervisord"
