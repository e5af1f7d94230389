//! What owns tokens, on the command line. Used by the commands that list tokens and users.

use clap::ValueEnum;
use tokend_client::proto::OwnerKind;

/// What owns tokens.
#[derive(Clone, Copy, ValueEnum)]
pub(super) enum KindFlag {
    User,
    Service,
}

impl From<KindFlag> for OwnerKind {
    fn from(kind: KindFlag) -> Self {
        match kind {
            KindFlag::User => Self::User,
            KindFlag::Service => Self::Service,
        }
    }
}
