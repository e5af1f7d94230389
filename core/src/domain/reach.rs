//! Whose tokens somebody may be told about.

use super::fields::OrganizationId;

/// The organizations whose tokens a caller can see or have judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach<'a> {
    /// Every organization.
    Any,
    /// This one alone.
    Only(&'a OrganizationId),
}

impl Reach<'_> {
    /// Tells whether tokens of `organization` are within reach.
    #[must_use]
    pub fn includes(&self, organization: &OrganizationId) -> bool {
        match self {
            Self::Any => true,
            Self::Only(own) => *own == organization,
        }
    }
}
