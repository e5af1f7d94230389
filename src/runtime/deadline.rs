//! The deadline of a call: set by the gRPC API from the client's `grpc-timeout`, read wherever the call
//! waits and where Postgres gets its statement timeout. Stored in the call's own task, so that no
//! function in between has to pass it on.

use std::time::Duration;

use tokio::time::Instant;

tokio::task_local! {
    static DEADLINE: Instant;
}

/// Runs `work` as part of a call that ends after `timeout`; without one, as part of a call that waits
/// forever.
pub async fn within<T>(timeout: Option<Duration>, work: impl Future<Output = T>) -> T {
    match timeout.and_then(|timeout| Instant::now().checked_add(timeout)) {
        Some(deadline) => DEADLINE.scope(deadline, work).await,
        None => work.await,
    }
}

/// Returns how long a part of the work may take, at most `most`: less if the call ends before.
#[must_use]
pub fn at_most(most: Duration) -> Duration {
    let left = DEADLINE.try_with(|deadline| deadline.saturating_duration_since(Instant::now()));
    left.map_or(most, |left| left.min(most))
}

/// Parses `grpc-timeout`: at most eight digits and a unit (gRPC over HTTP/2).
#[must_use]
pub fn parse_timeout(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if !(1..=8).contains(&digits.len()) || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let number: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(number.saturating_mul(3600)),
        "M" => Duration::from_secs(number.saturating_mul(60)),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeout_has_up_to_eight_digits_and_a_unit() {
        assert_eq!(parse_timeout("5S"), Some(Duration::from_secs(5)));
        assert_eq!(parse_timeout("99999999n"), Some(Duration::from_nanos(99_999_999)));
        assert_eq!(parse_timeout("2H"), Some(Duration::from_hours(2)));
        for bad in ["", "S", "5", "5s", "+5S", "123456789m", "é", "5é"] {
            assert_eq!(parse_timeout(bad), None, "{bad}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_part_may_take_the_rest_of_the_deadline() {
        let second = Duration::from_secs(1);
        assert_eq!(at_most(second), second);
        within(Some(second * 3), async {
            assert_eq!(at_most(second), second);
            tokio::time::advance(second * 2 + second / 2).await;
            assert_eq!(at_most(second), second / 2);
            tokio::time::advance(second).await;
            assert_eq!(at_most(second), Duration::ZERO);
        })
        .await;
    }
}
