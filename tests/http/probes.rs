//! `/livez` and `/readyz`: alive from the start, ready while Verify can be answered.

use crate::support::eventually;
use crate::support::http::get;
use crate::support::proxy::{LinkState, Proxy};
use crate::support::replica::{Installation, Replica};

#[tokio::test]
async fn a_replica_is_alive_at_once_and_ready_while_it_can_answer() {
    let (proxy, installation) = (Proxy::start(LinkState::Cut).await, Installation::new().await);
    let mut config = installation.config();
    config.database = proxy.lead(&config.database);
    let replica = installation.launch(config);

    assert_eq!(get(replica.http, "/livez").await, (200, "ok\n".to_owned()));
    assert_eq!(get(replica.http, "/readyz").await.0, 503);

    for (way, status) in [(LinkState::Open, 200), (LinkState::Cut, 503), (LinkState::Open, 200)] {
        proxy.set(way);
        eventually("readiness follows the database", async || {
            (get(replica.http, "/readyz").await.0 == status).then_some(())
        })
        .await;
        assert_eq!(get(replica.http, "/livez").await.0, 200);
    }
}

#[tokio::test]
async fn nothing_else_is_served() {
    let replica = Replica::start().await;

    for path in ["/", "/tokens", "/metrics/x", "/debug"] {
        assert_eq!(get(replica.http, path).await.0, 404, "{path}");
    }
}
