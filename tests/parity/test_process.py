"""What a command finds: user, groups, environment, directory, arguments, host name, files."""

from __future__ import annotations

import pytest

from tests.support.instances import Place


@pytest.mark.parametrize(
    ("user", "expected"),
    [
        ("", "0 0 0"),
        ("alice", "1000 1000 44 50 1000"),
        ("1000", "1000 1000 44 50 1000"),
        ("alice:staff", "1000 50 50"),
        ("1234", "1234 0 0"),
        ("1234:77", "1234 77 77"),
        ("0:50", "0 50 50"),
    ],
)
def test_user_and_groups(place: Place, user: str, expected: str) -> None:
    script = "echo $(id -u) $(id -g) $(id -G | tr ' ' '\\n' | sort -n)"
    assert place.run("busy", "sh", "-c", script, User=user).stdout.strip() == expected


def test_groups_can_be_added(place: Place) -> None:
    result = place.run("busy", "id", "-G", User="1234:77", host={"GroupAdd": ["video", "99"]})
    assert set(result.stdout.split()) == {"77", "44", "99"}


@pytest.mark.parametrize("user", ["nobody-here", "alice:no-such-group", "2147483648", "-1", "1x"])
def test_an_unknown_user_is_refused(place: Place, user: str) -> None:
    from tests.support.http import ApiError

    with pytest.raises(ApiError) as refusal:
        place.start("busy", "id", User=user)
    name = user.rpartition(":")[2]
    assert refusal.value.message == f"unable to find user or group '{name}' in the image"


def test_environment(place: Place) -> None:
    result = place.run("busy", "env", Env=["ONE=1", "SPACES= a b ", "FROM_IMAGE=no", "EMPTY="])
    found = dict(line.split("=", 1) for line in result.stdout.splitlines())
    wanted = {"ONE": "1", "SPACES": " a b ", "FROM_IMAGE": "no", "EMPTY": "", "HOME": "/root"}
    assert wanted.items() <= found.items()
    assert set(found) - set(wanted) <= {"PATH", "HOSTNAME", "PWD", "SHLVL"}


def test_home_follows_the_user(place: Place) -> None:
    assert place.run("busy", "sh", "-c", "echo $HOME", User="alice").stdout == "/home/alice\n"


def test_a_terminal_brings_term(place: Place) -> None:
    assert place.run("busy", "sh", "-c", "echo $TERM", Tty=True).stdout.strip() == "xterm"


def test_working_directory(place: Place) -> None:
    assert place.run("busy", "pwd").stdout == "/\n"
    assert place.run("busy", "pwd", WorkingDir="/tmp").stdout == "/tmp\n"
    assert place.run("busy", "pwd", WorkingDir="/made/on/demand").stdout == "/made/on/demand\n"


def test_entrypoint_and_command(place: Place) -> None:
    assert place.run("busy", "world", Entrypoint=["echo", "hello"]).stdout == "hello world\n"
    assert place.run("busy", Entrypoint=["echo", "alone"]).stdout == "alone\n"


def test_arguments_arrive_as_they_are(place: Place) -> None:
    odd = ["", " ", "a b", "'q'", '"', "$HOME", "\\", "*", "ünïcödé", "new\nline"]
    result = place.run(
        "busy", "-c", 'for a; do printf "%s|" "$a"; done', "sh", *odd, Entrypoint=["sh"]
    )
    assert result.stdout == "".join(f"{argument}|" for argument in odd)


def test_host_name(place: Place) -> None:
    instance = place.start("busy", "sleep", "1000")
    assert instance.exec("hostname").stdout.strip() == instance.id[:12]
    result = place.run("busy", "sh", "-c", "hostname; cat /etc/hostname", Hostname="pontoon")
    assert result.stdout.split() == ["pontoon", "pontoon"]


