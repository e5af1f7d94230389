-- How old a cached answer of each running replica can be. What a revocation promises is the longest of them.
CREATE TABLE replicas (
    id uuid NOT NULL,
    -- max_staleness + outage_grace.
    bound interval NOT NULL,
    renew_time timestamptz NOT NULL,
    CONSTRAINT replicas_pkey PRIMARY KEY (id),
    CONSTRAINT replicas_bound_check CHECK (bound >= interval '0')
);
