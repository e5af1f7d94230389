//! Whether a program of the person, such as `tokend login`, may have a token that acts for the person: the question, and
//! what is done where the person allows it. The code is shown, or goes to a port of the person's own computer: the URL
//! is built here, so no page can redirect the code elsewhere.

use axum::http::StatusCode;
use axum::response::Response;
use secrecy::ExposeSecret as _;
use time::Duration;

use super::gate::unrecognised;
use super::pages::{Allowed, InvalidLogin, Login};
use super::proof;
use super::visit::Visit;
use crate::api::console::failure::Failure;
use crate::api::console::form::{Fields, Problems};
use crate::api::console::interface::{Console, PageRequest};
use crate::api::console::moments::Moment;
use crate::api::console::pages::visible;
use crate::domain::login::{DEFAULT_LIFETIME, Host, LoginRequest};
use crate::domain::{FieldError, Permission, Scope, Scopes, Token, Violations};
use crate::secret::CodeChallenge;
use crate::tokens::ActionError;

/// What a program asks for, by the address that it opens.
struct Question {
    challenge: CodeChallenge,
    /// The port that it listens on, and what it recognises its own question by; `None`: the code is typed.
    callback: Option<(u16, String)>,
    request: LoginRequest,
}

/// Asks the person.
pub(super) async fn ask(console: &Console, page_request: &PageRequest) -> Result<Response, Failure> {
    let visit = console.visit(page_request).await?;
    visit.caller().require(Permission::WriteOwn)?;
    let question = question(console, &visit, &page_request.query())?;
    let page = page(console, &visit, &question, Problems::default()).await?;
    console.page(&visit, StatusCode::OK, &page)
}

/// Allows it.
pub(super) async fn allow(console: &Console, page_request: &PageRequest) -> Result<Response, Failure> {
    let fields = page_request.form();
    let mut visit = console.visit(page_request).await?;
    visit.check_form(&fields)?;
    visit.caller().require(Permission::WriteOwn)?;
    let question = question(console, &visit, &fields)?;
    if let Some(problem) = proof::missing(console, page_request, &mut visit, &fields).await? {
        let page = page(console, &visit, &question, Problems::one("proof", problem)).await?;
        return console.page(&visit, StatusCode::FORBIDDEN, &page);
    }
    // What can be refused is refused here rather than in the program.
    preview(console, &visit, &question).await?;
    let made = console.sessions.allow_login(&visit.session, &question.challenge, &question.request).await;
    let code = match made {
        Ok(code) => code,
        Err(error) => return Err(unrecognised(console, page_request, error).await),
    };
    let code = code.render();
    let page = Allowed {
        frame: visit.frame(),
        host: visible(question.request.host.as_str()),
        callback: question.callback(&[("code", code.expose_secret())]),
        code: code.expose_secret(),
    };
    console.page(&visit, StatusCode::OK, &page)
}

/// Reads the question, or says that there is none.
fn question(console: &Console, visit: &Visit, fields: &Fields<'_>) -> Result<Question, Failure> {
    Question::read(fields).map_err(|violations| not_a_login(console, visit, violations))
}

/// Returns the token that the program would get.
async fn preview(console: &Console, visit: &Visit, question: &Question) -> Result<Token, Failure> {
    let actions = &console.integrations.context.actions;
    actions.preview_login(visit.caller(), &question.request).await.map_err(|error| match error {
        ActionError::Invalid(violations) => not_a_login(console, visit, violations),
        error => error.into(),
    })
}

fn not_a_login(console: &Console, visit: &Visit, violations: Violations) -> Failure {
    let page = InvalidLogin { frame: visit.frame() };
    match console.page(visit, StatusCode::BAD_REQUEST, &page) {
        Ok(page) => Failure::shown(violations, page),
        Err(failure) => failure,
    }
}

async fn page(
    console: &Console,
    visit: &Visit,
    question: &Question,
    problems: Problems,
) -> Result<Login, Failure> {
    let request = &question.request;
    let token = preview(console, visit, question).await?;
    let grant = token.grant.unwrap_or_default();
    let (port, state) = match &question.callback {
        Some((port, state)) => (port.to_string(), state.clone()),
        None => (String::new(), String::new()),
    };
    Ok(Login {
        frame: visit.frame(),
        host: visible(request.host.as_str()),
        user: visible(token.user_id.as_str()),
        end: Moment::new(token.expire_time.unwrap_or(visit.now), visit.now),
        issues: grant.scopes.iter().map(|scope| scope.as_str().to_owned()).collect(),
        longest: grant.longest_lifetime.map(in_words),
        asked: question.fields(),
        typed: port.is_empty(),
        cancel: question.callback(&[("error", "access_denied")]).unwrap_or_else(|| "/tokens".to_owned()),
        port,
        state,
        problems,
        proof: visit.needs_proof(),
    })
}

