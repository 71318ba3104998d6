from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from hyperstack.config import Config
from hyperstack.errors import Conflict, HyperError, InternalError, InvalidParameter, NotFound
from hyperstack.events import EventBus
from hyperstack.ids import ContainerId
from hyperstack.model import (
    Container,
    ContainerConfig,
    ContainerState,
    HostConfig,
    MountPoint,
    MountState,
)
from hyperstack.store.database import Database
from hyperstack.volume.asked import from_mount
from hyperstack.volume.binds import parse_bind, resolve_mounts
from hyperstack.volume.local import LocalVolumes


class Containers:
    """Containers by name, for ``--volumes-from``."""

    def __init__(self, **mounts: tuple[MountState, ...]) -> None:
        self._mounts = mounts

    def get(self, reference: str) -> Container:
        if reference not in self._mounts:
            raise NotFound(f"No such container: {reference}")
        return Container(
            id=ContainerId(reference),
            name=reference,
            created_ns=0,
            image_id="",
            config=ContainerConfig(),
            host=HostConfig(),
            state=ContainerState(),
            mounts=self._mounts[reference],
        )


@pytest.fixture
def volumes(tmp_path: Path) -> Iterator[LocalVolumes]:
    db = Database(tmp_path / "hyper.db")
    yield LocalVolumes(Config(data_root=tmp_path), db, EventBus())
    db.close()


async def resolve(
    volumes: LocalVolumes,
    host: HostConfig,
    config: ContainerConfig | None = None,
    containers: Containers | None = None,
) -> dict[str, MountState]:
    made = await resolve_mounts(
        volumes, config or ContainerConfig(), host, containers or Containers(), ContainerId("new")
    )
    return {mount.destination: mount for mount in made}


@pytest.mark.parametrize(
    ("spec", "kind", "source", "writable"),
    [
        ("/a:/b", "bind", "/a", True),
        ("/a:/b:ro", "bind", "/a", False),
        ("/a/../c:/b:rw,z", "bind", "/c", True),
        ("name:/b", "volume", "", True),
        ("name:/b:ro,nocopy", "volume", "", False),
        ("/b", "volume", "", True),
    ],
)
def test_a_bind_is_read_as_docker_reads_it(
    spec: str, kind: str, source: str, writable: bool
) -> None:
    mount = parse_bind(spec)
    assert (mount.type, mount.source, mount.read_write) == (kind, source, writable)
    assert mount.destination == "/b"


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ("/a:/b:ro:z", "invalid volume specification: '/a:/b:ro:z'"),
        (":/b", "invalid volume specification: ':/b'"),
        ("/a:b", "invalid mount path: 'b' mount path must be absolute"),
        ("/a:/", "destination can't be '/'"),
        ("/a://", "destination can't be '/'"),
        ("/a:/b:foo", "invalid mode: foo"),
        ("/a:/b:ro,rw", "invalid mode: ro,rw"),
        ("/a:/b:nocopy", 'type "bind": field VolumeOptions must not be specified'),
        ("name:/b:rshared", 'type "volume": field BindOptions must not be specified'),
        ("/b:ro", "invalid volume specification: '/b:ro'"),
        ("/a:", "invalid volume specification: '/a:'"),
    ],
)
def test_a_wrong_bind_is_refused_in_dockers_words(spec: str, sentence: str) -> None:
    with pytest.raises(InternalError) as refused:  # dockerd answers 500
        parse_bind(spec)
    assert sentence in refused.value.message


