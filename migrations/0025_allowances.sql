-- What replicas lease of limits: one row for each limit and each subject that was used. Rows refer to plans without a
-- foreign key: a lease must not lock the plan. Subjects: `t:` and a family, `u:`, a kind and a user, `o:`.

CREATE TABLE rate_allowances (
    plan_id uuid NOT NULL,
    limit_name text COLLATE "C" NOT NULL,
    subject text COLLATE "C" NOT NULL,
    -- When it is full again; in the past: it is full. Times are nanoseconds since 1970, as one request may refill in one.
    full_time bigint NOT NULL,
    -- When a statement last leased or returned.
    lease_time bigint NOT NULL,
    -- When a lease was last granted.
    grant_time bigint NOT NULL,
    -- Increases when the clock is found to have been set back: what was leased before is not returned.
    era bigint NOT NULL,
    -- The revision of the plan at the last lease.
    revision bigint NOT NULL,
    CONSTRAINT rate_allowances_pkey PRIMARY KEY (plan_id, limit_name, subject),
    CONSTRAINT rate_allowances_subject_check CHECK (octet_length(subject) BETWEEN 2 AND 300)
) WITH (fillfactor = 50);

CREATE TABLE credit_balances (
    plan_id uuid NOT NULL,
    limit_name text COLLATE "C" NOT NULL,
    subject text COLLATE "C" NOT NULL,
    -- What can be debited.
    balance bigint NOT NULL,
    -- When the last period began that was refilled for.
    period_start timestamptz NOT NULL,
    -- Totals, for reports: what was debited, and of that is leased, was returned and lost. The rest was spent.
    debited numeric NOT NULL,
    leased numeric NOT NULL,
    returned numeric NOT NULL,
    lost numeric NOT NULL,
    -- When it last changed.
    lease_time timestamptz NOT NULL,
    CONSTRAINT credit_balances_pkey PRIMARY KEY (plan_id, limit_name, subject),
    CONSTRAINT credit_balances_subject_check CHECK (octet_length(subject) BETWEEN 2 AND 300),
    CONSTRAINT credit_balances_balance_check CHECK (balance >= 0)
) WITH (fillfactor = 50);

-- What replicas have debited and not settled. A row that is old belongs to a replica that ended without returning it.
CREATE TABLE credit_leases (
    -- Made by the replica, so that it can settle a lease whose answer was lost.
    lease_id uuid NOT NULL,
    plan_id uuid NOT NULL,
    limit_name text COLLATE "C" NOT NULL,
    subject text COLLATE "C" NOT NULL,
    amount bigint NOT NULL,
    -- The period that it was debited in.
    period_start timestamptz NOT NULL,
    lease_time timestamptz NOT NULL,
    CONSTRAINT credit_leases_pkey PRIMARY KEY (lease_id),
    CONSTRAINT credit_leases_amount_check CHECK (amount > 0)
);

CREATE INDEX credit_leases_lease_time_idx ON credit_leases (lease_time);

-- What was added by callers, once for each request.
CREATE TABLE credit_additions (
    -- The MAC of the caller and its request id.
    request_mac bytea NOT NULL,
    plan_id uuid NOT NULL,
    limit_name text COLLATE "C" NOT NULL,
    subject text COLLATE "C" NOT NULL,
    amount bigint NOT NULL,
    -- The balance after it.
    balance bigint NOT NULL,
    added_by text NOT NULL,
    add_time timestamptz NOT NULL,
    CONSTRAINT credit_additions_pkey PRIMARY KEY (request_mac),
    CONSTRAINT credit_additions_amount_check CHECK (amount > 0)
);

CREATE INDEX credit_additions_add_time_idx ON credit_additions (add_time);
