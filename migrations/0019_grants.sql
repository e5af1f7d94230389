-- What the tokens that a token issues may have at most.

-- Null: all that its scopes allow.
ALTER TABLE tokens ADD COLUMN "grant" jsonb NULL;

-- No row has a grant yet, so none need be read.
ALTER TABLE tokens ADD CONSTRAINT tokens_grant_check
    CHECK (jsonb_typeof("grant") = 'object' AND octet_length("grant"::text) <= 16384) NOT VALID;
