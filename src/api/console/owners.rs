//! Owners of tokens, as forms and addresses of pages name them. Pure functions, used by forms and filters.

use form_urlencoded::Serializer;

use super::commands::Call;
use super::form::{Fields, Problems, optional};
use crate::domain::{FieldError, OrganizationId, OwnerKind, UserId};
use crate::tokens::users::NamedUser;

/// The kinds, and what people call them.
pub(super) const KINDS: [(OwnerKind, &str); 2] =
    [(OwnerKind::User, "Person"), (OwnerKind::Service, "Service account")];

/// An owner as it was typed.
#[derive(Debug, Default, Clone)]
pub(super) struct TypedOwner {
    pub(super) organization: String,
    pub(super) user: String,
    /// The name of a kind; empty: a person.
    pub(super) kind: String,
}

impl TypedOwner {
    pub(super) fn read(fields: &Fields<'_>) -> Self {
        Self {
            organization: fields.get("organization").to_owned(),
            user: fields.get("user").to_owned(),
            kind: fields.get("owner").to_owned(),
        }
    }

    /// Returns the owner of a page, for its links.
    pub(super) fn new(organization: &str, user: &str, kind: OwnerKind) -> Self {
        let kind = if kind == OwnerKind::User { "" } else { kind.word() };
        Self { organization: organization.to_owned(), user: user.to_owned(), kind: kind.to_owned() }
    }

    pub(super) fn is_service(&self) -> bool {
        self.kind == OwnerKind::Service.word()
    }

    /// Returns the address of a page about the owner.
    pub(super) fn at(&self, path: &str) -> String {
        let mut query = Serializer::new(String::new());
        query.append_pair("user", &self.user);
        for (name, value) in [("organization", &self.organization), ("owner", &self.kind)] {
            if !value.is_empty() {
                query.append_pair(name, value);
            }
        }
        format!("{path}?{}", query.finish())
    }

    /// Returns what identifies the owner in a signed notice.
    pub(super) fn subject(&self) -> String {
        format!("{} {} {}", self.organization, self.kind, self.user)
    }

    /// Adds the owner to the equivalent commands.
    pub(super) fn said(&self, call: Call) -> Call {
        let call = call.text("organization", "organizationId", &self.organization);
        let call = if self.is_service() {
            call.flag("service", None).set("ownerKind", "OWNER_KIND_SERVICE".into())
        } else {
            call
        };
        call.about("userId", &self.user)
    }

    /// Parses the owner.
    pub(super) fn parse(&self, problems: &mut Problems) -> Option<NamedUser> {
        let organization = optional(&self.organization, OrganizationId::parse);
        let user_id = problems.take("user", UserId::parse(&self.user), "The user");
        let organization_id = problems.take("organization", organization, "The organization");
        let kind = problems.take("owner", parse_kind(&self.kind), "The owner");
        Some(NamedUser {
            organization_id: organization_id?,
            user_id: user_id?,
            kind: kind?.unwrap_or_default(),
        })
    }
}

/// Parses the name of a kind; `None`: it is empty.
pub(super) fn parse_kind(text: &str) -> Result<Option<OwnerKind>, FieldError> {
    match OwnerKind::from_word(text) {
        None if text.is_empty() => Ok(None),
        None => Err(FieldError::Rule("is not one of these")),
        kind => Ok(kind),
    }
}
