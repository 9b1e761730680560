-- Unpacked layers under layers/<hex>. A layer is written before it is known to be on disk: `durable`
-- is 0 until a syncfs came after it, and then it counts only within the boot that wrote it.
-- `kept_until` (Unix seconds) protects the finished layers of an interrupted pull.
CREATE TABLE layers (
    diff_id    TEXT PRIMARY KEY,
    size_bytes INTEGER NOT NULL,
    disk_bytes INTEGER,
    durable    INTEGER NOT NULL DEFAULT 0,
    boot_id    TEXT NOT NULL,
    kept_until INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;

-- Where a layer's compressed form came from, to push it by mount or to fetch it again.
CREATE TABLE layer_sources (
    diff_id     TEXT NOT NULL REFERENCES layers (diff_id) ON DELETE CASCADE,
    blob_digest TEXT NOT NULL,
    repository  TEXT NOT NULL,
    media_type  TEXT NOT NULL,
    size_bytes  INTEGER NOT NULL,
    PRIMARY KEY (diff_id, blob_digest, repository)
) WITHOUT ROWID;

CREATE TABLE images (
    id              TEXT PRIMARY KEY,
    manifest_digest TEXT,
    parent          TEXT,
    tagged_at       INTEGER,
    used_at         INTEGER NOT NULL
) WITHOUT ROWID;

-- Manifest and index documents that an image holds on to.
CREATE TABLE image_documents (
    image      TEXT NOT NULL REFERENCES images (id) ON DELETE CASCADE,
    digest     TEXT NOT NULL,
    media_type TEXT NOT NULL,
    PRIMARY KEY (image, digest)
) WITHOUT ROWID;

CREATE TABLE image_names (
    name  TEXT PRIMARY KEY,
    image TEXT NOT NULL REFERENCES images (id) ON DELETE CASCADE
) WITHOUT ROWID;

CREATE TABLE image_digests (
    name  TEXT PRIMARY KEY,
    image TEXT NOT NULL REFERENCES images (id) ON DELETE CASCADE
) WITHOUT ROWID;

CREATE INDEX image_names_by_image ON image_names (image);
CREATE INDEX image_digests_by_image ON image_digests (image);

-- Writable layers under snapshots/<container>. `layers` is a JSON array of diff ids, lowest first:
-- a container outlives the image it was made from.
CREATE TABLE snapshots (
    container TEXT PRIMARY KEY,
    image     TEXT NOT NULL,
    layers    TEXT NOT NULL
) WITHOUT ROWID;

CREATE TABLE containers (
    seq    INTEGER PRIMARY KEY AUTOINCREMENT,
    id     TEXT NOT NULL UNIQUE,
    name   TEXT NOT NULL UNIQUE,
    config TEXT NOT NULL,
    state  TEXT NOT NULL
);
