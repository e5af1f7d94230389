//! The column of a token's last refusal, and its conversion to the domain type and back. Used by the row of a token, and
//! where one is written.

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::domain::token::LastRefusal;

/// A refusal as the column has it; what is not known is left out.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct RefusalColumn {
    /// In microseconds since 1970.
    time: i64,
    /// The number of the verdict in the contract.
    verdict: u8,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    missing_scopes: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    client_ip: Option<std::net::IpAddr>,
}

impl From<&LastRefusal> for RefusalColumn {
    fn from(refusal: &LastRefusal) -> Self {
        Self {
            time: i64::try_from(refusal.time.unix_timestamp_nanos() / 1_000).unwrap_or(i64::MAX),
            verdict: refusal.verdict,
            missing_scopes: refusal.missing_scopes.clone(),
            client_ip: refusal.client_ip,
        }
    }
}

impl TryFrom<RefusalColumn> for LastRefusal {
    type Error = time::error::ComponentRange;

    fn try_from(column: RefusalColumn) -> Result<Self, Self::Error> {
        Ok(Self {
            time: OffsetDateTime::from_unix_timestamp_nanos(i128::from(column.time).saturating_mul(1_000))?,
            verdict: column.verdict,
            missing_scopes: column.missing_scopes,
            client_ip: column.client_ip,
        })
    }
}
