//! The user on whose behalf, and the trace in which, a call is executed: set by the API once per
//! call, read when the audit log is written. Stored in the call's own task, as its deadline is.

use std::fmt;

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use super::{FieldError, UserId, percent};

/// As gRPC decodes binary metadata.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// What the audit log records about a call besides its caller.
#[derive(Debug, Clone, Default)]
pub struct AuditContext {
    /// Who acts.
    pub acting: Acting,
    /// The call's trace; `None` outside a call.
    pub trace_id: Option<TraceId>,
}

/// The person who acts in a call.
#[derive(Debug, Clone, Default)]
pub enum Acting {
    /// The user of the caller's own token, if that is a person.
    #[default]
    Caller,
    /// The person that the caller acts for, according to the caller.
    Claimed(ActingUser),
    /// Nobody: tokend acts by itself because of what a caller did.
    Nobody,
}

/// A trace id; displayed as 32 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceId(pub [u8; 16]);

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

/// The person that a frontend acts for: 1 to 200 bytes, no control characters, as a user's id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ActingUser(UserId);

impl ActingUser {
    /// Accepts a text within the limits.
    ///
    /// # Errors
    /// The first rule that the text breaks.
    pub fn parse(text: &str) -> Result<Self, FieldError> {
        UserId::parse(text).map(Self)
    }

    /// Decodes percent-encoded metadata (RFC 3986, 2.1) as UTF-8.
    ///
    /// # Errors
    /// The first rule that the bytes break.
    pub fn percent_decoded(encoded: &[u8]) -> Result<Self, FieldError> {
        const NOT_ASCII: FieldError =
            FieldError::Rule("is not ASCII: percent-encode it, or send it as tokend-acting-user-bin");
        const NO_ESCAPE: FieldError =
            FieldError::Rule("has a % without two hexadecimal digits after it: write % itself as %25");
        if !encoded.is_ascii() {
            return Err(NOT_ASCII);
        }
        Self::of_bytes(&percent::decoded(encoded).ok_or(NO_ESCAPE)?)
    }

    /// Decodes binary metadata, base64 with or without padding, as UTF-8.
    ///
    /// # Errors
    /// The first rule that the bytes break.
    pub fn base64_decoded(encoded: &[u8]) -> Result<Self, FieldError> {
        const NO_BASE64: FieldError = FieldError::Rule("is not one value in base64");
        Self::of_bytes(&BASE64.decode(encoded).map_err(|_| NO_BASE64)?)
    }

    fn of_bytes(bytes: &[u8]) -> Result<Self, FieldError> {
        Self::parse(str::from_utf8(bytes).map_err(|_| FieldError::Rule("is not UTF-8"))?)
    }

    /// Returns the text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

tokio::task_local! {
    static CURRENT: AuditContext;
}

/// Runs `work` as part of a call.
pub async fn within<T>(provenance: AuditContext, work: impl Future<Output = T>) -> T {
    CURRENT.scope(provenance, work).await
}

/// Returns the audit context of the current call; empty outside a call.
#[must_use]
pub fn current() -> AuditContext {
    CURRENT.try_with(Clone::clone).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_script_is_read_from_percent_encoding_and_from_base64() {
        for (encoded, user) in
            [("ada", "ada"), ("zo%C3%AB", "zoë"), ("50%25", "50%"), ("%e6%9d%8e", "李"), ("a b", "a b")]
        {
            assert_eq!(ActingUser::percent_decoded(encoded.as_bytes()).unwrap().as_str(), user);
        }
        for encoded in ["em/Dqw==", "em/Dqw"] {
            assert_eq!(ActingUser::base64_decoded(encoded.as_bytes()).unwrap().as_str(), "zoë");
        }
    }

    #[test]
    fn an_empty_acting_user_is_refused() {
        for bad in ["", "zoë", "%", "%4", "%zz", "50%", "%C3", "%0A", "%+1"] {
            assert!(ActingUser::percent_decoded(bad.as_bytes()).is_err(), "{bad}");
        }
        for bad in ["", "em/Dq", "w6s,w6s", "gA==", "Cg==", "zoë"] {
            assert!(ActingUser::base64_decoded(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
