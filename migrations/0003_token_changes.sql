-- Which tokens changed in which transaction: what a replica reads to learn what it must forget, and what a watcher
-- is told. Written by triggers, so that no writer can leave it out, a psql session or a replication neither.
CREATE TABLE token_changes (
    xid xid8 NOT NULL DEFAULT pg_current_xact_id(),
    token_id uuid NOT NULL,
    -- Watchers of one organization must not receive changes of another, and a deleted row has no organization any more.
    organization_id text COLLATE "C" NOT NULL,
    -- Orders changes of one token as they committed: a second change waits for the row's lock.
    sequence bigint GENERATED ALWAYS AS IDENTITY,
    change_time timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT token_changes_change_time_check CHECK (change_time BETWEEN '1970-01-01Z' AND '9999-12-31 23:59:59Z')
);

-- A burst is read in pages, by (xid, token_id).
CREATE INDEX token_changes_xid_token_idx ON token_changes (xid, token_id);

-- Up to where token_changes has been purged. Changes of transactions below purged_below may be gone; those
-- below next_below may go once an hour has passed since next_time. One row.
CREATE TABLE change_horizon (
    singleton boolean NOT NULL DEFAULT true,
    purged_below xid8 NOT NULL,
    next_below xid8 NOT NULL,
    next_time timestamptz NOT NULL,
    CONSTRAINT change_horizon_pkey PRIMARY KEY (singleton),
    CONSTRAINT change_horizon_singleton_check CHECK (singleton),
    CONSTRAINT change_horizon_next_time_check CHECK (next_time BETWEEN '1970-01-01Z' AND '9999-12-31 23:59:59Z')
);

INSERT INTO change_horizon (purged_below, next_below, next_time)
VALUES ('0', pg_snapshot_xmin(pg_current_snapshot()), now());

CREATE FUNCTION record_token_insert() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO token_changes (token_id, organization_id) SELECT id, organization_id FROM new_rows;
    RETURN NULL;
END $$;

CREATE FUNCTION record_token_update() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    -- Both sides: a row whose id or organization was changed is gone under the old one.
    INSERT INTO token_changes (token_id, organization_id)
        SELECT id, organization_id FROM old_rows UNION SELECT id, organization_id FROM new_rows;
    RETURN NULL;
END $$;

CREATE FUNCTION record_token_delete() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO token_changes (token_id, organization_id) SELECT id, organization_id FROM old_rows;
    RETURN NULL;
END $$;

-- The same of one row.
CREATE FUNCTION record_token_row() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP <> 'INSERT' THEN
        INSERT INTO token_changes (token_id, organization_id) VALUES (OLD.id, OLD.organization_id);
    END IF;
    IF TG_OP = 'INSERT'
        OR TG_OP = 'UPDATE' AND (NEW.id, NEW.organization_id) IS DISTINCT FROM (OLD.id, OLD.organization_id)
    THEN
        INSERT INTO token_changes (token_id, organization_id) VALUES (NEW.id, NEW.organization_id);
    END IF;
    RETURN NULL;
END $$;

CREATE FUNCTION refuse_token_truncate() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'tokens must not be truncated: replicas would go on accepting what is gone'
        USING HINT = 'Use DELETE, which tells them.';
END $$;

-- They write to this schema's table whatever the session's search_path: that of a replication's worker is empty, and
-- a temporary table of the same name comes first in all others.
DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['record_token_insert', 'record_token_update', 'record_token_delete', 'record_token_row']
    LOOP
        EXECUTE format('ALTER FUNCTION %1$I.%2$I() SET search_path = %1$I, pg_temp', current_schema(), name);
    END LOOP;
END $$;

-- One trigger a statement, however many rows it touches.
CREATE TRIGGER tokens_insert_trigger AFTER INSERT ON tokens
    REFERENCING NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION record_token_insert();
CREATE TRIGGER tokens_update_trigger AFTER UPDATE ON tokens
    REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION record_token_update();
CREATE TRIGGER tokens_delete_trigger AFTER DELETE ON tokens
    REFERENCING OLD TABLE AS old_rows
    FOR EACH STATEMENT EXECUTE FUNCTION record_token_delete();

-- What logical replication applies fires no trigger of statements. So these stand in for those above wherever
-- session_replication_role is replica, and there alone: with ALWAYS, a change would be recorded twice.
CREATE TRIGGER tokens_row_trigger AFTER INSERT OR UPDATE OR DELETE ON tokens
    FOR EACH ROW EXECUTE FUNCTION record_token_row();
ALTER TABLE tokens ENABLE REPLICA TRIGGER tokens_row_trigger;

CREATE TRIGGER tokens_truncate_trigger BEFORE TRUNCATE ON tokens
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_token_truncate();
ALTER TABLE tokens ENABLE ALWAYS TRIGGER tokens_truncate_trigger;
