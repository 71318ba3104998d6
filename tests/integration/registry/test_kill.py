"""A pull that is killed at any instant leaves nothing half made, and the next one goes on."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

from aiohttp import web

from hyperstack.config import Config
from hyperstack.events import EventBus
from hyperstack.guest.kit import Kit
from hyperstack.image.pull import pull
from hyperstack.image.registryside import RegistrySide
from hyperstack.image.store import ImageStore
from hyperstack.store.database import Database
from tests.integration.registry.artefacts import image, layer, noise, publish
from tests.integration.registry.hostile import hostile, ranged
from tests.integration.registry.lines import said
from tests.integration.registry.servers import Registry

PROGRAM = """
import asyncio, sys
from pathlib import Path
from hyperstack.config import Config
from hyperstack.events import EventBus
from hyperstack.guest.kit import Kit
from hyperstack.image.pull import pull
from hyperstack.image.registryside import RegistrySide
from hyperstack.image.store import ImageStore
from hyperstack.store.database import Database

async def main():
    data, kit, name = sys.argv[1:]
    config = Config(data_root=Path(data), uid_base=60_000_000)
    store = ImageStore(config, Database(Path(data) / "hyper.db"), Kit.load(Path(kit)), EventBus())
    async for line in pull(RegistrySide(store), name, "v1"):
        print(line.id, line.status, line.current, flush=True)

asyncio.run(main())
"""


async def started(config: Config, kit: Kit, name: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, "-c", PROGRAM, str(config.data_root), str(kit.path), name,
        stdout=asyncio.subprocess.PIPE, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip


def opened(config: Config, kit: Kit) -> tuple[RegistrySide, Database]:
    db = Database(config.data_root / "hyper.db")
    return RegistrySide(ImageStore(config, db, kit, EventBus())), db


async def test_a_killed_download_is_continued_by_the_next_daemon(config: Config, kit: Kit) -> None:
    config.data_root.mkdir(mode=0o711)
    one = layer({"big": noise(5_000_000)})
    built = image([one])
    sent = asyncio.Event()

    async def trick(request: web.Request, data: bytes) -> web.StreamResponse:
        if sent.is_set():
            return ranged(request, data)
        response = web.StreamResponse(headers={"Content-Length": str(len(data))})
        await response.prepare(request)
        await response.write(data[:3_000_000])
        await asyncio.sleep(0.5)
        sent.set()
        await asyncio.sleep(30)
        return response

    async with hostile() as shelf:
        shelf.put(built)
        shelf.tricks[one.digest] = trick
        name = f"{shelf.host}/a/b"
        process = await started(config, kit, name)
        async with asyncio.timeout(20):
            await sent.wait()
        process.send_signal(signal.SIGKILL)
        await process.communicate()

        images, db = opened(config, kit)
        assert images.lookup(f"{name}:v1") is None
        assert not images.content.has(one.digest)
        await said(pull(images, name, "v1"))
        wanted = shelf.server.asked(one.digest)[-1].headers["Range"]
        assert int(wanted.removeprefix("bytes=").removesuffix("-")) >= 2_000_000
        assert images.lookup(f"{name}:v1") == built.id
        assert images.content.path(one.digest).read_bytes() == one.blob
        db.close()


async def test_pulls_killed_at_many_instants_end_in_a_whole_image(
    registry: Registry, config: Config, kit: Kit
) -> None:
    config.data_root.mkdir(mode=0o711)
    layers = [layer({f"k{n}": noise(1_500_000, n)}) for n in range(4)]
    built = image(layers)
    publish(registry.base, "kill/many", "v1", built)
    name = f"{registry.host}/kill/many"
    for lines in (1, 3, 6, 9, 12, 15, 18):
        process = await started(config, kit, name)
        assert process.stdout is not None
        for _ in range(lines):
            if not await process.stdout.readline():
                break
        if process.returncode is None:
            process.kill()
        await process.communicate()
        check(config, kit, name, built.id)

    images, db = opened(config, kit)
    await said(pull(images, name, "v1"))
    assert images.lookup(f"{name}:v1") == built.id
    for one in layers:
        assert images.content.path(one.digest).read_bytes() == one.blob
        assert images.layers.has(one.diff_id)
    db.close()


def check(config: Config, kit: Kit, name: str, image_id: str) -> None:
    """See that an image that is there is whole, and that no blob or layer is half."""
    images, db = opened(config, kit)
    found = images.lookup(f"{name}:v1")
    assert found in (None, image_id)
    for digest in images.content.digests():
        assert digest == "sha256:" + _sha256(images.content.path(digest))
    if found:
        assert images.manifest_of(found).data
    db.close()


def _sha256(path: Path) -> str:
    import hashlib

    return hashlib.sha256(path.read_bytes()).hexdigest()
