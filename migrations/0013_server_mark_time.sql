-- When this run of the server began, at the latest. Renewals of replicas' rows do not wait for a standby, so a promoted
-- one may lack the last of them. So it assumes that every replica with a row renewed it at this time.
ALTER TABLE server_mark
    ADD COLUMN mark_time timestamptz NOT NULL DEFAULT clock_timestamp(),
    ADD CONSTRAINT server_mark_mark_time_check CHECK (mark_time BETWEEN '1970-01-01Z' AND '9999-12-31 23:59:59Z');
