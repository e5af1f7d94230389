//! The trace of a call, from W3C Trace Context's `traceparent`, and whether its spans are exported. Called
//! by the gRPC API once per call. The caller chooses its trace; nothing else in the header is trusted.

use crate::clock;
use crate::domain::audit_context::TraceId;

/// The trace of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceContext {
    /// The trace's id: the caller's, or a new one.
    pub trace_id: TraceId,
    /// The caller's span, if it names one.
    pub parent: Option<[u8; 8]>,
    /// Whether the call's spans are exported.
    pub sampled: bool,
}

/// The fraction of the calls without a trace of their own that is exported: none, all, or a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sampling {
    exports: bool,
    /// Out of 2^64.
    threshold: u64,
}

impl Sampling {
    /// Exports nothing.
    #[must_use]
    pub const fn off() -> Self {
        Self { exports: false, threshold: 0 }
    }

    /// Exports what callers sample, and this fraction, 0 to 1, of the rest.
    #[must_use]
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "saturates at both ends, as wanted"
    )]
    pub fn of(ratio: f64) -> Self {
        // 2^64, above which the cast saturates: a ratio of 1 is every call but one of 2^64.
        Self { exports: true, threshold: (ratio * 18_446_744_073_709_551_616.0) as u64 }
    }

    /// Returns whether spans are exported at all.
    #[must_use]
    pub const fn exports(self) -> bool {
        self.exports
    }

    /// Returns the trace of a call with this `traceparent`; an invalid one counts as absent.
    #[must_use]
    pub fn context(self, traceparent: Option<&str>) -> TraceContext {
        if let Some(context) = traceparent.and_then(parse) {
            return TraceContext { sampled: context.sampled && self.exports, ..context };
        }
        let id = clock::trace_id().to_be_bytes();
        let low = u64::from_be_bytes(id.as_chunks::<8>().0[1]);
        TraceContext { trace_id: TraceId(id), parent: None, sampled: self.exports && low < self.threshold }
    }
}

/// Reads `version-trace-parent-flags` (W3C Trace Context, 3.2); of later versions, only the fields
/// of version 00.
fn parse(text: &str) -> Option<TraceContext> {
    let mut parts = text.split('-');
    let (version, trace, parent, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let version: [u8; 1] = hex(version)?;
    if version == [0xff] || (version == [0] && parts.next().is_some()) {
        return None;
    }
    let (trace, parent, [flags]): ([u8; 16], [u8; 8], [u8; 1]) = (hex(trace)?, hex(parent)?, hex(flags)?);
    if trace == [0; 16] || parent == [0; 8] {
        return None;
    }
    Some(TraceContext { trace_id: TraceId(trace), parent: Some(parent), sampled: flags & 1 == 1 })
}

/// Reads exactly `N` bytes of lower-case hexadecimal digits.
fn hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    let is_lower = !text.bytes().any(|byte| byte.is_ascii_uppercase());
    is_lower.then(|| hex::decode_to_slice(text, &mut bytes).ok()).flatten().map(|()| bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

    fn traceparent(flags: &str) -> String {
        format!("00-{TRACE}-00f067aa0ba902b7-{flags}")
    }

    #[test]
    fn a_callers_trace_is_continued_and_its_sampling_flag_obeyed() {
        for (sampling, flags, sampled) in [
            (Sampling::of(0.0), "01", true),
            (Sampling::of(0.0), "03", true),
            (Sampling::of(1.0), "00", false),
            (Sampling::off(), "01", false),
        ] {
            let context = sampling.context(Some(&traceparent(flags)));
            assert_eq!((context.trace_id.to_string().as_str(), context.sampled), (TRACE, sampled));
            assert_eq!(context.parent, Some([0x00, 0xf0, 0x67, 0xaa, 0x0b, 0xa9, 0x02, 0xb7]));
        }
    }

    #[test]
    fn an_invalid_traceparent_starts_a_new_trace() {
        let long = format!("{}-00", traceparent("01"));
        let zero = format!("00-{}-00f067aa0ba902b7-01", "0".repeat(32));
        let upper = traceparent("01").to_uppercase();
        for text in [None, Some(""), Some("00"), Some(&long), Some(&zero), Some(&upper), Some("é-é-é-é")]
        {
            let context = Sampling::of(1.0).context(text);
            assert_ne!(context.trace_id.to_string(), TRACE);
            assert_eq!((context.parent, context.sampled), (None, true), "{text:?}");
            assert!(!Sampling::of(0.0).context(text).sampled);
        }
        // A later version may have more parts.
        let later = format!("01-{TRACE}-00f067aa0ba902b7-01-more");
        assert_eq!(Sampling::off().context(Some(&later)).trace_id.to_string(), TRACE);
    }
}
