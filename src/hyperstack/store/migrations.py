"""The database's schema as numbered scripts; number N is entry N - 1.

A script that was ever released is never edited: a change of the schema is a new entry at the end.
"""

from __future__ import annotations

IMAGES = """
CREATE TABLE images (
    id TEXT PRIMARY KEY,
    parent TEXT NOT NULL DEFAULT '',
    config BLOB NOT NULL,
    added_ns INTEGER NOT NULL,
    tagged_ns INTEGER NOT NULL DEFAULT 0,
    hidden INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
CREATE TABLE image_names (
    name TEXT PRIMARY KEY,
    image TEXT NOT NULL REFERENCES images (id)
) WITHOUT ROWID;
CREATE INDEX image_names_image ON image_names (image);
CREATE TABLE layers (
    diff_id TEXT PRIMARY KEY,
    tar_size INTEGER NOT NULL,
    content_size INTEGER NOT NULL,
    disk_size INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE blobs (
    digest TEXT NOT NULL,
    diff_id TEXT NOT NULL REFERENCES layers (diff_id),
    size INTEGER NOT NULL,
    media_type TEXT NOT NULL,
    PRIMARY KEY (digest, diff_id)
) WITHOUT ROWID;
CREATE INDEX blobs_diff_id ON blobs (diff_id);
CREATE TABLE blob_sources (
    digest TEXT NOT NULL,
    repository TEXT NOT NULL,
    PRIMARY KEY (digest, repository)
) WITHOUT ROWID;
CREATE TABLE manifests (
    digest TEXT PRIMARY KEY,
    image TEXT NOT NULL REFERENCES images (id),
    media_type TEXT NOT NULL,
    data BLOB NOT NULL
) WITHOUT ROWID;
CREATE INDEX manifests_image ON manifests (image);
"""

CONTAINERS = """
CREATE TABLE containers (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    data BLOB NOT NULL
) WITHOUT ROWID;
CREATE TABLE sandboxes (
    id TEXT PRIMARY KEY,
    data BLOB NOT NULL
) WITHOUT ROWID;
"""

VOLUMES = """
CREATE TABLE volumes (
    name TEXT PRIMARY KEY,
    data BLOB NOT NULL
) WITHOUT ROWID;
"""

NETWORKS = """
CREATE TABLE networks (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    data BLOB NOT NULL
) WITHOUT ROWID;
CREATE TABLE endpoints (
    id TEXT PRIMARY KEY,
    data BLOB NOT NULL
) WITHOUT ROWID;
"""

MIGRATIONS: tuple[str, ...] = (IMAGES, CONTAINERS, VOLUMES, NETWORKS)
