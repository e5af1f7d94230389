//! Logins of programs by the console: what is allowed there is got once, by the program that asked, while the session lasts,
//! and is never wider than it.

use secrecy::ExposeSecret as _;
use tokend::api::proto::login_service_client::LoginServiceClient;
use tokend::api::proto::{
    Attribution, CreateTokenRequest, DisableUserRequest, ExchangeLoginCodeRequest, ExchangeLoginCodeResponse,
    GetLoginPageRequest, Grant, ListTokenEventsRequest, Policy, UpdatePolicyRequest,
};
use tokend::clock;
use tokend::secret::CodeVerifier;
use tonic::{Code, Status};

use super::{Person, cookie, dump, hidden, sign_in, tokens_of};
use crate::support::client::{created, created_with, ordinary, revoked, texts};
use crate::support::http::Reply;
use crate::support::replica::{Installation, Replica};
use crate::support::status::{fields, refused};

pub(super) const STATE: &str = "AAAAAAAAAAAAAAAAAAAAAA";

/// A program that asks.
pub(super) struct Program {
    pub(super) verifier: CodeVerifier,
    callback: bool,
    more: Vec<(&'static str, String)>,
}

impl Program {
    pub(super) fn new() -> Self {
        let verifier = CodeVerifier::generate(&mut clock::randomness()).unwrap();
        Self { verifier, callback: true, more: Vec::new() }
    }

    fn with(mut self, name: &'static str, value: &str) -> Self {
        self.more.push((name, value.to_owned()));
        self
    }

    /// Returns what it asks.
    fn fields(&self) -> Vec<(&str, &str)> {
        let mut fields = vec![("host", "ada's laptop")];
        if self.callback {
            fields.extend([("port", "49152"), ("state", STATE)]);
        }
        fields.extend(self.more.iter().map(|(name, value)| (*name, &**value)));
        fields
    }

    fn question(&self) -> Vec<(String, String)> {
        let mut all = vec![("challenge".to_owned(), self.verifier.challenge().render())];
        all.extend(self.fields().into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())));
        all
    }

    pub(super) fn path(&self) -> String {
        let mut query = form_urlencoded::Serializer::new(String::new());
        format!("/login?{}", query.extend_pairs(self.question()).finish())
    }

    /// Has the person allow it.
    async fn allowed(&self, person: &Person) -> Reply {
        let question = self.question();
        let fields: Vec<_> = question.iter().map(|(name, value)| (&**name, &**value)).collect();
        person.post("/login", &fields).await
    }

    /// Has the person allow it, and returns the code.
    async fn code(&self, person: &Person) -> String {
        let reply = self.allowed(person).await;
        assert_eq!(reply.status, 200, "{}", reply.body);
        code(&reply.body).to_owned()
    }

    async fn exchanged(&self, replica: &Replica, code: &str) -> Result<ExchangeLoginCodeResponse, Status> {
        exchange(replica, code, self.verifier.text().expose_secret()).await
    }

    /// Logs in.
    async fn logged_in(&self, replica: &Replica, person: &Person) -> ExchangeLoginCodeResponse {
        self.exchanged(replica, &self.code(person).await).await.unwrap()
    }
}

/// Returns the code that a page sends or shows.
pub(super) fn code(page: &str) -> &str {
    let (_, rest) =
        page.split_once("/callback?code=").or_else(|| page.split_once("translate=\"no\">")).unwrap();
    &rest[..22]
}

async fn exchange(
    replica: &Replica,
    code: &str,
    verifier: &str,
) -> Result<ExchangeLoginCodeResponse, Status> {
    let request = ExchangeLoginCodeRequest { code: code.to_owned(), code_verifier: verifier.to_owned() };
    LoginServiceClient::new(replica.channel())
        .exchange_login_code(request)
        .await
        .map(tonic::Response::into_inner)
}

fn invalid<T: std::fmt::Debug>(outcome: Result<T, Status>) {
    refused(outcome.map(tonic::Response::new), Code::Unauthenticated, "LOGIN_CODE_INVALID");
}

/// Makes a person's token; returns its id and secret.
pub(super) async fn token(
    replica: &Replica,
    user: &str,
    scopes: &[&str],
    days: i64,
    grant: Option<Grant>,
) -> (String, String) {
    let ttl = prost_types::Duration { seconds: days * 86_400, nanos: 0 };
    let request = CreateTokenRequest {
        user_id: user.to_owned(),
        organization_id: "acme".to_owned(),
        name: format!("{user}'s own"),
        scopes: texts(scopes),
        expiration: Some(tokend::api::proto::create_token_request::Expiration::Ttl(ttl)),
        grant,
        ..ordinary()
    };
    let made = created(&mut replica.root(), request).await;
    (made.token.unwrap().id, made.secret)
}

