-- The log of one user over all organizations, newest first: without it, root's question for a user who has few events
-- reads the whole log.
CREATE INDEX token_events_any_user_idx ON token_events (user_id, id);
