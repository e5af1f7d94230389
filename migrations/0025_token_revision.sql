-- Tells states of a row apart, so that a replica that has a token's record can ask whether it is still that of the row,
-- and need not read it all. Drawn at random with each change, by a trigger, which no writer can leave out: a number
-- that counts would be given twice by a server that was put back to an earlier state. Null in rows that have not been
-- changed since before this migration; those are read whole.
ALTER TABLE tokens ADD COLUMN revision uuid NULL;

CREATE FUNCTION draw_token_revision() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.revision := gen_random_uuid();
    RETURN NEW;
END $$;

CREATE TRIGGER tokens_revision_trigger BEFORE INSERT OR UPDATE ON tokens
    FOR EACH ROW EXECUTE FUNCTION draw_token_revision();

-- Also for what replication or a restore writes.
ALTER TABLE tokens ENABLE ALWAYS TRIGGER tokens_revision_trigger;
