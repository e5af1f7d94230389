-- The triggers of tokens that are not as they must be, each with what mends it: pg_restore --disable-triggers and ALTER
-- TABLE leave them in other states, and what is then written no replica hears of. Without rows: all is well.
CREATE VIEW trigger_faults AS
SELECT must.name, CASE
        WHEN t.oid IS NULL THEN format('restore the trigger %I from a dump of the schema', must.name)
        ELSE format('ALTER TABLE %s ENABLE %sTRIGGER %I', 'tokens'::regclass, must.words, must.name)
    END AS mend
FROM (VALUES
        -- ENABLE TRIGGER is for sessions that are not in replica mode, where ENABLE REPLICA TRIGGER stands in.
        ('tokens_insert_trigger', 'O', ''),
        ('tokens_update_trigger', 'O', ''),
        ('tokens_delete_trigger', 'O', ''),
        ('tokens_row_trigger', 'R', 'REPLICA '),
        ('tokens_truncate_trigger', 'A', 'ALWAYS '),
        ('tokens_revision_trigger', 'A', 'ALWAYS ')
    ) AS must (name, state, words)
    LEFT JOIN pg_trigger t ON t.tgrelid = 'tokens'::regclass AND t.tgname = must.name
WHERE t.tgenabled IS DISTINCT FROM must.state::"char";
