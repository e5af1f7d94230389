-- What was decided when this database was set up and can never change afterwards. One row.
CREATE TABLE installation (
    singleton boolean NOT NULL DEFAULT true,
    secret_prefix text NOT NULL,
    create_time timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT installation_pkey PRIMARY KEY (singleton),
    CONSTRAINT installation_singleton_check CHECK (singleton),
    CONSTRAINT installation_secret_prefix_check CHECK (secret_prefix ~ '^[a-z][a-z0-9]{1,15}$')
);
