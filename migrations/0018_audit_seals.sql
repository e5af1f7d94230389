-- Seals over the audit log: each an HMAC under a key of the keyring, over the previous seal and the events from
-- first_id to last_id as they were when it was made. Whoever can write the database but has no key cannot alter,
-- remove or add an event in a sealed range unseen.
CREATE TABLE audit_seals (
    sequence bigint NOT NULL,
    first_id bigint NOT NULL,
    last_id bigint NOT NULL,
    events bigint NOT NULL,
    previous bytea NOT NULL,
    seal bytea NOT NULL,
    key_id bytea NOT NULL,
    seal_time timestamptz NOT NULL DEFAULT now(),
    -- When its events were deleted for their age; null: they are there.
    purge_time timestamptz NULL,
    CONSTRAINT audit_seals_pkey PRIMARY KEY (sequence),
    CONSTRAINT audit_seals_range_check CHECK (first_id <= last_id),
    CONSTRAINT audit_seals_previous_check CHECK (octet_length(previous) = 32),
    CONSTRAINT audit_seals_seal_check CHECK (octet_length(seal) = 32),
    CONSTRAINT audit_seals_key_id_check CHECK (octet_length(key_id) = 8)
);

-- The only way to delete events: whole sealed batches, none younger than 30 days. Runs as the owner of the
-- tables, so that the role that serves needs no right to delete or update them.
CREATE FUNCTION purge_audit(before timestamptz) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER AS $$
DECLARE
    batch record;
    purged bigint := 0;
BEGIN
    IF before > now() - interval '30 days' THEN
        RAISE EXCEPTION 'events younger than 30 days are not purged';
    END IF;
    FOR batch IN
        SELECT sequence, first_id, last_id, events FROM audit_seals
        WHERE purge_time IS NULL ORDER BY sequence LIMIT 100 FOR UPDATE SKIP LOCKED
    LOOP
        EXIT WHEN EXISTS (SELECT FROM token_events
            WHERE id BETWEEN batch.first_id AND batch.last_id AND event_time >= before);
        DELETE FROM token_events WHERE id BETWEEN batch.first_id AND batch.last_id;
        UPDATE audit_seals SET purge_time = now() WHERE sequence = batch.sequence;
        purged := purged + batch.events;
    END LOOP;
    RETURN purged;
END $$;

-- Nobody's temporary tables may stand in for these.
DO $$
BEGIN
    EXECUTE format('ALTER FUNCTION purge_audit(timestamptz) SET search_path = %I, pg_temp', current_schema());
    EXECUTE 'REVOKE ALL ON FUNCTION purge_audit(timestamptz) FROM PUBLIC';
END $$;
