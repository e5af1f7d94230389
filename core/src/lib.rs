//! What tokend and its client judge tokens by, so that both do it alike: the secret's text and its fast verifier,
//! what a token is and who may do what with it, and the rule by which a cache of records is filled.
//!
//! | module | what lives there |
//! |---|---|
//! | [`secret`] | the text of a secret, its id, and the MAC that stands for it |
//! | [`domain`] | tokens, scopes, networks, callers, and [`domain::judge`] |
//! | [`fill_guard`] | what keeps an old record out of a cache |
//! | [`link`] | which hosts are this machine itself |
//! | [`boot_instant`] | the clocks by which a cache grows old |
//!
//! The server puts the rest beside these in modules of the same names, and says there what it takes from here.

pub mod boot_instant;
#[cfg_attr(not(test), warn(clippy::arithmetic_side_effects))]
pub mod domain;
pub mod fill_guard;
#[cfg(any(test, feature = "fixtures"))]
pub mod fixtures;
pub mod link;
pub mod secret;

/// Where the gate takes its lock from.
mod sync {
    pub(super) use std::sync::{Mutex, MutexGuard};

    /// Runs a test of the gate's own, which the model checker would walk.
    #[cfg(test)]
    pub(super) fn explore(test: impl Fn()) {
        test();
    }
}
