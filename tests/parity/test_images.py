"""Images without a shell, without users, with one static binary in them."""

from __future__ import annotations

import pytest

from tests.support.http import ApiError
from tests.support.images import archive, busy_layer, probe_image, probe_layer
from tests.support.instances import Place


def test_one_static_binary_is_an_image(place: Place) -> None:
    assert place.run("probe", "exit", "3").code == 3


def test_numeric_users_need_no_passwd(place: Place) -> None:
    assert place.run("probe", "exit", "4", User="1000:1000").code == 4


def test_named_users_do(place: Place) -> None:
    with pytest.raises(ApiError) as refusal:
        place.start("probe", "exit", "0", User="alice")
    assert "alice" in refusal.value.message


def test_the_images_configuration_applies(place: Place) -> None:
    image = archive(
        "configured",
        busy_layer().bytes(),
        Entrypoint=["sh", "-c"],
        Cmd=["echo $V $(pwd) $(id -u)"],
        Env=["PATH=/bin", "V=set"],
        WorkingDir="/srv",
        User="alice",
    )
    place.api.load(image)
    assert place.run("configured").stdout == "set /srv 1000\n"


def test_layers_whiteouts_and_opaque_directories(place: Place) -> None:
    first, second = busy_layer(), probe_layer()
    for path in ("srv/dir", "srv/opaque"):
        first.directory(path)
    for path in ("srv/gone", "srv/stays", "srv/dir/gone", "srv/opaque/old"):
        first.file(path, "1\n")
    for path in ("srv/.wh.gone", "srv/dir/.wh.gone", "srv/opaque/.wh..wh..opq"):
        second.file(path, "")
    second.file("srv/opaque/new", "2\n")
    second.file("srv/stays", "2\n")
    place.api.load(archive("layered", first.bytes(), second.bytes(), Cmd=["sh"]))
    result = place.run("layered", "sh", "-c", "cd /srv; find . | sort; cat stays")
    assert result.stdout.split() == [".", "./dir", "./opaque", "./opaque/new", "./stays", "2"]


def test_an_image_removed_while_in_use_is_refused(place: Place) -> None:
    name = f"inuse-{place.isolation}"
    place.api.load(probe_image(name, Labels={"for": name}))
    place.create(name, "exit", "0")
    with pytest.raises(ApiError) as refusal:
        place.api.call("DELETE", f"/images/{name}")
    assert refusal.value.status == 409
    place.close()
    place.api.call("DELETE", f"/images/{name}")
