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
    -- The address that it was opened from; null: not known, behind a proxy that does not say it.
    address text NULL,
    -- Opened by a link that a caller made, instead of by the secret itself.
    by_link boolean NOT NULL,
    -- Of a portal session, all of these; null: the session stands for its token. Here the token vouches for this user,
    -- whose own tokens the session manages until then, and may issue with these scopes.
    portal_organization_id text COLLATE "C" NULL,
    portal_user_id text COLLATE "C" NULL,
    portal_scopes text[] NULL,
    portal_expire_time timestamptz NULL,
    CONSTRAINT console_sessions_pkey PRIMARY KEY (key_hash),
    CONSTRAINT console_sessions_id_key UNIQUE (id),
    CONSTRAINT console_sessions_address_check CHECK (octet_length(address) BETWEEN 2 AND 45),
    CONSTRAINT console_sessions_portal_check
        CHECK (num_nulls(portal_organization_id, portal_user_id, portal_scopes, portal_expire_time) IN (0, 4)),
    CONSTRAINT console_sessions_portal_expire_time_check
        CHECK (portal_expire_time BETWEEN '1970-01-01Z' AND '9999-12-31 23:59:59Z'),
    CONSTRAINT console_sessions_key_hash_check CHECK (octet_length(key_hash) = 32),
    CONSTRAINT console_sessions_open_time_check CHECK (open_time BETWEEN '1970-01-01Z' AND '9999-12-31 23:59:59Z'),
    CONSTRAINT console_sessions_last_use_time_check CHECK (last_use_time BETWEEN '1970-01-01Z' AND '9999-12-31 23:59:59Z'),
    CONSTRAINT console_sessions_proof_time_check CHECK (proof_time BETWEEN '1970-01-01Z' AND '9999-12-31 23:59:59Z')
);

-- The sessions of one token.
CREATE INDEX console_sessions_token_id_idx ON console_sessions (token_id);

-- The portal sessions of one user.
CREATE INDEX console_sessions_portal_idx ON console_sessions (portal_organization_id, portal_user_id)
    WHERE portal_user_id IS NOT NULL;

-- Links that sign a person in once. Holds no code: who reads this table can sign in with no link.
CREATE TABLE console_links (
    -- SHA-256 of the 128 random bits that only the link has.
    code_hash bytea NOT NULL,
    -- The token that made the link, and that the session will stand for.
    token_id uuid NOT NULL,
    expire_time timestamptz NOT NULL,
    -- Null: nobody has signed in with it. Kept for a while, so that a second attempt is told why it fails.
    consume_time timestamptz NULL,
    -- As in console_sessions, of the portal session that the link opens; null: it signs in as its token.
    portal_organization_id text COLLATE "C" NULL,
    portal_user_id text COLLATE "C" NULL,
    portal_scopes text[] NULL,
    portal_expire_time timestamptz NULL,
    CONSTRAINT console_links_pkey PRIMARY KEY (code_hash),
    CONSTRAINT console_links_portal_check
        CHECK (num_nulls(portal_organization_id, portal_user_id, portal_scopes, portal_expire_time) IN (0, 4)),
    CONSTRAINT console_links_portal_expire_time_check
        CHECK (portal_expire_time BETWEEN '1970-01-01Z' AND '9999-12-31 23:59:59Z'),
    CONSTRAINT console_links_code_hash_check CHECK (octet_length(code_hash) = 32),
    CONSTRAINT console_links_expire_time_check CHECK (expire_time BETWEEN '1970-01-01Z' AND '9999-12-31 23:59:59Z'),
    CONSTRAINT console_links_consume_time_check CHECK (consume_time BETWEEN '1970-01-01Z' AND '9999-12-31 23:59:59Z')
);

-- The links of one token.
CREATE INDEX console_links_token_id_idx ON console_links (token_id);

-- The unused links to portal sessions of one user.
CREATE INDEX console_links_portal_idx ON console_links (portal_organization_id, portal_user_id)
    WHERE portal_user_id IS NOT NULL;
