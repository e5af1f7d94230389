-- Null: created, not rotated from another token. No foreign key: a purged predecessor is no reason to forget.
ALTER TABLE tokens ADD COLUMN rotated_from uuid NULL;

-- A token is rotated at most once; and whoever revokes one finds what was made of it.
CREATE UNIQUE INDEX tokens_rotated_from_key ON tokens (rotated_from) WHERE rotated_from IS NOT NULL;
