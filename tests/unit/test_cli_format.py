"""Tables, templates, sizes, ages, times, detach keys, frames of output."""

from __future__ import annotations

import time

import pytest

from proa.cli import format, instance, stats, trace
from proa.cli.format import Column
from proa.cli.template import Template
from proa.cli.terminal import KeyWatch, detach_keys
from proa.client import fastjson
from proa.client.streams import Demultiplexer
from proa.errors import Corrupt, Invalid

COLUMNS = (Column("NAME", "Names"), Column("STATUS", "Status"))
ROWS = [{"Names": "a", "Status": "Up 3 seconds"}, {"Names": "longer", "Status": "Created"}]


def test_a_table() -> None:
    assert format.listing(ROWS, COLUMNS, None) == (
        "NAME     STATUS\na        Up 3 seconds\nlonger   Created\n"
    )


def test_an_empty_table_is_its_headings() -> None:
    assert format.listing([], COLUMNS, None) == "NAME   STATUS\n"


def test_other_formats() -> None:
    assert format.listing(ROWS, COLUMNS, "{{.Names}}!") == "a!\nlonger!\n"
    assert format.listing(ROWS[:1], COLUMNS, "json") == '{"Names":"a","Status":"Up 3 seconds"}\n'
    assert format.listing(ROWS, COLUMNS, "table {{.Status}}\t{{.Names}}") == (
        "STATUS         NAME\nUp 3 seconds   a\nCreated        longer\n"
    )
    assert format.listing(ROWS[:1], COLUMNS, r"{{.Names}}\t{{upper .Names}}") == "a\tA\n"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.2, "Less than a second"),
        (1.5, "1 second"),
        (59, "59 seconds"),
        (61, "About a minute"),
        (600, "10 minutes"),
        (4000, "About an hour"),
        (7300, "2 hours"),
        (3 * 86400, "3 days"),
        (21 * 86400, "3 weeks"),
        (90 * 86400, "3 months"),
        (800 * 86400, "2 years"),
    ],
)
def test_ages(seconds: float, words: str) -> None:
    assert format.age(seconds) == words


def test_sizes() -> None:
    assert format.decimal_size(0) == "0B"
    assert format.decimal_size(124_300_000) == "124MB"
    assert format.decimal_size(5613130) == "5.61MB"
    assert format.binary_size(1163264) == "1.109MiB"


def test_moments() -> None:
    assert format.moment("1795415000.5") == "1795415000.5"
    assert abs(float(format.moment("1h30m")) - (time.time() - 5400)) < 5
    assert float(format.moment("2026-11-23T06:00:00Z")) == 1795413600
    for bad in ("yesterday", "10", "m", "5q"):
        if bad == "10":
            assert format.moment(bad) == "10"
            continue
        with pytest.raises(Invalid):
            format.moment(bad)


DATA = {
    "Name": "/web",
    "State": {"Pid": 7, "Running": True, "Error": ""},
    "Mounts": [{"Source": "/a"}, {"Source": "/b"}],
    "Labels": {"k.x": "v"},
    "Empty": None,
}


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("{{.State.Pid}} {{ .State.Running }}", "7 true"),
        ("{{json .State}}", '{"Pid":7,"Running":true,"Error":""}'),
        ("{{range .Mounts}}[{{.Source}}]{{end}}", "[/a][/b]"),
        ("{{range $i, $m := .Mounts}}{{$i}}={{$m.Source}};{{end}}", "0=/a;1=/b;"),
        ("{{if .State.Error}}bad{{else}}good{{end}}", "good"),
        ('{{index .Labels "k.x"}}', "v"),
        ("{{len .Mounts}}", "2"),
        ("{{.Labels}} {{.Empty}}", "map[k.x:v] <no value>"),
        ("{{with_no_braces", None),
        ("{{.Nope}}", None),
        ("{{frobnicate .Name}}", None),
        ("{{range .Mounts}}", None),
        ("{{end}}", None),
        ("{{}}", None),
    ],
)
def test_templates(text: str, result: str | None) -> None:
    if result is None:
        with pytest.raises(Invalid):
            Template(text).render(DATA)
    else:
        assert Template(text).render(DATA) == result


def test_ports_of_the_list() -> None:
    entries = [
        {"IP": "0.0.0.0", "PrivatePort": 80, "PublicPort": 8080, "Type": "tcp"},
        {"IP": "::", "PrivatePort": 80, "PublicPort": 8080, "Type": "tcp"},
        {"PrivatePort": 53, "Type": "udp"},
    ]
    assert instance.ports(entries) == "0.0.0.0:8080->80/tcp, 53/udp, [::]:8080->80/tcp"


def test_processor_share() -> None:
    before = {"cpu_usage": {"total_usage": 100}, "system_cpu_usage": 1000}
    after = {"cpu_usage": {"total_usage": 600}, "system_cpu_usage": 2000, "online_cpus": 2}
    assert stats.cpu_percent({"cpu_stats": after, "precpu_stats": before}, None) == 100.0
    assert stats.cpu_percent({"cpu_stats": after}, {"cpu_stats": before}) == 100.0
    assert stats.cpu_percent({"cpu_stats": after, "precpu_stats": {}}, None) == 0.0


def test_trace_merges_both_sides_in_one_time() -> None:
    answer = {"Milestones": [{"Milestone": "init", "Nanoseconds": 3_000_000}]}
    text = trace.trace(answer, [("command started", 1_000_000), ("exit known", 5_000_000)])
    assert [line.split() for line in text.splitlines()[1:]] == [
        ["0.00", "0.00", "command", "command", "started"],
        ["2.00", "2.00", "engine", "init"],
        ["4.00", "2.00", "command", "exit", "known"],
    ]


def test_detach_keys() -> None:
    assert detach_keys("ctrl-p,ctrl-q") == b"\x10\x11"
    assert detach_keys("ctrl-@,a") == b"\x00a"
    for bad in ("ctrl-", "alt-x", "", "ab"):
        with pytest.raises(Invalid):
            detach_keys(bad)


def test_the_detach_sequence_is_seen_however_it_arrives() -> None:
    keys = KeyWatch(b"\x10\x11")
    assert [keys.complete(piece) for piece in (b"ab\x10", b"c\x10", b"\x11rest")] == [
        False,
        False,
        True,
    ]
    assert KeyWatch(b"\x10\x11").complete(b"a\x10\x11")
    assert not KeyWatch(b"").complete(b"anything")
    one = KeyWatch(b"q")
    assert [one.complete(b"x"), one.complete(b"q")] == [False, True]


def test_frames_cut_anywhere() -> None:
    data = b"\1\0\0\0\0\0\0\3out" + b"\2\0\0\0\0\0\0\0" + b"\2\0\0\0\0\0\0\2er"
    for size in range(1, len(data) + 1):
        cutter = Demultiplexer()
        pieces = [p for n in range(0, len(data), size) for p in cutter.feed(data[n : n + size])]
        assert b"".join(d for s, d in pieces if s == 1) == b"out"
        assert b"".join(d for s, d in pieces if s == 2) == b"er"


@pytest.mark.parametrize("value", [None, True, 1, -2.5, 'ü\n"\\', [], [1, [2]], {"a": {"b": None}}])
def test_json_round_trip(value: object) -> None:
    assert fastjson.loads(fastjson.dumps(value)) == value
    assert fastjson.loads(f" {fastjson.dumps(value)} \n".encode()) == value


@pytest.mark.parametrize("text", ["", "{", "[1,]", "1 2", "nope", b"\xff"])
def test_broken_json(text: str | bytes) -> None:
    with pytest.raises(Corrupt):
        fastjson.loads(text)
