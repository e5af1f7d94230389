//! "Why?": the verdict on a token that is used with some scopes from some address, and the rule that decided. Judged by
//! the engine itself, as for Verify. A secret that is typed is shown nowhere, and its use does not count.

use axum::http::StatusCode;
use axum::response::Response;

use super::pages::{Explain, Owner, RuleView, VerdictView};
use crate::api::console::commands::{Call, Lines};
use crate::api::console::failure::Failure;
use crate::api::console::form::{Fields, Problems};
use crate::api::console::interface::{Console, PageRequest};
use crate::api::console::session::visit::Visit;
use crate::domain::networks::parse_address;
use crate::domain::{Permission, Scope, Scopes, Token, Verdict};
use crate::secret::{Secret, TokenId};
use crate::tokens::ActionError;
use crate::verify::{Criteria, Verification};

/// The rules in the order in which they are judged, with the verdict of the first that is broken.
const RULES: [(Verdict, &str); 7] = [
    (Verdict::Malformed, "It is the text of a secret, or an id"),
    (Verdict::NotFound, "A token that you can see has it"),
    (Verdict::Revoked, "The token is not revoked"),
    (Verdict::Expired, "It has not expired"),
    (Verdict::Disabled, "It is not disabled"),
    (Verdict::MissingScope, "It has every scope that is asked for"),
    (Verdict::IpNotAllowed, "It may be used from the address"),
];

/// Shows the form; the address may name a token by its id.
pub(super) async fn ask(console: &Console, page_request: &PageRequest) -> Result<Response, Failure> {
    let visit = console.visit(page_request).await?;
    visit.caller().require(Permission::ReadAll)?;
    console.page(&visit, StatusCode::OK, &page(&visit, &page_request.query(), Problems::default()))
}

/// Returns the form with what was typed, but for a secret.
fn page(visit: &Visit, fields: &Fields<'_>, problems: Problems) -> Explain {
    Explain {
        frame: visit.frame(),
        token: TokenId::parse(fields.get("token").trim()).map(|id| id.to_string()).unwrap_or_default(),
        scopes: fields.typed("scopes"),
        address: fields.typed("address"),
        problems,
        verdict: None,
        lines: lines(&Scopes::default(), ""),
    }
}

/// Judges.
pub(super) async fn judge(console: &Console, page_request: &PageRequest) -> Result<Response, Failure> {
    let visit = console.visit(page_request).await?;
    let fields = page_request.form();
    visit.check_form(&fields)?;
    visit.caller().require(Permission::ReadAll)?;
    let mut problems = Problems::default();
    let words = fields.get("scopes").split([' ', ',', '\t', '\r', '\n']).filter(|word| !word.is_empty());
    let parsed: Result<Vec<Scope>, _> = words.map(Scope::parse).collect();
    let required = problems.take("scopes", parsed.and_then(Scopes::new), "This list of scopes");
    let address = fields.typed("address");
    let client_ip =
        Some(address).filter(|text| !text.is_empty()).map(|text| parse_address(&text)).transpose();
    let client_ip = problems.take("address", client_ip, "The address");
    let presented = fields.get("token").trim();
    if presented.is_empty() {
        problems.add("token", "Paste a secret, or the id of a token.");
    }
    let (Some(required), Some(client_ip), true) = (required, client_ip, problems.is_empty()) else {
        return console.page(&visit, StatusCode::BAD_REQUEST, &page(&visit, &fields, problems));
    };
    let criteria = Criteria {
        required: &required,
        reach: visit.caller().reach(),
        client_ip,
        charged_to: visit.share(),
        cost: 0,
        limit: None,
    };
    let engine = &console.integrations.context.engine;
    let id = TokenId::parse(presented).or_else(|error| {
        Secret::parse(presented, &console.prefix).map(|secret| secret.id()).map_err(|_| error)
    });
    let verification = engine.explain(presented, &criteria).await?;
    let token = match (id, &verification.token) {
        (Ok(id), Some(_)) => match console.integrations.context.actions.get_token(visit.caller(), id).await {
            Ok((token, now)) => Some((token, now)),
            Err(ActionError::NotFound) => None,
            Err(error) => return Err(error.into()),
        },
        _ => None,
    };
    let found = token.as_ref().map(|(token, _)| token);
    let mut page = page(&visit, &fields, Problems::default());
    page.verdict = Some(VerdictView {
        accepted: verification.verdict == Verdict::Valid,
        word: in_words(verification.verdict),
        rules: rules(&verification, found, &criteria),
        token: token.as_ref().map(|(token, now)| (token.id.to_string(), Owner::new(token, *now))),
    });
    page.lines = lines(&required, &page.address);
    console.page(&visit, StatusCode::OK, &page)
}

