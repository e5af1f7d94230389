//! Records how often tokens were verified and when they were last used. Called by the job that flushes the engine's
//! counts.

use std::time::Duration;

use time::OffsetDateTime;
use uuid::Uuid;

use super::columns::Time;
use super::refusals::RefusalColumn;
use super::replicas::interval;
use super::{Store, StoreError, rows};
use crate::domain::usage::UseCount;

/// Counts as the arrays of one statement.
struct Batch {
    ids: Vec<Uuid>,
    times: Vec<OffsetDateTime>,
    verdicts: Vec<i16>,
    organizations: Vec<String>,
    verifications: Vec<i64>,
}

impl Batch {
    fn new(counts: &[UseCount]) -> Self {
        let number = |count: &UseCount| i64::try_from(count.verifications).unwrap_or(i64::MAX);
        Self {
            ids: counts.iter().map(|count| rows::uuid(count.id)).collect(),
            times: counts.iter().map(|count| count.time).collect(),
            verdicts: counts.iter().map(UseCount::verdict_number).collect(),
            organizations: counts.iter().map(|count| count.organization_id.as_str().to_owned()).collect(),
            verifications: counts.iter().map(number).collect(),
        }
    }
}

impl Store {
    /// Adds a batch of counts in one statement; a later use that is already stored stays. A writer's batches have
    /// rising numbers; one that was already added adds nothing, so a batch whose outcome is unknown is sent again.
    ///
    /// # Errors
    /// [`StoreError`], as for every call of the store.
    pub async fn record_usage(
        &self,
        writer: Uuid,
        sequence: i64,
        counts: &[UseCount],
    ) -> Result<(), StoreError> {
        let batch = Batch::new(counts);
        self.retrying(async || {
            // One row per key: a batch may name a token twice. In the order of keys, so that replicas that flush at
            // once lock rows in the same order. No wait for a standby: nothing is acknowledged. A clock that is
            // wrong cannot name an hour that is complete or that has no partition.
            sqlx::query!(
                "WITH batch AS (
                     INSERT INTO usage_writers (writer, sequence, write_time)
                     SELECT $1, $2, now() FROM set_config('synchronous_commit', 'local', true)
                     ON CONFLICT (writer) DO UPDATE SET sequence = EXCLUDED.sequence, write_time = EXCLUDED.write_time
                     WHERE usage_writers.sequence < EXCLUDED.sequence
                     RETURNING sequence
                 ), counts AS (
                     SELECT id, used, verdict, organization, verifications, date_trunc('hour',
                         greatest(least(used, now()), now() - interval '24 hours'), 'UTC') AS hour
                     FROM unnest($3::uuid[], $4::timestamptz[], $5::smallint[], $6::text[], $7::bigint[])
                         AS count (id, used, verdict, organization, verifications)
                 ), uses AS (
                     INSERT INTO token_uses (token_id, last_use_time)
                     SELECT id, max(used) FROM counts WHERE verdict = 1 GROUP BY id ORDER BY id
                     ON CONFLICT (token_id) DO UPDATE
                     SET last_use_time = greatest(token_uses.last_use_time, EXCLUDED.last_use_time)
                 ), totals AS (
                     INSERT INTO usage_totals (organization_id, hour, verifications, verdict)
                     SELECT organization, hour, sum(verifications), verdict FROM batch, counts
                     WHERE verifications > 0
                     GROUP BY organization, hour, verdict ORDER BY organization, hour, verdict
                     ON CONFLICT (organization_id, hour, verdict) DO UPDATE
                     SET verifications = usage_totals.verifications + EXCLUDED.verifications
                 )
                 INSERT INTO usage_hours (token_id, hour, verifications, verdict, organization_id)
                 SELECT id, hour, sum(verifications), verdict, min(organization) FROM batch, counts
                 WHERE verifications > 0
                 GROUP BY id, hour, verdict ORDER BY id, hour, verdict
                 ON CONFLICT (token_id, hour, verdict) DO UPDATE
                 SET verifications = usage_hours.verifications + EXCLUDED.verifications",
                writer,
                sequence,
                &batch.ids,
                &batch.times,
                &batch.verdicts,
                &batch.organizations,
                &batch.verifications
            )
            .execute(self.single()?)
            .await?;
            Ok(())
        })
        .await
    }

    /// Makes the next partitions of the usage and drops those that are older than `hours` and `days`, unless the time
    /// is not known.
    ///
    /// # Errors
    /// [`StoreError`], as for every call of the store.
    pub async fn maintain_usage(&self, hours: Duration, days: Duration) -> Result<(), StoreError> {
        let kept = self.may_delete().then(|| (interval(hours), interval(days)));
        let (hours, days) = kept.unzip();
        self.within(async {
            sqlx::query!("SELECT maintain_usage($1, $2)", hours, days).fetch_one(self.single()?).await?;
            sqlx::query!("DELETE FROM usage_writers WHERE write_time < now() - interval '30 days'")
                .execute(self.single()?)
                .await?;
            Ok(())
        })
        .await
    }

    /// Adds the next complete hour to its day; returns whether there was one.
    ///
    /// # Errors
    /// [`StoreError`], as for every call of the store.
    pub async fn roll_up_usage(&self) -> Result<bool, StoreError> {
        self.within(async {
            // An hour is complete when no batch can name it any more.
            let next = sqlx::query!(
                r#"SELECT hour AS "hour: Time" FROM usage_rollup
                   WHERE hour < date_trunc('hour', now(), 'UTC') - interval '26 hours'"#
            )
            .fetch_optional(self.single()?)
            .await?;
            let Some(hour) = next.map(|next| next.hour.clock()).transpose()? else { return Ok(false) };
            // The hour as a parameter, so that one partition is read. The update makes it once.
            sqlx::query!(
                "WITH done AS (
                     UPDATE usage_rollup SET hour = hour + interval '1 hour' WHERE hour = $1 RETURNING hour
                 )
                 INSERT INTO usage_days (token_id, day, verifications, verdict, organization_id)
                 SELECT token_id, date_trunc('day', $1::timestamptz, 'UTC'), verifications, verdict, organization_id
                 FROM usage_hours WHERE hour = $1 AND EXISTS (SELECT FROM done)
                 ORDER BY token_id, verdict
                 ON CONFLICT (token_id, day, verdict) DO UPDATE
                 SET verifications = usage_days.verifications + EXCLUDED.verifications",
                hour
            )
            .execute(self.single()?)
            .await?;
            Ok(true)
        })
        .await
    }

    /// Writes the last refusals among these counts in one statement; a later one that is already stored stays, so a batch
    /// whose outcome is unknown may be sent again.
    ///
    /// # Errors
    /// [`StoreError`], as for every call of the store.
    pub async fn record_refusals(&self, counts: &[UseCount]) -> Result<(), StoreError> {
        let refused = || counts.iter().filter_map(|count| Some((count.id, count.refusal.as_ref()?)));
        let ids: Vec<_> = refused().map(|(id, _)| rows::uuid(id)).collect();
        if ids.is_empty() {
            return Ok(());
        }
        let times: Vec<_> = refused().map(|(_, refusal)| refusal.time).collect();
        // Cannot fail for texts and numbers.
        let json = |refusal| serde_json::to_string(&RefusalColumn::from(refusal)).unwrap_or_default();
        let refusals: Vec<_> = refused().map(|(_, refusal)| json(refusal)).collect();
        self.retrying(async || {
            // In the order of keys, as the counts are written. No wait for a standby: nothing is acknowledged.
            sqlx::query!(
                "INSERT INTO token_refusals (token_id, refusal_time, refusal)
                 SELECT DISTINCT ON (id) id, refused, refusal::jsonb
                 FROM unnest($1::uuid[], $2::timestamptz[], $3::text[]) AS last (id, refused, refusal),
                     set_config('synchronous_commit', 'local', true)
                 ORDER BY id, refused DESC
                 ON CONFLICT (token_id) DO UPDATE
                 SET refusal_time = EXCLUDED.refusal_time, refusal = EXCLUDED.refusal
                 WHERE token_refusals.refusal_time < EXCLUDED.refusal_time",
                &ids,
                &times,
                &refusals
            )
            .execute(self.single()?)
            .await?;
            Ok(())
        })
        .await
    }
}
