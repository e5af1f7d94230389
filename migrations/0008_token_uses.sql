-- When each token was last used. Apart from tokens: it is written often, is not a change of the token, and
-- must not widen the rows that Verify reads. No foreign key: a late write about a purged token is harmless.
CREATE TABLE token_uses (
    token_id uuid NOT NULL,
    last_use_time timestamptz NOT NULL,
    CONSTRAINT token_uses_pkey PRIMARY KEY (token_id)
) WITH (fillfactor = 70);
