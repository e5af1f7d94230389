-- Plans: named sets of limits that tokens name. The family of a token, which its limits count, is in tokens.family_id.

CREATE TABLE plans (
    -- A plan that is deleted and made again is another one: its allowances begin anew.
    plan_id uuid NOT NULL DEFAULT gen_random_uuid(),
    organization_id text COLLATE "C" NOT NULL,
    name text COLLATE "C" NOT NULL,
    -- Increases with each change; what a replica leased under another revision is not returned.
    revision bigint NOT NULL DEFAULT 1,
    updated_by text NOT NULL,
    update_time timestamptz NOT NULL,
    CONSTRAINT plans_pkey PRIMARY KEY (plan_id),
    CONSTRAINT plans_organization_id_name_key UNIQUE (organization_id, name),
    CONSTRAINT plans_organization_id_check CHECK (octet_length(organization_id) BETWEEN 1 AND 200),
    CONSTRAINT plans_name_check CHECK (name ~ '^[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?$'),
    CONSTRAINT plans_revision_check CHECK (revision > 0),
    CONSTRAINT plans_updated_by_check CHECK (octet_length(updated_by) BETWEEN 1 AND 300),
    CONSTRAINT plans_update_time_check CHECK (update_time BETWEEN '1970-01-01Z' AND '9999-12-31 23:59:59Z')
);

CREATE TABLE plan_limits (
    plan_id uuid NOT NULL,
    name text COLLATE "C" NOT NULL,
    -- The order in which the plan lists them: 0 to 7.
    -- squawk-ignore prefer-bigint-over-smallint
    position smallint NOT NULL,
    -- What is counted.
    per text COLLATE "C" NOT NULL,
    kind text COLLATE "C" NOT NULL,
    -- Of a rate, else null. The period is in seconds.
    requests bigint NULL,
    period bigint NULL,
    burst bigint NULL,
    admits_in_outage boolean NULL,
    -- Of credits, else null.
    initial bigint NULL,
    -- Of credits that are refilled, else null.
    refill_amount bigint NULL,
    refill_period text COLLATE "C" NULL,
    refill_adds boolean NULL,
    CONSTRAINT plan_limits_pkey PRIMARY KEY (plan_id, name),
    CONSTRAINT plan_limits_plan_id_position_key UNIQUE (plan_id, position),
    CONSTRAINT plan_limits_plan_id_fkey FOREIGN KEY (plan_id) REFERENCES plans (plan_id) ON DELETE CASCADE,
    CONSTRAINT plan_limits_name_check CHECK (name ~ '^[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?$'),
    CONSTRAINT plan_limits_position_check CHECK (position BETWEEN 0 AND 7),
    CONSTRAINT plan_limits_per_check CHECK (per IN ('token', 'user', 'organization')),
    CONSTRAINT plan_limits_kind_check CHECK (kind IN ('rate', 'credits')),
    CONSTRAINT plan_limits_rate_check CHECK (CASE WHEN kind = 'rate'
        THEN requests > 0 AND period BETWEEN 1 AND 2678400 AND burst > 0 AND num_nulls(requests, period, burst, admits_in_outage) = 0
        ELSE num_nonnulls(requests, period, burst, admits_in_outage) = 0 END),
    CONSTRAINT plan_limits_credits_check CHECK (CASE WHEN kind = 'credits' THEN initial IS NOT NULL AND initial >= 0
        ELSE num_nonnulls(initial, refill_amount, refill_period, refill_adds) = 0 END),
    CONSTRAINT plan_limits_refill_check CHECK (num_nulls(refill_amount, refill_period, refill_adds) IN (0, 3)
        AND (refill_amount IS NULL OR refill_amount > 0)
        AND (refill_period IS NULL OR refill_period IN ('hour', 'day', 'week', 'month', 'year')))
);

-- Null: no limits. A row without a plan takes no more bytes.
ALTER TABLE tokens ADD COLUMN plan text COLLATE "C" NULL;

-- No row has a plan yet, so none need be read.
ALTER TABLE tokens ADD CONSTRAINT tokens_plan_fkey
    FOREIGN KEY (organization_id, plan) REFERENCES plans (organization_id, name) NOT VALID;

-- The tokens of a plan in pages, by id: for deleting it, and for the key.
-- squawk-ignore require-concurrent-index-creation
CREATE INDEX tokens_plan_idx ON tokens (organization_id, plan, id) WHERE plan IS NOT NULL;

-- What policies say of plans. Policies are few.
ALTER TABLE policies ADD COLUMN plan_required boolean NOT NULL DEFAULT false;
ALTER TABLE policies ADD COLUMN default_plan text COLLATE "C" NULL;
ALTER TABLE policies ADD CONSTRAINT policies_default_plan_fkey
    FOREIGN KEY (organization_id, default_plan) REFERENCES plans (organization_id, name) NOT VALID;
