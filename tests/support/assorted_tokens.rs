//! Tokens of all kinds in one organization, more than one page of any list.

use super::database::Database;

/// Creates some 690 tokens of forty users: with three kinds of scopes, ages up to two months, no expiration
/// or one that is near, far or past; those of one user are revoked. Their secrets are not known.
pub(crate) async fn tokens_of_all_sorts(database: &Database) {
    let make = "INSERT INTO tokens (id, organization_id, user_id, name, scopes, labels, create_time, created_by,
            expire_time, durable_hash, mac, mac_key_id)
        SELECT gen_random_uuid(), 'default', 'user-' || n % 40, 'n',
            CASE n % 3 WHEN 0 THEN ARRAY['repo:a', 'user:b'] WHEN 1 THEN ARRAY['repo:*'] ELSE ARRAY[]::text[] END,
            '{}', now() - (n % 60) * interval '1 day', 'bootstrap',
            CASE n % 7 WHEN 0 THEN NULL WHEN 1 THEN now() - interval '1 hour' + (n % 60) * interval '1 second'
                ELSE now() + (n % 50) * interval '1 day' + interval '1 hour' END,
            decode(repeat('00', 56), 'hex'), decode(repeat('00', 32), 'hex'), decode(repeat('00', 8), 'hex')
        FROM generate_series(1, 700) AS n WHERE n % 7 <> 1 OR n % 60 > 0";
    database.execute(make).await;
    let revoke = "UPDATE tokens SET revoke_time = now(), revoke_reason = 'earlier' WHERE user_id = 'user-5'";
    database.execute(revoke).await;
}
