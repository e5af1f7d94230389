-- The tokens: their records and the two verifiers of their secrets, never the secrets.
-- Text compares bytewise (COLLATE "C"): ids are opaque, and index order must survive a change of locale.
CREATE TABLE tokens (
    id uuid NOT NULL,
    organization_id text COLLATE "C" NOT NULL,
    user_id text COLLATE "C" NOT NULL,
    name text NOT NULL,
    scopes text[] NOT NULL,
    labels jsonb NOT NULL,
    create_time timestamptz NOT NULL,
    created_by text NOT NULL,
    -- Null: the creator chose that it never expires.
    expire_time timestamptz NULL,
    -- Null: not revoked.
    revoke_time timestamptz NULL,
    -- Null: not revoked.
    revoke_reason text NULL,
    -- The durable verifier: Argon2id as a PHC string.
    durable_hash text NOT NULL,
    -- The fast verifier, HMAC-SHA-256, and the id of the key it was made with.
    mac bytea NOT NULL,
    mac_key_id bytea NOT NULL,
    CONSTRAINT tokens_pkey PRIMARY KEY (id),
    CONSTRAINT tokens_organization_id_check CHECK (octet_length(organization_id) BETWEEN 1 AND 200),
    CONSTRAINT tokens_user_id_check CHECK (octet_length(user_id) BETWEEN 1 AND 200),
    CONSTRAINT tokens_name_check CHECK (char_length(name) BETWEEN 1 AND 100),
    CONSTRAINT tokens_scopes_check CHECK (cardinality(scopes) <= 64),
    CONSTRAINT tokens_labels_check CHECK (jsonb_typeof(labels) = 'object'),
    CONSTRAINT tokens_created_by_check CHECK (octet_length(created_by) BETWEEN 1 AND 300),
    CONSTRAINT tokens_expire_time_check CHECK (expire_time > create_time AND isfinite(expire_time)),
    CONSTRAINT tokens_revoke_check CHECK ((revoke_time IS NULL) = (revoke_reason IS NULL)),
    CONSTRAINT tokens_revoke_reason_check CHECK (octet_length(revoke_reason) <= 500),
    CONSTRAINT tokens_durable_hash_check CHECK (durable_hash LIKE '$argon2id$%' AND octet_length(durable_hash) <= 500),
    CONSTRAINT tokens_mac_check CHECK (octet_length(mac) = 32),
    CONSTRAINT tokens_mac_key_id_check CHECK (octet_length(mac_key_id) = 8)
);

-- Listings, newest first: of one user, of one organization, of all. The id decides between equal times.
CREATE INDEX tokens_user_create_time_idx ON tokens (organization_id, user_id, create_time DESC, id DESC);
CREATE INDEX tokens_organization_create_time_idx ON tokens (organization_id, create_time DESC, id DESC);
CREATE INDEX tokens_create_time_idx ON tokens (create_time DESC, id DESC);

-- The same listings, soonest to expire first. 'infinity' stands for never, so that one keyset serves both.
CREATE INDEX tokens_user_expire_time_idx
    ON tokens (organization_id, user_id, coalesce(expire_time, 'infinity'), id);
CREATE INDEX tokens_organization_expire_time_idx
    ON tokens (organization_id, coalesce(expire_time, 'infinity'), id);
CREATE INDEX tokens_expire_time_idx ON tokens (coalesce(expire_time, 'infinity'), id);

-- The few root tokens: bootstrap asks for them, however many others there are.
CREATE INDEX tokens_root_idx ON tokens (id) WHERE scopes @> ARRAY['tokend:root'];
