//! A replica whose connections lead to a standby: it reports that, and serves after the promotion.

use tokend::secret::Prefix;
use tonic_health::ServingStatus;

use crate::support::database::Database;
use crate::support::replica::{Installation, SERVICE};
use crate::support::server::{Server, Standby};
use crate::support::{eventually, http};

#[tokio::test]
async fn a_standby_is_named_until_it_is_promoted() {
    let primary = Server::start();
    let installation = Installation::on(Database::migrated_on(primary.socket_dir()).await).await;
    let standby = Standby::of(&primary);
    let copy = Database::named(standby.socket_dir(), "tokend");
    let refused = tokend::store::migrate(&copy.connect_settings(), &Prefix::default()).await.unwrap_err();
    assert!(refused.to_string().contains("this is a standby"), "{refused}");
    let mut config = installation.config();
    config.database = copy.connect_settings();
    let replica = installation.launch(config);

    eventually("readiness names the standby", async || {
        let (status, output) = http::get(replica.http, "/readyz").await;
        (status == 503 && output.contains("standby")).then_some(())
    })
    .await;
    assert_eq!(replica.health(SERVICE).await, ServingStatus::NotServing);
    standby.promote();

    eventually("the replica serves", async || {
        (replica.health(SERVICE).await == ServingStatus::Serving).then_some(())
    })
    .await;
}
