-- More of who did what: on whose behalf a trusted frontend acted, within which trace, and what was changed.
ALTER TABLE token_events
    -- The person that the caller acts for, as the caller says; null: it did not say.
    ADD COLUMN acting_user text COLLATE "C",
    -- Null: no call, as for bootstrap and jobs.
    ADD COLUMN trace_id bytea,
    -- Each changed field with its old and its new value, as [{"field": …, "old": …, "new": …}]; null for events
    -- from before this migration. Never a secret.
    ADD COLUMN changes jsonb,
    ADD CONSTRAINT token_events_acting_user_check CHECK (octet_length(acting_user) BETWEEN 1 AND 200),
    ADD CONSTRAINT token_events_trace_id_check CHECK (octet_length(trace_id) = 16);

-- What else is told of a token.
ALTER TABLE token_events
    DROP CONSTRAINT token_events_kind_check,
    ADD CONSTRAINT token_events_kind_check CHECK (kind IN ('created', 'updated', 'rotated', 'revoked', 'disabled',
        'enabled', 'expires_soon', 'purged'));

-- The log of an organization, and of one of its users, newest first.
CREATE INDEX token_events_organization_idx ON token_events (organization_id, id);
CREATE INDEX token_events_user_idx ON token_events (organization_id, user_id, id);
