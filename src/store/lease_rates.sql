-- The rules of tokend_core::limits::Rate::lease for many allowances. Rows are locked in the order of their keys, and the
-- clock is read after the lock of each.
WITH always AS MATERIALIZED (
    SELECT (SELECT epoch FROM server_epoch) IS NOT DISTINCT FROM $1 AS same_epoch
), asked AS MATERIALIZED (
    SELECT a.*, p.revision AS plan_revision, l.burst,
        -- Rounded up: never more than the rate.
        (l.period * 1000000000 + l.requests - 1) / l.requests AS request_interval
    FROM unnest($2::uuid[], $3::text[], $4::text[], $5::bigint[], $6::bigint[], $7::bigint[], $8::bigint[], $9::bigint[], $10::bigint[])
            WITH ORDINALITY AS a (plan_id, limit_name, subject, wanted, r_amount, r_lease_time, r_era, r_revision, wanted_least, position)
        JOIN plan_limits l ON l.plan_id = a.plan_id AND l.name = a.limit_name AND l.kind = 'rate'
        JOIN plans p ON p.plan_id = a.plan_id
        CROSS JOIN always
    WHERE always.same_epoch
), locked AS MATERIALIZED (
    SELECT q.*, a.full_time, a.lease_time, a.grant_time, a.era, a.revision
    FROM asked q JOIN rate_allowances a ON a.plan_id = q.plan_id AND a.limit_name = q.limit_name AND a.subject = q.subject
    ORDER BY a.plan_id, a.limit_name, a.subject
    FOR UPDATE OF a
), timed AS MATERIALIZED (
    SELECT locked.*, (extract(epoch FROM clock_timestamp()) * 1000000000)::bigint AS now, true AS stored FROM locked
    UNION ALL
    SELECT q.*, created.now, created.now, created.now, 0, q.plan_revision, created.now, false
    FROM asked q, (SELECT (extract(epoch FROM clock_timestamp()) * 1000000000)::bigint AS now) created
    WHERE NOT EXISTS (SELECT FROM rate_allowances a
        WHERE a.plan_id = q.plan_id AND a.limit_name = q.limit_name AND a.subject = q.subject)
), eras AS (
    SELECT t.*, era + (now < lease_time)::int AS new_era, now + request_interval * burst AS latest FROM timed t
), credited AS (
    SELECT e.*, least(greatest(full_time - CASE
            WHEN r_era = new_era AND r_revision = plan_revision AND revision = plan_revision
            THEN greatest(least(greatest(r_amount, 0), burst) * request_interval - greatest(now - r_lease_time, 0), 0) ELSE 0 END,
        now), latest) AS full_at
    FROM eras e
), granted AS MATERIALIZED (
    SELECT c.*, (latest - full_at) / request_interval AS room,
        CASE WHEN (latest - full_at) / request_interval < wanted_least THEN 0
            ELSE least(greatest(wanted, 0), (latest - full_at) / request_interval) END AS amount
    FROM credited c
), updated AS (
    UPDATE rate_allowances a
    SET full_time = g.full_at + g.amount * g.request_interval, lease_time = g.now, era = g.new_era, revision = g.plan_revision,
        grant_time = CASE WHEN g.amount > 0 THEN g.now ELSE g.grant_time END
    FROM granted g
    WHERE g.stored AND a.plan_id = g.plan_id AND a.limit_name = g.limit_name AND a.subject = g.subject
    RETURNING a.plan_id, a.limit_name, a.subject
), inserted AS (
    INSERT INTO rate_allowances (plan_id, limit_name, subject, full_time, lease_time, grant_time, era, revision)
    SELECT plan_id, limit_name, subject, full_at + amount * request_interval, now, now, new_era, plan_revision
    FROM granted WHERE NOT stored ORDER BY plan_id, limit_name, subject
    ON CONFLICT DO NOTHING
    RETURNING plan_id, limit_name, subject
), written AS (
    SELECT * FROM updated UNION ALL SELECT * FROM inserted
), answers AS (
    SELECT g.position, g.full_at + g.amount * g.request_interval AS full_time, g.now AS lease_time, g.new_era AS era,
        g.plan_revision AS revision, g.amount, g.room - g.amount AS rest, g.grant_time AS last_grant_time,
        CASE WHEN g.wanted <= g.burst THEN greatest(g.wanted * g.request_interval + g.full_at - g.latest, 0) END AS retry_after
    FROM granted g JOIN written w USING (plan_id, limit_name, subject)
)
-- A row that another statement created meanwhile has no answer: it is asked for again.
SELECT always.same_epoch AS "same_epoch!", asked.position AS "position?", asked.position IS NOT NULL AS "has_limit!",
    a.full_time AS "full_time?", a.lease_time AS "lease_time?", a.era AS "era?", a.revision AS "revision?", a.amount AS "amount?",
    a.rest AS "rest?", a.last_grant_time AS "last_grant_time?", a.retry_after AS "retry_after?"
FROM always LEFT JOIN asked ON true LEFT JOIN answers a ON a.position = asked.position
