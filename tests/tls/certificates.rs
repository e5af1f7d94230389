//! Callers authenticated by a client certificate.

use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use time::Duration;
use tokend::api::proto::{ListTokensRequest, Verdict};
use tokend::domain::{CertificateMapping, CertificateMappings, OrganizationId, ReservedScope, SubjectName};
use tonic::transport::Channel;
use tonic::{Code, Streaming};
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use super::authority::{Authority, Files, Signed, channel, ended, now};
use crate::support::client::{Client, bearing, created, ordinary, verified};
use crate::support::eventually;
use crate::support::replica::{Installation, Replica, wait_until_serving};
use crate::support::status::{check, refused};

const GATEWAY: &str = "uri:spiffe://example.org/gateway";
const ADMIN: &str = "dns:admin.example.org";

struct TestDir {
    authority: Authority,
    files: Files,
    replica: Replica,
}

fn mapping(name: &str, scope: ReservedScope) -> CertificateMapping {
    CertificateMapping {
        name: SubjectName::parse(name).unwrap(),
        scopes: [scope].into_iter().collect(),
        organization_id: OrganizationId::parse("acme").unwrap(),
    }
}

impl TestDir {
    /// Starts a replica that accepts its authority's certificates from callers.
    async fn new() -> Self {
        let authority = Authority::new();
        let files = Files::new(&authority.good(&["localhost"]), Some(&authority));
        Self::on(authority, files).await
    }

    async fn on(authority: Authority, files: Files) -> Self {
        let installation = Installation::new().await;
        let mut config = installation.config();
        config.tls = Some(files.load());
        let mappings = vec![mapping(GATEWAY, ReservedScope::Verify), mapping(ADMIN, ReservedScope::Write)];
        config.certificates = CertificateMappings::new(mappings).unwrap();
        let replica = installation.launch(config);
        wait_until_serving(channel(&replica, &authority, None)).await;
        Self { authority, files, replica }
    }

    fn channel(&self, identity: Option<&Signed>) -> Channel {
        channel(&self.replica, &self.authority, identity)
    }

    fn holder(&self, names: &[&str]) -> Client {
        bearing(self.channel(Some(&self.authority.good(names))), &[])
    }

    fn root(&self) -> Client {
        bearing(self.channel(None), &[&format!("Bearer {}", self.replica.installation.root_secret)])
    }
}

#[tokio::test]
async fn a_certificate_has_the_scopes_and_organization_of_its_mapping() {
    let test_dir = TestDir::new().await;
    let mut admin = test_dir.holder(&["other.example.org", ADMIN]);

    let made = created(&mut admin, ordinary()).await;

    let token = made.token.unwrap();
    assert_eq!((&*token.organization_id, &*token.created_by), ("acme", "cert:dns:admin.example.org"));
    let mut gateway = test_dir.holder(&[GATEWAY]);
    assert_eq!(verified(&mut gateway, &made.secret, &[]).await.verdict(), Verdict::Valid);
    let root_secret = &test_dir.replica.installation.root_secret;
    assert_eq!(verified(&mut gateway, root_secret, &[]).await.verdict(), Verdict::NotFound);
    refused(gateway.create_token(ordinary()).await, Code::PermissionDenied, "SCOPE_MISSING");
}

#[tokio::test]
async fn a_secret_is_enough_without_a_certificate() {
    let test_dir = TestDir::new().await;

    let listed = test_dir.root().list_tokens(ListTokensRequest::default()).await;

    assert!(listed.is_ok());
    let mut nobody = bearing(test_dir.channel(None), &[]);
    let outcome = nobody.list_tokens(ListTokensRequest::default()).await;
    refused(outcome, Code::Unauthenticated, "CREDENTIAL_MISSING");
}

#[tokio::test]
async fn a_certificate_neither_replaces_a_bad_secret_nor_extends_a_good_one() {
    let test_dir = TestDir::new().await;
    let admin = test_dir.channel(Some(&test_dir.authority.good(&[ADMIN])));

    let mut mistaken = bearing(admin.clone(), &["Bearer tokd_typo"]);

    refused(mistaken.create_token(ordinary()).await, Code::Unauthenticated, "CREDENTIAL_MALFORMED");
    let reader = crate::support::client::created_with(&mut test_dir.root(), "acme", &["tokend:read"]).await;
    let mut reader = bearing(admin, &[&format!("Bearer {}", reader.secret)]);
    refused(reader.create_token(ordinary()).await, Code::PermissionDenied, "SCOPE_MISSING");
}

