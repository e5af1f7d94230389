-- What lets a retry with the same request_id get the same answer, its secret too, for 24 hours. Holds neither
-- the secret nor the request_id: a secret is derived from the salt here, a key of the keyring and the request_id.
-- Without the row it cannot be derived. No foreign key: the row of an answered request stays when its token is deleted.
CREATE TABLE token_requests (
    -- HMAC of caller and request_id.
    request_mac bytea NOT NULL,
    -- HMAC of what was asked for, under a subkey of the key with this id, which also derived the secret.
    body_mac bytea NOT NULL,
    key_id bytea NOT NULL,
    salt bytea NOT NULL,
    token_id uuid NOT NULL,
    create_time timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT token_requests_pkey PRIMARY KEY (request_mac),
    CONSTRAINT token_requests_request_mac_check CHECK (octet_length(request_mac) = 32),
    CONSTRAINT token_requests_body_mac_check CHECK (octet_length(body_mac) = 32),
    CONSTRAINT token_requests_key_id_check CHECK (octet_length(key_id) = 8),
    CONSTRAINT token_requests_salt_check CHECK (octet_length(salt) = 32),
    CONSTRAINT token_requests_create_time_check CHECK (create_time BETWEEN '1970-01-01Z' AND '9999-12-31 23:59:59Z')
);

-- What is due to be deleted.
CREATE INDEX token_requests_create_time_idx ON token_requests (create_time);
