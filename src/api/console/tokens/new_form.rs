//! The form for a new token: as it was typed, or prefilled by the page's address, and what it asks for. Pure
//! functions, used by the page of the form and its template.

use super::expiration::ExpirationChoice;
use super::grant_form::GrantForm;
use super::terms::is_reserved;
use crate::api::console::commands::{Call, Lines};
use crate::api::console::form::{Fields, Problems};
use crate::api::console::owners::parse_kind;
use crate::api::console::pages::shortened;
use crate::domain::networks::MAX_NETWORKS;
use crate::domain::scope::MAX_SCOPES;
use crate::domain::{Labels, Network, Networks, OrganizationId, OwnerKind, Scope, Scopes, TokenName, UserId};
use crate::secret::{FormNonce, RequestId};
use crate::tokens::create::CreateToken;

/// The form as it was typed.
#[derive(Debug, Default, Clone)]
pub(super) struct NewForm {
    pub(super) nonce: String,
    pub(super) name: String,
    pub(super) user: String,
    /// The name of a kind of owner; empty: a person.
    pub(super) owner: String,
    pub(super) organization: String,
    pub(super) expiration_choice: ExpirationChoice,
    /// Those scopes that were ticked.
    pub(super) ticked: Vec<String>,
    /// Those that were typed.
    pub(super) scopes: String,
    /// Those reserved scopes that were ticked.
    pub(super) privileges: Vec<String>,
    pub(super) labels: String,
    pub(super) networks: String,
    pub(super) grant: GrantForm,
}

impl NewForm {
    pub(super) fn posted(fields: &Fields<'_>) -> Self {
        Self {
            nonce: fields.typed("form"),
            name: fields.typed("name"),
            user: fields.typed("user"),
            owner: fields.typed("owner"),
            organization: fields.typed("organization"),
            expiration_choice: ExpirationChoice::posted(fields),
            ticked: fields.all("scope").map(str::to_owned).collect(),
            scopes: fields.get("scopes").to_owned(),
            privileges: fields.all("privilege").map(str::to_owned).collect(),
            labels: fields.get("labels").to_owned(),
            networks: fields.get("networks").to_owned(),
            grant: GrantForm::posted(fields),
        }
    }

    /// Reads what an address fills in. It neither asks for a reserved scope nor chooses that the token never expires:
    /// the author of a link must not decide that.
    pub(super) fn prefilled(fields: &Fields<'_>) -> Self {
        let several = |name| fields.all(name).collect::<Vec<_>>().join("\n");
        let mut form = Self::posted(fields);
        form.ticked.retain(|scope| !is_reserved(scope));
        form.scopes.clear();
        form.labels = several("label");
        form.networks = several("network");
        form.privileges.clear();
        form.grant = GrantForm::default();
        if form.expiration_choice.choice == "never" {
            form.expiration_choice.choice.clear();
        }
        form
    }

    /// Moves those scopes into the text that there is nothing to tick for.
    pub(super) fn offer(&mut self, offered: &[String]) {
        let (ticked, typed): (Vec<_>, Vec<_>) =
            self.ticked.drain(..).partition(|scope| offered.contains(scope));
        self.ticked = ticked;
        let words = std::iter::once(self.scopes.trim().to_owned()).chain(typed);
        self.scopes = words.filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ");
    }

    pub(super) fn has_scope(&self, scope: &str) -> bool {
        self.ticked.iter().any(|found| found == scope)
    }

    pub(super) fn has_privilege(&self, word: &str) -> bool {
        self.privileges.iter().any(|found| found == word)
    }

    /// Returns whether a field that is folded away was filled in.
    pub(super) fn has_more(&self) -> bool {
        !self.labels.trim().is_empty()
            || !self.networks.trim().is_empty()
            || !self.privileges.is_empty()
            || self.grant.is_begun()
    }

    /// Returns what was chosen as the kind of owner.
    pub(super) fn kind(&self) -> OwnerKind {
        OwnerKind::from_word(&self.owner).unwrap_or_default()
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
        let kind = problems.take("owner", parse_kind(&self.owner), "The owner");
        let expiration = self.expiration_choice.required(&mut problems);
        let scopes = scopes(&self.words(), &mut problems);
        let labels = labels(&self.labels).map_err(|problem| problems.add("labels", problem)).ok();
        let allowed_cidrs =
            networks(&self.networks).map_err(|problem| problems.add("networks", problem)).ok();
        let grant = self.grant.parse(&mut problems);
        let request = (|| {
            Some(CreateToken {
                owner_kind: kind?.unwrap_or_default(),
                organization_id: organization_id?,
                user_id: user_id?,
                name: name?,
                expiration: expiration?,
                scopes: scopes?,
                labels: labels?,
                allowed_cidrs: allowed_cidrs?,
                grant: grant?,
                plan: None,
                request_id: Some(request_id),
            })
        })();
        request.filter(|_| problems.is_empty()).ok_or(problems)
    }

