-- When this life of the server began, at the latest. Renewals of replicas' rows do not wait for a standby, so one that was
-- promoted may not have heard of the last of them, for however long it had been away: to be on the safe side, it reckons
-- with every replica that it knows of as if that had renewed its row then.
ALTER TABLE server_mark
    ADD COLUMN mark_time timestamptz NOT NULL DEFAULT clock_timestamp(),
    ADD CONSTRAINT server_mark_mark_time_check CHECK (mark_time BETWEEN '1970-01-01Z' AND '9999-12-31 23:59:59Z');
