//! When a call is retried: only if a repeat is safe, only after a failure with an unknown outcome,
//! after a random pause so that clients do not all return at once, and within the call's deadline.

use std::time::Duration;

use tokio::time::Instant;

use crate::error::{Error, ErrorKind};
use crate::random;

/// The longest first pause; it doubles with each further one, up to the longest of all.
const FIRST_DELAY: Duration = Duration::from_millis(25);
const LONGEST: Duration = Duration::from_secs(1);

/// The most attempts of a call, and its timeout including all of them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Retries {
    pub(crate) attempts: u32,
    pub(crate) timeout: Duration,
    /// Whether a Verify that may have spent is repeated like any other.
    pub(crate) repeat_spending: bool,
}

/// Whether a call may be repeated safely.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(not(feature = "raw"), expect(unreachable_pub, reason = "documented only with that feature"))]
pub enum Repeatable {
    /// It may: it only reads, or has a request id, or has the same result.
    Yes,
    /// It may after a failure that shows that it was not processed: it may spend of a token's limits.
    IfNotProcessed,
    /// It may not: it might undo another client's change.
    No,
}

impl Retries {
    /// Returns whether a Verify with this cost may be repeated.
    pub(crate) fn of_cost(&self, cost: u32) -> Repeatable {
        if cost == 0 || self.repeat_spending { Repeatable::Yes } else { Repeatable::IfNotProcessed }
    }

    /// Calls with the remaining time, until there is a response or a retry is useless. Any call is
    /// retried once at once if its credential was refused and `renewed` says that there is another:
    /// nothing was done.
    pub(crate) async fn run<T, F>(
        &self,
        repeatable: Repeatable,
        renewed: impl Fn(&Error) -> bool,
        mut call: impl FnMut(Duration) -> F,
    ) -> Result<T, Error>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let deadline = Instant::now() + self.timeout;
        let mut attempt = 1;
        let mut renewable = true;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let outcome = tokio::time::timeout(left, call(left)).await;
            let error = match outcome.unwrap_or_else(|_| Err(Error::overdue())) {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            if renewable && renewed(&error) {
                renewable = false;
                continue;
            }
            let safe = match repeatable {
                Repeatable::Yes => true,
                Repeatable::IfNotProcessed => error.was_not_processed(),
                Repeatable::No => false,
            };
            let again = safe && error.kind() == ErrorKind::Unavailable;
            let pause = pause(attempt).max(error.retry_after().unwrap_or_default());
            if !again || attempt >= self.attempts || Instant::now() + pause >= deadline {
                return Err(error);
            }
            tokio::time::sleep(pause).await;
            attempt += 1;
        }
    }
}

/// Returns a random pause after this attempt, counted from 1, up to a bound that doubles.
pub(crate) fn pause(attempt: u32) -> Duration {
    let most = FIRST_DELAY.saturating_mul(1 << attempt.saturating_sub(1).min(16)).min(LONGEST);
    most.mul_f64(random::random::<f64>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;
    use tonic::Status;
    use tonic_types::{ErrorDetails, StatusExt as _};

    const RETRIES: Retries = Retries { attempts: 3, timeout: Duration::from_secs(5), repeat_spending: false };

    async fn tried(repeatable: Repeatable, status: Status) -> (u32, Error) {
        let mut calls = 0;
        let outcome: Result<(), _> = RETRIES
            .run(
                repeatable,
                |_| false,
                |_| {
                    calls += 1;
                    std::future::ready(Err(Error::of(&status)))
                },
            )
            .await;
        (calls, outcome.unwrap_err())
    }

    #[tokio::test(start_paused = true)]
    async fn only_repeatable_calls_are_retried_and_only_after_an_unknown_outcome() {
        assert_eq!(tried(Repeatable::Yes, Status::unavailable("")).await.0, 3);
        assert_eq!(tried(Repeatable::No, Status::unavailable("")).await.0, 1);
        for status in [Status::unauthenticated(""), Status::not_found(""), Status::resource_exhausted("")] {
            assert_eq!(tried(Repeatable::Yes, status).await.0, 1);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_may_spend_is_retried_only_if_it_was_surely_not_processed() {
        let answered = ErrorDetails::with_error_info("OVERLOADED", "tokend", HashMap::new());
        let answered = Status::with_error_details(tonic::Code::Unavailable, "", answered);
        let of_a_proxy = Status::unavailable("upstream reset before headers");
        let unconnected = Status::from_error(tonic::ConnectError("refused".into()).into());
        let broken = Status::from_error(std::io::Error::other("broken pipe").into());
        for (status, calls) in [(answered, 3), (unconnected, 3), (of_a_proxy, 1), (broken, 1)] {
            assert_eq!(tried(Repeatable::IfNotProcessed, status.clone()).await.0, calls, "{status:?}");
            assert_eq!(tried(Repeatable::Yes, status).await.0, 3);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_ends_by_its_deadline_and_no_pause_goes_beyond_it() {
        let began = Instant::now();
        let silent: Result<(), _> = RETRIES.run(Repeatable::Yes, |_| false, |_| std::future::pending()).await;
        assert_eq!(silent.unwrap_err().kind(), ErrorKind::DeadlineExceeded);
        assert_eq!(began.elapsed(), RETRIES.timeout);

        let details = ErrorDetails::with_retry_info(Some(Duration::from_mins(1)));
        let later = Status::with_error_details(tonic::Code::Unavailable, "", details);
        let (calls, error) = tried(Repeatable::Yes, later).await;
        assert_eq!((calls, error.retry_after()), (1, Some(Duration::from_mins(1))));
    }

    #[test]
    fn pauses_grow_up_to_a_bound() {
        for attempt in 1..40 {
            assert!(pause(attempt) <= LONGEST);
            assert!(attempt > 1 || pause(attempt) <= FIRST_DELAY);
        }
    }
}
