//! Warnings that Postgres sends beside an answer. The driver tells them to the log alone, so they are overheard there:
//! `telemetry` puts the layer among its own, the store asks whether there was one. Without a subscriber, as in a test
//! that runs the server within itself, none is heard.

use std::cell::Cell;
use std::future::poll_fn;
use std::pin::pin;

use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer};

/// Where the driver tells them.
pub(crate) const TARGET: &str = "sqlx::postgres::notice";

thread_local! {
    static WARNED: Cell<bool> = const { Cell::new(false) };
}

/// Overhears them.
#[derive(Debug)]
pub(crate) struct Overhearing;

impl<S: Subscriber> Layer<S> for Overhearing {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let metadata = event.metadata();
        if metadata.target() == TARGET && *metadata.level() == Level::WARN {
            WARNED.set(true);
        }
    }
}

/// Does `work` and tells whether there was a warning meanwhile.
pub(crate) async fn watched<T>(work: impl Future<Output = T>) -> (T, bool) {
    let mut work = pin!(work);
    let mut warned = false;
    let done = poll_fn(|context| {
        // The driver tells it where it is polled, so no other work's warning comes in between.
        WARNED.set(false);
        let polled = work.as_mut().poll(context);
        warned |= WARNED.take();
        polled
    })
    .await;
    (done, warned)
}
