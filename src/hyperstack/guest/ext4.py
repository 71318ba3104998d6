"""Makes empty ext4 images: templates of containers' writable disks (design 7).

The image is as sparse as ext4 allows, since it is copied for every container: no backup
superblocks, no room to grow the descriptors, all groups' tables in one place. 10 GiB take 128 KiB.
The inode tables count as zeroed already, so no guest ever starts to write zeros over them.
The same size gives the same bytes.
"""

from __future__ import annotations

from pathlib import Path

from hyperstack.platform import process

NAMESPACE = "48597065-7200-4000-8000"
SMALLEST_WITH_JOURNAL = 64 << 20
EPOCH = 1_700_000_000


async def make(path: Path, size: int) -> None:
    """Make an empty ext4 image of *size* bytes at *path*, replacing what is there.

    Raises InternalError if the host has no mkfs.ext4 (package e2fsprogs), or if it fails.
    """
    with path.open("wb") as file:
        file.truncate(size)
    await process.run(["mkfs.ext4", *_options(size), path], env=_environment())


def _options(size: int) -> list[str]:
    # A guest is killed rather than unmounted, hence a journal; a small one, since it is written.
    journal = ["-J", "size=4"] if size >= SMALLEST_WITH_JOURNAL else ["-O", "^has_journal"]
    extended = (
        f"lazy_itable_init=1,lazy_journal_init=1,num_backup_sb=0,hash_seed={NAMESPACE}-000000000001"
    )
    return [
        *("-q", "-F", "-m", "0", "-G", "4096"),
        *("-U", f"{NAMESPACE}-000000000000"),
        *("-O", "sparse_super2,^resize_inode"),
        *journal,
        *("-E", extended),
    ]


def _environment() -> dict[str, str]:
    # The two names by which releases of e2fsprogs take a fixed time.
    return {"SOURCE_DATE_EPOCH": str(EPOCH), "E2FSPROGS_FAKE_TIME": str(EPOCH)}
