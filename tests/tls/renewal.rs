//! The server's own certificate: whether clients trust it, and its renewal while calls run.

use tokend::api::proto::ListTokensRequest;
use tokend::transport::tls::{ServerTls, TlsError};
use tonic::transport::Channel;

use super::authority::{Authority, Files, channel};
use crate::support::client::{Client, bearing};
use crate::support::eventually;
use crate::support::replica::{Installation, Replica, wait_until_serving};

async fn serve(files: &Files, authority: &Authority) -> Replica {
    let installation = Installation::new().await;
    let mut config = installation.config();
    config.tls = Some(files.load());
    let replica = installation.launch(config);
    wait_until_serving(channel(&replica, authority, None)).await;
    replica
}

fn root(replica: &Replica, channel: Channel) -> Client {
    bearing(channel, &[&format!("Bearer {}", replica.installation.root_secret)])
}

async fn answers(client: &mut Client) -> bool {
    client.list_tokens(ListTokensRequest::default()).await.is_ok()
}

#[tokio::test]
async fn clients_with_another_ca_or_plaintext_cannot_connect() {
    let (authority, other) = (Authority::new(), Authority::new());
    let files = Files::new(&authority.good(&["localhost"]), None);
    let replica = serve(&files, &authority).await;

    assert!(answers(&mut root(&replica, channel(&replica, &authority, None))).await);
    assert!(!answers(&mut root(&replica, channel(&replica, &other, None))).await);
    assert!(!answers(&mut root(&replica, replica.channel())).await);
}

#[tokio::test]
async fn a_renewed_certificate_is_served_without_a_connection_being_dropped() {
    let (old, new) = (Authority::new(), Authority::new());
    let files = Files::new(&old.good(&["localhost"]), None);
    let replica = serve(&files, &old).await;
    let mut lasting = root(&replica, channel(&replica, &old, None));
    assert!(answers(&mut lasting).await);

    files.replace(&new.good(&["localhost"]));

    eventually("the new certificate is served", async || {
        assert!(answers(&mut lasting).await, "a connection from before goes on");
        answers(&mut root(&replica, channel(&replica, &new, None))).await.then_some(())
    })
    .await;
    assert!(!answers(&mut root(&replica, channel(&replica, &old, None))).await);
    // Still over its first connection: it trusts only the old authority.
    assert!(answers(&mut lasting).await);
}

#[tokio::test]
async fn an_unusable_renewal_keeps_the_earlier_certificate() {
    let (authority, other) = (Authority::new(), Authority::new());
    let files = Files::new(&authority.good(&["localhost"]), None);
    let replica = serve(&files, &authority).await;

    // A key that does not match the certificate, as between the two writes of a renewal.
    std::fs::write(files.path("key.pem"), other.good(&["localhost"]).key).unwrap();
    tokio::time::sleep(std::time::Duration::from_millis(1500)).await;

    assert!(answers(&mut root(&replica, channel(&replica, &authority, None))).await);
    files.replace(&other.good(&["localhost"]));
    eventually("the finished renewal is served", async || {
        answers(&mut root(&replica, channel(&replica, &other, None))).await.then_some(())
    })
    .await;
}

#[test]
fn unusable_tls_files_are_distinguished() {
    use std::os::unix::fs::PermissionsExt as _;
    let authority = Authority::new();
    let files = Files::new(&authority.good(&["localhost"]), Some(&authority));

    assert!(ServerTls::load(files.files()).is_ok());

    std::fs::set_permissions(files.path("key.pem"), std::fs::Permissions::from_mode(0o644)).unwrap();
    assert!(matches!(ServerTls::load(files.files()), Err(TlsError::Exposed(_))));
    files.replace(&authority.good(&["localhost"]));
    std::fs::write(files.path("ca.pem"), "").unwrap();
    assert!(matches!(ServerTls::load(files.files()), Err(TlsError::Empty { what: "certificate", .. })));
    std::fs::remove_file(files.path("ca.pem")).unwrap();
    assert!(matches!(ServerTls::load(files.files()), Err(TlsError::Unreadable { .. })));
}
