-- That events were deleted for their age is signed by a key of the keyring, as a seal is: otherwise anyone who can write
-- the database could delete fresh ones and call them purged.
ALTER TABLE audit_seals
    -- An HMAC over the seal and purge_time, and the key that made it; null: the events are there.
    ADD COLUMN purge_key_id bytea NULL,
    ADD COLUMN purge_mark bytea NULL,
    ADD CONSTRAINT audit_seals_purge_key_id_check CHECK (octet_length(purge_key_id) = 8),
    ADD CONSTRAINT audit_seals_purge_mark_check CHECK (octet_length(purge_mark) = 32),
    ADD CONSTRAINT audit_seals_purge_check CHECK (
        (purge_time IS NULL) = (purge_mark IS NULL) AND (purge_time IS NULL) = (purge_key_id IS NULL)),
    ADD CONSTRAINT audit_seals_purge_order_check CHECK (purge_time >= seal_time);

DROP FUNCTION purge_audit(timestamptz);

-- The only way to delete events: those of one seal, none younger than 30 days, with the mark that goes to the seal. Who
-- calls it has checked the seal and made the mark, for which the database has no key. Runs as the owner of the tables, so
-- that the role that serves needs no right to delete or update them. Returns how many were deleted.
CREATE FUNCTION purge_audit(of_sequence bigint, of_seal bytea, at_time timestamptz, by_key bytea, mark bytea)
RETURNS bigint LANGUAGE plpgsql SECURITY DEFINER AS $$
DECLARE
    batch record;
    purged bigint;
BEGIN
    SELECT first_id, last_id INTO STRICT batch FROM audit_seals
        WHERE sequence = of_sequence AND seal = of_seal AND purge_time IS NULL FOR UPDATE;
    IF EXISTS (SELECT FROM token_events WHERE id BETWEEN batch.first_id AND batch.last_id
        AND event_time > clock_timestamp() - interval '30 days')
    THEN
        RAISE EXCEPTION 'events younger than 30 days are not purged';
    END IF;
    DELETE FROM token_events WHERE id BETWEEN batch.first_id AND batch.last_id;
    GET DIAGNOSTICS purged = ROW_COUNT;
    UPDATE audit_seals SET purge_time = at_time, purge_key_id = by_key, purge_mark = mark
        WHERE sequence = of_sequence AND seal = of_seal;
    RETURN purged;
END $$;

-- Nobody's temporary tables may stand in for these.
DO $$
BEGIN
    EXECUTE format('ALTER FUNCTION %1$I.purge_audit(bigint, bytea, timestamptz, bytea, bytea) SET search_path = %1$I, pg_temp',
        current_schema());
    REVOKE ALL ON FUNCTION purge_audit(bigint, bytea, timestamptz, bytea, bytea) FROM PUBLIC;
END $$;
