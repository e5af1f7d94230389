//! The form for a new token: as it was typed, or prefilled by the page's address, and what it asks for. Pure
//! functions, used by the page of the form and its template.

use time::format_description::well_known::Iso8601;
use time::{Duration, OffsetDateTime, Time};

use super::list_query::start_of_day;
use crate::api::console::form::{Fields, Problems};
use crate::domain::networks::MAX_NETWORKS;
use crate::domain::scope::MAX_SCOPES;
use crate::domain::{
    Expiration, FieldError, Labels, Network, Networks, OrganizationId, Scope, Scopes, TokenName, UserId,
};
use crate::secret::{FormNonce, RequestId};
use crate::tokens::create::CreateToken;

/// The lifetimes to choose from: in the form, in words, in days.
pub(super) const PRESETS: [(&str, &str, i64); 5] = [
    ("7d", "7 days", 7),
    ("30d", "30 days", 30),
    ("60d", "60 days", 60),
    ("90d", "90 days", 90),
    ("365d", "365 days", 365),
];

/// The form as it was typed.
#[derive(Debug, Default, Clone)]
pub(super) struct NewForm {
    pub(super) nonce: String,
    pub(super) name: String,
    pub(super) user: String,
    pub(super) organization: String,
    /// A preset, `date`, `never`, or nothing yet.
    pub(super) expiration: String,
    pub(super) date: String,
    pub(super) time: String,
    pub(super) scopes: String,
    /// Those reserved scopes that were ticked.
    pub(super) privileges: Vec<String>,
    pub(super) labels: String,
    pub(super) networks: String,
}

impl NewForm {
    pub(super) fn posted(fields: &Fields<'_>) -> Self {
        Self {
            nonce: fields.typed("form"),
            name: fields.typed("name"),
            user: fields.typed("user"),
            organization: fields.typed("organization"),
            expiration: fields.typed("expiration"),
            date: fields.typed("date"),
            time: fields.typed("time"),
            scopes: fields.get("scopes").to_owned(),
            privileges: fields.all("privilege").map(str::to_owned).collect(),
            labels: fields.get("labels").to_owned(),
            networks: fields.get("networks").to_owned(),
        }
    }

    /// Reads what an address fills in. It neither ticks a reserved scope nor chooses that the token never expires:
    /// the author of a link must not decide that.
    pub(super) fn prefilled(fields: &Fields<'_>) -> Self {
        let several = |name| fields.all(name).collect::<Vec<_>>().join("\n");
        let mut form = Self::posted(fields);
        form.scopes = fields.all("scope").collect::<Vec<_>>().join(" ");
        form.labels = several("label");
        form.networks = several("network");
        form.privileges.clear();
        if form.expiration == "never" {
            form.expiration.clear();
        }
        form
    }

    pub(super) fn has_privilege(&self, word: &str) -> bool {
        self.privileges.iter().any(|found| found == word)
    }

    /// Returns whether a field that is folded away was filled in.
    pub(super) fn has_more(&self) -> bool {
        !self.labels.trim().is_empty() || !self.networks.trim().is_empty() || !self.privileges.is_empty()
    }

    /// Returns the form's nonce.
    pub(super) fn nonce(&self) -> Option<FormNonce> {
        FormNonce::parse(&self.nonce)
    }

    /// Parses the form.
    ///
    /// # Errors
    /// Every field that is not valid.
    pub(super) fn request(&self, request_id: RequestId) -> Result<CreateToken, Problems> {
        let mut problems = Problems::default();
        let name = problems.take("name", TokenName::parse(&self.name), "The name");
        let user_id = problems.take("user", UserId::parse(&self.user), "The user");
        let organization_id = if self.organization.is_empty() {
            Some(None)
        } else {
            let parsed = OrganizationId::parse(&self.organization).map(Some);
            problems.take("organization", parsed, "The organization")
        };
        let expiration = self.expiration(&mut problems);
        let scopes = self.scopes(&mut problems);
        let labels = labels(&self.labels).map_err(|problem| problems.add("labels", problem)).ok();
        let allowed_cidrs =
            networks(&self.networks).map_err(|problem| problems.add("networks", problem)).ok();
        let request = (|| {
            Some(CreateToken {
                organization_id: organization_id?,
                user_id: user_id?,
                name: name?,
                expiration: expiration?,
                scopes: scopes?,
                labels: labels?,
                allowed_cidrs: allowed_cidrs?,
                request_id: Some(request_id),
            })
        })();
        request.filter(|_| problems.is_empty()).ok_or(problems)
    }

    fn expiration(&self, problems: &mut Problems) -> Option<Expiration> {
        let preset = PRESETS.iter().find(|(word, _, _)| *word == self.expiration);
        match (&*self.expiration, preset) {
            (_, Some((_, _, days))) => Some(Expiration::After(Duration::days(*days))),
            ("never", _) => Some(Expiration::Never),
            ("date", _) => {
                problems.take("date", moment(&self.date, &self.time), "The date").map(Expiration::At)
            }
            _ => {
                problems.add("expiration", "Choose when the token expires, or that it never does.");
                None
            }
        }
    }

