from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from hyperstack.config import Config
from hyperstack.errors import (
    Conflict,
    InternalError,
    InvalidParameter,
    NotFound,
    NotImplementedHere,
)
from hyperstack.events import EventBus
from hyperstack.ids import ContainerId
from hyperstack.model import MountState
from hyperstack.store.database import Database
from hyperstack.volume.local import LocalVolumes
from hyperstack.volume.options import MS_BIND, MS_RDONLY, HostMount, host_mount
from hyperstack.volume.sources import beneath, open_beneath


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Database]:
    database = Database(tmp_path / "hyper.db")
    yield database
    database.close()


@pytest.fixture
def volumes(tmp_path: Path, db: Database) -> LocalVolumes:
    return LocalVolumes(Config(data_root=tmp_path), db, EventBus())


def mount(name: str) -> MountState:
    return MountState(type="volume", name=name, destination="/x")


async def test_a_volume_is_a_directory_that_survives_the_daemon(
    volumes: LocalVolumes, db: Database, tmp_path: Path
) -> None:
    made = await volumes.create("data", labels={"a": "b"})
    path = volumes.path(made)
    (path / "file").write_text("kept")
    later = LocalVolumes(Config(data_root=tmp_path), db, EventBus())
    assert later.get("data") == made
    await later.recover(used=())
    assert (later.path(made) / "file").read_text() == "kept"


async def test_creating_it_again_gives_the_same(volumes: LocalVolumes) -> None:
    assert await volumes.create("data") == await volumes.create("data", labels={"x": "y"})


@pytest.mark.parametrize("name", ["a/b", "-a", ".a", "a b", "a", "ä1", "../up"])
async def test_bad_names_are_refused_and_leave_nothing(
    volumes: LocalVolumes, name: str, tmp_path: Path
) -> None:
    with pytest.raises(InvalidParameter):
        await volumes.create(name)
    assert volumes.all() == []
    assert not (tmp_path / "volumes").exists()


async def test_other_drivers_are_refused(volumes: LocalVolumes) -> None:
    with pytest.raises(NotFound, match='plugin "nfs" not found'):
        await volumes.create("data", driver="nfs")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"foo": "x"}, 'invalid option: "foo"'),
        ({"type": "tmpfs"}, 'missing required option: "device"'),
        ({"o": "bind", "device": "/x"}, 'missing required option: "type"'),
        ({"o": "size=1m"}, 'missing required option: "device"'),
        ({"size": "10m"}, "quota size requested but no quota support"),
        ({"size": "many"}, "invalid size: 'many'"),
    ],
)
async def test_options_are_refused_in_dockers_words(
    volumes: LocalVolumes, options: dict[str, str], sentence: str
) -> None:
    with pytest.raises(InvalidParameter, match=sentence):
        await volumes.create("data", options=options)
    assert volumes.all() == []


async def test_a_volume_with_options_outlives_what_it_shows(
    volumes: LocalVolumes, tmp_path: Path
) -> None:
    target = tmp_path / "real"
    target.mkdir()
    options = {"type": "none", "o": "bind,ro", "device": str(target)}
    made = await volumes.create("data", options=options)
    assert made.host_mount == HostMount(
        device=str(target), type="none", flags=MS_BIND | MS_RDONLY, data=""
    )
    assert volumes.path(made) == tmp_path / "volumes" / "data" / "_data"
    assert await volumes.create("data", options={}) == made
    assert await volumes.list_with_sizes() == []
    await volumes.remove("data")
    assert target.is_dir()


def test_what_the_kernel_refused_is_told_without_the_password() -> None:
    mount = host_mount(
        {"type": "cifs", "device": "//h/x", "o": "addr=h,username=u,password=secret,noexec"}
    )
    assert mount is not None
    assert mount.server == "h"
    assert mount.told("/t", "no such device") == (
        "mount //h/x:/t, flags: 0x8, data: addr=h,username=u,password=********: no such device"
    )


@pytest.mark.parametrize(
    ("options", "server", "device", "data"),
    [
        ({"type": "nfs", "device": ":/x", "o": "addr=h,rw"}, "h", ":/x", "addr=9.8.7.6"),
        ({"type": "nfs", "device": "h:/x", "o": "vers=4"}, "", "h:/x", "vers=4"),
        ({"type": "cifs", "device": "//h/x/h", "o": "a=h"}, "h", "//9.8.7.6/x/h", "a=h"),
        ({"type": "cifs", "device": "//h/x", "o": "addr=g"}, "g", "//h/x", "addr=9.8.7.6"),
        ({"type": "tmpfs", "device": "//h/x", "o": "addr=h"}, "", "//h/x", "addr=h"),
    ],
)
def test_a_servers_address_stands_where_docker_puts_it(
    options: dict[str, str], server: str, device: str, data: str
) -> None:
    mount = host_mount(options)
    assert mount is not None
    assert mount.server == server
    if server:
        mount = mount.at("9.8.7.6")
    assert (mount.device, mount.data) == (device, data)


