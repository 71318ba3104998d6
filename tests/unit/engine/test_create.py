from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperstack.engine import create, disks, names, wishes
from hyperstack.engine.core import Core
from hyperstack.engine.sandbox import Sandboxes
from hyperstack.errors import InternalError, InvalidParameter, NotFound
from hyperstack.ids import is_container_name
from hyperstack.image.values import Image
from hyperstack.model import ContainerConfig, EndpointSettings, Healthcheck, HostConfig, Ulimit
from hyperstack.network.book import Book
from tests.unit.engine.making import added
from tests.unit.image.stores import Rows

ID = "d" * 64


async def image(core: Core, **config: Any) -> Image:
    await Rows(core.images._store).image("base:1", **config)
    return core.images.get("base:1")


def merged(base: Image, **own: Any) -> ContainerConfig:
    return create.merge_image(ContainerConfig(**own), base, ID)


@pytest.mark.parametrize(
    ("own", "argv"),
    [
        ({}, ("/entry", "image")),
        ({"cmd": ("mine",)}, ("/entry", "mine")),
        ({"entrypoint": ("/mine",)}, ("/mine",)),
        ({"entrypoint": ("/mine",), "cmd": ("x",)}, ("/mine", "x")),
        ({"entrypoint": ("",), "cmd": ("x",)}, ("x",)),
    ],
)
async def test_command_and_entrypoint_are_merged_as_docker_does(
    core: Core, own: dict[str, Any], argv: tuple[str, ...]
) -> None:
    base = await image(core, entrypoint=("/entry",), cmd=("image",))
    made = merged(base, **own)
    assert (*(made.entrypoint or ()), *(made.cmd or ())) == argv


async def test_nothing_to_run_is_refused(core: Core) -> None:
    base = await image(core, cmd=None)
    with pytest.raises(InvalidParameter, match="no command specified"):
        merged(base)


async def test_the_user_s_settings_win_over_the_image_s(core: Core) -> None:
    base = await image(
        core, cmd=("x",), env=("A=1", "B=2"), labels={"l": "1", "m": "2"}, user="u",
        working_dir="/w", stop_signal="INT", exposed_ports=("80/tcp",), volumes=("/v",),
    )  # fmt: skip
    made = merged(base, env=("A=9",), labels={"l": "9"}, exposed_ports=("81/tcp",), user="me")
    assert made.env == ("A=9", "B=2")
    assert made.labels == {"l": "9", "m": "2"}
    assert (made.user, made.working_dir, made.stop_signal) == ("me", "/w", "INT")
    assert set(made.exposed_ports) == {"80/tcp", "81/tcp"}
    assert made.volumes == ("/v",)
    assert made.hostname == ID[:12]


async def test_a_health_check_of_one_s_own_replaces_the_image_s(core: Core) -> None:
    base = await image(core, cmd=("x",))
    own = Healthcheck(test=("NONE",))
    assert merged(base, healthcheck=own).healthcheck == own


@pytest.mark.parametrize(
    ("text", "size"),
    [("1g", 1 << 30), ("512M", 512 << 20), ("16777216", 16 << 20), ("2 GiB", 2 << 30)],
)
def test_sizes_of_disks_are_read(text: str, size: int) -> None:
    assert create.storage_size(HostConfig(storage_opt={"size": text}), 1) == size


def test_without_a_size_the_disk_has_the_default() -> None:
    assert create.storage_size(HostConfig(), 77) == 77


@pytest.mark.parametrize("text", ["", "x", "-1", "1k", "99999p", "1.5g", "0"])
def test_wrong_sizes_of_disks_are_refused(text: str) -> None:
    with pytest.raises(InvalidParameter):
        create.storage_size(HostConfig(storage_opt={"size": text}), 1)


def test_an_unknown_storage_option_is_refused() -> None:
    with pytest.raises(InternalError, match="Unknown option speed"):
        create.storage_size(HostConfig(storage_opt={"speed": "11"}), 1)


