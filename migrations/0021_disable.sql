-- A token can be put out of use for a while, which a revocation, being final, cannot do.
ALTER TABLE tokens
    -- Since when it is disabled; null: it is not, or was enabled again.
    ADD COLUMN disable_time timestamptz NULL;
