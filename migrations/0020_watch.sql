-- What a watcher is told of a change beside its id. The organization, because whoever watches one must not hear
-- of another's, and a deleted row can no longer be asked; null for changes from before this migration. The
-- sequence orders changes of one token as they committed: a second change waits for the row's lock.
ALTER TABLE token_changes
    ADD COLUMN organization_id text COLLATE "C",
    ADD COLUMN sequence bigint GENERATED ALWAYS AS IDENTITY,
    ADD COLUMN change_time timestamptz NOT NULL DEFAULT now();

-- Which transaction an event belongs to, so that a change can be told with its kind; null for those from before
-- this migration.
ALTER TABLE token_events ADD COLUMN xid xid8;
ALTER TABLE token_events ALTER COLUMN xid SET DEFAULT pg_current_xact_id();

CREATE OR REPLACE FUNCTION record_token_insert() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO token_changes (token_id, organization_id) SELECT id, organization_id FROM new_rows;
    RETURN NULL;
END $$;

CREATE OR REPLACE FUNCTION record_token_update() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    -- Both sides: a row whose id or organization was changed is gone under the old one.
    INSERT INTO token_changes (token_id, organization_id)
        SELECT id, organization_id FROM old_rows UNION SELECT id, organization_id FROM new_rows;
    RETURN NULL;
END $$;

CREATE OR REPLACE FUNCTION record_token_delete() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO token_changes (token_id, organization_id) SELECT id, organization_id FROM old_rows;
    RETURN NULL;
END $$;
