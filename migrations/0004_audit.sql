-- The audit log: who did what to which token, when. Appended by the code in the transaction of the change
-- itself; never updated. No foreign key to tokens: the log outlives them.
CREATE TABLE token_events (
    id bigint GENERATED ALWAYS AS IDENTITY,
    event_time timestamptz NOT NULL DEFAULT now(),
    kind text NOT NULL,
    token_id uuid NOT NULL,
    organization_id text COLLATE "C" NOT NULL,
    user_id text COLLATE "C" NOT NULL,
    -- The id of the caller's token, 'cert:' and its certificate's name, 'bootstrap', or 'tokend' for its jobs.
    actor text NOT NULL,
    -- The person that the caller acts for, as the caller says; null: it did not say.
    acting_user text COLLATE "C" NULL,
    -- Null: no call, as for bootstrap and jobs.
    trace_id bytea NULL,
    -- Each changed field with its old and its new value, as [{"field": …, "old": …, "new": …}]. Never a secret.
    changes jsonb NOT NULL,
    -- Which transaction it belongs to, so that a change can be told with its kind.
    xid xid8 NOT NULL DEFAULT pg_current_xact_id(),
    CONSTRAINT token_events_pkey PRIMARY KEY (id),
    CONSTRAINT token_events_id_check CHECK (id > 0),
    CONSTRAINT token_events_event_time_check CHECK (event_time BETWEEN '1970-01-01Z' AND '9999-12-31 23:59:59Z'),
    CONSTRAINT token_events_kind_check CHECK (kind IN ('created', 'updated', 'rotated', 'revoked', 'disabled',
        'enabled', 'expires_soon', 'purged')),
    CONSTRAINT token_events_actor_check CHECK (octet_length(actor) BETWEEN 1 AND 300),
    CONSTRAINT token_events_acting_user_check CHECK (octet_length(acting_user) BETWEEN 1 AND 200),
    CONSTRAINT token_events_trace_id_check CHECK (octet_length(trace_id) = 16)
);

-- The log of a token, of an organization, and of one of its users, newest first.
CREATE INDEX token_events_token_idx ON token_events (token_id, id);
CREATE INDEX token_events_organization_idx ON token_events (organization_id, id);
CREATE INDEX token_events_user_idx ON token_events (organization_id, user_id, id);

-- Seals over the audit log: each an HMAC under a key of the keyring, over all of its row, and so over the seal before
-- it and the events from first_id to last_id as they were when it was made. Without a key, nobody who can write the
-- database can alter, remove or add an event in a sealed range unseen.
CREATE TABLE audit_seals (
    sequence bigint NOT NULL,
    first_id bigint NOT NULL,
    last_id bigint NOT NULL,
    events bigint NOT NULL,
    -- SHA-256 of the events, so that the seal can still be checked once they were deleted for their age.
    events_hash bytea NOT NULL,
    previous bytea NOT NULL,
    seal_time timestamptz NOT NULL,
    key_id bytea NOT NULL,
    seal bytea NOT NULL,
    -- When its events were deleted for their age; null: they are there.
    purge_time timestamptz NULL,
    -- Not the sequence alone: a forged seal must not keep out the genuine one.
    CONSTRAINT audit_seals_pkey PRIMARY KEY (sequence, seal),
    CONSTRAINT audit_seals_sequence_check CHECK (sequence > 0),
    CONSTRAINT audit_seals_range_check CHECK (first_id > 0 AND first_id <= last_id),
    CONSTRAINT audit_seals_events_check CHECK (events BETWEEN 1 AND last_id - first_id + 1),
    CONSTRAINT audit_seals_events_hash_check CHECK (octet_length(events_hash) = 32),
    CONSTRAINT audit_seals_previous_check CHECK (octet_length(previous) = 32),
    CONSTRAINT audit_seals_seal_time_check CHECK (seal_time BETWEEN '1970-01-01Z' AND '9999-12-31 23:59:59Z'),
    CONSTRAINT audit_seals_key_id_check CHECK (octet_length(key_id) = 8),
    CONSTRAINT audit_seals_seal_check CHECK (octet_length(seal) = 32),
    CONSTRAINT audit_seals_purge_time_check CHECK (purge_time BETWEEN '1970-01-01Z' AND '9999-12-31 23:59:59Z')
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
