-- How old a cached answer of each running replica can be. What a revocation promises is the longest of them.
CREATE TABLE replicas (
    id uuid NOT NULL,
    -- max_staleness + outage_grace.
    bound interval NOT NULL,
    renew_time timestamptz NOT NULL,
    CONSTRAINT replicas_pkey PRIMARY KEY (id),
    -- Added to times, so no longer than makes one that a client can hold.
    CONSTRAINT replicas_bound_check CHECK (bound BETWEEN interval '0' AND interval '1 day'),
    CONSTRAINT replicas_renew_time_check CHECK (renew_time BETWEEN '1970-01-01Z' AND '9999-12-31 23:59:59Z')
);
