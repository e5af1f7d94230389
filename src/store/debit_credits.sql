-- The rules of tokend_core::limits::Balance for many balances: settles earlier leases, each once, then refills, then debits.
-- Balances are locked in the order of their keys, and the clock is read after the lock of each.
WITH always AS MATERIALIZED (
    SELECT (SELECT epoch FROM server_epoch) IS NOT DISTINCT FROM $1 AS same_epoch
), asked AS MATERIALIZED (
    SELECT a.*, p.revision AS plan_revision
    FROM unnest($2::uuid[], $3::text[], $4::text[], $5::bigint[], $6::uuid[], $9::bigint[])
            WITH ORDINALITY AS a (plan_id, limit_name, subject, wanted, lease_id, wanted_least, position)
        JOIN plan_limits l ON l.plan_id = a.plan_id AND l.name = a.limit_name AND l.kind = 'credits'
        JOIN plans p ON p.plan_id = a.plan_id
        CROSS JOIN always
    WHERE always.same_epoch
), ended AS MATERIALIZED (
    SELECT s.lease_id, s.rest, l.plan_id, l.limit_name, l.subject
    FROM unnest($7::uuid[], $8::bigint[]) AS s (lease_id, rest) JOIN credit_leases l ON l.lease_id = s.lease_id CROSS JOIN always
    WHERE always.same_epoch
), keys AS (
    SELECT plan_id, limit_name, subject FROM asked UNION SELECT plan_id, limit_name, subject FROM ended
), locked AS MATERIALIZED (
    SELECT b.plan_id, b.limit_name, b.subject, b.balance, b.period_start, b.leased
    FROM keys k JOIN credit_balances b ON b.plan_id = k.plan_id AND b.limit_name = k.limit_name AND b.subject = k.subject
    ORDER BY b.plan_id, b.limit_name, b.subject
    FOR UPDATE OF b
), settled AS (
    -- Not found: another statement has settled it, or it counts as lost.
    DELETE FROM credit_leases l USING ended s, locked b
    WHERE l.lease_id = s.lease_id AND b.plan_id = s.plan_id AND b.limit_name = s.limit_name AND b.subject = s.subject
    RETURNING l.plan_id, l.limit_name, l.subject, l.period_start, l.amount, least(greatest(s.rest, 0), l.amount) AS rest
), timed AS MATERIALIZED (
    SELECT b.*, clock_timestamp() AS now, true AS stored FROM locked b
    UNION ALL
    SELECT q.plan_id, q.limit_name, q.subject, NULL, NULL, 0, clock_timestamp(), false
    FROM asked q
    WHERE NOT EXISTS (SELECT FROM credit_balances b
        WHERE b.plan_id = q.plan_id AND b.limit_name = q.limit_name AND b.subject = q.subject)
), periods AS (
    SELECT t.plan_id, t.limit_name, t.subject, t.now, t.stored, t.leased, l.refill_amount, l.refill_period, l.refill_adds,
        coalesce(t.balance, l.initial) AS balance, coalesce(date_trunc(l.refill_period, t.now, 'UTC'), t.now) AS this_period,
        coalesce(t.period_start, date_trunc(l.refill_period, t.now, 'UTC'), t.now) AS period_start
    FROM timed t LEFT JOIN plan_limits l ON l.plan_id = t.plan_id AND l.name = t.limit_name AND l.kind = 'credits'
), returned AS (
    SELECT p.*, r.rest AS returned, p.leased - coalesce(r.amount, 0) AS still_leased, least(p.balance + coalesce(r.counted, 0), 9223372036854775807) AS returned_balance,
        date_trunc(p.refill_period, p.period_start, 'UTC') AS last_period
    FROM periods p LEFT JOIN LATERAL (
        SELECT sum(s.rest) AS rest, sum(s.amount) AS amount,
            -- The rest of a period that was replaced ended with it.
            sum(s.rest) FILTER (WHERE s.period_start = p.period_start OR p.refill_adds IS NOT FALSE) AS counted
        FROM settled s WHERE s.plan_id = p.plan_id AND s.limit_name = p.limit_name AND s.subject = p.subject
    ) r ON true
), begun AS (
    SELECT r.*, greatest(CASE refill_period
            WHEN 'hour' THEN extract(epoch FROM this_period - last_period) / 3600
            WHEN 'day' THEN extract(epoch FROM this_period - last_period) / 86400
            WHEN 'week' THEN extract(epoch FROM this_period - last_period) / 604800
            WHEN 'month' THEN extract(year FROM this_period AT TIME ZONE 'UTC') * 12 + extract(month FROM this_period AT TIME ZONE 'UTC')
                - extract(year FROM last_period AT TIME ZONE 'UTC') * 12 - extract(month FROM last_period AT TIME ZONE 'UTC')
            WHEN 'year' THEN extract(year FROM this_period AT TIME ZONE 'UTC') - extract(year FROM last_period AT TIME ZONE 'UTC')
            ELSE 0 END, 0) AS begun
    FROM returned r
), refilled AS (
    SELECT b.*, CASE WHEN begun = 0 THEN period_start ELSE this_period END AS new_period,
        CASE WHEN begun = 0 THEN returned_balance WHEN refill_adds
            THEN least(returned_balance + least(refill_amount * begun, 9223372036854775807), 9223372036854775807)
            ELSE refill_amount END::bigint AS refilled_balance
    FROM begun b
), debited AS MATERIALIZED (
    SELECT r.*, q.position, q.lease_id, q.plan_revision,
        CASE WHEN refilled_balance < q.wanted_least THEN 0
            ELSE least(greatest(coalesce(q.wanted, 0), 0), greatest(refilled_balance, 0)) END AS amount
    FROM refilled r LEFT JOIN asked q ON q.plan_id = r.plan_id AND q.limit_name = r.limit_name AND q.subject = r.subject
), updated AS (
    UPDATE credit_balances b
    SET balance = d.refilled_balance - d.amount, period_start = d.new_period, lease_time = d.now,
        debited = b.debited + d.amount, leased = d.still_leased + d.amount, returned = b.returned + coalesce(d.returned, 0)
    FROM debited d
    WHERE d.stored AND b.plan_id = d.plan_id AND b.limit_name = d.limit_name AND b.subject = d.subject
    RETURNING b.plan_id, b.limit_name, b.subject
), inserted AS (
    INSERT INTO credit_balances (plan_id, limit_name, subject, balance, period_start, debited, leased, returned, lost, lease_time)
    SELECT plan_id, limit_name, subject, refilled_balance - amount, new_period, amount, amount, 0, 0, now
    FROM debited WHERE NOT stored ORDER BY plan_id, limit_name, subject
    ON CONFLICT DO NOTHING
    RETURNING plan_id, limit_name, subject
), written AS (
    SELECT * FROM updated UNION ALL SELECT * FROM inserted
), leased AS (
    INSERT INTO credit_leases (lease_id, plan_id, limit_name, subject, amount, period_start, lease_time)
    SELECT d.lease_id, plan_id, limit_name, subject, d.amount, d.new_period, d.now
    FROM debited d JOIN written w USING (plan_id, limit_name, subject)
    WHERE d.amount > 0
), answers AS (
    SELECT d.position, d.now, d.still_leased > 0 AS leased, d.new_period, d.plan_revision, d.amount, d.refilled_balance - d.amount AS balance,
        (date_trunc(d.refill_period, greatest(d.now, d.new_period) AT TIME ZONE 'UTC')
            + ('1 ' || d.refill_period)::interval) AT TIME ZONE 'UTC' AS next_refill
    FROM debited d JOIN written w USING (plan_id, limit_name, subject)
    WHERE d.position IS NOT NULL
)
-- A row that another statement created meanwhile has no answer: it is asked for again.
SELECT always.same_epoch AS "same_epoch!", asked.position AS "position?", asked.position IS NOT NULL AS "has_limit!",
    a.now AS "now?: Time", a.new_period AS "period_start?: Time", a.plan_revision AS "revision?", a.amount AS "amount?", a.balance AS "balance?", a.leased AS "leased?",
    a.next_refill AS "next_refill?: Time"
FROM always LEFT JOIN asked ON true LEFT JOIN answers a ON a.position = asked.position
