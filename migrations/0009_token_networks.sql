-- Where a token may be used from. Empty: from anywhere. The type refuses what is no network, whoever writes.
ALTER TABLE tokens
    ADD COLUMN allowed_cidrs cidr[] NOT NULL DEFAULT '{}',
    ADD CONSTRAINT tokens_allowed_cidrs_check CHECK (cardinality(allowed_cidrs) <= 64);
