-- The audit log: who did what to which token, when. Appended by the code in the transaction of the change
-- itself; never updated. No foreign key to tokens: the log outlives them.
CREATE TABLE token_events (
    id bigint GENERATED ALWAYS AS IDENTITY,
    event_time timestamptz NOT NULL DEFAULT now(),
    kind text NOT NULL,
    token_id uuid NOT NULL,
    organization_id text COLLATE "C" NOT NULL,
    user_id text COLLATE "C" NOT NULL,
    -- The id of the caller's token, or 'bootstrap'.
    actor text NOT NULL,
    CONSTRAINT token_events_pkey PRIMARY KEY (id),
    CONSTRAINT token_events_kind_check CHECK (kind IN ('created', 'revoked')),
    CONSTRAINT token_events_actor_check CHECK (octet_length(actor) BETWEEN 1 AND 300)
);

CREATE INDEX token_events_token_idx ON token_events (token_id, id);
