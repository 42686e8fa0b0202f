"""The option tables and their parser: docker's habits, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from proa.cli import config, help, main
from proa.cli.options import Command, HelpAsked, Option, OptionsFirst, Values, byte_size, parse
from proa.errors import Invalid, Unsupported

TABLE = (
    Option("-i, --interactive", "flag", "", "x"),
    Option("-t, --tty", "flag", "", "x"),
    Option("-p, --publish", "list", "PORT", "x"),
    Option("-e, --env", "list", "KEY", "x"),
    Option("--name", "text", "NAME", "x"),
    Option("-m, --memory", "bytes", "BYTES", "x"),
    Option("--sig-proxy", "flag", "", "x", True),
)


def read(*words: str, stops: bool = True) -> tuple[Values, list[str]]:
    kind = OptionsFirst if stops else Command
    command = kind("IMAGE", "x", lambda values, arguments: 0, TABLE, arguments=(1, None))
    return parse("run", command, list(words))


@pytest.mark.parametrize(
    "words",
    [
        ["-it", "-p80:80", "-e", "K", "--name=x", "image", "-c", "--name"],
        ["-i", "-t", "-p", "80:80", "-eK", "--name", "x", "image", "-c", "--name"],
        ["-itp80:80", "-e=K", "--name=x", "--", "image", "-c", "--name"],
    ],
)
def test_spellings_of_the_same_line(words: list[str]) -> None:
    values, arguments = read(*words)
    assert values.interactive and values.tty
    assert (values.publish, values.env, values.name) == (["80:80"], ["K"], "x")
    assert arguments == ["image", "-c", "--name"]


def test_options_after_arguments_count_when_nothing_is_started() -> None:
    values, arguments = read("one", "-i", "two", stops=False)
    assert values.interactive and arguments == ["one", "two"]


def test_flags_take_values_with_equals_only() -> None:
    values, arguments = read("--sig-proxy=false", "-i=true", "image", "false")
    assert not values.sig_proxy and values.interactive and arguments == ["image", "false"]


def test_defaults_and_what_was_given() -> None:
    values, _ = read("image")
    assert values.sig_proxy is True and values.tty is False
    assert values.env == [] and values.memory is None and values.given == set()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--nope", "image"], "unknown option '--nope'"),
        (["-ix", "image"], "unknown option '-x' in '-ix'"),
        (["--name"], "option '--name' needs a value: NAME"),
        (["-m", "lots", "image"], "'lots' is not a value for '-m': BYTES"),
        (["-i=maybe", "image"], "'maybe' is not a value for '-i': true or false"),
        ([], "'run' needs at least 1 argument, got 0"),
    ],
)
def test_refusals_are_one_line_with_a_hint(words: list[str], message: str) -> None:
    with pytest.raises(Invalid) as caught:
        read(*words)
    assert caught.value.message == message
    assert caught.value.hint
    assert caught.value.exit_code == 125


def test_help_is_asked_for_by_either_name() -> None:
    for word in ("--help", "-h"):
        with pytest.raises(HelpAsked):
            read(word)


@pytest.mark.parametrize(
    ("text", "size"),
    [("0", 0), ("512", 512), ("1k", 1024), ("64MB", 64 << 20), ("1.5GiB", 3 << 29), ("-1", -1)],
)
def test_byte_sizes(text: str, size: int) -> None:
    assert byte_size(text) == size


@pytest.mark.parametrize("text", ["", "m", "-5", "1x", "nan", "inf"])
def test_bad_byte_sizes(text: str) -> None:
    with pytest.raises((ValueError, OverflowError)):
        byte_size(text)


def request(*words: str) -> dict[str, object]:
    command = OptionsFirst(
        "IMAGE", "x", lambda values, arguments: 0, config.OPTIONS, arguments=(1, None)
    )
    return config.body(*parse("create", command, list(words)))


def test_a_request_says_only_what_was_asked() -> None:
    assert request("image") == {
        "Image": "image",
        "Tty": False,
        "OpenStdin": False,
        "StdinOnce": False,
        "HostConfig": {},
    }


def test_a_full_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FROM_HERE", "1")
    monkeypatch.delenv("NOT_HERE", raising=False)
    body = request(
        *("--vm", "-m", "64m", "--cpus", "1.5", "--network", "none", "-w", "/w", "-u", "1:2"),
        *("-e", "A=b", "-e", "FROM_HERE", "-e", "NOT_HERE", "-l", "k=v", "-l", "bare"),
        *("-v", "/a:/b:ro", "-v", "/anonymous", "--tmpfs", "/run:size=1m", "--entrypoint", "sh"),
        *("-p", "127.0.0.1:8080-8081:80-81/udp", "-p", "90", "--ulimit", "nofile=10:20"),
        *("--sysctl", "net.x=1", "--mount", "type=bind,src=/s,dst=/d,ro", "--read-only"),
        *("image", "-c", "x"),
    )
    host = body["HostConfig"]
    assert isinstance(host, dict)
    assert body["Cmd"] == ["-c", "x"] and body["Entrypoint"] == ["sh"]
    assert body["Env"] == ["A=b", "FROM_HERE=1"]
    assert body["Labels"] == {"k": "v", "bare": ""}
    assert body["Volumes"] == {"/anonymous": {}}
    assert body["ExposedPorts"] == {"80/udp": {}, "81/udp": {}, "90/tcp": {}}
    assert (body["WorkingDir"], body["User"]) == ("/w", "1:2")
    assert host["Isolation"] == "vm" and host["Memory"] == 64 << 20
    assert host["NanoCpus"] == 1_500_000_000 and host["NetworkMode"] == "none"
    assert host["Binds"] == ["/a:/b:ro"] and host["Tmpfs"] == {"/run": "size=1m"}
    assert host["PortBindings"]["81/udp"] == [{"HostIp": "127.0.0.1", "HostPort": "8081"}]
    assert host["PortBindings"]["90/tcp"] == [{"HostIp": "", "HostPort": ""}]
    assert host["Ulimits"] == [{"Name": "nofile", "Soft": 10, "Hard": 20}]
    assert host["Sysctls"] == {"net.x": "1"} and host["ReadonlyRootfs"] is True
    assert host["Mounts"] == [{"Type": "bind", "Source": "/s", "Target": "/d", "ReadOnly": True}]


@pytest.mark.parametrize(
    "words",
    [
        ["-p", "x"],
        ["-p", "1:2:3:4"],
        ["-p", "80-81:80"],
        ["-p", "99999"],
        ["-p", "80/carrier-pigeon"],
        ["--mount", "type=bind,source=/a"],
        ["--mount", "color=red,target=/a"],
        ["--ulimit", "nofile"],
        ["-e", "=x"],
        ["--vm", "--isolation", "container"],
    ],
)
def test_bad_values_are_refused_before_anything_is_sent(words: list[str]) -> None:
    with pytest.raises(Invalid):
        request(*words, "image")


def test_privileged_and_pull_are_refused_clearly() -> None:
    for words, kind in ((["--privileged"], Unsupported), (["--pull", "maybe"], Invalid)):
        with pytest.raises(kind):
            request(*words, "image")
    assert "HostConfig" in request("--pull", "never", "image")


def test_ipv6_addresses_of_ports() -> None:
    assert config.published("[::1]:8080:80") == [("80/tcp", "::1", "8080")]


def test_every_command_is_listed_once_and_has_help() -> None:
    seen = [name for names in main.MODULES.values() for name in names]
    assert len(seen) == len(set(seen))
    for name in seen:
        command = main._load(name)
        assert command is not None, name
        text = help.command_help(name, command)
        assert text.startswith(f"Usage: proa {name}") and command.summary in text
        keys = [option.key for option in command.options]
        names = [name for option in command.options for name in option.names]
        assert len(keys) == len(set(keys)) and len(names) == len(set(names)), name


def test_modules_hold_no_command_that_is_not_listed() -> None:
    for module, names in main.MODULES.items():
        loaded = __import__(f"proa.cli.{module}", fromlist=("COMMANDS",))
        assert set(loaded.COMMANDS) == set(names)


def test_noun_forms_lead_to_the_same_commands() -> None:
    assert main._resolve(["image", "ls", "-q"]) == ("images", ["-q"])
    assert main._resolve(["container", "run", "x"]) == ("run", ["x"])
    assert main._resolve(["image", "inspect", "x"]) == ("inspect", ["--type=image", "x"])
    names = {name for names in main.MODULES.values() for name in names}
    assert {verb.split()[0] for verbs in main.NOUNS.values() for verb in verbs.values()} <= names
    with pytest.raises(Invalid):
        main._resolve(["image", "frobnicate"])


def test_the_machine_asked_for_is_sent(tmp_path: Path) -> None:
    """Every option of the machine's reaches the request's `Proa` object."""
    disk = tmp_path / "a.img"
    disk.touch()
    words = ("--vm", "--accel", "kvm", "--machine", "q35", "--firmware", "uefi", "--tpm", "--nic",
             "e1000", "--disk-bus", "sata", "--display", "std")  # fmt: skip
    asked = {"Accelerator": "kvm", "Machine": "q35", "Firmware": "uefi", "Tpm": True,
             "Nic": "e1000", "DiskBus": "sata", "Display": "std"}  # fmt: skip
    assert request(*words, "image")["Proa"] == asked
    assert request(*words, "--platform", "linux/arm64", str(disk))["Proa"] == asked | {
        "Disk": str(disk), "Platform": "linux/arm64",
    }  # fmt: skip
    assert "Proa" not in request("--vm", "--platform", "linux/arm64", "image")