    /// Returns every scope that was ticked or typed.
    fn words(&self) -> Vec<&str> {
        let chosen = self.ticked.iter().chain(&self.privileges).map(String::as_str);
        words(&self.scopes).chain(chosen).collect()
    }

    /// Returns the commands equivalent to the form, with names in capitals for missing fields.
    pub(super) fn lines(&self) -> Lines {
        let or =
            |text: &str, missing: &str| if text.is_empty() { missing.to_owned() } else { text.to_owned() };
        let call = Call::new(&["token", "create"], "CreateToken")
            .text("name", "name", &or(&self.name, "NAME"))
            .text("user", "userId", &or(&self.user, "USER"))
            .text("organization", "organizationId", &self.organization);
        let scopes: Vec<String> = self.words().into_iter().map(str::to_owned).collect();
        let networks: Vec<String> = words(&self.networks).map(str::to_owned).collect();
        let labels = pairs(&self.labels).unwrap_or_default();
        let call = self.expiration_choice.said(call, "30d").texts("scope", "scopes", &scopes);
        let call = call.labels(&labels).texts("cidr", "allowedCidrs", &networks);
        let call = match self.kind() {
            OwnerKind::Service => call.flag("service", None).set("ownerKind", "OWNER_KIND_SERVICE".into()),
            _ => call,
        };
        self.grant.said(call).lines()
    }
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split([' ', ',', '\t', '\r', '\n']).filter(|word| !word.is_empty())
}

/// Parses scopes.
pub(super) fn scopes(words: &[&str], problems: &mut Problems) -> Option<Scopes> {
    if words.len() > MAX_SCOPES {
        problems.add("scopes", format!("A token has at most {MAX_SCOPES} scopes."));
        return None;
    }
    let mut scopes = Vec::new();
    for word in words {
        match Scope::parse(word) {
            Ok(scope) => scopes.push(scope),
            Err(error) => {
                let word = shortened(word, 100);
                problems.add("scopes", format!("The scope \u{2018}{word}\u{2019} {error}."));
                return None;
            }
        }
    }
    problems.take("scopes", Scopes::new(scopes), "This list of scopes")
}

/// Reads labels, one a line as `key=value`.
pub(super) fn labels(text: &str) -> Result<Labels, String> {
    let pairs = pairs(text).ok_or("Write each label on a line of its own, as in team=payments.")?;
    Labels::parse(pairs).map_err(|error| format!("This list {error}."))
}

fn pairs(text: &str) -> Option<Vec<(String, String)>> {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let pairs = lines.map(|line| {
        line.split_once('=').map(|(key, value)| (key.trim().to_owned(), value.trim().to_owned()))
    });
    pairs.collect()
}

/// Reads networks, one a line.
pub(super) fn networks(text: &str) -> Result<Networks, String> {
    let words: Vec<&str> = words(text).collect();
    if words.len() > MAX_NETWORKS {
        return Err(format!("A token has at most {MAX_NETWORKS} networks."));
    }
    let mut networks = Vec::new();
    for word in words {
        let parsed = Network::parse(word);
        let word = shortened(word, 50);
        networks.push(parsed.map_err(|error| format!("The network \u{2018}{word}\u{2019} {error}."))?);
    }
    Networks::new(networks).map_err(|error| format!("This list {error}."))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Expiration;

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
        let text = "name=ci&grant=1&grant_users=ada&scope=a:b&scope=c&expiration=never&privilege=tokend:root&scope=tokend:write&scopes=tokend:root";
        let mut form = NewForm::prefilled(&Fields::read(text.as_bytes()));
        form.offer(&["c".to_owned()]);
        assert_eq!((&*form.name, &*form.scopes, &*form.expiration_choice.choice), ("ci", "a:b", ""));
        assert!(
            form.has_scope("c")
                && !form.has_privilege("tokend:root")
                && !form.lines().tokend.contains("tokend:")
                && !form.grant.is_begun()
        );
        let preset = NewForm::prefilled(&Fields::read(b"expiration=30d"));
        assert_eq!(preset.expiration_choice.choice, "30d");
    }
}
