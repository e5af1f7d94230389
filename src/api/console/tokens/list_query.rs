//! The filters and the order of the list as they stand in its address, and what they mean. Pure functions, used by
//! the list and its template.

use form_urlencoded::Serializer;
use time::format_description::well_known::Iso8601;
use time::{Date, OffsetDateTime, Time};

use crate::api::console::form::{Fields, Problems, optional};
use crate::api::console::owners::parse_kind;
use crate::domain::page::{Listing, NamePart, Order};
use crate::domain::{FieldError, OrganizationId, TokenState, UserId};

/// The states, as the address and people call them.
pub(super) const STATES: [(&str, &str, TokenState); 4] = [
    ("active", "Active", TokenState::Active),
    ("disabled", "Disabled", TokenState::Disabled),
    ("expired", "Expired", TokenState::Expired),
    ("revoked", "Revoked", TokenState::Revoked),
];

/// The filters as they were typed.
#[derive(Debug, Default, Clone)]
pub(super) struct ListQuery {
    pub(super) name: String,
    pub(super) user: String,
    /// The name of a kind of owner.
    pub(super) owner: String,
    pub(super) organization: String,
    pub(super) states: Vec<String>,
    pub(super) created_after: String,
    pub(super) created_before: String,
    pub(super) expires_before: String,
    pub(super) unused_since: String,
    pub(super) refused_after: String,
    pub(super) never_used: bool,
    pub(super) order: String,
    pub(super) page: String,
}

impl ListQuery {
    pub(super) fn read(fields: &Fields<'_>) -> Self {
        Self {
            name: fields.typed("name"),
            user: fields.get("user").to_owned(),
            owner: fields.typed("owner"),
            organization: fields.get("organization").to_owned(),
            states: fields.all("state").filter(|state| !state.is_empty()).map(str::to_owned).collect(),
            created_after: fields.typed("created_after"),
            created_before: fields.typed("created_before"),
            expires_before: fields.typed("expires_before"),
            unused_since: fields.typed("unused_since"),
            refused_after: fields.typed("refused_after"),
            never_used: !fields.get("never_used").is_empty(),
            order: fields.typed("order"),
            page: fields.typed("page"),
        }
    }

    pub(super) fn has_state(&self, state: &str) -> bool {
        self.states.iter().any(|found| found == state)
    }

    pub(super) fn is_by_expiration(&self) -> bool {
        self.order == "expires"
    }

    /// Returns whether any filter is set.
    pub(super) fn is_filtered(&self) -> bool {
        !self.states.is_empty() || self.never_used || self.texts().iter().any(|(_, value)| !value.is_empty())
    }

    /// Returns whether one of the filters is set that are folded away.
    pub(super) fn has_dates(&self) -> bool {
        self.never_used || self.dates().iter().any(|(_, _, value)| !value.is_empty())
    }

    /// Returns the dates that can be filtered by: their fields, in words, and as typed.
    pub(super) fn dates(&self) -> [(&'static str, &'static str, &str); 5] {
        [
            ("created_after", "Created on or after", &self.created_after),
            ("created_before", "Created before", &self.created_before),
            ("expires_before", "Expires before", &self.expires_before),
            ("unused_since", "Unused since", &self.unused_since),
            ("refused_after", "Refused on or after", &self.refused_after),
        ]
    }

    /// Returns the address of the first page.
    pub(super) fn first(&self) -> String {
        self.at("")
    }

    /// Returns the address of this list from the page with this token on.
    pub(super) fn at(&self, page: &str) -> String {
        let mut query = Serializer::new(String::new());
        let given = |(_, value): &(&str, &String)| !value.is_empty();
        query.extend_pairs(self.texts().into_iter().filter(given));
        query.extend_pairs(self.states.iter().map(|state| ("state", state)));
        query.extend_pairs(self.never_used.then_some(("never_used", "1")));
        query.extend_pairs([("order", &self.order)].into_iter().filter(given));
        if !page.is_empty() {
            query.append_pair("page", page);
        }
        format!("/tokens?{}", query.finish())
    }

    /// Returns the address of this list's news.
    pub(super) fn live(&self) -> String {
        self.at("").replacen("/tokens?", "/tokens/live?", 1)
    }

