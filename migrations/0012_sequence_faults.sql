-- The sequences that are behind the tables that take their numbers from them, each with the statement that mends it:
-- logical replication copies rows and leaves sequences where they were, and each number that is there already would be
-- refused. Without rows: all is well.
CREATE VIEW sequence_faults AS
SELECT 'token_events_id_seq' AS name,
    format('SELECT setval(%L, %s)', 'token_events_id_seq'::regclass, newest) AS mend
FROM (SELECT max(id) AS newest FROM token_events) AS numbered, token_events_id_seq AS s
WHERE newest > s.last_value OR newest = s.last_value AND NOT s.is_called
UNION ALL
SELECT 'token_changes_sequence_seq',
    format('SELECT setval(%L, %s)', 'token_changes_sequence_seq'::regclass, newest)
FROM (SELECT max(sequence) AS newest FROM token_changes) AS numbered, token_changes_sequence_seq AS s
WHERE newest > s.last_value OR newest = s.last_value AND NOT s.is_called;
