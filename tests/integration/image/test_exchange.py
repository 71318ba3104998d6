"""Load and save, import and commit: what goes out comes in again, here and at a real dockerd."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import shutil
import signal
import subprocess
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import zstandard

from hyperstack.build.changes import apply_changes
from hyperstack.config import Config
from hyperstack.errors import InternalError, InvalidParameter, NotFound
from hyperstack.events import EventBus
from hyperstack.guest.kit import Kit
from hyperstack.image.registryside import manifest_of
from hyperstack.image.service import ImageService
from hyperstack.model import ContainerConfig
from tests.integration.image.conftest import running
from tests.integration.image.tars import (
    SYM,
    body,
    collected,
    digest,
    entry,
    files,
    made,
    whole,
)

ROOT = files(**{"etc/motd": b"hello" * 100, "bin/x": os.urandom(100_000)})
DOCKERD = shutil.which("dockerd", path=f"{os.environ['PATH']}:/usr/sbin")


async def imported(images: ImageService, name: str, tar: bytes = ROOT, *changes: str) -> str:
    (line,) = await collected(
        images.import_(body(tar), repo=name, config=apply_changes(ContainerConfig(), changes))
    )
    return line.status


async def committed(images: ImageService, parent: str, tar: bytes, name: str, where: Path) -> str:
    path = images.registry.config.data_root / "layer.tar"
    path.write_bytes(tar)
    try:
        return await images.commit(
            parent=parent,
            layer=path,
            config=ContainerConfig(cmd=("sh",)),
            created_by="touch x",
            author="me",
            comment="why",
            reference=name,
        )
    finally:
        path.unlink()


PACKERS = {
    "plain": lambda data: data,
    "gzip": gzip.compress,
    "zstd": zstandard.compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
}


@pytest.mark.parametrize("how", list(PACKERS))
async def test_a_root_file_system_is_imported_however_it_is_packed(
    images: ImageService, events: EventBus, how: str
) -> None:
    packed = PACKERS[how](ROOT)
    lines = await collected(
        images.import_(
            body(packed),
            repo="base",
            tag="1",
            message="why",
            config=ContainerConfig(cmd=("sh",), env=("A=1",), labels={"k": "v"}),
            platform="linux/arm64",
        )
    )
    image = images.get("base:1")
    assert [line.status for line in lines] == [image.id]
    assert image.diff_ids == (digest(ROOT),)
    assert image.config == ContainerConfig(cmd=("sh",), env=("A=1",), labels={"k": "v"})
    assert (image.architecture, image.os, image.comment) == ("arm64", "linux", "why")
    assert image.size == 100_500
    assert [path.stem for path in images.rootfs(image.id)] == [digest(ROOT)[7:]]
    assert [(e.action, e.attributes["name"]) for e in events.past(0)] == [
        ("tag", "base:1"),
        ("import", image.id),
    ]
    assert events.past(0)[0].attributes["k"] == "v"


async def test_what_is_no_tar_is_not_imported(images: ImageService, config: Config) -> None:
    for bad in (os.urandom(5000), ROOT[:1500], gzip.compress(ROOT)[:-100]):
        with pytest.raises(InternalError):
            await imported(images, "bad", bad)
    with pytest.raises(InvalidParameter, match="cannot import digest reference"):
        await imported(images, "x@sha256:" + "0" * 64)
    with pytest.raises(InvalidParameter, match="FOO is not a valid change command"):
        await imported(images, "x", ROOT, "FOO bar")
    assert images.count() == 0
    assert not list((config.data_root / "content/sha256").iterdir())


async def test_a_commit_adds_a_layer_and_history_and_an_empty_one_only_history(
    images: ImageService, tmp_path: Path
) -> None:
    base = await imported(images, "base")
    await committed(images, base, files(new=b"1" * 50), "child:1", tmp_path)
    child = images.get("child:1")
    assert child.parent == base
    assert child.diff_ids == (digest(ROOT), digest(files(new=b"1" * 50)))
    assert (child.author, child.comment) == ("me", "why")
    steps = images.history("child:1")
    assert [(s.id, s.created_by, s.size) for s in steps] == [
        (child.id, "touch x", 50),
        (base, "", 100_500),
    ]
    assert steps[0].tags == ("child:1",)
    same = images.get(await committed(images, child.id, bytes(10_240), "", tmp_path))
    assert same.diff_ids == child.diff_ids
    assert same.history[-1].empty_layer
    assert images.descendants({base}) == {child.id, same.id}


async def test_saving_and_loading_gives_the_same_images_and_the_same_bytes(
    images: ImageService, config: Config, kit: Kit, tmp_path: Path, events: EventBus
) -> None:
    base = await imported(images, "base", gzip.compress(ROOT, mtime=0))
    await committed(images, base, files(new=b"1"), "host:5000/child:1", tmp_path)
    await images.tag("base", "other", "x")
    saved = await whole(images.save(["base", "host:5000/child:1", "other:x"]))
    assert [e.action for e in events.past(0)].count("save") == 2
    elsewhere = Config(data_root=tmp_path / "elsewhere", uid_base=config.uid_base)
    for packed in (saved, gzip.compress(saved, 1), zstandard.compress(saved), lzma.compress(saved)):
        async with running(elsewhere, kit) as there:
            lines = [line.stream for line in await collected(there.load(body(packed), quiet=True))]
            assert lines == [
                "Loaded image: base:latest\n",
                "Loaded image: other:x\n",
                "Loaded image: host:5000/child:1\n",
            ]
            assert there.get("base").id == base
            assert there.get("host:5000/child:1").parent == base
            again = await whole(there.save(["base", "host:5000/child:1", "other:x"]))
            assert again == saved
        shutil.rmtree(elsewhere.data_root)


async def test_an_archive_is_an_oci_layout_and_docker_s_at_once(images: ImageService) -> None:
    image = await imported(images, "base")
    saved = await whole(images.save(["base"]))
    with tarfile.open(fileobj=io.BytesIO(saved)) as tar:
        names = tar.getnames()
        content = {
            m.name: tar.extractfile(m).read()  # type: ignore[union-attr]
            for m in tar
            if m.isfile()
        }
    assert names[:2] == ["blobs", "blobs/sha256"]
    assert names[-4:] == ["index.json", "manifest.json", "oci-layout", "repositories"]
    for name, data in content.items():
        if name.startswith("blobs/"):
            assert digest(data)[7:] == name.rpartition("/")[2]
    (item,) = json.loads(content["manifest.json"])
    assert item["RepoTags"] == ["base:latest"]
    assert digest(content[item["Config"]]) == image
    assert digest(content[item["Layers"][0]]) == digest(ROOT)
    (entry_,) = json.loads(content["index.json"])["manifests"]
    assert entry_["annotations"] == {
        "io.containerd.image.name": "docker.io/library/base:latest",
        "org.opencontainers.image.ref.name": "latest",
    }
    manifest = json.loads(content["blobs/sha256/" + entry_["digest"][7:]])
    assert manifest["config"]["digest"] == image
    assert json.loads(content["oci-layout"]) == {"imageLayoutVersion": "1.0.0"}
    assert json.loads(content["repositories"]) == {"base": {"latest": digest(ROOT)[7:]}}


async def test_a_repository_saves_all_its_tags_and_an_id_none(images: ImageService) -> None:
    image = await imported(images, "base")
    await images.tag("base", "base", "two")

    async def tags(ref: str) -> object:
        saved = await whole(images.save([ref]))
        with tarfile.open(fileobj=io.BytesIO(saved)) as tar:
            file = tar.extractfile("manifest.json")
            assert file is not None
            return json.load(file)[0]["RepoTags"]

    assert await tags("base") == ["base:latest", "base:two"]
    assert await tags("base:two") == ["base:two"]
    assert await tags(image) is None
    assert await tags(image[7:19]) is None
    with pytest.raises(NotFound, match="No such image: nope"):
        images.save(["nope"])


def oci_layout(*, broken: str = "", other: bytes = b"") -> bytes:
    """An OCI layout by hand: an index with an attestation beside the image, a zstd layer.

    *other* is what the layer holds in truth.
    """
    layer = zstandard.compress(other or ROOT)
    config = json.dumps(
        {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers",
         "diff_ids": [digest(ROOT)]}, "config": {"Cmd": ["x"]}}
    ).encode()  # fmt: skip
    kind = "application/vnd.oci.image."

    def about(media_type: str, data: bytes, **more: object) -> dict[str, object]:
        return {"mediaType": kind + media_type, "digest": digest(data), "size": len(data), **more}

    manifest = json.dumps(
        {"schemaVersion": 2, "mediaType": kind + "manifest.v1+json",
         "config": about("config.v1+json", config),
         "layers": [about("layer.v1.tar+zstd", layer)]}
    ).encode()  # fmt: skip
    platform = {"os": "linux", "architecture": "amd64"}
    inner = json.dumps(
        {"schemaVersion": 2, "mediaType": kind + "index.v1+json", "manifests": [
            about("manifest.v1+json", b"missing", platform=dict.fromkeys(platform, "unknown")),
            about("manifest.v1+json", manifest, platform=platform),
        ]}
    ).encode()  # fmt: skip
    notes = {"org.opencontainers.image.ref.name": "example.org/app:1"}
    index = json.dumps(
        {"schemaVersion": 2, "manifests": [about("index.v1+json", inner, annotations=notes)]}
    ).encode()
    blobs = {"layer": layer, "config": config, "manifest": manifest, "inner": inner}

    def build(tar: tarfile.TarFile) -> None:
        for name, data in blobs.items():
            if name != "inner" or broken != "missing":
                kept = data[:-1] + b"?" if broken == name else data
                entry(tar, f"./blobs/sha256/{digest(data)[7:]}", data=kept)
        entry(tar, "oci-layout", data=b'{"imageLayoutVersion":"1.0.0"}')
        entry(tar, "index.json", data=index)

    return made(build)


async def test_an_oci_layout_is_loaded_with_its_own_manifest(images: ImageService) -> None:
    lines = await collected(images.load(body(oci_layout())))
    assert lines[-1].stream == "Loaded image: example.org/app:1\n"
    image = images.get("example.org/app:1")
    assert image.config.cmd == ("x",)
    assert image.manifest is not None
    assert image.manifest.media_type == "application/vnd.oci.image.manifest.v1+json"
    assert digest(images.registry.manifest_of(image.id).data) == image.manifest.digest


async def test_an_archive_s_layer_passes_for_no_layer_that_is_here_already(
    images: ImageService,
) -> None:
    await imported(images, "mine")
    with pytest.raises(InvalidParameter, match="invalid diffID for layer 0"):
        await collected(images.load(body(oci_layout(other=files(other=b"x")))))
    with pytest.raises(NotFound):
        images.get("example.org/app:1")
    saved = await whole(images.save(["mine"]))
    with tarfile.open(fileobj=io.BytesIO(saved)) as tar:
        assert f"blobs/sha256/{digest(ROOT)[7:]}" in tar.getnames()


@pytest.mark.parametrize("broken", ["layer", "config", "manifest", "inner", "missing"])
async def test_a_damaged_layout_is_refused_and_nothing_stays(
    images: ImageService, config: Config, broken: str
) -> None:
    with pytest.raises(InvalidParameter):
        await collected(images.load(body(oci_layout(broken=broken))))
    assert images.count() == 0
    assert not list((config.data_root / "content/sha256").iterdir())


def docker_archive(manifest: object, **extra: bytes) -> bytes:
    config = json.dumps({"os": "linux", "rootfs": {"diff_ids": [digest(ROOT)]}}).encode()

    def build(tar: tarfile.TarFile) -> None:
        entry(tar, "c.json", data=config)
        entry(tar, "l/layer.tar", data=ROOT)
        entry(tar, "k/layer.tar", SYM, link="../l/layer.tar")
        entry(tar, "loop", SYM, link="loop")
        for name, data in extra.items():
            entry(tar, name, data=data)
        entry(tar, "manifest.json", data=json.dumps(manifest).encode())

    return made(build)


async def test_an_old_archive_whose_layer_is_a_link_is_loaded(images: ImageService) -> None:
    item = {"Config": "c.json", "RepoTags": ["old:1"], "Layers": ["k/layer.tar"]}
    await collected(images.load(body(docker_archive([item]))))
    assert images.get("old:1").size == 100_500


@pytest.mark.parametrize(
    ("manifest", "sentence"),
    [
        ({}, "json: cannot unmarshal object into Go value of type"),
        ([{"Config": "no.json"}], "open no.json: no such file or directory"),
        ([{"Config": "../../etc/passwd"}], "open ../../etc/passwd: no such file"),
        ([{"Config": "loop"}], "open loop: no such file or directory"),
        ([{"Config": "c.json"}], "layers length mismatch: expected 0, got 1"),
        ([{"Config": "c.json", "Layers": ["none"]}], "open none: no such file or directory"),
        ([{"Config": "c.json", "Layers": ["c.json"]}], "archive/tar|EOF|verification"),
        ([{"Config": "l/layer.tar", "Layers": []}], "invalid image config"),
        ([{"Config": "c.json", "Layers": ["l/layer.tar"], "RepoTags": ["UP:1"]}], "lowercase"),
        ([{"Config": "c.json", "Layers": ["l/layer.tar"], "RepoTags": ["notag"]}], "invalid tag"),
    ],
)
async def test_a_wrong_manifest_is_one_sentence(
    images: ImageService, manifest: object, sentence: str
) -> None:
    with pytest.raises(InvalidParameter, match=sentence):
        await collected(images.load(body(docker_archive(manifest))))
    assert not images.list(all_=True, filters={"dangling": ["false"]})


@pytest.mark.parametrize("data", [b"", b"noise" * 1000, bytes(1024), ROOT, ROOT[:700]])
async def test_what_is_no_archive_is_refused(images: ImageService, data: bytes) -> None:
    with pytest.raises(InvalidParameter):
        await collected(images.load(body(data)))


async def test_what_comes_last_under_a_name_counts(images: ImageService) -> None:
    layer = files(a=b"a")
    first, last = (
        json.dumps(
            {
                "os": "linux",
                "comment": why,
                "rootfs": {"type": "layers", "diff_ids": [digest(layer)]},
            }
        ).encode()
        for why in ("first", "last")
    )
    items = [{"Config": "c", "Layers": ["l"], "RepoTags": ["twice:1"]}]

    def build(tar: tarfile.TarFile) -> None:
        entry(tar, "c", SYM, link="elsewhere")
        entry(tar, "c", data=first)
        entry(tar, "real", data=last)
        entry(tar, "c", SYM, link="real")
        entry(tar, "l", data=layer)
        entry(tar, "manifest.json", data=json.dumps(items).encode())

    await collected(images.load(body(made(build))))
    assert images.get("twice:1").comment == "last"


async def test_loading_a_name_that_is_taken_says_so(images: ImageService) -> None:
    first = await imported(images, "base")
    saved = await whole(images.save(["base"]))
    second = await imported(images, "base", files(other=b"1"))
    lines = [line.stream for line in await collected(images.load(body(saved), quiet=True))]
    assert lines == [
        f"The image base:latest already exists, renaming the old one with ID {second} "
        "to empty string\n",
        "Loaded image: base:latest\n",
    ]
    assert images.get("base").id == first
    assert images.get(second).names == ()


async def test_plain_layers_are_compressed_once_for_a_push(images: ImageService) -> None:
    image = await imported(images, "base")
    side = images.registry
    plain = side.manifest_of(image)
    from hyperstack.image.reference import Reference

    await side.prepare(Reference.parse("base"))
    packed = side.manifest_of(image)
    (layer,) = json.loads(packed.data)["layers"]
    assert packed.digest != plain.digest
    assert layer["mediaType"].endswith("tar.gzip")
    assert gzip.decompress(side.content.path(layer["digest"]).read_bytes()) == ROOT
    await side.prepare(Reference.parse("base"))
    assert side.manifest_of(image) == packed
    assert manifest_of(images._store, images.get("base")) == packed


@pytest.fixture(scope="module")
def dockerd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    """A real dockerd in a network namespace of its own; gives the client's words."""
    if DOCKERD is None or shutil.which("docker") is None:
        pytest.skip("no dockerd to compare with")
    root = tmp_path_factory.mktemp("dockerd")
    url = f"unix://{root}/docker.sock"
    argv = [
        "unshare", "--net", "--", DOCKERD, "--data-root", f"{root}/data",
        "--exec-root", f"{root}/exec", "--pidfile", f"{root}/pid", "-H", url,
        "--iptables=false", "--bridge=none", "--storage-driver=vfs",
    ]  # fmt: skip
    with (root / "log").open("wb") as log:
        process = subprocess.Popen(argv, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
    client = ["docker", "-H", url]
    try:
        bound = time.monotonic() + 30
        while subprocess.run([*client, "version"], capture_output=True).returncode:
            if process.poll() is not None or time.monotonic() > bound:
                pytest.skip("dockerd does not run here")
            time.sleep(0.2)
        yield client
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


async def test_dockerd_loads_what_we_save_and_we_load_what_it_saves(
    images: ImageService, dockerd: list[str], tmp_path: Path
) -> None:
    base = await imported(images, "base", gzip.compress(ROOT), 'CMD ["sh"]', "ENV A=1")
    await committed(images, base, files(new=b"1"), "child:1", tmp_path)
    saved = await whole(images.save(["base", "child:1"]))
    told = subprocess.run([*dockerd, "load"], input=saved, capture_output=True, check=True)
    assert told.stdout.decode().splitlines() == [
        "Loaded image: base:latest",
        "Loaded image: child:1",
    ]
    shown = json.loads(subprocess.check_output([*dockerd, "inspect", "base", "child:1"]))
    for its, mine in zip(shown, (images.get("base"), images.get("child:1")), strict=True):
        assert its["Id"] == mine.id
        assert its["Size"] == mine.size
        assert tuple(its["RootFS"]["Layers"]) == mine.diff_ids
        assert its["Parent"] == mine.parent
    theirs = subprocess.check_output([*dockerd, "save", "base", "child:1"])
    for name in ("child:1", "base"):
        await images.remove(name, force=False, prune=True)
    assert images.count() == 0
    await collected(images.load(body(theirs)))
    assert images.get("base").id == base
    assert images.get("child:1").parent == base
