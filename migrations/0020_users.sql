-- What owns a token, and users who are disabled.

ALTER TABLE tokens
    -- Who user_id names: a person, or a service account. A person and a service account of one id are two owners.
    ADD COLUMN owner_kind text COLLATE "C" NOT NULL DEFAULT 'user',
    -- Since when its user is disabled; null: the user is not. On each row: a verdict needs the token's row
    -- alone, and replicas hear of it as of any other change. Apart from disable_time: enabling the user must not
    -- enable a token that was disabled by itself.
    ADD COLUMN user_disable_time timestamptz NULL,
    ADD CONSTRAINT tokens_owner_kind_check CHECK (owner_kind IN ('user', 'service')) NOT VALID,
    ADD CONSTRAINT tokens_user_disable_time_check
        CHECK (user_disable_time BETWEEN '1970-01-01Z' AND '9999-12-31 23:59:59Z') NOT VALID;

-- The list of users, in its order. An entry a user and not one a token: equal keys are stored once.
-- squawk-ignore require-concurrent-index-creation
CREATE INDEX tokens_owner_idx ON tokens (organization_id, user_id, owner_kind);

-- The users for whom no token may be created. A creation reads this under the lock of its owner, which is
-- held alone where a row is inserted or deleted here. They need not have tokens.
CREATE TABLE disabled_users (
    organization_id text COLLATE "C" NOT NULL,
    user_id text COLLATE "C" NOT NULL,
    owner_kind text COLLATE "C" NOT NULL,
    disable_time timestamptz NOT NULL,
    -- As actor of token_events.
    disabled_by text NOT NULL,
    -- Empty: none was given.
    reason text NOT NULL,
    CONSTRAINT disabled_users_pkey PRIMARY KEY (organization_id, user_id, owner_kind),
    CONSTRAINT disabled_users_organization_id_check CHECK (octet_length(organization_id) BETWEEN 1 AND 200),
    CONSTRAINT disabled_users_user_id_check CHECK (octet_length(user_id) BETWEEN 1 AND 200),
    CONSTRAINT disabled_users_owner_kind_check CHECK (owner_kind IN ('user', 'service')),
    CONSTRAINT disabled_users_disable_time_check CHECK (disable_time BETWEEN '1970-01-01Z' AND '9999-12-31 23:59:59Z'),
    CONSTRAINT disabled_users_disabled_by_check CHECK (octet_length(disabled_by) BETWEEN 1 AND 300),
    CONSTRAINT disabled_users_reason_check CHECK (octet_length(reason) <= 500)
);

-- Events of a user have no token.
-- squawk-ignore ban-drop-not-null
ALTER TABLE token_events ALTER COLUMN token_id DROP NOT NULL;
-- squawk-ignore ban-drop-constraint
ALTER TABLE token_events DROP CONSTRAINT token_events_kind_check;
ALTER TABLE token_events
    -- How acting_user is known; null: as claimed, by an older build, or there is none.
    ADD COLUMN attribution text NULL,
    -- What user_id names; null: a person, written by a build that knew no other owners.
    ADD COLUMN owner_kind text COLLATE "C" NULL,
    ADD CONSTRAINT token_events_attribution_check CHECK (attribution IN ('proven', 'vouched', 'claimed')) NOT VALID,
    ADD CONSTRAINT token_events_owner_kind_check CHECK (owner_kind IN ('user', 'service')) NOT VALID,
    ADD CONSTRAINT token_events_kind_check CHECK (kind IN ('created', 'updated', 'rotated', 'revoked', 'disabled',
        'enabled', 'expires_soon', 'purged', 'user_disabled', 'user_enabled')) NOT VALID,
    ADD CONSTRAINT token_events_token_id_check
        CHECK ((token_id IS NULL) = (kind IN ('user_disabled', 'user_enabled'))) NOT VALID;
