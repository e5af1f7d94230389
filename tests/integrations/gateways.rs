//! Real nginx, Caddy, Traefik, `HAProxy` and Envoy, configured as in docs/integrations.md, in front of a
//! small backend. Each must admit authorized clients, tell the backend who they are, and refuse all
//! others.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use axum::Router;
use axum::http::{HeaderMap, Method};
use tokend::api::proto::CreateTokenRequest;
use tokend::domain::{Network, Networks};
use tokio::net::TcpListener;

use super::inputs;
use super::limits::plan_of_burst;
use super::program::{Running, TestDir, find, find_tool, free_address, shown};
use crate::support::client::{created, ordinary, revoked, texts};
use crate::support::eventually;
use crate::support::http::{Reply, get_from};
use crate::support::proxy::{LinkState, Proxy};
use crate::support::replica::{Installation, Replica};

/// The address of clients; the gateways themselves are at 127.0.0.1.
pub(crate) const CLIENT: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

/// The addresses of all servers.
pub(super) struct Addresses {
    pub(super) gateway: SocketAddr,
    pub(super) backend: SocketAddr,
    pub(super) http: SocketAddr,
    pub(super) grpc: SocketAddr,
    /// Whether the guide's scope is required.
    pub(super) scoped: bool,
}

impl Addresses {
    /// Returns a file of the guide with these addresses in place of its own.
    pub(super) fn fill(&self, file: &str) -> String {
        let mut text = shown(file).to_owned();
        if !self.scoped {
            text = text.replace("&scope=reports:read", "").replace(", scope: reports:read", "");
        }
        for (port, address) in
            [(8080, self.gateway), (3000, self.backend), (9090, self.http), (50051, self.grpc)]
        {
            text = text.replace(&format!("127.0.0.1:{port}"), &address.to_string());
            text = text.replace(&format!("port_value: {port} "), &format!("port_value: {} ", address.port()));
        }
        text
    }
}

/// Starts a backend that responds with the headers that it receives.
pub(super) async fn backend() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let echo = async |method: Method, headers: HeaderMap| {
        let lines = headers.iter().map(|(name, value)| (name, String::from_utf8_lossy(value.as_bytes())));
        let lines = lines.map(|(name, value)| format!("{name}: {value}\n"));
        format!(":method: {method}\n{}", lines.collect::<String>())
    };
    tokio::spawn(async move { axum::serve(listener, Router::new().fallback(echo)).await });
    address
}

pub(super) fn request(user: &str) -> CreateTokenRequest {
    CreateTokenRequest {
        organization_id: "acme".to_owned(),
        user_id: user.to_owned(),
        scopes: texts(&["reports:*"]),
        ..ordinary()
    }
}

async fn get(gateway: SocketAddr, headers: &[(&str, &str)]) -> Option<Reply> {
    get_from(CLIENT, gateway, "/reports?scope=none", headers).await
}

/// Starts a gateway with `start` in front of a backend, and runs all checks on it.
pub(super) async fn guarded(start: impl Fn(&Addresses) -> Running) {
    guarded_and_telling(start, true).await;
}