#[tokio::test]
async fn a_name_without_one_mapping_is_unauthenticated() {
    let test_dir = TestDir::new().await;

    for names in [
        &["stranger.example.org"][..],
        &[],
        &[GATEWAY, ADMIN],
        &["ADMIN.example.org"],
        &["uri:admin.example.org"],
        &["email:admin.example.org"],
        &["uri:dns:admin.example.org"],
        &["dns:dns:admin.example.org"],
    ] {
        let outcome = test_dir.holder(names).create_token(ordinary()).await;
        refused(outcome, Code::Unauthenticated, "CREDENTIAL_INVALID");
    }
}

#[tokio::test]
async fn a_certificate_of_another_ca_or_an_expired_one_gets_no_connection() {
    let test_dir = TestDir::new().await;
    let foreign = Authority::new().good(&[ADMIN]);
    let expired = test_dir.authority.sign(&[ADMIN], ended());

    for signed in [foreign, expired] {
        let mut client = bearing(test_dir.channel(Some(&signed)), &[]);
        let status = client.create_token(ordinary()).await.unwrap_err();
        // The handshake failed: tonic's own error, without tokend's details.
        assert!(tonic_types::StatusExt::get_details_error_info(&status).is_none(), "{status:?}");
    }
}

#[tokio::test]
async fn a_connection_may_outlive_its_certificate_but_its_calls_are_refused() {
    let test_dir = TestDir::new().await;
    let short = test_dir.authority.sign(&[ADMIN], time::Duration::seconds(4));
    let end = now() + time::Duration::seconds(4);
    let mut admin = bearing(test_dir.channel(Some(&short)), &[]);
    created(&mut admin, ordinary()).await;

    eventually("the certificate ends", async || (now() > end + time::Duration::SECOND).then_some(())).await;

    let status = admin.create_token(ordinary()).await.unwrap_err();
    check(&status, Code::Unauthenticated, "CREDENTIAL_EXPIRED");
}

#[tokio::test]
async fn a_privileged_token_does_not_outlive_the_certificate_that_creates_it() {
    let test_dir = TestDir::new().await;
    let mut request = ordinary();
    request.scopes = vec!["tokend:write".to_owned()];

    let outcome = test_dir.holder(&[ADMIN]).create_token(request).await;

    refused(outcome, Code::PermissionDenied, "PRIVILEGED_TOKEN");
}

#[tokio::test]
async fn a_revoked_or_unverifiable_certificate_gets_no_connection() {
    let authority = Authority::new();
    let (good, revoked) = (authority.good(&[ADMIN]), authority.good(&[ADMIN]));
    let list = authority.revocations(&[&revoked], Duration::hours(1));
    let files = Files::new(&authority.good(&["localhost"]), Some(&authority)).with_revocations(&list);
    let test_dir = TestDir::on(authority, files).await;

    created(&mut bearing(test_dir.channel(Some(&good)), &[]), ordinary()).await;
    assert!(turned_away(&test_dir, &revoked).await);
    // An expired list, and one of another authority, leave it unknown whether a certificate is revoked.
    for unknown in [
        test_dir.authority.revocations(&[], -Duration::minutes(1)),
        Authority::new().revocations(&[], Duration::hours(1)),
    ] {
        fs::write(test_dir.files.path("crl.pem"), unknown).unwrap();
        eventually("the list is read", async || turned_away(&test_dir, &good).await.then_some(())).await;
        fs::write(test_dir.files.path("crl.pem"), test_dir.authority.revocations(&[], Duration::hours(1)))
            .unwrap();
        eventually("the list is read", async || (!turned_away(&test_dir, &good).await).then_some(())).await;
    }
}

/// Returns whether a certificate is refused in the handshake: with tonic's own error, without
/// tokend's details.
async fn turned_away(test_dir: &TestDir, signed: &Signed) -> bool {
    let mut client = bearing(test_dir.channel(Some(signed)), &[]);
    match client.create_token(ordinary()).await {
        Ok(_) => false,
        Err(status) => tonic_types::StatusExt::get_details_error_info(&status).is_none(),
    }
}

