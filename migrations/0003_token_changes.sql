-- Which tokens changed in which transaction: what a replica reads to learn what it must forget. Written by
-- triggers, so that no writer can leave it out, a psql session neither.
CREATE TABLE token_changes (
    xid xid8 NOT NULL DEFAULT pg_current_xact_id(),
    token_id uuid NOT NULL
);

CREATE INDEX token_changes_xid_idx ON token_changes (xid);

CREATE FUNCTION record_token_insert() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO token_changes (token_id) SELECT id FROM new_rows;
    RETURN NULL;
END $$;

CREATE FUNCTION record_token_update() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    -- Both sides: a row whose id was changed is gone under the old one.
    INSERT INTO token_changes (token_id) SELECT id FROM old_rows UNION SELECT id FROM new_rows;
    RETURN NULL;
END $$;

CREATE FUNCTION record_token_delete() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO token_changes (token_id) SELECT id FROM old_rows;
    RETURN NULL;
END $$;

CREATE FUNCTION refuse_token_truncate() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'tokens must not be truncated: replicas would go on accepting what is gone'
        USING HINT = 'Use DELETE, which tells them.';
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
CREATE TRIGGER tokens_truncate_trigger BEFORE TRUNCATE ON tokens
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_token_truncate();
