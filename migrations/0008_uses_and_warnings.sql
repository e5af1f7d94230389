-- When each token was last used. Apart from tokens: it is written often, is not a change of the token, and
-- must not widen the rows that Verify reads. No foreign key: a late write about a purged token is harmless.
CREATE TABLE token_uses (
    token_id uuid NOT NULL,
    last_use_time timestamptz NOT NULL,
    CONSTRAINT token_uses_pkey PRIMARY KEY (token_id),
    CONSTRAINT token_uses_last_use_time_check CHECK (last_use_time BETWEEN '1970-01-01Z' AND '9999-12-31 23:59:59Z')
) WITH (fillfactor = 70);

-- Which expirations were warned of, how long ahead, so that each is told once whichever replica does it. No
-- foreign key: a purged token's rows go with it, by the job that purges.
CREATE TABLE token_warnings (
    token_id uuid NOT NULL,
    expire_time timestamptz NOT NULL,
    ahead interval NOT NULL,
    CONSTRAINT token_warnings_pkey PRIMARY KEY (token_id, expire_time, ahead),
    CONSTRAINT token_warnings_expire_time_check CHECK (expire_time BETWEEN '1970-01-01Z' AND '9999-12-31 23:59:59Z')
);
