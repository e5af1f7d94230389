-- Narrower indexes of tokens: half of what they took. Nothing else changes but in which order tokens of one time are
-- listed.

-- Stands for an organization's user in indexes, or for an organization (no user_id), or for a user wherever (no
-- organization_id): 8 bytes however long the ids are. Of two owners with one key, which nobody can find on purpose, the
-- ids themselves tell: each query asks for both. Immutable, since every database is in UTF-8.
CREATE FUNCTION owner_key(organization_id text, user_id text) RETURNS bigint
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN ('x' || left(encode(sha256(convert_to(organization_id || E'\n' || user_id, 'UTF8')), 'hex'), 16))::bit(64)::bigint;

-- Decides between tokens of one time, in half the bytes of an id. Between the least and the greatest uuid, which pages
-- begin and end with, in any order.
CREATE FUNCTION id_order(id uuid) RETURNS bigint
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE id
    WHEN '00000000-0000-0000-0000-000000000000' THEN -9223372036854775808
    WHEN 'ffffffff-ffff-ffff-ffff-ffffffffffff' THEN 9223372036854775807
    ELSE uuid_hash_extended(id, 0)
END;

-- Before the first release there are few rows. Made beside the old ones, they would need their room as well; and a primary key
-- cannot be replaced without this lock.
-- squawk-ignore require-concurrent-index-deletion
DROP INDEX tokens_user_create_time_idx, tokens_organization_create_time_idx, tokens_any_user_create_time_idx,
    tokens_create_time_idx, tokens_user_expire_time_idx, tokens_organization_expire_time_idx,
    tokens_any_user_expire_time_idx, tokens_expire_time_idx, tokens_expire_time_due_idx, tokens_revision_idx;

-- Answers for a revision without the row, as tokens_revision_idx did, and for the row itself.
-- squawk-ignore ban-drop-constraint
ALTER TABLE tokens DROP CONSTRAINT tokens_pkey;
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
