-- Which server answers cannot change within a session, and costs more to find out than all else that a read of some
-- records needs: so tokend has each session remember it, in the setting tokend.server. Where a session was told nothing,
-- as behind a pooler in transaction mode, it is found out each time.
CREATE OR REPLACE VIEW server_epoch AS
SELECT coalesce(
        nullif(current_setting('tokend.server', true), ''),
        (SELECT system_identifier FROM pg_control_system()) || '/'
            || (SELECT oid FROM pg_database WHERE datname = current_database())
    ) || '/' || (SELECT mark FROM server_mark) AS epoch;
