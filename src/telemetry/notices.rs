//! Warnings that Postgres sends with a result. The driver only logs them, so a tracing layer
//! captures them: `telemetry` installs it, the store asks whether there was one. Without a
//! subscriber, as in a test that runs the server in its own process, none is seen.

use std::cell::Cell;
use std::future::poll_fn;
use std::pin::pin;

use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer};

/// The target under which the driver logs them.
pub(crate) const TARGET: &str = "sqlx::postgres::notice";

thread_local! {
    static WARNED: Cell<bool> = const { Cell::new(false) };
}

/// The layer that captures warnings.
#[derive(Debug)]
pub(crate) struct NoticeLayer;

impl<S: Subscriber> Layer<S> for NoticeLayer {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let metadata = event.metadata();
        if metadata.target() == TARGET && *metadata.level() == Level::WARN {
            WARNED.set(true);
        }
    }
}

/// Runs `work` and returns whether a warning was logged meanwhile.
pub(crate) async fn watched<T>(work: impl Future<Output = T>) -> (T, bool) {
    let mut work = pin!(work);
    let mut warned = false;
    let done = poll_fn(|context| {
        // The driver logs while it is polled, so no other work's warning can come in between.
        WARNED.set(false);
        let polled = work.as_mut().poll(context);
        warned |= WARNED.take();
        polled
    })
    .await;
    (done, warned)
}
