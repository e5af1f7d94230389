//! Callers known by a client certificate.

use tokend::domain::{CertificateMapping, CertificateMappings, OrganizationId, ReservedScope};
use tokend::grpc::proto::{ListTokensRequest, Verdict};
use tonic::Code;
use tonic::transport::Channel;

use super::authority::{Authority, Files, Signed, channel, ended, now};
use crate::support::client::{Client, bearing, created, ordinary, verified};
use crate::support::eventually;
use crate::support::replica::{Installation, Replica, wait_until_serving};
use crate::support::status::{check, refused};

const GATEWAY: &str = "spiffe://example.org/gateway";
const ADMIN: &str = "admin.example.org";

struct Place {
    authority: Authority,
    replica: Replica,
}

fn mapping(name: &str, scope: ReservedScope) -> CertificateMapping {
    CertificateMapping {
        name: name.into(),
        scopes: [scope].into_iter().collect(),
        organization_id: OrganizationId::parse("acme").unwrap(),
    }
}

impl Place {
    /// Starts a replica that takes certificates of its authority for callers.
    async fn new() -> Self {
        let authority = Authority::new();
        let files = Files::new(&authority.good(&["localhost"]), Some(&authority));
        let installation = Installation::new().await;
        let mut config = installation.config();
        config.tls = Some(files.load());
        let mappings = vec![mapping(GATEWAY, ReservedScope::Verify), mapping(ADMIN, ReservedScope::Write)];
        config.certificates = CertificateMappings::new(mappings).unwrap();
        let replica = installation.launch(config);
        wait_until_serving(channel(&replica, &authority, None)).await;
        Self { authority, replica }
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
async fn a_certificate_may_do_what_its_name_is_mapped_to_in_its_organization() {
    let place = Place::new().await;
    let mut admin = place.holder(&["other.example.org", ADMIN]);

    let made = created(&mut admin, ordinary()).await;

    let token = made.token.unwrap();
    assert_eq!((&*token.organization_id, &*token.created_by), ("acme", "cert:admin.example.org"));
    let mut gateway = place.holder(&[GATEWAY]);
    assert_eq!(verified(&mut gateway, &made.secret, &[]).await.verdict(), Verdict::Valid);
    let root_secret = &place.replica.installation.root_secret;
    assert_eq!(verified(&mut gateway, root_secret, &[]).await.verdict(), Verdict::NotFound);
    refused(gateway.create_token(ordinary()).await, Code::PermissionDenied, "SCOPE_MISSING");
}

#[tokio::test]
async fn a_secret_is_enough_without_a_certificate() {
    let place = Place::new().await;

    let listed = place.root().list_tokens(ListTokensRequest::default()).await;

    assert!(listed.is_ok());
    let mut nobody = bearing(place.channel(None), &[]);
    let outcome = nobody.list_tokens(ListTokensRequest::default()).await;
    refused(outcome, Code::Unauthenticated, "CREDENTIAL_MISSING");
}

#[tokio::test]
async fn a_certificate_never_rescues_a_bad_secret_nor_adds_to_a_good_one() {
    let place = Place::new().await;
    let admin = place.channel(Some(&place.authority.good(&[ADMIN])));

    let mut mistaken = bearing(admin.clone(), &["Bearer tokd_typo"]);

    refused(mistaken.create_token(ordinary()).await, Code::Unauthenticated, "CREDENTIAL_MALFORMED");
    let reader = crate::support::client::created_with(&mut place.root(), "acme", &["tokend:read"]).await;
    let mut reader = bearing(admin, &[&format!("Bearer {}", reader.secret)]);
    refused(reader.create_token(ordinary()).await, Code::PermissionDenied, "SCOPE_MISSING");
}

#[tokio::test]
async fn a_name_that_is_mapped_to_nothing_or_twice_is_nobody() {
    let place = Place::new().await;

    for names in [&["stranger.example.org"][..], &[], &[GATEWAY, ADMIN], &["ADMIN.example.org"]] {
        let outcome = place.holder(names).create_token(ordinary()).await;
        refused(outcome, Code::Unauthenticated, "CREDENTIAL_INVALID");
    }
}

#[tokio::test]
async fn a_certificate_of_another_authority_or_past_its_end_gets_no_connection() {
    let place = Place::new().await;
    let foreign = Authority::new().good(&[ADMIN]);
    let expired = place.authority.sign(&[ADMIN], ended());

    for signed in [foreign, expired] {
        let mut client = bearing(place.channel(Some(&signed)), &[]);
        let status = client.create_token(ordinary()).await.unwrap_err();
        // The handshake failed: tonic's own error, without our details.
        assert!(tonic_types::StatusExt::get_details_error_info(&status).is_none(), "{status:?}");
    }
}

#[tokio::test]
async fn a_connection_outlives_its_certificate_but_its_calls_do_not() {
    let place = Place::new().await;
    let short = place.authority.sign(&[ADMIN], time::Duration::seconds(4));
    let end = now() + time::Duration::seconds(4);
    let mut admin = bearing(place.channel(Some(&short)), &[]);
    created(&mut admin, ordinary()).await;

    eventually("the certificate ends", async || (now() > end + time::Duration::SECOND).then_some(())).await;

    let status = admin.create_token(ordinary()).await.unwrap_err();
    check(&status, Code::Unauthenticated, "CREDENTIAL_EXPIRED");
}

#[tokio::test]
async fn a_privileged_token_does_not_outlive_the_certificate_that_creates_it() {
    let place = Place::new().await;
    let mut request = ordinary();
    request.scopes = vec!["tokend:write".to_owned()];

    let outcome = place.holder(&[ADMIN]).create_token(request).await;

    refused(outcome, Code::PermissionDenied, "PRIVILEGED_TOKEN");
}
