-- Tells which server, and which life of it, answers. Neither a start time nor a timeline does: a pooler or a
-- failover can swap the server behind a living connection, and a crash or a promotion can hand out the same
-- transaction ids twice. UNLOGGED on purpose: a crash, a promotion or a base backup leaves the table empty,
-- and whoever finds it so puts a new mark. A dump carries the mark along, hence the rest of the epoch.
CREATE UNLOGGED TABLE server_mark (
    singleton boolean NOT NULL DEFAULT true,
    mark uuid NOT NULL,
    CONSTRAINT server_mark_pkey PRIMARY KEY (singleton),
    CONSTRAINT server_mark_singleton_check CHECK (singleton)
);

-- Null while there is no mark.
CREATE VIEW server_epoch AS
SELECT (SELECT system_identifier FROM pg_control_system()) || '/'
    || (SELECT oid FROM pg_database WHERE datname = current_database()) || '/'
    || (SELECT mark FROM server_mark) AS epoch;