    fn texts(&self) -> [(&'static str, &String); 9] {
        [
            ("name", &self.name),
            ("user", &self.user),
            ("owner", &self.owner),
            ("organization", &self.organization),
            ("created_after", &self.created_after),
            ("created_before", &self.created_before),
            ("expires_before", &self.expires_before),
            ("unused_since", &self.unused_since),
            ("refused_after", &self.refused_after),
        ]
    }

    /// Parses the filters.
    ///
    /// # Errors
    /// All that are not valid.
    pub(super) fn parse(&self) -> Result<Listing, Problems> {
        let mut problems = Problems::default();
        let name_contains = problems.take("name", optional(&self.name, NamePart::parse), "The name");
        let user_id = problems.take("user", optional(&self.user, UserId::parse), "The user");
        let owner_kind = problems.take("owner", parse_kind(&self.owner), "The owner");
        let organization_id = problems.take(
            "organization",
            optional(&self.organization, OrganizationId::parse),
            "The organization",
        );
        let mut day = |field, text| problems.take(field, optional(text, start_of_day), "The date");
        let created_after = day("created_after", &self.created_after);
        let created_before = day("created_before", &self.created_before);
        let expires_before = day("expires_before", &self.expires_before);
        let unused_since = day("unused_since", &self.unused_since);
        let refused_after = day("refused_after", &self.refused_after);
        let states = STATES.iter().filter(|(word, _, _)| self.has_state(word));
        let listing = (|| {
            Some(Listing {
                organization_id: organization_id?,
                user_id: user_id?,
                owner_kind: owner_kind?,
                states: states.map(|(_, _, state)| *state).collect(),
                created_after: created_after?,
                created_before: created_before?,
                expires_before: expires_before?,
                unused_since: unused_since?,
                refused_after: refused_after?,
                never_used: self.never_used,
                name_contains: name_contains?,
                order: if self.is_by_expiration() { Order::ExpireTime } else { Order::CreateTimeDescending },
            })
        })();
        listing.filter(|_| problems.is_empty()).ok_or(problems)
    }
}

/// Parses a date as browsers send it, and returns its beginning in UTC.
pub(super) fn start_of_day(text: &str) -> Result<OffsetDateTime, FieldError> {
    const NONE: FieldError = FieldError::Rule("is not a date such as 2026-12-31");
    let date = Date::parse(text, &Iso8601::DATE).ok().filter(|date| (1..=9999).contains(&date.year()));
    Ok(date.filter(|_| text.len() == 10).ok_or(NONE)?.with_time(Time::MIDNIGHT).assume_utc())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_in_the_address_is_what_is_listed_and_stands_in_the_next_one() {
        let text = "name=lap&user=ada+l&owner=service&state=active&state=revoked&expires_before=2026-12-31&refused_after=2026-01-01&never_used=1&order=expires&x=y";
        let query = ListQuery::read(&Fields::read(text.as_bytes()));
        let listing = query.parse().unwrap();
        assert_eq!(listing.states, [TokenState::Active, TokenState::Revoked]);
        assert_eq!(listing.order, Order::ExpireTime);
        assert_eq!(listing.owner_kind, Some(crate::domain::OwnerKind::Service));
        assert_eq!(listing.expires_before, Some(time::macros::datetime!(2026-12-31 00:00 UTC)));
        assert_eq!(listing.refused_after, Some(time::macros::datetime!(2026-01-01 00:00 UTC)));
        assert!(listing.never_used);
        let next = query.at("abc");
        let again = ListQuery::read(&Fields::read(next.strip_prefix("/tokens?").unwrap().as_bytes()));
        assert_eq!((again.parse().unwrap(), &*again.page), (listing, "abc"));
        assert!(query.is_filtered() && query.has_dates() && !ListQuery::default().is_filtered());
    }

    #[test]
    fn every_filter_that_is_not_valid_is_named() {
        let long = "x".repeat(201);
        let text = format!("name={long}&user={long}&owner=x&created_after=yesterday&unused_since=2026-02-30");
        let query = ListQuery::read(&Fields::read(text.as_bytes()));
        let problems = query.parse().unwrap_err();
        let fields: Vec<_> = problems.all().iter().map(|(field, _)| *field).collect();
        assert_eq!(fields, ["name", "user", "owner", "created_after", "unused_since"]);
    }
}
