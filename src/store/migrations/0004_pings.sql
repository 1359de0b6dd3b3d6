-- One row, written to see whether the store still takes anything: a full disk reads on.
CREATE TABLE pings (
    id    BIGINT NOT NULL PRIMARY KEY,
    at_ms BIGINT NOT NULL -- Unix milliseconds
);
