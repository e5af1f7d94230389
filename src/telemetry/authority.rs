//! Notices calls that HTTP/2 refuses before the service sees them, because their `:authority` is not a host. h2 only logs
//! that, at debug level, so a layer of `telemetry` reads these events and lets none of them be written. The connection that
//! was polled meanwhile asks whether there was one. Without a subscriber none is noticed.

use std::cell::Cell;
use std::fmt::{self, Debug, Write as _};

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Layer};

/// The target of these events.
pub(super) const TARGET: &str = "h2::server";

/// The beginning of the message; the rest is the text that the client sent.
const MESSAGE_PREFIX: &str = "malformed headers: malformed authority";

thread_local! {
    static REFUSED: Cell<bool> = const { Cell::new(false) };
}

/// Sets a flag of the thread for each of these events.
#[derive(Debug)]
pub(super) struct AuthorityErrorLayer;

impl<S: Subscriber> Layer<S> for AuthorityErrorLayer {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        if is_authority_error(event.metadata()) {
            let mut message = Message { awaited: MESSAGE_PREFIX };
            event.record(&mut message);
            if message.awaited.is_empty() {
                REFUSED.set(true);
            }
        }
    }
}

/// Returns whether an event is for this layer only, and not to be written.
pub(super) fn is_authority_error(metadata: &Metadata<'_>) -> bool {
    metadata.target() == TARGET && *metadata.level() > Level::INFO
}

/// Returns whether a call was refused on this thread since the last request.
pub(crate) fn was_refused() -> bool {
    REFUSED.take()
}

/// Compares a message with its expected beginning, without writing it anywhere.
struct Message {
    /// What of the beginning has not been seen yet.
    awaited: &'static str,
}

impl Visit for Message {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if field.name() == "message" {
            // Fails as soon as enough has been compared.
            let _ = write!(self, "{value:?}");
        }
    }
}

impl fmt::Write for Message {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if let Some(rest) = self.awaited.strip_prefix(text) {
            self.awaited = rest;
            return Ok(());
        }
        if text.starts_with(self.awaited) {
            self.awaited = "";
        }
        Err(fmt::Error)
    }
}