@pytest.mark.parametrize(
    ("mount", "sentence"),
    [
        (MountPoint(type="bind", source="/a"), "field Target must not be empty"),
        (MountPoint(type="bind", target="/b"), "field Source must not be empty"),
        (MountPoint(type="bind", source="a", target="/b"), "mount path must be absolute"),
        (MountPoint(type="tmpfs", source="a", target="/b"), "field Source must not be specified"),
        (MountPoint(type="nfs", target="/b"), 'type "nfs": mount type unknown'),
        (MountPoint(type="image", source="a", target="/b"), "not supported"),
        (MountPoint(target="/b", read_only=True), "must not set ReadOnly mode when using"),
        (MountPoint(target="/b", subpath="x"), "must not set Subpath when using anonymous"),
        (MountPoint(source="a", target="/b", subpath="../x"), "subpath must be a relative path"),
        (MountPoint(source="a", target="/b", subpath="/x"), "subpath must be a relative path"),
        (
            MountPoint(source="a", target="/b", given=("bind",)),
            'BindOptions must not be specified on mount type "volume"',
        ),
        (
            MountPoint(type="tmpfs", target="/b", tmpfs_options=(("uid", "1"),)),
            'type "tmpfs": invalid option: uid',
        ),
        (
            MountPoint(type="tmpfs", target="/b", tmpfs_options=(("exec", "1", "2"),)),
            "invalid option array length",
        ),
        (MountPoint(type="bind", source="/etc/passwd/", target="/b"), "not a directory"),
    ],
)
def test_a_wrong_mount_is_refused_in_dockers_words(mount: MountPoint, sentence: str) -> None:
    with pytest.raises(InvalidParameter) as refused:
        from_mount(mount)
    assert sentence in refused.value.message


async def test_a_missing_host_directory_is_made_by_the_start_of_a_bind_only(
    volumes: LocalVolumes, tmp_path: Path
) -> None:
    made = (await resolve(volumes, HostConfig(binds=(f"{tmp_path}/new:/x",))))["/x"]
    assert not (tmp_path / "new").exists()
    await volumes.mount_source(made, ContainerId("c"))
    assert (tmp_path / "new").is_dir()
    wish = MountPoint(type="bind", source=f"{tmp_path}/other", target="/x")
    with pytest.raises(InvalidParameter, match="bind source path does not exist"):
        await resolve(volumes, HostConfig(mounts=(wish,)))
    (tmp_path / "other").mkdir()
    made = (await resolve(volumes, HostConfig(mounts=(wish,))))["/x"]
    (tmp_path / "other").rmdir()
    with pytest.raises(InvalidParameter, match="bind source path does not exist"):
        await volumes.mount_source(made, ContainerId("c"))


@pytest.mark.parametrize(
    ("wish", "sentence"),
    [
        (MountPoint(read_only_force_recursive=True), "!ReadOnly && BindOptions"),
        (
            MountPoint(
                read_only=True, read_only_non_recursive=True, read_only_force_recursive=True
            ),
            "ReadOnlyNonRecursive && BindOptions",
        ),
        (MountPoint(propagation="rshared"), "it is not a shared mount"),
        (MountPoint(propagation="slave"), "it is not a shared or slave mount"),
    ],
)
async def test_what_a_bind_cannot_be_is_said_at_its_start(
    volumes: LocalVolumes, wish: MountPoint, sentence: str
) -> None:
    made = from_mount(replace(wish, type="bind", source="/sys", target="/x"))
    with pytest.raises(HyperError, match=sentence):
        await volumes.mount_source(made, ContainerId("c"))


async def test_a_destination_is_used_once(volumes: LocalVolumes) -> None:
    for host in (
        HostConfig(binds=("a1:/x", "b1:/x/")),
        HostConfig(binds=("a1:/x",), tmpfs={"/x": ""}),
        HostConfig(binds=("a1:/x",), mounts=(MountPoint(source="b1", target="/x"),)),
    ):
        with pytest.raises(InvalidParameter, match="Duplicate mount point: /x"):
            await resolve(volumes, host)


async def test_an_images_volume_becomes_anonymous_unless_something_is_there(
    volumes: LocalVolumes,
) -> None:
    config = ContainerConfig(volumes=("/data", "/named", "/scratch"))
    host = HostConfig(binds=("known:/named",), tmpfs={"/scratch": ""})
    made = await resolve(volumes, host, config)
    assert set(made) == {"/data", "/named"}
    assert made["/data"].anonymous
    assert len(made["/data"].name) == 64
    assert made["/named"].name == "known"
    assert made["/data"].source.endswith("/_data")
    assert Path(made["/data"].source).is_dir()


