//! The filters of the audit log as they stand in its address, and what they mean. Pure functions, used by its page,
//! its export and its template.

use form_urlencoded::Serializer;
use time::macros::format_description;
use time::{OffsetDateTime, PrimitiveDateTime};

use crate::api::console::commands::{Call, Lines};
use crate::api::console::form::{Fields, Problems, optional};
use crate::api::console::owners::parse_kind;
use crate::domain::event::{Actor, EventKind};
use crate::domain::{FieldError, OrganizationId, UserId};
use crate::secret::TokenId;
use crate::tokens::events::ListEvents;

/// The kinds, as the address and people call them.
pub(super) const KINDS: [(EventKind, &str); 10] = [
    (EventKind::Created, "Created"),
    (EventKind::Updated, "Changed"),
    (EventKind::Rotated, "Rotated"),
    (EventKind::Revoked, "Revoked"),
    (EventKind::Disabled, "Disabled"),
    (EventKind::Enabled, "Enabled"),
    (EventKind::ExpiresSoon, "Expires soon"),
    (EventKind::Purged, "Deleted"),
    (EventKind::UserDisabled, "User disabled"),
    (EventKind::UserEnabled, "User enabled"),
];

/// The filters as they were typed.
#[derive(Debug, Default, Clone)]
pub(super) struct AuditQuery {
    pub(super) user: String,
    pub(super) owner: String,
    pub(super) organization: String,
    pub(super) token: String,
    pub(super) actor: String,
    pub(super) kinds: Vec<String>,
    pub(super) from: String,
    pub(super) until: String,
    pub(super) page: String,
}

impl AuditQuery {
    pub(super) fn read(fields: &Fields<'_>) -> Self {
        Self {
            user: fields.get("user").to_owned(),
            owner: fields.get("owner").to_owned(),
            organization: fields.get("organization").to_owned(),
            token: fields.typed("token"),
            actor: fields.get("actor").to_owned(),
            kinds: fields.all("kind").filter(|kind| !kind.is_empty()).map(str::to_owned).collect(),
            from: fields.typed("from"),
            until: fields.typed("until"),
            page: fields.typed("page"),
        }
    }

    pub(super) fn has_kind(&self, word: &str) -> bool {
        self.kinds.iter().any(|found| found == word)
    }

    /// Returns whether any filter is set.
    pub(super) fn is_filtered(&self) -> bool {
        !self.kinds.is_empty() || self.texts().iter().any(|(_, value)| !value.is_empty())
    }

    /// Returns the address of the log from the page with this token on.
    pub(super) fn at(&self, page: &str) -> String {
        let mut query = self.serialized();
        if !page.is_empty() {
            query.append_pair("page", page);
        }
        format!("/audit?{}", query.finish())
    }

    /// Returns the address of the export.
    pub(super) fn export(&self) -> String {
        format!("/audit/events.jsonl?{}", self.serialized().finish())
    }

    /// Returns the commands that list the same.
    pub(super) fn lines(&self) -> Lines {
        let call = Call::new(&["audit", "list", "--json"], "ListTokenEvents")
            .text("user", "userId", &self.user)
            .text("organization", "organizationId", &self.organization)
            .text("token", "tokenId", &self.token)
            .text("by", "actor", &self.actor)
            .text("since", "occurredAfter", &utc(&self.from))
            .text("until", "occurredBefore", &utc(&self.until));
        let call = self.kinds.iter().fold(call, |call, kind| call.flag("event", Some(kind)));
        let call = call.owner_kind("owner-kind", &self.owner);
        let names = self.kinds.iter().map(|kind| format!("TOKEN_EVENT_KIND_{}", kind.to_uppercase()));
        let names: Vec<String> = names.collect();
        if names.is_empty() { call.lines() } else { call.set("kinds", names.into()).lines() }
    }

