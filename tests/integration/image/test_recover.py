"""A daemon may be killed at any instant: the next one finds whole images or none."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hyperstack.config import Config
from hyperstack.guest.kit import Kit
from hyperstack.image.service import ImageService
from hyperstack.image.store import PATIENCE
from tests.integration.image.conftest import running
from tests.integration.image.tars import body, collected, digest, files, whole

VICTIM = """
import asyncio, sys
from pathlib import Path
from hyperstack.config import Config
from hyperstack.events import EventBus
from hyperstack.guest.kit import Kit
from hyperstack.image.service import ImageService
from hyperstack.store.database import Database

async def chunks(path):
    with open(path, "rb") as file:
        while data := file.read(100_000):
            yield data

async def main(root, kit, uid_base, archive):
    config = Config(data_root=Path(root), uid_base=int(uid_base))
    service = ImageService(config, Database(config.data_root / "hyper.db"),
                           Kit.load(Path(kit)), EventBus())
    await service.recover()
    print("begun", flush=True)
    while True:
        async for _ in service.load(chunks(archive), quiet=True):
            pass
        await service.remove("one", force=False, prune=True)
        await service.remove("two", force=False, prune=True)

asyncio.run(main(*sys.argv[1:]))
"""


async def test_kill_at_any_instant_leaves_whole_images_or_none(
    config: Config, kit: Kit, tmp_path: Path
) -> None:
    archive = tmp_path / "archive.tar"
    async with running(Config(data_root=tmp_path / "x", uid_base=config.uid_base), kit) as images:
        for name in ("one", "two"):
            tar = files(**{name: os.urandom(2_000_000), "same": bytes(3_000_000)})
            await collected(images.import_(body(tar), repo=name))
        archive.write_bytes(await whole(images.save(["one", "two"])))
    chance = random.Random(7)
    argv = [str(config.data_root), str(kit.path), str(config.uid_base), str(archive)]
    seen = set()
    for _ in range(15):
        victim = subprocess.Popen(
            [sys.executable, "-c", VICTIM, *argv],
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": "src"},
        )
        assert victim.stdout is not None
        await asyncio.to_thread(victim.stdout.readline)
        await asyncio.sleep(chance.uniform(0, 0.4))
        victim.send_signal(signal.SIGKILL)
        victim.wait()
        victim.stdout.close()
        async with running(config, kit) as images:
            seen.add(images.count())
            await _whole(images.registry.config, images)
    assert len(seen) > 1, "the kills always hit the same state; the test proves little"


async def _whole(config: Config, images: ImageService) -> None:
    listed = images.list(all_=True, filters={})
    layers = {path for image in listed for path in images.rootfs(image.id)}
    assert all(path.exists() for path in layers)
    assert set((config.data_root / "layers").glob("*.erofs")) == layers
    assert not list((config.data_root / "layers/jobs").iterdir())
    assert not list((config.data_root / "content/partial").glob("tmp-*"))
    for image in listed:
        manifest = images.registry.manifest_of(image.id)
        assert manifest.digest == digest(manifest.data)
        await whole(images.save([image.id]))
    for blob in (config.data_root / "content/sha256").iterdir():
        assert digest(blob.read_bytes()) == f"sha256:{blob.name}"


async def test_blobs_of_an_unfinished_pull_stay_for_a_day(config: Config, kit: Kit) -> None:
    data = os.urandom(10_000)
    async with running(config, kit) as images:
        async with images.registry.content.ingest(digest(data), len(data)) as blob:
            await blob.write(data)
            await blob.commit()
        path = images.registry.content.path(digest(data))
    async with running(config, kit):
        assert path.exists()
    old = time.time() - PATIENCE - 60
    os.utime(path, (old, old))
    async with running(config, kit):
        assert not path.exists()


async def test_layers_without_an_image_go_at_start(config: Config, kit: Kit) -> None:
    tar = files(a=b"1")
    async with running(config, kit) as images:
        async with images.registry.layers.apply_stream(None) as layer:
            await layer.write(tar)
            await layer.commit()
        path = images.registry.layers.path(digest(tar))
        assert path.exists()
        (config.data_root / "layers/jobs/left").mkdir()
    async with running(config, kit) as images:
        assert not path.exists()
        assert not images.registry.layers.has(digest(tar))


async def test_what_is_held_is_not_collected_but_later(config: Config, kit: Kit) -> None:
    tar = files(a=b"1")
    async with running(config, kit) as images:
        await collected(images.import_(body(tar), repo="a"))
        (path,) = images.rootfs(images.get("a").id)
        with images.hold():
            await images.remove("a", force=False, prune=True)
            assert path.exists()
            assert images.registry.layers.has(digest(tar))
        for _ in range(200):
            if not path.exists():
                break
            await asyncio.sleep(0.01)
        assert not path.exists()


async def test_a_layer_that_lost_its_file_is_made_again_from_its_blob(
    config: Config, kit: Kit
) -> None:
    tar = files(a=b"1" * 5000)
    async with running(config, kit) as images:
        await collected(images.import_(body(tar), repo="a"))
        (path,) = images.rootfs(images.get("a").id)
        before = path.read_bytes()
    path.unlink()
    async with running(config, kit) as images:
        assert path.read_bytes() == before
        assert images.registry.layers.has(digest(tar))


async def test_an_image_whose_layer_and_blob_are_lost_is_reported_and_can_be_removed(
    config: Config, kit: Kit, caplog: pytest.LogCaptureFixture
) -> None:
    tar = files(a=b"1")
    async with running(config, kit) as images:
        await collected(images.import_(body(tar), repo="a"))
        images.rootfs(images.get("a").id)[0].unlink()
        images.registry.content.path(digest(tar)).unlink()
    async with running(config, kit) as images:
        assert "lacks layers; pull or load it again" in caplog.text
        await images.remove("a", force=False, prune=True)
        assert images.count() == 0