async def test_volumes_from_takes_mounts_over_and_own_ones_win(volumes: LocalVolumes) -> None:
    others = Containers(
        other=(
            MountState(type="bind", source="/src", destination="/one"),
            MountState(type="bind", source="/src2", destination="/two"),
        )
    )
    host = HostConfig(volumes_from=("other:ro",), binds=("mine:/two",))
    made = await resolve(volumes, host, containers=others)
    assert not made["/one"].read_write
    assert made["/two"].name == "mine"
    assert made["/one"].mode == ""
    for spec, sentence in (
        ("ghost", "No such container: ghost"),
        ("", "volumes-from specification cannot be an empty string"),
        ("other:foo", "invalid mode: foo"),
        ("other:nocopy", "invalid mode: nocopy"),
        ("other:rslave", "invalid mode: rslave"),
    ):
        with pytest.raises(InvalidParameter, match=sentence):
            await resolve(volumes, HostConfig(volumes_from=(spec,)))


async def test_what_a_failed_create_took_over_from_others_stays_theirs(
    volumes: LocalVolumes,
) -> None:
    """Only what was made for it goes: the anonymous volume of the other holds the other's data."""
    theirs = await volumes.create("")
    (volumes.path(theirs) / "data").touch()
    lent = MountState(
        type="volume",
        name=theirs.name,
        source=str(volumes.path(theirs)),
        destination="/lent",
        anonymous=True,
    )
    host = HostConfig(volumes_from=("other",), binds=("/own", "no good:/x"))
    with pytest.raises(InvalidParameter, match="invalid characters"):
        await resolve(volumes, host, containers=Containers(other=(lent,)))
    await volumes.abandon(ContainerId("new"))
    assert [volume.name for volume in volumes.all()] == [theirs.name]
    assert (volumes.path(theirs) / "data").exists()


async def test_nobody_removes_what_a_container_in_the_making_has(volumes: LocalVolumes) -> None:
    theirs = await volumes.create("")
    lent = MountState(type="volume", name=theirs.name, source="/s", destination="/lent")
    host = HostConfig(volumes_from=("other",), binds=("named:/n", "/own"))
    made = await resolve(volumes, host, containers=Containers(other=(lent,)))
    assert len(made) == 3
    for mount in made.values():
        with pytest.raises(Conflict, match=r"volume is in use - \[new\]"):
            await volumes.remove(mount.name)
    await volumes.drop_anonymous(made.values())
    assert len(volumes.all()) == 3
    await volumes.settle(ContainerId("new"))
    await volumes.drop_anonymous(made.values())
    assert [volume.name for volume in volumes.all()] == ["named"]


async def test_a_bind_that_shows_the_data_root_has_dockers_propagation(
    volumes: LocalVolumes, tmp_path: Path
) -> None:
    for source in ("/", str(tmp_path), f"{tmp_path}/volumes"):
        made = (await resolve(volumes, HostConfig(binds=(f"{source}:/x",))))["/x"]
        assert made.propagation == "rslave"
        assert await volumes.mount_source(made, ContainerId("c")) == Path(source)
        with pytest.raises(InvalidParameter, match='must use either propagation mode "rslave" or'):
            await resolve(volumes, HostConfig(binds=(f"{source}:/x:private",)))
    asked = (await resolve(volumes, HostConfig(binds=("/:/x:rslave",))))["/x"]
    assert (asked.propagation, asked.implied) == ("rslave", False)
    wish = MountPoint(type="bind", source="/", target="/x")
    assert (await resolve(volumes, HostConfig(mounts=(wish,))))["/x"].propagation == "rslave"
    other = (await resolve(volumes, HostConfig(binds=("/etc:/x",))))["/x"]
    assert other.propagation == "rprivate"