def test_hosts_and_resolv_conf(place: Place) -> None:
    result = place.run(
        "busy",
        "cat",
        "/etc/hosts",
        "/etc/resolv.conf",
        Hostname="pontoon",
        host={"ExtraHosts": ["other:10.1.2.3"], "Dns": ["192.0.2.53"]},
    )
    hosts = [line.split() for line in result.stdout.splitlines() if line and line[0] != "#"]
    assert ["127.0.0.1", "localhost"] in [entry[:2] for entry in hosts]
    assert any("pontoon" in entry for entry in hosts)
    assert ["10.1.2.3", "other"] in hosts
    assert ["nameserver", "192.0.2.53"] in hosts


def test_special_files(place: Place) -> None:
    script = """
        echo x >/dev/null && head -c 4 /dev/zero | wc -c && head -c 4 /dev/urandom | wc -c
        (echo y >/dev/full) 2>/dev/null || echo full
        ls -l /dev/fd /dev/stdin /dev/stdout /dev/stderr /dev/ptmx | wc -l
        echo shm >/dev/shm/file && cat /dev/shm/file
        mount | grep -c ' on /proc '
        mount | grep -c ' on /sys '
    """
    result = place.run("busy", "sh", "-c", script)
    assert result.stdout.split() == ["4", "4", "full", "5", "shm", "1", "1"]


def test_read_only_root_and_tmpfs(place: Place) -> None:
    script = "echo x >/file; echo y >/scratch/file && cat /scratch/file; mount | grep /scratch"
    result = place.run(
        "busy", "sh", "-c", script, host={"ReadonlyRootfs": True, "Tmpfs": {"/scratch": "size=1m"}}
    )
    assert "Read-only file system" in result.stderr
    assert result.stdout.splitlines()[0] == "y"
    assert "tmpfs" in result.stdout


def test_resource_limits_and_sysctls(place: Place) -> None:
    host = {
        "Ulimits": [{"Name": "nofile", "Soft": 100, "Hard": 200}],
        "Sysctls": {"net.ipv4.ip_unprivileged_port_start": "7"},
    }
    script = "ulimit -Sn; ulimit -Hn; cat /proc/sys/net/ipv4/ip_unprivileged_port_start"
    assert place.run("busy", "sh", "-c", script, host=host).stdout.split() == ["100", "200", "7"]


def test_an_ordinary_user_may_ping_and_serve_on_a_low_port(place: Place) -> None:
    group_range = "/proc/sys/net/ipv4/ping_group_range"
    script = f"cat {group_range}; httpd -p 80 -h /etc && wget -qO- http://127.0.0.1/hosts"
    result = place.run("busy", "sh", "-c", script, User="1000:1000")
    assert result.stdout.split()[:2] == ["0", "65535"]
    assert "localhost" in result.stdout, result.stderr


def test_files_of_the_image_belong_to_whom_it_says(place: Place) -> None:
    result = place.run("busy", "stat", "-c", "%u:%g:%a", "/home/alice", "/tmp", "/root")
    assert result.stdout.split() == ["1000:1000:755", "0:0:1777", "0:0:700"]


def test_two_instances_do_not_see_each_others_files(place: Place) -> None:
    place.run("busy", "sh", "-c", "echo mine >/file")
    assert place.run("busy", "ls", "/file").code != 0


def test_what_was_asked_is_what_inspect_says(place: Place) -> None:
    found = place.start("busy", "sleep", "1000").inspect()
    assert found["HostConfig"]["Isolation"] == place.isolation
    assert found["Proa"]["Isolation"] == place.isolation
    assert found["Proa"]["Kernel"]


@pytest.mark.parametrize("user", ["", "alice"])
def test_dev_stdout_can_be_opened(place: Place, user: str) -> None:
    """What images that log to /dev/stdout rely on, whoever they run as."""
    script = "echo out >/dev/stdout; echo err >/dev/stderr"
    result = place.run("busy", "sh", "-c", script, User=user)
    assert (result.stdout, result.stderr) == ("out\n", "err\n")