impl Question {
    /// Reads the parameters of the page's address, or the fields of its form.
    fn read(fields: &Fields<'_>) -> Result<Self, Violations> {
        const CHALLENGE: FieldError = FieldError::Rule("is not the SHA-256 of a verifier");
        const PORT: FieldError = FieldError::Rule("is not a number from 1024 to 65535");
        const STATE: FieldError = FieldError::Rule("is not 22 to 64 characters of base64url");
        const SECONDS: FieldError = FieldError::Rule("is not a number of seconds");
        const RESERVED: FieldError = FieldError::Rule("is a reserved scope, which no login may issue");
        let mut violations = Violations::default();
        let challenge = CodeChallenge::parse(fields.get("challenge")).ok_or(CHALLENGE);
        let challenge = violations.take("challenge", challenge);
        let host = violations.take("host", Host::parse(fields.get("host")));
        let lifetime = match fields.get("lifetime") {
            "" => Ok(DEFAULT_LIFETIME),
            text => number(text)
                .ok_or(SECONDS)
                .and_then(|seconds| LoginRequest::check_lifetime(Duration::seconds(seconds.into()))),
        };
        let lifetime = violations.take("lifetime", lifetime);
        let ordinary = |scopes: Scopes| if scopes.reserved().is_empty() { Ok(scopes) } else { Err(RESERVED) };
        let scopes = fields.all("scope").filter(|text| !text.is_empty()).map(Scope::parse);
        let scopes = violations
            .take("scope", scopes.collect::<Result<_, _>>().and_then(Scopes::new).and_then(ordinary));
        let callback = match (fields.get("port"), fields.get("state")) {
            ("", "") => Ok(None),
            (port, state) => match number(port).and_then(|port| u16::try_from(port).ok()) {
                Some(port) if port >= 1024 && is_state(state) => Ok(Some((port, state.to_owned()))),
                Some(port) if port >= 1024 => Err(STATE),
                _ => Err(PORT),
            },
        };
        let callback = violations.take("port", callback);
        let question = (|| {
            let request = LoginRequest { host: host?, lifetime: lifetime?, scopes: scopes? };
            Some(Self { challenge: challenge?, callback: callback?, request })
        })();
        violations.finish(question)
    }

    /// Returns the address to which the program's answer goes; `None`: the person types it.
    fn callback(&self, answer: &[(&str, &str)]) -> Option<String> {
        let (port, state) = self.callback.as_ref()?;
        let mut query = form_urlencoded::Serializer::new(String::new());
        query.extend_pairs(answer).append_pair("state", state);
        Some(format!("http://127.0.0.1:{port}/callback?{}", query.finish()))
    }

    /// Returns what the form sends again, besides the callback.
    fn fields(&self) -> Vec<(&'static str, String)> {
        let LoginRequest { host, lifetime, scopes } = &self.request;
        let fields = [
            ("challenge", self.challenge.render()),
            ("host", host.as_str().to_owned()),
            ("lifetime", lifetime.whole_seconds().to_string()),
        ];
        let scopes = scopes.iter().map(|scope| ("scope", scope.as_str().to_owned()));
        fields.into_iter().chain(scopes).collect()
    }
}

/// Reads a number that is written in digits alone.
fn number(text: &str) -> Option<u32> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

fn is_state(text: &str) -> bool {
    let base64url = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    (22..=64).contains(&text.len()) && text.bytes().all(base64url)
}

/// Returns a lifetime in its largest unit of which there are two.
fn in_words(lifetime: Duration) -> String {
    let seconds = lifetime.whole_seconds();
    match seconds {
        172_800.. => format!("{} days", seconds / 86_400),
        7_200.. => format!("{} hours", seconds / 3_600),
        _ => format!("{} minutes", seconds / 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";
    const STATE: &str = "AAAAAAAAAAAAAAAAAAAAAA";

    fn read(more: &str) -> Option<Question> {
        let query = format!("challenge={CHALLENGE}&host=laptop{more}");
        Question::read(&Fields::read(query.as_bytes())).ok()
    }

    #[test]
    fn an_answer_goes_to_a_port_of_the_person_s_own_computer_and_nowhere_else() {
        let question = read(&format!("&port=49152&state={STATE}&redirect_uri=http://evil.example/")).unwrap();
        let callback = question.callback(&[("code", "c&d")]).unwrap();
        assert_eq!(callback, format!("http://127.0.0.1:49152/callback?code=c%26d&state={STATE}"));
        for port in [
            "0",
            "80",
            "1023",
            "65536",
            "99999999999",
            "-1",
            "%2B49152",
            "49152%20",
            "49152@evil.example",
            "49152/../x",
            "49152%23",
            "@evil.example:80",
            "evil.example",
            "٤٩١٥٢",
            "",
        ] {
            assert!(read(&format!("&port={port}&state={STATE}")).is_none(), "{port}");
        }
        for state in ["", "short", &"A".repeat(65), "AAAAAAAAAAAAAAAAAAAAA%26", "AAAAAAAAAAAAAAAAAAAAA%0A"] {
            assert!(read(&format!("&port=49152&state={state}")).is_none(), "{state}");
        }
        assert!(read("").unwrap().callback(&[]).is_none());
    }

    #[test]
    fn a_question_is_read_again_from_its_form() {
        let question = read("&lifetime=3600&scope=a:b&scope=c:*").unwrap();
        let mut form = form_urlencoded::Serializer::new(String::new());
        let form = form.extend_pairs(question.fields()).finish();
        let again = Question::read(&Fields::read(form.as_bytes())).unwrap();
        assert_eq!((again.challenge, again.request), (question.challenge, question.request));
        for bad in [
            "&lifetime=59",
            "&lifetime=86401",
            "&lifetime=1h",
            "&scope=*",
            "&scope=tokend:x",
            "&scope=tokend:write",
        ] {
            assert!(read(bad).is_none(), "{bad}");
        }
    }
}
