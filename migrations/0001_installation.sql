-- What was decided when this database was set up and can never change afterwards. One row.
CREATE TABLE installation (
    singleton boolean NOT NULL DEFAULT true,
    secret_prefix text NOT NULL,
    create_time timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT installation_pkey PRIMARY KEY (singleton),
    CONSTRAINT installation_singleton_check CHECK (singleton),
    CONSTRAINT installation_secret_prefix_check CHECK (secret_prefix ~ '^[a-z][a-z0-9]{1,15}$'),
    -- As every time in this schema: Postgres holds later ones, and infinity, which no client can.
    CONSTRAINT installation_create_time_check CHECK (create_time BETWEEN '1970-01-01Z' AND '9999-12-31 23:59:59Z')
);

-- Identifies one run of one server, a part of its epoch. A start time or a timeline is not enough: a pooler or a
-- failover can swap the server behind a living connection, and a crash or a promotion can hand out the same
-- transaction ids twice. UNLOGGED on purpose: a crash, a promotion or a base backup leaves the table empty,
-- and the next replica writes a new mark. A dump carries the mark along, hence the rest of the epoch.
CREATE UNLOGGED TABLE server_mark (
    singleton boolean NOT NULL DEFAULT true,
    mark uuid NOT NULL,
    CONSTRAINT server_mark_pkey PRIMARY KEY (singleton),
    CONSTRAINT server_mark_singleton_check CHECK (singleton)
);

-- Null while there is no mark. Which server answers cannot change within a session, and costs more to find out than
-- all else that a read of some records needs: so tokend has each session remember it, in the setting tokend.server.
-- Where a session was told nothing, as behind a pooler in transaction mode, it is found out each time.
CREATE VIEW server_epoch AS
SELECT coalesce(
        nullif(current_setting('tokend.server', true), ''),
        (SELECT system_identifier FROM pg_control_system()) || '/'
            || (SELECT oid FROM pg_database WHERE datname = current_database())
    ) || '/' || (SELECT mark FROM server_mark) AS epoch;
