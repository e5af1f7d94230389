//! The shares of limits as the library has them, and what they need. Called by `share`.

#[path = "../../core/src/limits/share.rs"]
#[expect(unreachable_pub, reason = "it is a library's, and open there")]
pub(crate) mod share;

mod sync {
    pub(super) use crate::sync::{AtomicI64, AtomicU64, explore};
}

pub(crate) fn number(lease: share::LeaseNumber) -> u32 {
    lease.0
}

pub(crate) fn lease(number: u32) -> share::LeaseNumber {
    share::LeaseNumber(number)
}
