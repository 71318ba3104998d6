from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path

import pytest

from hyperstack.errors import InvalidParameter
from hyperstack.image.content import ContentStore
from hyperstack.image.lane import Lane

DATA = bytes(range(256)) * 8192
DIGEST = f"sha256:{hashlib.sha256(DATA).hexdigest()}"


@pytest.fixture
def store(tmp_path: Path) -> ContentStore:
    return ContentStore(tmp_path / "content")


async def put(store: ContentStore, data: bytes, digest: str = DIGEST, size: int = 0) -> None:
    async with store.ingest(digest, size or len(data)) as blob:
        for start in range(blob.offset, len(data), 70_000):
            await blob.write(data[start : start + 70_000])
        await blob.commit()


async def test_a_blob_is_there_once_it_was_committed(store: ContentStore) -> None:
    assert not store.has(DIGEST)
    await put(store, DATA)
    assert store.has(DIGEST)
    assert store.path(DIGEST).read_bytes() == DATA
    assert store.size(DIGEST) == len(DATA)
    assert list(store.digests()) == [DIGEST]
    assert store.path(DIGEST).stat().st_mode & 0o777 == 0o400
    assert not list(store.partial.iterdir())


async def test_an_empty_blob_is_a_blob(store: ContentStore) -> None:
    digest = f"sha256:{hashlib.sha256(b'').hexdigest()}"
    await put(store, b"", digest)
    assert store.size(digest) == 0


async def test_a_blob_with_another_digest_is_refused_and_thrown_away(store: ContentStore) -> None:
    wrong = "sha256:" + "0" * 64
    with pytest.raises(InvalidParameter, match="verification failed"):
        await put(store, DATA, wrong)
    assert not store.has(wrong)
    assert not list(store.partial.iterdir())


async def test_a_blob_that_is_too_long_is_refused_and_thrown_away(store: ContentStore) -> None:
    with pytest.raises(InvalidParameter, match="longer than"):
        await put(store, DATA, size=len(DATA) - 1)
    assert not list(store.partial.iterdir())


async def test_what_was_written_before_a_failure_is_where_the_next_try_goes_on(
    store: ContentStore,
) -> None:
    async with store.ingest(DIGEST, len(DATA)) as blob:
        await blob.write(DATA[:1_000_000])
        with pytest.raises(InvalidParameter, match="ended after 1000000 of"):
            await blob.commit()
    async with store.ingest(DIGEST, len(DATA)) as blob:
        assert blob.offset == 1_000_000
        await blob.write(DATA[blob.offset :])
        await blob.commit()
    assert store.path(DIGEST).read_bytes() == DATA


async def test_a_partial_blob_that_is_damaged_is_found_out(store: ContentStore) -> None:
    (store.partial / DIGEST[7:]).write_bytes(b"x" * 1000)
    async with store.ingest(DIGEST, len(DATA)) as blob:
        assert blob.offset == 1000
        await blob.write(DATA[1000:])
        with pytest.raises(InvalidParameter, match="verification failed"):
            await blob.commit()
        assert blob.offset == 0
        await blob.write(DATA)
        await blob.commit()
    assert store.has(DIGEST)


async def test_two_who_want_one_blob_take_turns_and_the_second_has_nothing_to_do(
    store: ContentStore,
) -> None:
    order: list[str] = []

    async def one(name: str) -> None:
        async with store.ingest(DIGEST, len(DATA)) as blob:
            order.append(f"{name} {'finds it' if blob.complete else 'writes'}")
            if not blob.complete:
                await blob.write(DATA)
                await asyncio.sleep(0.01)
            await blob.commit()

    await asyncio.gather(one("first"), one("second"))
    assert order == ["first writes", "second finds it"]


async def test_cancelling_an_ingest_keeps_its_bytes_and_frees_its_lock(store: ContentStore) -> None:
    begun = asyncio.Event()

    async def stuck() -> None:
        async with store.ingest(DIGEST, len(DATA)) as blob:
            await blob.write(DATA[:600_000])
            begun.set()
            await asyncio.sleep(60)

    task = asyncio.create_task(stuck())
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    async with asyncio.timeout(5), store.ingest(DIGEST, len(DATA)) as blob:
        assert blob.offset == 600_000


async def test_a_spool_is_gone_unless_it_was_adopted(store: ContentStore) -> None:
    async with store.spool() as spool:
        await spool.write(DATA)
        await spool.finish()
        assert spool.digest == DIGEST
    assert not list(store.partial.iterdir())
    async with store.spool() as spool:
        await spool.write(DATA)
        await spool.finish()
        store.adopt(spool.path, spool.digest)
    assert store.has(DIGEST)
    assert not list(store.partial.iterdir())


async def test_discarded_blobs_are_gone_at_once(store: ContentStore) -> None:
    await put(store, DATA)
    (trash,) = store.discard([DIGEST, "sha256:" + "1" * 64])
    assert not store.has(DIGEST)
    assert trash.parent == store.partial


async def test_clearing_keeps_young_partial_blobs_and_no_spool(store: ContentStore) -> None:
    young = store.partial / DIGEST[7:]
    young.write_bytes(b"1")
    (store.partial / "tmp-1").write_bytes(b"1")
    assert store.clear_partial(older_than=young.stat().st_mtime - 1) == 1
    assert list(store.partial.iterdir()) == [young]
    assert store.clear_partial(older_than=young.stat().st_mtime) == 1


@pytest.mark.parametrize(
    "digest",
    ["", "sha256:", "sha256:" + "A" * 64, "sha512:" + "a" * 64, "sha256:../../etc/passwd",
     "sha256:" + "a" * 64 + "\n", "sha256:" + "a" * 63 + "/"],
)  # fmt: skip
def test_a_digest_never_becomes_another_path(store: ContentStore, digest: str) -> None:
    with pytest.raises(InvalidParameter):
        store.path(digest)


async def test_a_lane_keeps_order_and_hands_failures_to_who_comes_next() -> None:
    lane = Lane("test", depth=2)
    done: list[int] = []
    for number in range(20):
        await lane.put(lambda number=number: done.append(number))  # type: ignore[misc]
    await lane.drain()
    assert done == list(range(20))

    def fail() -> None:
        raise ValueError("broken")

    await lane.put(fail)
    with pytest.raises(ValueError, match="broken"):
        await lane.drain()
    await lane.close()
