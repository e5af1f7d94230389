-- Codes with which a program of a person gets a token, once and within a minute, after the person allowed it in the
-- console. Holds no code: who reads this table can exchange none.
CREATE TABLE login_codes (
    -- SHA-256 of the 128 random bits that only the program gets.
    code_hash bytea NOT NULL,
    -- The session in which it was allowed. It is found again when the code is exchanged: a session that has ended allows
    -- nothing. No foreign key: the code goes with its time.
    session_id uuid NOT NULL,
    -- SHA-256 of what only the program that asked can send with the code.
    challenge bytea NOT NULL,
    -- What the program calls its computer.
    host text NOT NULL,
    -- How long its token lasts, in seconds.
    lifetime bigint NOT NULL,
    -- What its token may issue; empty: all that the session may issue.
    scopes text[] NOT NULL,
    expire_time timestamptz NOT NULL,
    CONSTRAINT login_codes_pkey PRIMARY KEY (code_hash),
    CONSTRAINT login_codes_code_hash_check CHECK (octet_length(code_hash) = 32),
    CONSTRAINT login_codes_challenge_check CHECK (octet_length(challenge) = 32),
    CONSTRAINT login_codes_host_check CHECK (char_length(host) BETWEEN 1 AND 60),
    CONSTRAINT login_codes_lifetime_check CHECK (lifetime BETWEEN 60 AND 86400),
    CONSTRAINT login_codes_scopes_check CHECK (cardinality(scopes) <= 64),
    CONSTRAINT login_codes_expire_time_check CHECK (expire_time BETWEEN '1970-01-01Z' AND '9999-12-31 23:59:59Z')
);

-- The codes of one session.
CREATE INDEX login_codes_session_id_idx ON login_codes (session_id);
