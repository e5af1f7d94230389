//! What a page says of the act that led to it, in its address: signed for the session, so that a link from
//! elsewhere cannot have the console say that a token is refused. Called by the pages that act.

use form_urlencoded::Serializer;
use time::OffsetDateTime;

use crate::api::console::form::Fields;
use crate::api::console::moments::{machine, to_the_millisecond};
use crate::api::console::session::visit::Visit;

/// What was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::api::console) enum Act {
    Revoked,
    Disabled,
    Enabled,
    Changed,
    Rotated,
}

impl Act {
    const ALL: [(Self, &'static str); 5] = [
        (Self::Revoked, "revoked"),
        (Self::Disabled, "disabled"),
        (Self::Enabled, "enabled"),
        (Self::Changed, "changed"),
        (Self::Rotated, "rotated"),
    ];

    /// Returns the act of this name.
    pub(in crate::api::console) fn named(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|(_, name)| *name == word).map(|(act, _)| act)
    }

    pub(in crate::api::console) fn word(self) -> &'static str {
        Self::ALL.into_iter().find(|(act, _)| *act == self).map_or("", |(_, word)| word)
    }

    /// Says what holds from the effective time on.
    fn says(self) -> &'static str {
        match self {
            Self::Revoked | Self::Disabled => "Refused everywhere from",
            Self::Enabled => "Accepted everywhere from",
            Self::Changed => "Saved. Every replica judges by it from",
            Self::Rotated => "The old token is refused everywhere from",
        }
    }
}

/// What a page says of an act.
#[derive(Debug, Clone)]
pub(in crate::api::console) struct Notice {
    pub(in crate::api::console) says: &'static str,
    /// From when on it holds everywhere: for people, and for machines.
    pub(in crate::api::console) effective: (String, String),
    /// The server's time, by which the page counts down.
    pub(in crate::api::console) now: String,
}

/// Returns the path with the notice of an act on `what` added to its query.
pub(in crate::api::console) fn address(
    visit: &Visit,
    path: &str,
    act: Act,
    what: &str,
    effective: OffsetDateTime,
) -> String {
    let micros = effective.unix_timestamp_nanos() / 1_000;
    let signed = text(act, what, micros);
    let mut query = Serializer::new(String::new());
    query.append_pair("done", act.word());
    query.append_pair("from", &micros.to_string());
    query.append_pair("sign", &visit.key.sign_notice(&signed));
    let joint = if path.contains('?') { '&' } else { '?' };
    format!("{path}{joint}{}", query.finish())
}

/// Reads the notice of an act on `what`; `None` if there is none, or it is not this session's.
pub(in crate::api::console) fn read(visit: &Visit, fields: &Fields<'_>, what: &str) -> Option<(Act, Notice)> {
    let act = Act::named(fields.get("done"))?;
    let micros: i128 = fields.get("from").parse().ok()?;
    if !visit.key.accepts_notice(&text(act, what, micros), fields.get("sign")) {
        return None;
    }
    let effective = OffsetDateTime::from_unix_timestamp_nanos(micros.checked_mul(1_000)?).ok()?;
    let effective = (to_the_millisecond(effective), machine(effective));
    Some((act, Notice { says: act.says(), effective, now: machine(visit.now) }))
}

fn text(act: Act, what: &str, micros: i128) -> String {
    format!("{} {micros} {what}", act.word())
}
