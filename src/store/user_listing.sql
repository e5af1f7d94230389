WITH RECURSIVE listed AS (
    SELECT 0 AS step, 0 AS number, 0::bigint AS counted, false AS shown,
        $1::text COLLATE "C" AS organization_id, $2::text COLLATE "C" AS user_id,
        $3::text COLLATE "C" AS owner_kind,
        0::bigint AS tokens, 0::bigint AS active, NULL::timestamptz AS last_use_time
    UNION ALL
    SELECT step + 1, number + wanted.shown::integer,
        counted + greatest(of_user.tokens, 1), wanted.shown,
        found.organization_id, found.user_id, found.owner_kind,
        of_user.tokens, of_user.active, of_user.last_use_time
    FROM listed
        CROSS JOIN LATERAL (
            SELECT * FROM (
                (SELECT t.organization_id, t.user_id, t.owner_kind FROM tokens t
                 WHERE NOT $6 AND (t.organization_id, t.user_id, t.owner_kind)
                     > (listed.organization_id, listed.user_id, listed.owner_kind)
                 ORDER BY t.organization_id, t.user_id, t.owner_kind LIMIT 1)
                UNION ALL
                (SELECT d.organization_id, d.user_id, d.owner_kind FROM disabled_users d
                 WHERE (d.organization_id, d.user_id, d.owner_kind)
                     > (listed.organization_id, listed.user_id, listed.owner_kind)
                 ORDER BY d.organization_id, d.user_id, d.owner_kind LIMIT 1)
            ) AS next ORDER BY organization_id, user_id, owner_kind LIMIT 1
        ) AS found
        CROSS JOIN LATERAL (SELECT $5::text IS NULL OR found.owner_kind = $5 AS shown) AS wanted
        CROSS JOIN LATERAL (
            SELECT count(*) AS tokens,
                count(*) FILTER (WHERE t.revoke_time IS NULL AND t.disable_time IS NULL
                    AND t.user_disable_time IS NULL
                    AND (t.expire_time IS NULL OR t.expire_time > $8)) AS active,
                max((SELECT u.last_use_time FROM token_uses u WHERE u.token_id = t.id))
                    AS last_use_time
            FROM tokens t
            WHERE wanted.shown AND t.organization_id = found.organization_id
                AND t.user_id = found.user_id AND t.owner_kind = found.owner_kind
        ) AS of_user
    WHERE number < $7 AND counted < $9
        AND ($4::text IS NULL OR found.organization_id = $4))
SELECT l.organization_id AS "organization_id!", l.user_id AS "user_id!",
    l.owner_kind AS "owner_kind!", l.shown AS "shown!", l.number >= $7 OR l.counted >= $9 AS "stopped!",
    l.tokens AS "tokens!", l.active AS "active!", l.last_use_time AS "last_use_time: Time",
    d.disable_time AS "disable_time?: Time", d.disabled_by AS "disabled_by?", d.reason AS "reason?"
FROM listed l
    LEFT JOIN disabled_users d ON d.organization_id = l.organization_id
        AND d.user_id = l.user_id AND d.owner_kind = l.owner_kind
WHERE l.step > 0 AND (l.shown OR l.number >= $7 OR l.counted >= $9)
ORDER BY l.step
