-- Narrower indexes and rows of tokens: two thirds of what they took.

-- Stands for an organization's user in indexes, or for an organization (no user_id), or for a user wherever (no
-- organization_id): 8 bytes however long the ids are. Of two owners with one key, which nobody can find on purpose, the
-- ids themselves tell: each query asks for both. Every database is in UTF-8, so the text's bytes are the same everywhere; they
-- are taken by decode(), since Postgres puts only expressions of immutable functions in the place of a call: calls would be most
-- of the cost of an index.
CREATE FUNCTION owner_key(organization_id text, user_id text) RETURNS bigint
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN ('x' || left(encode(sha256(decode(replace(organization_id || E'\n' || user_id, '\', '\\'), 'escape')), 'hex'), 16))::bit(64)::bigint;

-- Decides between tokens of one time, in half the bytes of an id: the one with the earlier id comes first, as far as ids
-- tell milliseconds. 43 bits of the id's time and the last 21 of its random bits; the sign is flipped, so that the least
-- and the greatest uuid are the least and the greatest number.
CREATE FUNCTION id_order(id uuid) RETURNS bigint
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN ((('x' || translate(left(id::text, 13), '-', ''))::bit(48)::bigint << 21)
    | (('x' || right(id::text, 6))::bit(24)::bigint & 2097151)) # (-9223372036854775808);

-- Rebuilds the indexes under ACCESS EXCLUSIVE (docs/operations.md, Migrations, has the time): a primary key cannot be replaced
-- without this lock.
-- squawk-ignore require-concurrent-index-deletion
DROP INDEX tokens_user_create_time_idx, tokens_organization_create_time_idx, tokens_any_user_create_time_idx,
    tokens_create_time_idx, tokens_user_expire_time_idx, tokens_organization_expire_time_idx,
    tokens_any_user_expire_time_idx, tokens_expire_time_idx, tokens_expire_time_due_idx, tokens_revision_idx;

-- squawk-ignore ban-drop-constraint
ALTER TABLE tokens DROP CONSTRAINT tokens_pkey;

-- 62 random bits tell two states of a row apart; replicas never compared more.
ALTER TABLE tokens
    -- squawk-ignore changing-column-type
    ALTER COLUMN revision TYPE bigint
        USING ('x' || translate(right(revision::text, 17), '-', ''))::bit(64)::bigint;

CREATE OR REPLACE FUNCTION draw_token_revision() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.revision := ('x' || pg_catalog.translate(pg_catalog.right(pg_catalog.gen_random_uuid()::text, 17), '-', ''))
        ::bit(64)::bigint;
    RETURN NEW;
END $$;

-- Answers for a revision from the index alone. Also the primary key.
-- squawk-ignore adding-serial-primary-key-field, constraint-missing-not-valid
ALTER TABLE tokens ADD CONSTRAINT tokens_pkey PRIMARY KEY (id) INCLUDE (revision);

-- Listings by creation, read backwards. Ascending, so that new tokens go to the end, where Postgres fills pages whole.
-- squawk-ignore require-concurrent-index-creation
CREATE INDEX tokens_user_create_time_idx ON tokens (owner_key(organization_id, user_id), create_time, id_order(id));
-- squawk-ignore require-concurrent-index-creation
CREATE INDEX tokens_organization_create_time_idx ON tokens (owner_key(organization_id, ''), create_time, id_order(id));
-- squawk-ignore require-concurrent-index-creation
CREATE INDEX tokens_any_user_create_time_idx ON tokens (owner_key('', user_id), create_time, id_order(id));
-- squawk-ignore require-concurrent-index-creation
CREATE INDEX tokens_create_time_idx ON tokens (create_time, id_order(id));

-- Listings by expiration, soonest first. The last one also finds what is due to be purged or warned of.
-- squawk-ignore require-concurrent-index-creation
CREATE INDEX tokens_user_expire_time_idx
    ON tokens (owner_key(organization_id, user_id), coalesce(expire_time, 'infinity'), id_order(id));
-- squawk-ignore require-concurrent-index-creation
CREATE INDEX tokens_organization_expire_time_idx
    ON tokens (owner_key(organization_id, ''), coalesce(expire_time, 'infinity'), id_order(id));
-- squawk-ignore require-concurrent-index-creation
CREATE INDEX tokens_any_user_expire_time_idx
    ON tokens (owner_key('', user_id), coalesce(expire_time, 'infinity'), id_order(id));
-- squawk-ignore require-concurrent-index-creation
CREATE INDEX tokens_expire_time_idx ON tokens (coalesce(expire_time, 'infinity'), id_order(id));

-- Each change of a row draws a new revision, which an index holds: so no change can leave the indexes alone, and room
-- that is kept in pages for that is in vain.
ALTER TABLE tokens RESET (fillfactor);
