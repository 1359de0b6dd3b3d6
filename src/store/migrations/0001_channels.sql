-- One row an id, for ever: inserted once (that insert decides who owns the id), never removed.
-- Only types and syntax that SQLite and PostgreSQL share. Texts compare byte for byte on both: SQLite's default collation is
-- BINARY, and PostgreSQL's deterministic collations (every default one) call only identical texts equal.
CREATE TABLE channels (
    id            TEXT   NOT NULL PRIMARY KEY,
    owner         TEXT,            -- uid; NULL where an admin deleted a group that nobody owned
    name          TEXT,
    avatar        TEXT,
    stage         TEXT   NOT NULL, -- creating, live, deleting, deleted
    created_at_ms BIGINT NOT NULL, -- Unix milliseconds
    deleted_at_ms BIGINT           -- when it was marked
);
