//! The page of a policy, and the template that lays it out.

use askama::Template;

use super::form::PolicyForm;
use crate::api::console::commands::Lines;
use crate::api::console::form::Problems;
use crate::api::console::moments::{Moment, exact};
use crate::api::console::pages::{Frame, visible};
use crate::domain::Scope;
use crate::domain::enforcement::{Breach, Remedy};
use crate::domain::policy::Rule;

/// How many tokens that break a policy are shown.
const BREACHES: usize = 25;

/// A policy, and the tokens that break it.
#[derive(Template)]
#[template(path = "policy/edit.html")]
pub(super) struct Edit {
    pub(super) frame: Frame,
    pub(super) form: PolicyForm,
    /// The organization as it is shown.
    pub(super) organization: String,
    pub(super) problems: Problems,
    /// Whether organizations can be chosen.
    pub(super) organizations: bool,
    pub(super) may_save: bool,
    /// Who set the stored policy, and when.
    pub(super) set: Option<(String, Moment)>,
    pub(super) outcome: Option<(&'static str, &'static str)>,
    /// The commands that read the stored policy.
    pub(super) lines: Lines,
    /// What was found when the policy in the form was checked.
    pub(super) check: Option<Check>,
    /// Whether the secret is asked for once more.
    pub(super) proof: bool,
}

/// What a policy would do to the tokens that there are.
pub(super) struct Check {
    pub(super) breaches: Vec<BreachView>,
    /// Whether more break it than are shown.
    pub(super) more: bool,
    pub(super) lines: Lines,
}

/// A token that breaks a policy.
pub(super) struct BreachView {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) user: String,
    pub(super) rules: Vec<&'static str>,
    pub(super) remedy: String,
}

impl Check {
    pub(super) fn new(breaches: &[Breach], more: bool, lines: Lines) -> Self {
        let shown = breaches.iter().take(BREACHES).map(BreachView::new);
        Self { breaches: shown.collect(), more: more || breaches.len() > BREACHES, lines }
    }
}

impl BreachView {
    fn new(breach: &Breach) -> Self {
        let remedy = match &breach.remedy {
            Remedy::Revoke(_) => "is revoked".to_owned(),
            Remedy::Narrow { expire_time, scopes } => {
                let end = expire_time.map(|time| format!("expires at {}", exact(time)));
                let loses = scopes.iter().map(Scope::as_str).collect::<Vec<_>>().join(" ");
                let loses = Some(loses).filter(|text| !text.is_empty()).map(|text| format!("loses {text}"));
                end.into_iter().chain(loses).collect::<Vec<_>>().join(", ")
            }
        };
        Self {
            id: breach.token.id.to_string(),
            name: visible(breach.token.name.as_str()),
            user: visible(breach.token.user_id.as_str()),
            rules: breach.rules.iter().map(|rule| rule_text(*rule)).collect(),
            remedy,
        }
    }
}

fn rule_text(rule: Rule) -> &'static str {
    match rule {
        Rule::ExpirationRequired => "it never expires",
        Rule::LongestLifetime => "it lives too long",
        Rule::LongestGrace => "it lives too long after its rotation",
        Rule::MostActiveTokens => "its user has too many",
        Rule::PlanRequired => "it has no plan",
        Rule::AllowedScopes => "its scopes are not allowed",
        _ => "another rule",
    }
}