/// Watches a server's health over a separate connection, which is then silent.
async fn watching(test_dir: &TestDir, identity: Option<&Signed>) -> Streaming<HealthCheckResponse> {
    let mut health = HealthClient::new(test_dir.channel(identity));
    let mut watch = health.watch(HealthCheckRequest::default()).await.unwrap().into_inner();
    assert!(watch.message().await.unwrap().is_some());
    watch
}

/// Returns whether a silent watch is still open.
async fn goes_on(watch: &mut Streaming<HealthCheckResponse>) -> bool {
    tokio::time::timeout(std::time::Duration::from_millis(100), watch.message()).await.is_err()
}

#[tokio::test]
async fn connections_end_when_their_certificate_is_revoked_and_others_continue() {
    let authority = Authority::new();
    let (good, revoked) = (authority.good(&[ADMIN]), authority.good(&[ADMIN]));
    let list = authority.revocations(&[], Duration::hours(1));
    let files = Files::new(&authority.good(&["localhost"]), Some(&authority)).with_revocations(&list);
    let test_dir = TestDir::on(authority, files).await;
    let (mut nobody, mut lasting) = (watching(&test_dir, None).await, watching(&test_dir, Some(&good)).await);
    let mut ending = watching(&test_dir, Some(&revoked)).await;

    let list = test_dir.authority.revocations(&[&revoked], Duration::hours(1));
    fs::write(test_dir.files.path("crl.pem"), list).unwrap();

    // Nothing is sent on it: the server closes it by itself.
    assert!(ending.message().await.is_err());
    assert!(goes_on(&mut lasting).await && goes_on(&mut nobody).await);
}

#[tokio::test]
async fn connections_end_when_their_ca_is_removed() {
    let test_dir = TestDir::new().await;
    let signed = test_dir.authority.good(&[ADMIN]);
    let (mut nobody, mut ending) =
        (watching(&test_dir, None).await, watching(&test_dir, Some(&signed)).await);

    fs::write(test_dir.files.path("ca.pem"), Authority::new().pem).unwrap();

    assert!(ending.message().await.is_err());
    assert!(goes_on(&mut nobody).await);
}

#[tokio::test]
async fn replaced_mappings_apply_from_the_next_call_and_invalid_ones_change_nothing() {
    type Read = Result<CertificateMappings, &'static str>;
    let authority = Authority::new();
    let files = Files::new(&authority.good(&["localhost"]), Some(&authority));
    let mapped = |scope| CertificateMappings::new(vec![mapping(ADMIN, scope)]).unwrap();
    let source: Arc<Mutex<Read>> = Arc::new(Mutex::new(Ok(mapped(ReservedScope::Read))));
    let installation = Installation::new().await;
    let mut config = installation.config();
    config.tls = Some(files.load());
    config.certificates = mapped(ReservedScope::Read);
    let (read, reads) = (Arc::clone(&source), Arc::new(AtomicUsize::new(0)));
    let counted = Arc::clone(&reads);
    config.origins.certificates = Some(Arc::new(move || {
        let read = read.lock().unwrap().clone();
        counted.fetch_add(1, Ordering::Relaxed);
        Ok(read?)
    }));
    let replica = installation.launch(config);
    wait_until_serving(channel(&replica, &authority, None)).await;
    let test_dir = TestDir { authority, files, replica };
    // One connection for the whole test.
    let mut admin = test_dir.holder(&[ADMIN]);
    refused(admin.create_token(ordinary()).await, Code::PermissionDenied, "SCOPE_MISSING");

    *source.lock().unwrap() = Ok(mapped(ReservedScope::Write));
    eventually("the new mapping holds", async || admin.create_token(ordinary()).await.ok()).await;

    *source.lock().unwrap() = Err("no mapping");
    let before = reads.load(Ordering::Relaxed);
    // The second read starts after the first has been applied.
    eventually("it is read", async || (reads.load(Ordering::Relaxed) > before + 1).then_some(())).await;
    created(&mut admin, ordinary()).await;

    *source.lock().unwrap() = Ok(CertificateMappings::default());
    eventually("nobody is mapped", async || {
        admin.create_token(ordinary()).await.err().filter(|status| status.code() == Code::Unauthenticated)
    })
    .await;
}
