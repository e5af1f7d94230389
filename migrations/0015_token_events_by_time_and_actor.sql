-- The log from or until a time: which numbers its events have. And what one actor did, newest first, over all
-- organizations. Without them, a question about last year, or for who did little, reads the whole log.
CREATE INDEX token_events_time_idx ON token_events (event_time, id);
CREATE INDEX token_events_actor_idx ON token_events (actor COLLATE "C", id);