/// The same; `tells`: its client learns what is left of limits, also when it is admitted.
async fn guarded_and_telling(start: impl Fn(&Addresses) -> Running, tells: bool) {
    let (proxy, installation) = (Proxy::start(LinkState::Open).await, Installation::new().await);
    let mut config = installation.config();
    config.database = proxy.lead(&config.database);
    config.integrations.ext_authz = true;
    config.integrations.trusted_proxies =
        Networks::new(vec![Network::parse("127.0.0.1/32").unwrap()]).unwrap();
    let replica = installation.serve(config).await;
    let addresses = Addresses {
        gateway: free_address(),
        backend: backend().await,
        http: replica.http,
        grpc: replica.address,
        scoped: true,
    };
    let gateway = started(&start, &addresses).await;
    // If the test fails, the gateway's log is printed.
    let _said = shown_if_it_fails(&gateway);
    who_may_is_let_in(&replica, addresses.gateway).await;
    a_used_up_limit_is_429(&replica, addresses.gateway, tells).await;
    nothing_forged_gets_through(&replica, addresses.gateway, request("ada")).await;
    let open = Addresses { gateway: free_address(), scoped: false, ..addresses };
    let gateway_to_all = started(&start, &open).await;
    let _said_too = shown_if_it_fails(&gateway_to_all);
    nothing_forged_gets_through(
        &replica,
        open.gateway,
        CreateTokenRequest { scopes: Vec::new(), ..request("ada") },
    )
    .await;
    let bearer = format!("Bearer {}", created(&mut replica.root(), request("ada")).await.secret);
    inputs::odd_requests_of_who_may_are_no_outage(addresses.gateway, &bearer).await;
    inputs::odd_credentials_are_refused(addresses.gateway, &bearer).await;
    inputs::preflights_reach_the_backend_as_nobodys(addresses.gateway, &bearer).await;
    who_may_not_is_refused(&replica, addresses.gateway).await;
    an_outage_is_no_refusal(&replica, addresses.gateway, &proxy).await;
}

/// Starts a gateway and waits until it listens. Traefik answers 404 until it has read its routes.
pub(super) async fn started(start: &impl Fn(&Addresses) -> Running, addresses: &Addresses) -> Running {
    let mut gateway = start(addresses);
    eventually("the gateway listens", async || {
        gateway.check();
        get(addresses.gateway, &[]).await.filter(|reply| reply.status != 404).map(drop)
    })
    .await;
    gateway
}

/// Prints a program's log when a test fails.
pub(super) fn shown_if_it_fails(program: &Running) -> impl Drop + '_ {
    struct Shown<'a>(&'a Running);
    impl Drop for Shown<'_> {
        fn drop(&mut self) {
            if std::thread::panicking() {
                eprintln!("{}", self.0.log());
            }
        }
    }
    Shown(program)
}

async fn who_may_is_let_in(replica: &Replica, gateway: SocketAddr) {
    let near = CreateTokenRequest { allowed_cidrs: texts(&["127.0.0.2/32"]), ..request("ada") };
    let made = created(&mut replica.root(), near).await;
    let bearer = format!("Bearer {}", made.secret);
    let headers = [
        ("authorization", &*bearer),
        ("x-tokend-user", "root"),
        ("x-tokend-organization", "forged"),
        ("x-tokend-scopes", "everything"),
    ];

    let reply = get(gateway, &headers).await.unwrap();

    assert_eq!(reply.status, 200, "{reply:?}");
    let seen = |name: &str| -> Vec<String> {
        let lines = reply.body.lines().filter_map(|line| line.split_once(": "));
        lines.filter(|(found, _)| *found == name).map(|(_, value)| value.to_owned()).collect()
    };
    assert_eq!(seen("x-tokend-user"), ["ada"]);
    assert_eq!(seen("x-tokend-organization"), ["acme"]);
    assert_eq!(seen("x-tokend-token-id"), [made.token.unwrap().id]);
    assert_eq!(seen("x-tokend-scopes"), ["reports:*"]);
    assert!(!reply.body.contains(&made.secret), "the backend got the credential");
}