/// Returns how each rule ended: those before the one that decided are met, those after it were not looked at.
fn rules(verification: &Verification, token: Option<&Token>, criteria: &Criteria<'_>) -> Vec<RuleView> {
    let decided = RULES.iter().position(|(verdict, _)| *verdict == verification.verdict);
    let rules = RULES.iter().enumerate().map(|(place, (verdict, name))| {
        let outcome = match decided {
            Some(decided) if place == decided => ("No", "bad"),
            Some(decided) if place > decided => ("Not looked at", "off"),
            _ => ("Yes", "good"),
        };
        let detail = if outcome.0 == "Not looked at" {
            String::new()
        } else {
            token.map_or_else(String::new, |token| detail(*verdict, verification, token, criteria))
        };
        RuleView { name, outcome, detail }
    });
    rules.collect()
}

/// Returns what a rule was judged by.
fn detail(verdict: Verdict, verification: &Verification, token: &Token, criteria: &Criteria<'_>) -> String {
    use crate::api::console::moments::exact;
    use crate::api::console::pages::visible;
    let list = |texts: Vec<String>, none: &str| {
        if texts.is_empty() { none.to_owned() } else { texts.join(" ") }
    };
    match verdict {
        Verdict::Revoked => match (token.revoke_time, &token.revoke_reason) {
            (Some(time), Some(reason)) => format!("Since {}: {}", exact(time), visible(reason.as_str())),
            (Some(time), None) => format!("Since {}", exact(time)),
            (None, _) => String::new(),
        },
        Verdict::Expired => token
            .expire_time
            .map_or_else(|| "It never expires".to_owned(), |end| format!("At {}", exact(end))),
        Verdict::Disabled => {
            let whose = if token.user_disable_time.is_some() { "Its user is, since" } else { "Since" };
            let since = token.user_disable_time.or(token.disable_time);
            since.map_or_else(String::new, |time| format!("{whose} {}", exact(time)))
        }
        Verdict::MissingScope => {
            let texts = |scopes: &[Scope]| scopes.iter().map(|scope| scope.as_str().to_owned()).collect();
            if verification.missing_scopes.is_empty() {
                let has = token.scopes.iter().map(|scope| scope.as_str().to_owned()).collect();
                format!("It has: {}", list(has, "none"))
            } else {
                format!("It lacks: {}", list(texts(&verification.missing_scopes), "none"))
            }
        }
        Verdict::IpNotAllowed => {
            let networks: Vec<String> = token.allowed_cidrs.iter().map(ToString::to_string).collect();
            let from =
                criteria.client_ip.map_or_else(|| "an unknown address".to_owned(), |ip| ip.to_string());
            if networks.is_empty() {
                "It may be used from anywhere".to_owned()
            } else {
                format!("Used from {from}; allowed: {}", networks.join(" "))
            }
        }
        _ => String::new(),
    }
}

fn in_words(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Valid => "Accepted",
        Verdict::Malformed => "Refused: this is not the text of a secret, nor an id",
        Verdict::NotFound => "Refused: no token that you can see has it",
        Verdict::Revoked => "Refused: the token is revoked",
        Verdict::Expired => "Refused: the token has expired",
        Verdict::Disabled => "Refused: the token is disabled",
        Verdict::MissingScope => "Refused: the token lacks a scope",
        Verdict::IpNotAllowed => "Refused: the token may not be used from this address",
        Verdict::RateLimited => "Refused: a rate of the token's plan is used up for now",
        Verdict::CreditsExhausted => "Refused: the credits of the token's plan do not suffice",
        _ => "Refused",
    }
}

/// Returns the commands that ask the same of a secret.
fn lines(required: &Scopes, address: &str) -> Lines {
    let scopes: Vec<String> = required.iter().map(|scope| scope.as_str().to_owned()).collect();
    let call = Call::new(&["token", "verify"], "Verify").texts("require-scope", "requiredScopes", &scopes);
    call.text("client-ip", "clientIp", address).lines_for_secret()
}