pub(super) async fn ada(replica: &Replica) -> Person {
    let (_, secret) = token(replica, "ada", &["tokend:self", "repo:*"], 30, None).await;
    Person::of(replica.console, &secret).await
}

#[tokio::test]
async fn what_a_person_allows_is_exchanged_for_a_token_that_manages_the_person_s_own() {
    let replica = Replica::start().await;
    let (own, secret) = token(&replica, "ada", &["tokend:self", "repo:*"], 30, None).await;
    let person = Person::of(replica.console, &secret).await;
    let mut service = LoginServiceClient::new(replica.channel());
    let page = service.get_login_page(GetLoginPageRequest {}).await.unwrap().into_inner().url;
    assert_eq!(page, format!("http://tokend.localhost:{}/login", replica.console.port()));
    let program = Program::new();

    let asked = person.get(&program.path()).await;
    assert_eq!(asked.status, 200, "{}", asked.body);
    for part in [
        "Allow the command line on <bdi>ada&#39;s laptop</bdi> to act as you?",
        "manages the tokens of <strong><bdi>ada</bdi></strong>",
        "<code>repo:*</code>, for at most 29 days",
        "expires in 8 hours",
        "href=\"http://127.0.0.1:49152/callback?error=access_denied&#38;state=AAAAAAAAAAAAAAAAAAAAAA\"",
    ] {
        assert!(asked.body.contains(part), "{part}: {}", asked.body);
    }
    assert_eq!(replica.installation.database.count("SELECT count(*) FROM login_codes").await, 0);
    let allowed = program.allowed(&person).await;
    assert_eq!((allowed.status, allowed.header("location")), (200, None), "{}", allowed.body);
    let code = code(&allowed.body).to_owned();
    let callback = format!("http://127.0.0.1:49152/callback?code={code}&#38;state={STATE}\"");
    assert!(allowed.body.contains(&format!("content=\"0; url={callback}")), "{}", allowed.body);
    let stored = dump(&replica.installation.database).await;
    assert!(stored.contains("ada's laptop") && !stored.contains(&code), "only its hash is stored");

    let login = program.exchanged(&replica, &code).await.unwrap();
    let made = login.token.unwrap();
    assert_eq!((&*made.name, &*made.user_id), ("tokend login on ada's laptop", "ada"));
    assert_eq!((made.scopes, made.created_by), (texts(&["tokend:self"]), own.clone()));
    let lifetime = made.expire_time.unwrap().seconds - made.create_time.unwrap().seconds;
    assert_eq!(lifetime, 8 * 3600);
    let grant = made.grant.unwrap();
    assert_eq!(grant.scopes, texts(&["repo:*"]));
    // It issues what the person issues, and nothing else.
    let mut caller = replica.client(&login.secret);
    let ttl = prost_types::Duration { seconds: 7 * 86_400, nanos: 0 };
    let repo = CreateTokenRequest {
        expiration: Some(tokend::api::proto::create_token_request::Expiration::Ttl(ttl)),
        user_id: "ada".to_owned(),
        scopes: texts(&["repo:read"]),
        ..ordinary()
    };
    caller.create_token(repo.clone()).await.unwrap();
    for (user, scope) in [("grace", "repo:read"), ("ada", "logs:read"), ("ada", "tokend:self")] {
        let request =
            CreateTokenRequest { user_id: user.to_owned(), scopes: texts(&[scope]), ..repo.clone() };
        let outcome = caller.create_token(request).await;
        assert_eq!(outcome.unwrap_err().code(), Code::PermissionDenied, "{user} {scope}");
    }
    // It is recorded as done by the person's own token.
    let request = ListTokenEventsRequest { token_id: made.id, ..Default::default() };
    let events = replica.root().list_token_events(request).await.unwrap().into_inner().events;
    assert_eq!(events.len(), 1);
    assert_eq!((&*events[0].actor, &*events[0].acting_user), (&*own, "ada"));
    assert_eq!(events[0].attribution(), Attribution::Proven);
}

