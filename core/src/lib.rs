//! The rules by which tokend and its client judge tokens, so that both agree: the secret's text and its
//! fast verifier, what a token is and who may do what with it, and the rule by which a cache of records
//! is filled.
//!
//! | module | content |
//! |---|---|
//! | [`secret`] | the text of a secret, its id, and its MAC |
//! | [`domain`] | tokens, scopes, networks, callers, and [`domain::judge`] |
//! | [`limits`] | how much of a rate or of a balance each replica may spend |
//! | [`fill_guard`] | keeps old records out of a cache |
//! | [`link`] | which hosts are this machine itself |
//! | [`boot_instant`] | the clocks that measure the age of a cache |
//!
//! The server adds its own parts in modules of the same names, and re-exports there what it uses from
//! here.

pub mod boot_instant;
#[cfg_attr(not(test), warn(clippy::arithmetic_side_effects))]
pub mod domain;
pub mod fill_guard;
#[cfg(any(test, feature = "fixtures"))]
pub mod fixtures;
#[cfg_attr(not(test), warn(clippy::arithmetic_side_effects))]
pub mod limits;
pub mod link;
pub mod secret;

/// The lock of the fill guard.
mod sync {
    pub(super) use std::sync::{Mutex, MutexGuard};

    /// Runs one of the guard's own tests, which the model checker would explore.
    #[cfg(test)]
    pub(super) fn explore(test: impl Fn()) {
        test();
    }
}
