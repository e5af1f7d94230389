-- Each row stores its place in the family, so that older members can be deleted: revoking what was rotated from a token,
-- refusing a second rotation and detecting reuse do not need them.

-- The first token of the family; null: it was neither rotated nor made by a rotation, and so is alone.
ALTER TABLE tokens ADD COLUMN family_id uuid NULL;
-- The token that was put in its place; null: none was. It may be gone.
ALTER TABLE tokens ADD COLUMN superseded_by uuid NULL;
-- When that was; null: it was not.
ALTER TABLE tokens ADD COLUMN supersede_time timestamptz NULL;

WITH RECURSIVE line AS (
    -- The oldest that is still there of each family of several.
    SELECT t.id, t.id AS family_id, 0 AS generation FROM tokens t
    WHERE NOT EXISTS (SELECT FROM tokens p WHERE p.id = t.rotated_from)
        AND (t.rotated_from IS NOT NULL OR EXISTS (SELECT FROM tokens s WHERE s.rotated_from = t.id))
    UNION ALL
    SELECT t.id, line.family_id, line.generation + 1 FROM line JOIN tokens t ON t.rotated_from = line.id
)
UPDATE tokens SET family_id = line.family_id, generation = line.generation,
    superseded_by = s.id, supersede_time = s.create_time
FROM line LEFT JOIN tokens s ON s.rotated_from = line.id
WHERE tokens.id = line.id;

ALTER TABLE tokens
    ADD CONSTRAINT tokens_family_check
        CHECK (family_id IS NOT NULL OR rotated_from IS NULL AND superseded_by IS NULL AND generation = 0),
    ADD CONSTRAINT tokens_generation_check CHECK (generation >= 0),
    ADD CONSTRAINT tokens_superseded_check CHECK ((superseded_by IS NULL) = (supersede_time IS NULL)),
    ADD CONSTRAINT tokens_supersede_time_check CHECK (supersede_time BETWEEN '1970-01-01Z' AND '9999-12-31 23:59:59Z');

-- A family's members in their order.
CREATE INDEX tokens_family_idx ON tokens (family_id, generation) WHERE family_id IS NOT NULL;
