-- What else happens to a token: it is changed, or another one takes its place.
ALTER TABLE token_events
    DROP CONSTRAINT token_events_kind_check,
    ADD CONSTRAINT token_events_kind_check CHECK (kind IN ('created', 'updated', 'rotated', 'revoked'));
