-- How often tokens were verified: per token, verdict and hour, and per day for longer. Counted in memory and
-- added by each replica with the last uses. Partitioned by time, so that old counts are dropped and not deleted.
-- No foreign key: the counts outlive the token.
CREATE TABLE usage_hours (
    token_id uuid NOT NULL,
    -- Its first moment, in UTC.
    hour timestamptz NOT NULL,
    verifications bigint NOT NULL,
    -- The number of the verdict in the contract: there are few, and each row has to be small.
    -- squawk-ignore prefer-bigint-over-smallint
    verdict smallint NOT NULL,
    organization_id text COLLATE "C" NOT NULL,
    -- Few rows are inserted between others; each has to be small.
    CONSTRAINT usage_hours_pkey PRIMARY KEY (token_id, hour, verdict) WITH (fillfactor = 95),
    CONSTRAINT usage_hours_verifications_check CHECK (verifications > 0),
    CONSTRAINT usage_hours_organization_id_check CHECK (octet_length(organization_id) BETWEEN 1 AND 200)
) PARTITION BY RANGE (hour);

CREATE INDEX usage_hours_organization_idx ON usage_hours (organization_id, hour);

-- The sums of the hours that are complete, by days in UTC.
CREATE TABLE usage_days (
    token_id uuid NOT NULL,
    day timestamptz NOT NULL,
    verifications bigint NOT NULL,
    -- squawk-ignore prefer-bigint-over-smallint
    verdict smallint NOT NULL,
    organization_id text COLLATE "C" NOT NULL,
    CONSTRAINT usage_days_pkey PRIMARY KEY (token_id, day, verdict),
    CONSTRAINT usage_days_verifications_check CHECK (verifications > 0),
    CONSTRAINT usage_days_organization_id_check CHECK (octet_length(organization_id) BETWEEN 1 AND 200)
) PARTITION BY RANGE (day);

CREATE INDEX usage_days_organization_idx ON usage_days (organization_id, day);

-- The same for each organization, so that its sums cost the same however many tokens it has. By hours only: a day
-- has 24 of them.
CREATE TABLE usage_totals (
    organization_id text COLLATE "C" NOT NULL,
    hour timestamptz NOT NULL,
    verifications bigint NOT NULL,
    -- squawk-ignore prefer-bigint-over-smallint
    verdict smallint NOT NULL,
    CONSTRAINT usage_totals_pkey PRIMARY KEY (organization_id, hour, verdict),
    CONSTRAINT usage_totals_verifications_check CHECK (verifications > 0),
    CONSTRAINT usage_totals_organization_id_check CHECK (octet_length(organization_id) BETWEEN 1 AND 200)
) PARTITION BY RANGE (hour);

-- When and why each token was refused last, though its secret was right.
CREATE TABLE token_refusals (
    token_id uuid NOT NULL,
    refusal_time timestamptz NOT NULL,
    -- {"time", "verdict", "missing_scopes", "client_ip"}: the time in microseconds since 1970, the number of the verdict.
    refusal jsonb NOT NULL,
    CONSTRAINT token_refusals_pkey PRIMARY KEY (token_id),
    CONSTRAINT token_refusals_refusal_time_check CHECK (refusal_time BETWEEN '1970-01-01Z' AND '9999-12-31 23:59:59Z')
) WITH (fillfactor = 70);

-- The last batch that each writer has added, so that a repeated batch adds nothing.
CREATE TABLE usage_writers (
    writer uuid NOT NULL,
    sequence bigint NOT NULL,
    write_time timestamptz NOT NULL,
    CONSTRAINT usage_writers_pkey PRIMARY KEY (writer)
) WITH (fillfactor = 50);

-- Hours before this one are in usage_days.
CREATE TABLE usage_rollup (
    is_singleton boolean NOT NULL DEFAULT TRUE,
    hour timestamptz NOT NULL,
    CONSTRAINT usage_rollup_pkey PRIMARY KEY (is_singleton),
    CONSTRAINT usage_rollup_singleton_check CHECK (is_singleton)
);
INSERT INTO usage_rollup (hour) VALUES (date_trunc('hour', now(), 'UTC') - interval '27 hours');

-- Makes the partitions of the next days ahead and, unless an argument is null, drops those whose counts are older
-- than it; false: another replica does it. Runs as the owner of the tables, so that the role that serves needs no right to create or drop tables.
CREATE FUNCTION maintain_usage(keep_hours interval, keep_days interval) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER AS $$
DECLARE
    today timestamp := date_trunc('day', now() AT TIME ZONE 'UTC');
    month timestamp := date_trunc('month', now() AT TIME ZONE 'UTC');
    made record;
    dropped record;
BEGIN
    IF keep_hours < interval '4 days' OR keep_days < interval '4 days' THEN
        RAISE EXCEPTION 'usage younger than 4 days is not dropped';
    END IF;
    -- One replica at a time. The value is arbitrary.
    IF NOT pg_try_advisory_xact_lock(8390876178513494021) THEN
        RETURN false;
    END IF;
    -- To drop a partition waits for the statements that read or write its table, and others wait behind it.
    PERFORM set_config('lock_timeout', '2s', true);
    FOR made IN
        SELECT 'usage_hours' AS parent, to_char(day, 'YYYYMMDD') AS suffix, day AS first, day + interval '1 day' AS last
        FROM generate_series(today - interval '2 days', today + interval '7 days', interval '1 day') AS day
        UNION ALL
        SELECT parent, to_char(first, 'YYYYMM') || '01', first, first + interval '1 month'
        FROM unnest(ARRAY['usage_days', 'usage_totals']) AS parent,
            generate_series(month - interval '1 month', month + interval '1 month', interval '1 month') AS first
    LOOP
        CONTINUE WHEN to_regclass(made.parent || '_' || made.suffix) IS NOT NULL;
        -- To attach a table does not keep others from the parent; to create it as a partition does.
        -- Half of each page is for the next version of its rows: a count is updated often and its indexes are not.
        EXECUTE format('CREATE TABLE %I (LIKE %I INCLUDING ALL) WITH (fillfactor = 52)',
            made.parent || '_' || made.suffix, made.parent);
        EXECUTE format('ALTER TABLE %I ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)', made.parent,
            made.parent || '_' || made.suffix, made.first AT TIME ZONE 'UTC', made.last AT TIME ZONE 'UTC');
    END LOOP;
    FOR dropped IN
        SELECT c.relname AS partition FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
        WHERE i.inhparent = 'usage_hours'::regclass AND right(c.relname, 8) < to_char(
            least(now() - keep_hours, (SELECT hour FROM usage_rollup)) AT TIME ZONE 'UTC', 'YYYYMMDD')
            AND keep_hours IS NOT NULL
        UNION ALL
        SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
        WHERE i.inhparent IN ('usage_days'::regclass, 'usage_totals'::regclass) AND right(c.relname, 8) <
            to_char(date_trunc('month', (now() - keep_days) AT TIME ZONE 'UTC'), 'YYYYMMDD')
    LOOP
        EXECUTE format('DROP TABLE %I', dropped.partition);
    END LOOP;
    RETURN true;
END $$;

-- Nobody's temporary tables may stand in for these.
DO $$
BEGIN
    EXECUTE format('ALTER FUNCTION maintain_usage(interval, interval) SET search_path = %I, pg_temp', current_schema());
    EXECUTE 'REVOKE ALL ON FUNCTION maintain_usage(interval, interval) FROM PUBLIC';
END $$;
SELECT maintain_usage(NULL, NULL);
