-- What an organization allows its tokens. An organization's row is made when it is first needed; without values
-- it allows everything. A transaction that creates or changes a token locks the row (shared) from before its judgement
-- to its commit: no token judged by an old policy commits after a new one.
CREATE TABLE policies (
    organization_id text COLLATE "C" NOT NULL,
    -- How many seconds after its creation a token may expire at most; null: any number.
    longest_lifetime bigint NULL,
    expiration_required boolean NOT NULL DEFAULT false,
    -- How many seconds a rotated token may still be good at most; null: as many as the contract allows.
    longest_grace bigint NULL,
    -- Null: any number.
    most_active_tokens_per_user integer NULL,
    -- Patterns of scopes; empty: any scope.
    allowed_scopes text[] NOT NULL DEFAULT '{}',
    -- Whether a token that was superseded, and whose grace is over, revokes its family when it is used to rotate.
    reuse_detection boolean NOT NULL DEFAULT false,
    -- Who set it last, and when; null: nobody has yet.
    updated_by text NULL,
    update_time timestamptz NULL,
    CONSTRAINT policies_pkey PRIMARY KEY (organization_id),
    CONSTRAINT policies_organization_id_check CHECK (octet_length(organization_id) BETWEEN 1 AND 200),
    CONSTRAINT policies_longest_lifetime_check CHECK (longest_lifetime > 0),
    CONSTRAINT policies_longest_grace_check CHECK (longest_grace BETWEEN 0 AND 2592000),
    CONSTRAINT policies_most_active_tokens_per_user_check CHECK (most_active_tokens_per_user > 0),
    CONSTRAINT policies_allowed_scopes_check CHECK (cardinality(allowed_scopes) <= 64),
    CONSTRAINT policies_updated_by_check CHECK ((updated_by IS NULL) = (update_time IS NULL)),
    CONSTRAINT policies_update_time_check CHECK (update_time BETWEEN '1970-01-01Z' AND '9999-12-31 23:59:59Z')
);
