"""Rows of images, their names, layers, blobs and manifests (``store/migrations.py``).

All of it is read once at start; a row is the truth after a crash. An image, all that it needs and
its names are written in one transaction, when the files are there already.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from hyperstack.image.values import LayerBlob, LayerInfo, ManifestBlob
from hyperstack.store.database import Database


@dataclass(frozen=True, kw_only=True)
class ImageRow:
    """An image. *hidden*: removed by the user, but a container still needs its layers."""

    id: str
    parent: str
    config: bytes
    added_ns: int
    tagged_ns: int
    hidden: bool


@dataclass(frozen=True, kw_only=True)
class ManifestRow:
    """What is known of a manifest without its bytes."""

    digest: str
    image: str
    media_type: str
    size: int


@dataclass(frozen=True, kw_only=True)
class Everything:
    """All rows as they were read at start."""

    images: list[ImageRow]
    names: dict[str, str]
    layers: list[LayerInfo]
    blobs: list[tuple[str, LayerBlob]]
    """diff id and blob"""
    manifests: list[ManifestRow]


@dataclass(frozen=True, kw_only=True)
class Addition:
    """What one new image writes. *names* are canonical references."""

    image: ImageRow
    layers: Sequence[LayerInfo]
    blobs: Sequence[tuple[str, LayerBlob]]
    manifests: Sequence[ManifestBlob] = ()
    names: Sequence[str] = ()
    repository: str = ""


@dataclass(kw_only=True)
class Removal:
    """What goes away in one transaction."""

    names: list[str] = field(default_factory=list)
    images: list[str] = field(default_factory=list)
    layers: list[str] = field(default_factory=list)


def load(db: Database) -> Everything:
    """Read all rows."""
    return db.read(_load)


def _load(c: sqlite3.Connection) -> Everything:
    return Everything(
        images=[
            ImageRow(
                id=row[0],
                parent=row[1],
                config=row[2],
                added_ns=row[3],
                tagged_ns=row[4],
                hidden=bool(row[5]),
            )
            for row in c.execute(
                "SELECT id, parent, config, added_ns, tagged_ns, hidden FROM images"
            )
        ],
        names=dict(c.execute("SELECT name, image FROM image_names").fetchall()),
        layers=[
            LayerInfo(diff_id=row[0], tar_size=row[1], content_size=row[2], disk_size=row[3])
            for row in c.execute("SELECT diff_id, tar_size, content_size, disk_size FROM layers")
        ],
        blobs=[
            (row[1], LayerBlob(digest=row[0], size=row[2], media_type=row[3]))
            for row in c.execute("SELECT digest, diff_id, size, media_type FROM blobs")
        ],
        manifests=[
            ManifestRow(digest=row[0], image=row[1], media_type=row[2], size=row[3])
            for row in c.execute("SELECT digest, image, media_type, length(data) FROM manifests")
        ],
    )


async def add(db: Database, new: Addition) -> None:
    """Write an image and all that belongs to it; what is there already stays as it is."""

    def write(c: sqlite3.Connection) -> None:
        image = new.image
        c.execute(
            "INSERT INTO images (id, parent, config, added_ns, tagged_ns, hidden) "
            "VALUES (?, ?, ?, ?, ?, 0) ON CONFLICT (id) DO UPDATE SET hidden = 0, "
            "parent = iif(excluded.parent = '', parent, excluded.parent), "
            "tagged_ns = max(tagged_ns, excluded.tagged_ns)",
            (image.id, image.parent, image.config, image.added_ns, image.tagged_ns),
        )
        _add_layers(c, new)
        c.executemany(
            "INSERT OR REPLACE INTO manifests (digest, image, media_type, data) "
            "VALUES (?, ?, ?, ?)",
            [(m.digest, image.id, m.media_type, m.data) for m in new.manifests],
        )
        _put_names(c, image.id, new.names)

    await db.write(write)


def _add_layers(c: sqlite3.Connection, new: Addition) -> None:
    c.executemany(
        "INSERT INTO layers (diff_id, tar_size, content_size, disk_size) "
        "VALUES (?, ?, ?, ?) ON CONFLICT (diff_id) DO NOTHING",
        [(x.diff_id, x.tar_size, x.content_size, x.disk_size) for x in new.layers],
    )
    put_blobs(c, new.blobs)
    if new.repository:
        put_sources(c, new.repository, [blob.digest for _, blob in new.blobs])


def put_blobs(c: sqlite3.Connection, blobs: Iterable[tuple[str, LayerBlob]]) -> None:
    """Note which blobs hold which layers, by diff id."""
    c.executemany(
        "INSERT OR IGNORE INTO blobs (digest, diff_id, size, media_type) VALUES (?, ?, ?, ?)",
        [(blob.digest, diff_id, blob.size, blob.media_type) for diff_id, blob in blobs],
    )


def _put_names(c: sqlite3.Connection, image: str, names: Iterable[str]) -> None:
    c.executemany(
        "INSERT OR REPLACE INTO image_names (name, image) VALUES (?, ?)",
        [(name, image) for name in names],
    )


async def put_name(db: Database, name: str, image: str, tagged_ns: int) -> None:
    """Let *name* (canonical) mean *image*, which was tagged so then (0: nobody did it)."""

    def write(c: sqlite3.Connection) -> None:
        _put_names(c, image, [name])
        c.execute(
            "UPDATE images SET tagged_ns = max(tagged_ns, ?) WHERE id = ?", (tagged_ns, image)
        )

    await db.write(write)


async def link(db: Database, image: str, parent: str) -> None:
    """Let an image be made from another."""
    await db.write(
        lambda c: c.execute("UPDATE images SET parent = ? WHERE id = ?", (parent, image))
    )


def put_sources(c: sqlite3.Connection, repository: str, digests: Iterable[str]) -> None:
    """Note that a registry's repository has these blobs."""
    c.executemany(
        "INSERT OR IGNORE INTO blob_sources (digest, repository) VALUES (?, ?)",
        [(digest, repository) for digest in digests],
    )


