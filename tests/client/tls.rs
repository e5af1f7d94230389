//! Connections with TLS: a private CA, a client certificate, and what is not trusted.

use tokend::domain::{CertificateMapping, CertificateMappings, OrganizationId, ReservedScope, SubjectName};
use tokend_client::{Connection, ErrorKind, Listing, LocalConfig, Verdict, Verifier};

use super::asking::{judged_here, verdict};
use crate::authority::{Authority, Files};
use crate::support::eventually;
use crate::support::replica::Installation;

const NAME: &str = "uri:spiffe://example.org/gateway";

#[tokio::test]
async fn a_configured_ca_is_trusted_and_a_client_certificate_is_a_credential() {
    let authority = Authority::new();
    let files = Files::new(&authority.good(&["localhost"]), Some(&authority));
    let installation = Installation::new().await;
    let mut config = installation.config();
    config.tls = Some(files.load());
    config.certificates = CertificateMappings::new(vec![CertificateMapping {
        name: SubjectName::parse(NAME).unwrap(),
        scopes: [ReservedScope::VerifyAny].into_iter().collect(),
        organization_id: OrganizationId::parse("acme").unwrap(),
    }])
    .unwrap();
    let replica = installation.launch(config);
    let address = format!("https://localhost:{}", replica.address.port());
    let root = || Connection::to(&*address).secret((&*installation.root_secret).into());

    let trusted = root().ca(authority.pem.clone()).open().unwrap();
    eventually("the replica serves", async || trusted.list_tokens(&Listing::default(), None).await.ok())
        .await;
    let untrusting = root().ca(Authority::new().pem).open().unwrap();
    let refused = untrusting.list_tokens(&Listing::default(), None).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unavailable);
    let misnamed = root().ca(authority.pem.clone()).server_name("tokend.example.org").open().unwrap();
    assert!(misnamed.list_tokens(&Listing::default(), None).await.is_err());

    let signed = authority.good(&[NAME]);
    let gateway = Connection::to(&*address)
        .ca(authority.pem.clone())
        .client_certificate(signed.certificate, signed.key.into())
        .open()
        .unwrap();
    let verifier = Verifier::local(gateway, LocalConfig::default()).unwrap();
    assert_eq!(verdict(&verifier, &installation.root_secret).await, Verdict::Valid);
    // The clock is set with a secret that belongs to no token.
    eventually("the token is held", async || {
        assert_eq!(verdict(&verifier, &installation.root_secret).await, Verdict::Valid);
        judged_here(&verifier, &installation.root_secret)
    })
    .await;
}
