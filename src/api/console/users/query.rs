//! The filters of the list of users as they stand in its address, and what they mean. Pure functions, used by the list
//! and its template.

use form_urlencoded::Serializer;

use crate::api::console::commands::{Call, Lines};
use crate::api::console::form::{Fields, Problems, optional};
use crate::api::console::owners::parse_kind;
use crate::domain::OrganizationId;
use crate::domain::users::UserListing;

/// The filters as they were typed.
#[derive(Debug, Default, Clone)]
pub(super) struct UserQuery {
    pub(super) organization: String,
    pub(super) owner: String,
    pub(super) only_disabled: bool,
    pub(super) page: String,
}

impl UserQuery {
    pub(super) fn read(fields: &Fields<'_>) -> Self {
        Self {
            organization: fields.get("organization").to_owned(),
            owner: fields.typed("owner"),
            only_disabled: !fields.get("disabled").is_empty(),
            page: fields.typed("page"),
        }
    }

    /// Returns whether any filter is set.
    pub(super) fn is_filtered(&self) -> bool {
        !self.organization.is_empty() || !self.owner.is_empty() || self.only_disabled
    }

    /// Returns the address of the list from the page with this token on.
    pub(super) fn at(&self, page: &str) -> String {
        let disabled = if self.only_disabled { "1" } else { "" };
        let pairs = [
            ("organization", &*self.organization),
            ("owner", &self.owner),
            ("disabled", disabled),
            ("page", page),
        ];
        let mut query = Serializer::new(String::new());
        query.extend_pairs(pairs.into_iter().filter(|(_, value)| !value.is_empty()));
        format!("/users?{}", query.finish())
    }

    /// Parses the filters.
    ///
    /// # Errors
    /// All that are not valid.
    pub(super) fn parse(&self) -> Result<UserListing, Problems> {
        let mut problems = Problems::default();
        let organization = optional(&self.organization, OrganizationId::parse);
        let organization_id = problems.take("organization", organization, "The organization");
        let kind = problems.take("owner", parse_kind(&self.owner), "The owner");
        match (organization_id, kind) {
            (Some(organization_id), Some(kind)) => {
                Ok(UserListing { organization_id, kind, only_disabled: self.only_disabled })
            }
            _ => Err(problems),
        }
    }

    /// Returns the commands that list the same.
    pub(super) fn lines(&self) -> Lines {
        let mut call = Call::new(&["user", "list", "--json"], "ListUsers")
            .text("organization", "organizationId", &self.organization)
            .owner_kind("kind", &self.owner);
        if self.only_disabled {
            call = call.flag("disabled", None).set("onlyDisabled", true.into());
        }
        call.lines()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::OwnerKind;

    #[test]
    fn what_stands_in_the_address_is_what_is_listed_and_stands_in_the_next_one() {
        let query = UserQuery::read(&Fields::read(b"organization=a+b&owner=service&disabled=1&x=y"));
        let listing = query.parse().unwrap();
        assert_eq!((listing.kind, listing.only_disabled), (Some(OwnerKind::Service), true));
        let next = query.at("abc");
        let again = UserQuery::read(&Fields::read(next.strip_prefix("/users?").unwrap().as_bytes()));
        assert_eq!((again.parse().unwrap(), &*again.page), (listing, "abc"));
        assert!(query.is_filtered() && !UserQuery::default().is_filtered());
        let line = "tokend user list --json --organization 'a b' --kind service --disabled";
        assert_eq!(query.lines().tokend, line);
        let wrong =
            UserQuery::read(&Fields::read(format!("owner=x&organization={}", "x".repeat(201)).as_bytes()));
        let problems = wrong.parse().unwrap_err();
        assert!(problems.of("owner").is_some() && problems.of("organization").is_some());
    }
}
