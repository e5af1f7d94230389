-- Up to where token_changes has been purged. Changes of transactions below purged_below may be gone; those
-- below next_below may go once an hour has passed since next_time. One row.
CREATE TABLE change_horizon (
    singleton boolean NOT NULL DEFAULT true,
    purged_below xid8 NOT NULL,
    next_below xid8 NOT NULL,
    next_time timestamptz NOT NULL,
    CONSTRAINT change_horizon_pkey PRIMARY KEY (singleton),
    CONSTRAINT change_horizon_singleton_check CHECK (singleton)
);

INSERT INTO change_horizon (purged_below, next_below, next_time)
VALUES ('0', pg_snapshot_xmin(pg_current_snapshot()), now());

-- A burst is read in pages, by (xid, token_id).
CREATE INDEX token_changes_xid_token_idx ON token_changes (xid, token_id);
DROP INDEX token_changes_xid_idx;
