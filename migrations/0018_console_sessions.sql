-- Sessions of persons in the console, which every replica serves. Holds no cookie and no secret: who reads this table can
-- open no session with it.
CREATE TABLE console_sessions (
    -- SHA-256 of the 256 random bits that are in the browser's cookie alone.
    key_hash bytea NOT NULL,
    -- Names the session in lists; opens nothing.
    id uuid NOT NULL,
    -- The token whose secret was proven. It is judged anew at each request. No foreign key: a session whose token was
    -- deleted is refused, and goes with its time.
    token_id uuid NOT NULL,
    open_time timestamptz NOT NULL,
    last_use_time timestamptz NOT NULL,
    -- When the secret was last proven.
    proof_time timestamptz NOT NULL,
    CONSTRAINT console_sessions_pkey PRIMARY KEY (key_hash),
    CONSTRAINT console_sessions_id_key UNIQUE (id),
    CONSTRAINT console_sessions_key_hash_check CHECK (octet_length(key_hash) = 32),
    CONSTRAINT console_sessions_open_time_check CHECK (open_time BETWEEN '1970-01-01Z' AND '9999-12-31 23:59:59Z'),
    CONSTRAINT console_sessions_last_use_time_check CHECK (last_use_time BETWEEN '1970-01-01Z' AND '9999-12-31 23:59:59Z'),
    CONSTRAINT console_sessions_proof_time_check CHECK (proof_time BETWEEN '1970-01-01Z' AND '9999-12-31 23:59:59Z')
);

-- The sessions of one token.
CREATE INDEX console_sessions_token_id_idx ON console_sessions (token_id);
