-- Which expirations were warned of, how long ahead, so that each is told once whichever replica does it. No
-- foreign key: a purged token's rows go with it, by the job that purges.
CREATE TABLE token_warnings (
    token_id uuid NOT NULL,
    expire_time timestamptz NOT NULL,
    ahead interval NOT NULL,
    CONSTRAINT token_warnings_pkey PRIMARY KEY (token_id, expire_time, ahead)
);

-- What is due to be purged, and what to be warned of.
CREATE INDEX tokens_revoke_time_idx ON tokens (revoke_time) WHERE revoke_time IS NOT NULL;
CREATE INDEX tokens_expire_time_due_idx ON tokens (expire_time) WHERE expire_time IS NOT NULL;