async fn a_used_up_limit_is_429(replica: &Replica, gateway: SocketAddr, tells: bool) {
    let mut root = replica.root();
    plan_of_burst(&mut root, 2).await;
    let limited = CreateTokenRequest { plan: "small".to_owned(), ..request("ada") };
    let bearer = format!("Bearer {}", created(&mut root, limited).await.secret);
    let headers = [("authorization", &*bearer), ("x-tokend-limits", "forged")];
    for left in ["1", "0"] {
        let reply = get(gateway, &headers).await.unwrap();
        let state = reply.header("ratelimit");
        assert_eq!((reply.status, state.is_some()), (200, tells), "{reply:?}");
        assert!(state.is_none_or(|state| state.starts_with(&format!("\"calls\";r={left};t="))), "{reply:?}");
        assert_eq!(reply.header("ratelimit-policy").is_some(), tells);
    }
    let refused = get(gateway, &headers).await.unwrap();
    assert_eq!(refused.status, 429, "{refused:?}");
    assert!(refused.header("retry-after").unwrap().parse::<u32>().unwrap() > 0);
    assert!(refused.header("ratelimit").unwrap().starts_with(r#""calls";r=0"#), "{refused:?}");
    assert_eq!(refused.header("ratelimit-policy").unwrap(), r#""calls";q=2;w=5356800"#);

    let bearer = format!("Bearer {}", created(&mut root, request("ada")).await.secret);
    let reply = get(gateway, &[("authorization", &bearer)]).await.unwrap();
    assert_eq!((reply.status, reply.header("ratelimit")), (200, None), "without a plan");
}

/// Returns all spellings of a header that CGI, WSGI and Rack map to the same variable.
pub(crate) fn spellings(name: &str) -> Vec<String> {
    let parts: Vec<&str> = name.split('-').collect();
    let spelling = |number: usize| {
        let mut spelled = parts[0].to_owned();
        for (index, part) in parts[1..].iter().enumerate() {
            spelled.push(if number >> index & 1 == 1 { '_' } else { '-' });
            spelled.push_str(part);
        }
        spelled
    };
    (0..1 << (parts.len() - 1)).map(spelling).collect()
}

/// No identity header of the client reaches the backend, in any spelling, even if tokend sends none.
async fn nothing_forged_gets_through(replica: &Replica, gateway: SocketAddr, token: CreateTokenRequest) {
    let names = ["x-tokend-user", "x-tokend-organization", "x-tokend-token-id", "x-tokend-scopes"];
    let forged: Vec<String> = names.into_iter().flat_map(spellings).collect();
    let scopes = token.scopes.join(" ");
    let made = created(&mut replica.root(), token).await;
    let bearer = format!("Bearer {}", made.secret);
    let mut headers = vec![("authorization", &*bearer)];
    headers.extend(forged.iter().map(|name| (&**name, "forged")));

    let reply = get(gateway, &headers).await.unwrap();

    assert_eq!(reply.status, 200, "{reply:?}");
    assert!(!reply.body.contains("forged"), "{reply:?}");
    for (name, value) in
        [("x-tokend-user", "ada"), ("x-tokend-organization", "acme"), ("x-tokend-scopes", &*scopes)]
    {
        let lines = reply.body.lines().filter_map(|line| line.split_once(": "));
        let seen: Vec<&str> =
            lines.filter(|(found, _)| found.replace('_', "-") == name).map(|(_, value)| value).collect();
        // An empty header is as good as none.
        assert_eq!(seen.join(","), value, "{name}: {reply:?}");
    }
}

async fn who_may_not_is_refused(replica: &Replica, gateway: SocketAddr) {
    let mut root = replica.root();
    let other = CreateTokenRequest { organization_id: "other".to_owned(), ..request("eve") };
    let lacking = CreateTokenRequest { scopes: texts(&["invoices:read"]), ..request("eve") };
    let far = CreateTokenRequest { allowed_cidrs: texts(&["10.0.0.0/8"]), ..request("eve") };
    // The gateway's address, which its clients do not have.
    let beside = CreateTokenRequest { allowed_cidrs: texts(&["127.0.0.1/32"]), ..request("eve") };
    for (what, token, status) in
        [("other", other, 401), ("lacking", lacking, 403), ("far", far, 403), ("beside", beside, 403)]
    {
        let bearer = format!("Bearer {}", created(&mut root, token).await.secret);
        let headers = [("authorization", &*bearer), ("x-forwarded-for", "10.1.2.3")];
        let reply = get(gateway, &headers).await.unwrap();
        assert_eq!(reply.status, status, "{what}: {reply:?}");
        assert!(!reply.body.contains("x-forwarded-for"), "the backend was asked");
    }
    for headers in [&[][..], &[("authorization", "Bearer nonsense")], &[("authorization", "Basic YTpi")]] {
        let reply = get(gateway, headers).await.unwrap();
        assert_eq!(reply.status, 401, "{reply:?}");
        assert!(reply.header("www-authenticate").unwrap().starts_with("Bearer"), "{reply:?}");
    }

    let made = created(&mut root, request("ada")).await;
    let bearer = format!("Bearer {}", made.secret);
    assert_eq!(get(gateway, &[("authorization", &bearer)]).await.unwrap().status, 200);
    revoked(&mut root, &made.token.unwrap().id, "").await;
    assert_eq!(get(gateway, &[("authorization", &bearer)]).await.unwrap().status, 401);
}

async fn an_outage_is_no_refusal(replica: &Replica, gateway: SocketAddr, proxy: &Proxy) {
    let bearer = format!("Bearer {}", created(&mut replica.root(), request("ada")).await.secret);
    assert_eq!(get(gateway, &[("authorization", &bearer)]).await.unwrap().status, 200);

    proxy.set(LinkState::Cut);

    let status = eventually("the cache is too old to answer", async || {
        let status = get(gateway, &[("authorization", &bearer)]).await.unwrap().status;
        (status != 200).then_some(status)
    })
    .await;
    assert_eq!(status, 503);
}

#[tokio::test]
async fn nginx_guards_a_backend() {
    let Some(program) = find("nginx") else { return };
    guarded(|addresses| {
        let test_dir = TestDir::new();
        let here = test_dir.path().to_str().unwrap().to_owned();
        let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|kind| format!("{kind}_temp_path {here}/{kind};\n"))
            .concat();
        let server = addresses.fill("nginx.conf");
        let text = format!(
            "daemon off;\nmaster_process off;\npid {here}/pid;\nerror_log stderr;\nevents {{}}\n\
             http {{\naccess_log off;\n{temporary}{server}\n}}\n"
        );
        let file = test_dir.write("nginx.conf", &text);
        test_dir.start(&program, &["-e", "stderr", "-p", &here, "-c", &file])
    })
    .await;
}

#[tokio::test]
async fn caddy_guards_a_backend() {
    let Some(program) = find("caddy") else { return };
    guarded_by_caddy(&program).await;
}

#[tokio::test]
async fn the_newest_caddy_guards_a_backend() {
    let Some(program) = find_tool("caddy") else { return };
    guarded_by_caddy(&program).await;
}

async fn guarded_by_caddy(program: &Path) {
    guarded(|addresses| {
        let test_dir = TestDir::new();
        let text = format!("{{\n\tadmin off\n\tauto_https off\n}}\n{}\n", addresses.fill("Caddyfile"));
        let file = test_dir.write("Caddyfile", &text);
        test_dir.start(program, &["run", "--config", &file, "--adapter", "caddyfile"])
    })
    .await;
}

#[tokio::test]
async fn traefik_guards_a_backend() {
    let Some(program) = find_tool("traefik") else { return };
    guarded_by_traefik(&program).await;
}

#[tokio::test]
async fn an_older_traefik_guards_a_backend() {
    let Some(program) = find_tool("../older/bin/traefik") else { return };
    guarded_by_traefik(&program).await;
}

async fn guarded_by_traefik(program: &Path) {
    // Traefik copies headers of an admission to the request alone.
    guarded_and_telling(
        |addresses| {
            let test_dir = TestDir::new();
            let file = test_dir.write("tokend.yaml", &format!("{}\n", addresses.fill("tokend.yaml")));
            let listen = format!("--entrypoints.web.address={}", addresses.gateway);
            let file = format!("--providers.file.filename={file}");
            let silent = ["--global.checknewversion=false", "--global.sendanonymoususage=false"];
            test_dir.start(program, &[&*listen, &*file, silent[0], silent[1]])
        },
        false,
    )
    .await;
}

#[tokio::test]
async fn haproxy_guards_a_backend() {
    let Some(program) = find("haproxy") else { return };
    guarded(|addresses| {
        let test_dir = TestDir::new();
        test_dir.write("tokend.lua", &format!("{}\n", addresses.fill("tokend.lua")));
        let file = test_dir.write("haproxy.cfg", &format!("{}\n", addresses.fill("haproxy.cfg")));
        test_dir.start(&program, &["-db", "-f", &file])
    })
    .await;
}
