-- Purging a range needs every event to be 30 days old by the database's clock and by the caller's clock: one wrong clock must not
-- make fresh events look old.
CREATE OR REPLACE FUNCTION purge_audit(of_sequence bigint, of_seal bytea, at_time timestamptz, by_key bytea, mark bytea)
RETURNS bigint LANGUAGE plpgsql SECURITY DEFINER AS $$
DECLARE
    batch record;
    purged bigint;
BEGIN
    SELECT first_id, last_id INTO STRICT batch FROM audit_seals
        WHERE sequence = of_sequence AND seal = of_seal AND purge_time IS NULL FOR UPDATE;
    IF EXISTS (SELECT FROM token_events WHERE id BETWEEN batch.first_id AND batch.last_id
        AND event_time > least(clock_timestamp(), at_time) - interval '30 days')
    THEN
        RAISE EXCEPTION 'events younger than 30 days are not purged';
    END IF;
    DELETE FROM token_events WHERE id BETWEEN batch.first_id AND batch.last_id;
    GET DIAGNOSTICS purged = ROW_COUNT;
    UPDATE audit_seals SET purge_time = at_time, purge_key_id = by_key, purge_mark = mark
        WHERE sequence = of_sequence AND seal = of_seal;
    RETURN purged;
END $$;

-- Replacing it has dropped this: nobody's temporary tables may stand in for these.
DO $$
BEGIN
    EXECUTE format('ALTER FUNCTION %1$I.purge_audit(bigint, bytea, timestamptz, bytea, bytea) SET search_path = %1$I, pg_temp',
        current_schema());
END $$;