    fn serialized(&self) -> Serializer<'static, String> {
        let mut query = Serializer::new(String::new());
        query.extend_pairs(self.texts().into_iter().filter(|(_, value)| !value.is_empty()));
        query.extend_pairs(self.kinds.iter().map(|kind| ("kind", kind)));
        query
    }

    fn texts(&self) -> [(&'static str, &String); 7] {
        [
            ("user", &self.user),
            ("owner", &self.owner),
            ("organization", &self.organization),
            ("token", &self.token),
            ("actor", &self.actor),
            ("from", &self.from),
            ("until", &self.until),
        ]
    }

    /// Parses the filters, for pages of this size.
    ///
    /// # Errors
    /// All that are not valid.
    pub(super) fn parse(&self, page_size: u32) -> Result<ListEvents, Problems> {
        const NO_ID: FieldError = FieldError::Rule("is not an id of 22 characters");
        const NO_KIND: FieldError = FieldError::Rule("is not one of these");
        let mut problems = Problems::default();
        let user_id = problems.take("user", optional(&self.user, UserId::parse), "The user");
        let owner_kind = problems.take("owner", parse_kind(&self.owner), "The owner");
        let organization_id = problems.take(
            "organization",
            optional(&self.organization, OrganizationId::parse),
            "The organization",
        );
        let id = |text: &str| TokenId::parse(text).map_err(|_| NO_ID);
        let token_id = problems.take("token", optional(&self.token, id), "The token");
        let actor = problems.take("actor", optional(&self.actor, Actor::parse), "The actor");
        let kinds: Option<Vec<_>> = self.kinds.iter().map(|word| EventKind::from_word(word)).collect();
        let kinds = problems.take("kind", kinds.ok_or(NO_KIND), "The event");
        let occurred_after = problems.take("from", optional(&self.from, moment), "The time");
        let occurred_before = problems.take("until", optional(&self.until, moment), "The time");
        let request = (|| {
            Some(ListEvents {
                organization_id: organization_id?,
                token_id: token_id?,
                user_id: user_id?,
                owner_kind: owner_kind?,
                occurred_after: occurred_after?,
                occurred_before: occurred_before?,
                actor: actor?,
                kinds: kinds?,
                page_size,
                page_token: Some(self.page.clone()).filter(|text| !text.is_empty()),
            })
        })();
        request.filter(|_| problems.is_empty()).ok_or(problems)
    }
}

/// Returns a moment as browsers send it in RFC 3339.
fn utc(text: &str) -> String {
    match text.len() {
        0 => String::new(),
        10 => format!("{text}T00:00:00Z"),
        16 => format!("{text}:00Z"),
        _ => format!("{text}Z"),
    }
}

/// Parses a moment in UTC as browsers send it, with or without seconds, or a day.
fn moment(text: &str) -> Result<OffsetDateTime, FieldError> {
    const NONE: FieldError = FieldError::Rule("is not a time such as 2026-12-31T18:30");
    let forms = [(10, "T00:00:00"), (16, ":00"), (19, "")];
    let (_, rest) = forms.into_iter().find(|(length, _)| *length == text.len()).ok_or(NONE)?;
    let form = format_description!("[year]-[month]-[day]T[hour]:[minute]:[second]");
    let parsed = PrimitiveDateTime::parse(&format!("{text}{rest}"), form).map_err(|_| NONE)?;
    if (1..=9999).contains(&parsed.year()) { Ok(parsed.assume_utc()) } else { Err(NONE) }
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;
    use crate::domain::OwnerKind;

    #[test]
    fn what_stands_in_the_address_is_what_is_listed_and_exported() {
        let text = "user=ada+l&owner=service&kind=revoked&kind=created&actor=tokend&from=2026-12-01&until=2026-12-31T18:30&x=y";
        let query = AuditQuery::read(&Fields::read(text.as_bytes()));
        let request = query.parse(25).unwrap();
        assert_eq!(request.kinds, [EventKind::Revoked, EventKind::Created]);
        assert_eq!(request.occurred_after, Some(datetime!(2026-12-01 00:00 UTC)));
        assert_eq!(request.occurred_before, Some(datetime!(2026-12-31 18:30 UTC)));
        for address in [query.at("abc"), query.export()] {
            let (_, found) = address.split_once('?').unwrap();
            let again = AuditQuery::read(&Fields::read(found.as_bytes()));
            assert_eq!(format!("{:?}", again.parse(25).unwrap().kinds), format!("{:?}", request.kinds));
            assert_eq!(again.user, "ada l");
            assert_eq!(again.parse(25).unwrap().owner_kind, Some(OwnerKind::Service));
        }
        assert!(query.is_filtered() && !AuditQuery::default().is_filtered());
        let Lines { tokend, grpcurl } = query.lines();
        let flags = "--user 'ada l' --by tokend --since 2026-12-01T00:00:00Z --until 2026-12-31T18:30:00Z \
                     --event revoked --event created --owner-kind service";
        assert_eq!(tokend, format!("tokend audit list --json {flags}"));
        assert!(
            grpcurl.contains(r#""kinds":["TOKEN_EVENT_KIND_REVOKED","TOKEN_EVENT_KIND_CREATED"]"#),
            "{grpcurl}"
        );
        assert!(grpcurl.contains(r#""ownerKind":"OWNER_KIND_SERVICE""#), "{grpcurl}");
    }

    #[test]
    fn every_filter_that_is_not_valid_is_named() {
        let text = "owner=x&token=x&actor=somebody&kind=burned&from=soon&until=2026-02-30T10:00";
        let problems = AuditQuery::read(&Fields::read(text.as_bytes())).parse(25).unwrap_err();
        let fields: Vec<_> = problems.all().iter().map(|(field, _)| *field).collect();
        assert_eq!(fields, ["owner", "token", "actor", "kind", "from", "until"]);
    }
}
