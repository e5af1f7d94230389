//! Turns a panic of a call's work into an error, so that its client gets a response, the call is
//! counted, and the log has its location once. Called around the work of every call of every protocol.
//! The panic message is not repeated: it may contain what the client presented.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::panic::{self, AssertUnwindSafe, PanicHookInfo};
use std::pin::pin;

thread_local! {
    /// Whether panics of this thread are caught here.
    static CATCHING: Cell<bool> = const { Cell::new(false) };
    /// The location of the last one.
    static LOCATION: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// The work of a call panicked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the call panicked at {0}")]
pub struct Panicked(String);

/// Runs `work`, and returns its panic as an error. Its changes may be incomplete: nothing that it used
/// may be used again, except what is shared with other calls anyway.
///
/// # Errors
/// [`Panicked`].
pub fn catch<T>(work: impl FnOnce() -> T) -> Result<T, Panicked> {
    let outer = CATCHING.replace(true);
    let done = panic::catch_unwind(AssertUnwindSafe(work));
    CATCHING.set(outer);
    done.map_err(|_| Panicked(LOCATION.take().unwrap_or_else(|| "an unknown location".to_owned())))
}

/// Runs asynchronous work, and returns its panic as an error.
///
/// # Errors
/// [`Panicked`].
pub async fn caught<F: Future>(work: F) -> Result<F::Output, Panicked> {
    let mut work = pin!(work);
    poll_fn(|context| match catch(|| work.as_mut().poll(context)) {
        Ok(polled) => polled.map(Ok),
        Err(panicked) => Err(panicked).into(),
    })
    .await
}

/// Makes panics that are caught here record only their location; others are reported as before.
pub fn record_locations() {
    let others = panic::take_hook();
    panic::set_hook(Box::new(move |info: &PanicHookInfo<'_>| {
        if CATCHING.get() {
            LOCATION.set(info.location().map(ToString::to_string));
        } else {
            others(info);
        }
    }));
}

#[cfg(test)]
#[expect(clippy::panic, reason = "what is tested")]
mod tests {
    use super::*;

    #[tokio::test]
    async fn work_that_panics_before_or_after_waiting_ends_with_an_error() {
        assert_eq!(caught(async { 1 }).await, Ok(1));
        assert!(caught(async { panic!("meant to") }).await.is_err());
        let later = async {
            tokio::task::yield_now().await;
            panic!("meant to")
        };
        assert!(caught(later).await.is_err());
        assert!(!CATCHING.get());
    }
}