async def test_no_disk_is_mounted_for_a_volume(volumes: LocalVolumes) -> None:
    await volumes.create("data", options={"type": "ext4", "device": "/dev/null"})
    with pytest.raises(NotImplementedHere, match="the host reads no disk"):
        await volumes.mount_source(mount("data"), ContainerId("c"))
    await volumes.create("gone", options={"type": "none", "o": "bind", "device": "/no/such"})
    with pytest.raises(InternalError, match="flags: 0x1000: no such file or directory"):
        await volumes.mount_source(mount("gone"), ContainerId("c"))


async def test_a_volume_in_use_stays(volumes: LocalVolumes) -> None:
    await volumes.create("data")
    with pytest.raises(Conflict, match=r"remove data: volume is in use - \[abc\]"):
        await volumes.remove("data", users=lambda _: [ContainerId("abc")])
    with pytest.raises(NotFound, match="get ghost: no such volume"):
        await volumes.remove("ghost")
    await volumes.remove("ghost", force=True)


async def test_anonymous_volumes_go_with_their_last_container(volumes: LocalVolumes) -> None:
    kept, gone = await volumes.create(""), await volumes.create("")
    named = await volumes.create("named")
    mounts = [mount(v.name) for v in (kept, gone, named)]
    other = ContainerId("other")
    await volumes.drop_anonymous(mounts, lambda name: [other] if name == kept.name else [])
    assert {v.name for v in volumes.all()} == {kept.name, "named"}
    assert not volumes.path(gone).exists()


async def test_what_was_made_for_a_container_that_never_was_is_dropped(
    volumes: LocalVolumes, db: Database, tmp_path: Path
) -> None:
    lost, held, settled = [
        await volumes.create("", holder=ContainerId(name)) for name in ("lost", "held", "settled")
    ]
    await volumes.settle(ContainerId("settled"))
    (tmp_path / "volumes" / "stray").mkdir()
    later = LocalVolumes(Config(data_root=tmp_path), db, EventBus())
    assert await later.recover(used=(held.name,)) == 1
    assert {v.name for v in later.all()} == {held.name, settled.name}
    assert {p.name for p in (tmp_path / "volumes").iterdir()} == {held.name, settled.name}
    assert not later.path(lost).exists()


async def test_a_subpath_never_leaves_the_volume(volumes: LocalVolumes) -> None:
    made = await volumes.create("data")
    (volumes.path(made) / "in").mkdir()
    (volumes.path(made) / "out").symlink_to("/etc")
    (volumes.path(made) / "file").touch()

    async def look(path: str) -> Path:
        wish = MountState(type="volume", name="data", destination="/x", subpath=path)
        return await volumes.mount_source(wish, ContainerId("c"))

    assert await look("in") == volumes.path(made) / "in"
    for path in ("in/../../..", "out", "out/passwd"):
        with pytest.raises(InvalidParameter, match="path concatenation escapes the base directory"):
            await look(path)
    with pytest.raises(NotFound, match="_data/in/none: no such file or directory"):
        await look("in/none")
    with pytest.raises(InternalError, match="error while resolving symlinks"):
        await look("file/below")


async def test_sizes_count_each_file_once_as_dockerd_does(volumes: LocalVolumes) -> None:
    made = await volumes.create("data")
    (volumes.path(made) / "d").mkdir()
    (volumes.path(made) / "d" / "file").write_bytes(b"x" * 5000)
    (volumes.path(made) / "again").hardlink_to(volumes.path(made) / "d" / "file")
    (volumes.path(made) / "link").symlink_to("d/file")
    assert [v.size for v in await volumes.list_with_sizes()] == [5000 + len("d/file")]


async def test_a_link_that_a_guest_puts_into_a_path_meanwhile_is_not_followed(
    volumes: LocalVolumes, tmp_path: Path
) -> None:
    made = await volumes.create("data")
    root = volumes.path(made)
    (root / "a" / "b").mkdir(parents=True)
    found = beneath(root, "a/b")
    os.close(open_beneath(root, found))
    for name in ("a", "a/b"):
        (root / name).rename(root / "away")
        (root / name).symlink_to("/etc" if name == "a/b" else "away")
        with pytest.raises(InternalError, match="failed to open path"):
            open_beneath(root, found)
        (root / name).unlink()
        (root / "away").rename(root / name)
    os.close(open_beneath(root, beneath(root, "a/..")))