def sources(db: Database, digest: str) -> list[str]:
    """Return the repositories that are known to have a blob."""
    rows = db.read(
        lambda c: c.execute(
            "SELECT repository FROM blob_sources WHERE digest = ? ORDER BY repository", (digest,)
        ).fetchall()
    )
    return [row[0] for row in rows]


def manifest(db: Database, digest: str) -> ManifestBlob | None:
    """Return a manifest with its bytes."""
    row = db.read(
        lambda c: c.execute(
            "SELECT media_type, data FROM manifests WHERE digest = ?", (digest,)
        ).fetchone()
    )
    return ManifestBlob(digest=digest, media_type=row[0], data=row[1]) if row else None


def config(db: Database, image: str) -> bytes | None:
    """Return an image's config, byte for byte."""
    row = db.read(
        lambda c: c.execute("SELECT config FROM images WHERE id = ?", (image,)).fetchone()
    )
    return row[0] if row else None


async def hide(db: Database, image: str) -> None:
    """Take an image and its names out of sight; its layers stay."""

    def write(c: sqlite3.Connection) -> None:
        c.execute("UPDATE images SET hidden = 1, parent = '' WHERE id = ?", (image,))
        c.execute("DELETE FROM image_names WHERE image = ?", (image,))
        c.execute("DELETE FROM manifests WHERE image = ?", (image,))

    await db.write(write)


async def remove(db: Database, gone: Removal) -> None:
    """Delete names, images with all that refers to them, and layers with their blobs' rows."""

    def write(c: sqlite3.Connection) -> None:
        c.executemany("DELETE FROM image_names WHERE name = ?", _ones(gone.names))
        for table in ("image_names", "manifests"):
            c.executemany(f"DELETE FROM {table} WHERE image = ?", _ones(gone.images))  # noqa: S608
        c.executemany("UPDATE images SET parent = '' WHERE parent = ?", _ones(gone.images))
        c.executemany("DELETE FROM images WHERE id = ?", _ones(gone.images))
        c.executemany("DELETE FROM blobs WHERE diff_id = ?", _ones(gone.layers))
        c.executemany("DELETE FROM layers WHERE diff_id = ?", _ones(gone.layers))
        if gone.layers:
            c.execute("DELETE FROM blob_sources WHERE digest NOT IN (SELECT digest FROM blobs)")

    await db.write(write)


def _ones(values: Iterable[str]) -> list[tuple[str]]:
    return [(value,) for value in values]
