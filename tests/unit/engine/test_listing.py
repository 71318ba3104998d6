from __future__ import annotations

import re
from typing import Any

import pytest

from hyperstack.engine import prune
from hyperstack.engine.core import Core
from hyperstack.engine.listing import list_containers
from hyperstack.errors import InternalError, InvalidParameter, NotFound
from hyperstack.model import (
    ContainerConfig,
    ContainerState,
    EndpointSettings,
    EndpointState,
    Health,
    MountState,
    PortBinding,
    Status,
)
from tests.unit.engine.making import added
from tests.unit.image.stores import Rows


def names(core: Core, *, all_: bool = True, limit: int = -1, **filters: Any) -> list[str]:
    wanted = {key.replace("_", "-"): values for key, values in filters.items()}
    return [c.name for c in list_containers(core, all_=all_, limit=limit, filters=wanted)]


def as_filters(key: str, values: list[str]) -> dict[str, Any]:
    return {key: values}


@pytest.fixture
async def full(core: Core) -> Core:
    await added(core, "old", config=ContainerConfig(labels={"a": "1", "b": ""}))
    await added(
        core, "web", networks={"blue": EndpointSettings()},
        config=ContainerConfig(exposed_ports=("80/tcp", "53/udp")),
        mounts=(MountState(type="volume", name="data", destination="/d"),),
        state=ContainerState(
            status=Status.RUNNING, health=Health(status="healthy"), started_ns=1,
            ports={"80/tcp": (PortBinding(host_ip="0.0.0.0", host_port="8080"),)},
            endpoints={"blue": EndpointState(network_id="f" * 64)},
        ),
    )  # fmt: skip
    await added(
        core, "gone", state=ContainerState(status=Status.EXITED, exit_code=3, started_ns=1),
        config=ContainerConfig(labels={"a": "2"}),
    )  # fmt: skip
    return core


async def test_the_newest_comes_first_and_only_what_is_up_without_all(full: Core) -> None:
    assert names(full) == ["gone", "web", "old"]
    assert names(full, all_=False) == ["web"]
    assert names(full, all_=False, limit=2) == ["gone", "web"]


@pytest.mark.parametrize(
    ("key", "values", "found"),
    [
        ("name", ["web"], ["web"]),
        ("name", ["^/we"], ["web"]),
        ("name", ["o"], ["gone", "old"]),
        ("name", ["["], []),
        ("label", ["a"], ["gone", "old"]),
        ("label", ["a=1"], ["old"]),
        ("label", ["a=1", "b"], ["old"]),
        ("label", ["a=1", "b=x"], []),
        ("status", ["exited"], ["gone"]),
        ("status", ["exited", "running"], ["gone", "web"]),
        ("exited", ["3"], ["gone"]),
        ("exited", ["0"], []),
        ("health", ["healthy"], ["web"]),
        ("health", ["none"], ["gone", "old"]),
        ("before", ["web"], ["old"]),
        ("since", ["web"], ["gone"]),
        ("volume", ["data"], ["web"]),
        ("volume", ["/d"], ["web"]),
        ("network", ["blue"], ["web"]),
        ("network", ["f" * 12], ["web"]),
        ("publish", ["8080"], ["web"]),
        ("publish", ["80"], []),
        ("publish", ["8000-8090/tcp"], ["web"]),
        ("publish", ["53/udp"], []),
        ("expose", ["53/udp"], []),
        ("expose", ["1-100/tcp"], ["web"]),
        ("is_task", ["true"], []),
        ("is_task", ["false"], ["gone", "web", "old"]),
    ],
)  # fmt: skip
async def test_a_filter_shows(full: Core, key: str, values: list[str], found: list[str]) -> None:
    assert names(full, **as_filters(key, values)) == found


async def test_a_filter_by_status_needs_no_all_and_others_do(full: Core) -> None:
    assert names(full, all_=False, status=["exited"]) == ["gone"]
    assert names(full, all_=False, exited=["3"]) == []
    assert names(full, exited=["3"]) == ["gone"]


async def test_a_filter_without_values_filters_nothing(full: Core) -> None:
    assert names(full, status=[]) == names(full)


async def test_ids_are_found_by_their_beginning(full: Core) -> None:
    web = full.table.get("web")
    assert names(full, id=[web.id[:12]]) == ["web"]


async def test_descendants_of_an_image_are_found_by_it(core: Core) -> None:
    rows = Rows(core.images._store)
    base = await rows.image("base:1")
    child = await rows.image("child:1", parent=base, layers=("a", "b"))
    await added(core, "one", image_id=base)
    await added(core, "two", image_id=child)
    await added(core, "three")
    assert names(core, ancestor=["child:1"]) == ["two"]
    assert set(names(core, ancestor=["base:1"])) >= {"one"}
    assert names(core, ancestor=["unknown:1"]) == []


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("status", "tired"),
        ("exited", "x"),
        ("health", "ill"),
        ("is_task", "maybe"),
        ("wings", "x"),
    ],
)
async def test_a_wrong_filter_is_refused(full: Core, key: str, value: str) -> None:
    with pytest.raises(InvalidParameter):
        names(full, **as_filters(key, [value]))


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("publish", "x", 'publish x: strconv.ParseUint: parsing "x": invalid syntax'),
        ("publish", "1-99999999999", 'parsing "99999999999": value out of range'),
        ("publish", "5-1", "Invalid range specified for the Port: 5-1"),
        ("expose", "65536", 'expose 65536: strconv.ParseUint: parsing "65536": value out of range'),
    ],
)
async def test_a_wrong_port_is_refused_as_dockerd_refuses_it(
    full: Core, key: str, value: str, words: str
) -> None:
    with pytest.raises(InternalError, match=re.escape(words)):
        names(full, **as_filters(key, [value]))


async def test_a_filter_by_a_container_that_is_not_there_is_refused(full: Core) -> None:
    with pytest.raises(NotFound):
        names(full, before=["nobody"])


async def test_prune_takes_what_is_stopped_and_fits(full: Core) -> None:
    removed, _ = await prune.prune(full, {"label!": ["a=2"]})
    assert len(removed) == 1
    assert names(full) == ["gone", "web"]
    removed, _ = await prune.prune(full, {"until": ["1"]})
    assert removed == [] or names(full) == ["web"]
    await prune.prune(full, {})
    assert names(full) == ["web"]
    assert not full.container_dir(removed[0]).exists() if removed else True


async def test_several_labels_spare_what_has_all_of_them(core: Core) -> None:
    for name, labels in (("one", {"a": ""}), ("two", {"b": ""}), ("both", {"a": "", "b": ""})):
        await added(core, name, config=ContainerConfig(labels=labels))
    await prune.prune(core, {"label!": ["a", "b"]})
    assert [c.name for c in core.table] == ["both"]


async def test_prune_refuses_filters_that_it_does_not_know(full: Core) -> None:
    with pytest.raises(InvalidParameter, match="invalid filter 'name'"):
        await prune.prune(full, {"name": ["x"]})
    with pytest.raises(InvalidParameter):
        await prune.prune(full, {"until": ["soon"]})
    assert len(full.table) == 3


async def test_a_sparse_file_counts_what_it_takes(core: Core) -> None:
    made = await added(core)
    with core.disk(made.id).open("wb") as file:
        file.truncate(1 << 30)
        file.write(b"x")
    assert 0 < prune.disk_usage(core.disk(made.id)) < 1 << 20
    assert prune.disk_usage(core.disk(made.id).with_name("none")) == 0