#[tokio::test]
async fn a_code_is_exchanged_once_by_the_program_that_asked_and_within_a_minute() {
    let replica = Replica::start().await;
    let (person, program) = (ada(&replica).await, Program::new());
    let used = program.code(&person).await;
    program.exchanged(&replica, &used).await.unwrap();
    invalid(program.exchanged(&replica, &used).await);

    // Another program's verifier uses the code up, too.
    let code = program.code(&person).await;
    invalid(Program::new().exchanged(&replica, &code).await);
    invalid(program.exchanged(&replica, &code).await);

    let database = &replica.installation.database;
    let expiring = "SELECT count(*) FROM login_codes
        WHERE expire_time BETWEEN now() + interval '50 seconds' AND now() + interval '60 seconds'";
    let code = program.code(&person).await;
    assert_eq!(database.count(expiring).await, 1);
    database.execute("UPDATE login_codes SET expire_time = now()").await;
    invalid(program.exchanged(&replica, &code).await);

    for bad in ["", "short", "AAAAAAAAAAAAAAAAAAAAAA"] {
        invalid(program.exchanged(&replica, bad).await);
    }
    for bad in ["", "short", &"A".repeat(129), &"%".repeat(43)] {
        let status = exchange(&replica, "AAAAAAAAAAAAAAAAAAAAAA", bad).await.unwrap_err();
        assert_eq!((status.code(), fields(&status)), (Code::InvalidArgument, texts(&["code_verifier"])));
    }
    assert_eq!(tokens_of(&replica, "ada").await.len(), 2);
    // Of many unused codes of a session the last ten can be exchanged.
    let mut codes = Vec::new();
    for _ in 0..11 {
        codes.push(program.code(&person).await);
    }
    invalid(program.exchanged(&replica, &codes[0]).await);
    program.exchanged(&replica, &codes[1]).await.unwrap();
}

#[tokio::test]
async fn of_two_exchanges_at_once_one_gets_the_token_at_any_replica() {
    let installation = Installation::new().await;
    let (one, two) =
        (installation.serve(installation.config()).await, installation.serve(installation.config()).await);
    let (person, program) = (ada(&one).await, Program::new());
    for round in 1..=5 {
        let code = program.code(&person).await;
        let (first, second) = tokio::join!(program.exchanged(&one, &code), program.exchanged(&two, &code));
        assert_eq!(usize::from(first.is_ok()) + usize::from(second.is_ok()), 1, "round {round}");
    }
    assert_eq!(tokens_of(&one, "ada").await.len(), 6);
}

#[tokio::test]
async fn a_session_that_has_ended_and_a_token_that_is_not_accepted_give_no_login() {
    let replica = Replica::start().await;
    let (program, database) = (Program::new(), &replica.installation.database);
    let person = ada(&replica).await;
    let code = program.code(&person).await;
    assert_eq!(person.post("/sign-out", &[]).await.status, 303);
    invalid(program.exchanged(&replica, &code).await);

    let person = ada(&replica).await;
    let code = program.code(&person).await;
    database.execute("UPDATE console_sessions SET last_use_time = now() - interval '30 minutes'").await;
    invalid(program.exchanged(&replica, &code).await);

    let (id, secret) = token(&replica, "ada", &["tokend:self"], 30, None).await;
    let person = Person::of(replica.console, &secret).await;
    let code = program.code(&person).await;
    revoked(&mut replica.root(), &id, "lost").await;
    let status = program.exchanged(&replica, &code).await.unwrap_err();
    refused::<()>(Err(status), Code::Unauthenticated, "CREDENTIAL_REVOKED");

    let person = ada(&replica).await;
    let code = program.code(&person).await;
    let disabled = DisableUserRequest {
        organization_id: "acme".to_owned(),
        user_id: "ada".to_owned(),
        ..Default::default()
    };
    replica.root().disable_user(disabled).await.unwrap();
    let status = program.exchanged(&replica, &code).await.unwrap_err();
    refused::<()>(Err(status), Code::Unauthenticated, "CREDENTIAL_DISABLED");
    let logins = tokens_of(&replica, "ada").await;
    assert!(logins.iter().all(|token| !token.name.starts_with("tokend login")), "{logins:?}");
}

