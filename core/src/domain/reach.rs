//! The organizations that a caller may learn about.

use super::fields::OrganizationId;

/// The organizations whose tokens a caller can read or verify.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach<'a> {
    /// Every organization.
    Any,
    /// Only this one.
    Only(&'a OrganizationId),
}

impl Reach<'_> {
    /// Returns whether tokens of `organization` are within reach.
    #[must_use]
    pub fn includes(&self, organization: &OrganizationId) -> bool {
        match self {
            Self::Any => true,
            Self::Only(own) => *own == organization,
        }
    }
}
