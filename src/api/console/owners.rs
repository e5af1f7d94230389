//! What pages call the kinds of owners. Used by forms and filters.

use crate::domain::OwnerKind;

/// The kinds, and what people call them.
pub(super) const KINDS: [(OwnerKind, &str); 2] =
    [(OwnerKind::User, "Person"), (OwnerKind::Service, "Service account")];