#[tokio::test]
async fn a_login_is_never_wider_than_its_session_s_token_nor_the_policy() {
    let replica = Replica::start().await;
    let mut root = replica.root();
    // The token expires sooner than the login would.
    let (_, secret) = token(&replica, "ada", &["tokend:self", "repo:*"], 1, None).await;
    let person = Person::of(replica.console, &secret).await;
    let own = tokens_of(&replica, "ada").await.remove(0);
    let program = Program::new().with("lifetime", "86400");
    let login = program.logged_in(&replica, &person).await.token.unwrap();
    assert_eq!(login.expire_time, own.expire_time);
    assert_eq!(login.grant.unwrap().longest_lifetime, None);
    // Scopes that the token does not have are refused in the browser already.
    for scope in ["logs:read", "tokend:read", "tokend:write", "repo"] {
        let wider = Program::new().with("scope", scope);
        let reply = wider.allowed(&person).await;
        assert!([400, 403].contains(&reply.status), "{scope}: {}", reply.body);
        assert!([400, 403].contains(&person.get(&wider.path()).await.status), "{scope}");
    }
    let narrow = Program::new().with("scope", "repo:read").logged_in(&replica, &person).await;
    assert_eq!(narrow.token.unwrap().grant.unwrap().scopes, texts(&["repo:read"]));

    // A lead without herself in her grant issues nothing to herself.
    let grant = Grant { user_prefixes: texts(&["team7-"]), ..Default::default() };
    let (_, secret) = token(&replica, "grace", &["tokend:write"], 30, Some(grant)).await;
    // Who may not read has no list of tokens.
    let session = cookie(&sign_in(replica.console, &secret).await);
    let mut lead = Person { address: replica.console, cookie: session, form_token: String::new() };
    lead.form_token = hidden(&lead.get("/sessions").await.body, "form_token").to_owned();
    assert_eq!(Program::new().allowed(&lead).await.status, 403);
    // Who may only read has nothing to let a program do.
    let (_, secret) = token(&replica, "bob", &["tokend:read"], 30, None).await;
    let reader = Person::of(replica.console, &secret).await;
    assert_eq!(Program::new().allowed(&reader).await.status, 403);
    assert_eq!(reader.get(&Program::new().path()).await.status, 403);

    // The policy as it is when the code is exchanged.
    let person = ada(&replica).await;
    let mut set = async |policy| {
        let request = UpdatePolicyRequest { organization_id: "acme".to_owned(), policy: Some(policy) };
        root.update_policy(request).await.unwrap();
    };
    let hour = prost_types::Duration { seconds: 3600, nanos: 0 };
    set(Policy { longest_lifetime: Some(hour), ..Default::default() }).await;
    let login = Program::new().logged_in(&replica, &person).await.token.unwrap();
    assert_eq!(login.expire_time.unwrap().seconds - login.create_time.unwrap().seconds, 3600);
    for policy in [
        Policy { most_active_tokens_per_user: 1, ..Default::default() },
        Policy { allowed_scopes: texts(&["repo:*"]), ..Default::default() },
    ] {
        let program = Program::new();
        let code = program.code(&person).await;
        set(policy).await;
        let status = program.exchanged(&replica, &code).await.unwrap_err();
        refused::<()>(Err(status), Code::FailedPrecondition, "POLICY_FORBIDS");
    }
}

#[tokio::test]
async fn a_narrowing_between_the_question_and_the_exchange_counts() {
    let replica = Replica::start().await;
    let (id, secret) = token(&replica, "ada", &["tokend:self", "repo:*", "logs:*"], 30, None).await;
    let (person, program) =
        (Person::of(replica.console, &secret).await, Program::new().with("scope", "logs:*"));
    let code = program.code(&person).await;
    let narrowed = tokend::api::proto::UpdateTokenRequest {
        token_id: id,
        scopes: texts(&["tokend:self", "repo:*"]),
        update_mask: crate::support::client::mask(&["scopes"]),
        ..Default::default()
    };
    replica.root().update_token(narrowed).await.unwrap();

    let status = program.exchanged(&replica, &code).await.unwrap_err();

    refused::<()>(Err(status), Code::PermissionDenied, "GRANT_EXCEEDED");
}

#[tokio::test]
async fn an_exchange_ignores_credentials_and_is_judged_by_the_address_of_the_program() {
    let replica = Replica::start().await;
    let made = created_with(&mut replica.root(), "acme", &["tokend:self"]).await;
    let person = Person::of(replica.console, &made.secret).await;
    let program = Program::new();
    let code = program.code(&person).await;
    let elsewhere = tokend::api::proto::UpdateTokenRequest {
        token_id: made.token.unwrap().id,
        allowed_cidrs: texts(&["192.0.2.0/24"]),
        update_mask: crate::support::client::mask(&["allowed_cidrs"]),
        ..Default::default()
    };
    replica.root().update_token(elsewhere).await.unwrap();

    let status = program.exchanged(&replica, &code).await.unwrap_err();

    refused::<()>(Err(status), Code::Unauthenticated, "CREDENTIAL_IP_NOT_ALLOWED");
}