    fn scopes(&self, problems: &mut Problems) -> Option<Scopes> {
        let words = self.scopes.split([' ', ',', '\t', '\r', '\n']).filter(|word| !word.is_empty());
        let words: Vec<&str> = words.chain(self.privileges.iter().map(String::as_str)).collect();
        if words.len() > MAX_SCOPES {
            problems.add("scopes", format!("A token has at most {MAX_SCOPES} scopes."));
            return None;
        }
        let mut scopes = Vec::new();
        for word in words {
            match Scope::parse(word) {
                Ok(scope) => scopes.push(scope),
                Err(error) => {
                    let word: String = word.chars().take(100).collect();
                    problems.add("scopes", format!("The scope \u{2018}{word}\u{2019} {error}."));
                    return None;
                }
            }
        }
        problems.take("scopes", Scopes::new(scopes), "This list of scopes")
    }
}

/// Returns the moment of a date and a time of day in UTC; without a time, the last minute of the day.
fn moment(date: &str, time: &str) -> Result<OffsetDateTime, FieldError> {
    const NO_TIME: FieldError = FieldError::Rule("has a time that is not one such as 18:30");
    if date.is_empty() {
        return Err(FieldError::Rule("is missing: choose one"));
    }
    let day = start_of_day(date)?;
    let time = if time.is_empty() { "23:59" } else { time };
    let time = Time::parse(time, &Iso8601::TIME).map_err(|_| NO_TIME)?;
    Ok(day.replace_time(time))
}

/// Reads labels, one a line as `key=value`.
fn labels(text: &str) -> Result<Labels, String> {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let pairs = lines.map(|line| {
        line.split_once('=').map(|(key, value)| (key.trim().to_owned(), value.trim().to_owned()))
    });
    let pairs: Option<Vec<_>> = pairs.collect();
    let pairs = pairs.ok_or("Write each label on a line of its own, as in team=payments.")?;
    Labels::parse(pairs).map_err(|error| format!("This list {error}."))
}

/// Reads networks, one a line.
fn networks(text: &str) -> Result<Networks, String> {
    let words: Vec<&str> = text.split([' ', ',', '\t', '\r', '\n']).filter(|word| !word.is_empty()).collect();
    if words.len() > MAX_NETWORKS {
        return Err(format!("A token has at most {MAX_NETWORKS} networks."));
    }
    let mut networks = Vec::new();
    for word in words {
        let parsed = Network::parse(word);
        let word: String = word.chars().take(50).collect();
        networks.push(parsed.map_err(|error| format!("The network \u{2018}{word}\u{2019} {error}."))?);
    }
    Networks::new(networks).map_err(|error| format!("This list {error}."))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> NewForm {
        NewForm::posted(&Fields::read(text.as_bytes()))
    }

    fn request_id() -> RequestId {
        RequestId::parse("0f1e2d3c-4b5a-4697-8899-aabbccddeeff").unwrap()
    }

    #[test]
    fn a_form_asks_for_what_was_typed() {
        let form = read(
            "form=x&name=+laptop+&user=ada&expiration=date&date=2026-12-31&time=18:30&scopes=a:b,+c:*%0d%0ad\
             &privilege=tokend:read&labels=team+%3D+payments%0d%0a&networks=10.0.0.0/8+192.0.2.1/32",
        );
        let request = form.request(request_id()).unwrap();
        assert_eq!(request.name.as_str(), "laptop");
        let end = time::macros::datetime!(2026-12-31 18:30 UTC);
        assert!(matches!(request.expiration, Expiration::At(at) if at == end));
        let scopes: Vec<_> = request.scopes.iter().map(Scope::as_str).collect();
        assert_eq!(scopes, ["a:b", "c:*", "d", "tokend:read"]);
        assert_eq!(request.labels.iter().collect::<Vec<_>>(), [("team", "payments")]);
        assert_eq!(request.allowed_cidrs.iter().count(), 2);
    }

    #[test]
    fn every_field_that_is_not_valid_is_named_at_once() {
        let form = read("form=x&name=&user=&scopes=UPPER&labels=x&networks=10.0.0.1/8");
        let problems = form.request(request_id()).unwrap_err();
        let fields: Vec<_> = problems.all().iter().map(|(field, _)| *field).collect();
        assert_eq!(fields, ["name", "user", "expiration", "scopes", "labels", "networks"]);
        let form = read("name=n&user=u&expiration=date&date=2026-13-01");
        assert!(form.request(request_id()).unwrap_err().of("date").is_some());
    }

    #[test]
    fn a_link_fills_in_a_form_and_decides_nothing() {
        let text = "name=ci&scope=a:b&scope=c&expiration=never&privilege=tokend:root";
        let form = NewForm::prefilled(&Fields::read(text.as_bytes()));
        assert_eq!((&*form.name, &*form.scopes, &*form.expiration), ("ci", "a:b c", ""));
        assert!(!form.has_privilege("tokend:root"));
        let preset = NewForm::prefilled(&Fields::read(b"expiration=30d"));
        assert_eq!(preset.expiration, "30d");
    }
}