@given(st.text(max_size=12))
def test_a_size_is_in_range_or_refused(text: str) -> None:
    try:
        size = create.storage_size(HostConfig(storage_opt={"size": text}), 1)
    except InvalidParameter:
        return
    assert disks.SMALLEST <= size <= disks.LARGEST


@pytest.mark.parametrize(
    ("mode", "given_", "wanted"),
    [
        ("bridge", {}, {"bridge"}),
        ("bridge", {"default": EndpointSettings()}, {"bridge"}),
        ("blue", {}, {"blue"}),
        ("blue", {"green": EndpointSettings()}, {"green"}),
        ("container:x", {}, set()),
        ("none", {}, {"none"}),
    ],
)
def test_the_networks_to_join_come_from_mode_and_wishes(
    mode: str, given_: dict[str, EndpointSettings], wanted: set[str]
) -> None:
    settled = wishes.settle(Book(), ContainerConfig(), HostConfig(network_mode=mode), given_)
    assert set(settled) == wanted


@pytest.mark.parametrize(
    "host",
    [
        HostConfig(tmpfs={"//": ""}),
        HostConfig(ulimits=(Ulimit(name="wings"),)),
        HostConfig(cap_add=("WINGS",)),
    ],
)
def test_what_start_would_refuse_is_refused_by_create(host: HostConfig) -> None:
    with pytest.raises(InvalidParameter):
        create.check_refusals(host)


async def test_a_create_that_fails_leaves_no_name_and_no_folder(core: Core) -> None:
    with pytest.raises(NotFound, match="No such image"):
        await create.create(
            core, name="name", config=ContainerConfig(image="no:1"), host=HostConfig(), networks={}
        )
    await image(core, cmd=None)
    with pytest.raises(InvalidParameter, match="no command specified"):
        await create.create(
            core,
            name="name",
            config=ContainerConfig(image="base:1"),
            host=HostConfig(),
            networks={},
        )
    await added(core, "name")
    assert len(core.table) == 1
    assert len(list((core.config.data_root / "containers").iterdir())) == 1


async def test_drawn_names_are_valid_and_free(core: Core) -> None:
    drawn = [names.free(core.table) for _ in range(300)]
    assert all(is_container_name(name) for name in drawn)
    await added(core, drawn[0])
    assert all(names.free(core.table) != drawn[0] for _ in range(300))


async def test_when_every_name_is_taken_one_is_made_up(
    core: Core, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(names, "_LEFT", ["a"])
    monkeypatch.setattr(names, "_RIGHT", ["b"])
    await added(core, "a_b")
    assert names.free(core.table).startswith("a_b")


@pytest.mark.parametrize(
    ("own", "interval", "test"),
    [
        (None, 7, ("CMD", "a")),
        (Healthcheck(), 7, ("CMD", "a")),
        (Healthcheck(interval=1), 1, ("CMD", "a")),
        (Healthcheck(test=("NONE",)), 7, ("NONE",)),
    ],
)
def test_a_health_check_is_the_image_s_but_for_what_the_user_says(
    own: Healthcheck | None, interval: int, test: tuple[str, ...]
) -> None:
    found = create._merge_check(own, Healthcheck(test=("CMD", "a"), interval=7))
    assert found is not None
    assert (found.interval, found.test) == (interval, test)


async def test_two_containers_that_are_the_first_of_their_size_get_a_whole_template(
    core: Core, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Sandboxes, "kit", SimpleNamespace(ext4_template=Path("/dev/null")))
    size = disks.SMALLEST
    made = await asyncio.gather(*(disks.template_for(core, size) for _ in range(3)))
    assert len(set(made)) == 1
    assert made[0].stat().st_size == size
    (made[0].parent / f"{disks.PARTIAL}{size}.dead").touch()
    disks.sweep_templates(core)
    assert list(made[0].parent.iterdir()) == [made[0]]
