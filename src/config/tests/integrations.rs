//! The settings of the integrations.

use super::*;
use crate::api::origin::Origin;

#[test]
fn only_named_proxies_are_trusted_and_never_all_networks() {
    let (settings, _) = serve(&[], &[]).unwrap();
    assert_eq!(settings.integrations.trusted_proxies.iter().count(), 0);
    let trusted = ["--ext-authz", "--trusted-proxies", "10.0.0.0/8, 2001:db8::/32"];
    let (settings, _) = serve(&trusted, &[]).unwrap();
    let trusted: Vec<String> =
        settings.integrations.trusted_proxies.iter().map(ToString::to_string).collect();
    assert_eq!(trusted, ["10.0.0.0/8", "2001:db8::/32"]);

    for wide in ["0.0.0.0/0", "::/0", "0.0.0.0/1,128.0.0.0/1", "10.0.0.0/7", "10.0.0.1", "10.0.0.1/8", ""] {
        let line = ["serve", "--trusted-proxies", wide];
        assert!(Serve::try_parse_from(line).is_err(), "{wide}");
    }
    let error = refusal(&[], &[("TOKEND_TRUSTED_PROXIES", "0.0.0.0/0")]);
    assert!(matches!(error, ConfigError::Variable { name: "TOKEND_TRUSTED_PROXIES", .. }));
    let error = refusal(&["--gateway-organization", ""], &[]);
    assert!(matches!(error, ConfigError::GatewayOrganization(_)));
}

#[test]
fn only_pages_of_listed_origins_may_call() {
    assert!(serve(&[], &[]).unwrap().0.integrations.web_origins.is_empty());
    let (settings, _) =
        serve(&["--grpc-web-origins", "https://a.example, http://localhost:5173"], &[]).unwrap();
    let expected = ["https://a.example", "http://localhost:5173"].map(|text| Origin::parse(text).unwrap());
    assert_eq!(settings.integrations.web_origins, expected);
    for wrong in ["*", "https://a.example/", "https://a.example,", ""] {
        let error = refusal(&["--grpc-web-origins", wrong], &[]);
        assert!(matches!(error, ConfigError::ListedOrigin { .. }), "{wrong:?}");
    }
    let secret = refusal(&["--grpc-web-origins", "https://a.example,https://u:canary@b.example"], &[]);
    assert!(message(&secret).contains("number 2") && !message(&secret).contains("canary"), "{secret}");
}

#[test]
fn token_reviews_are_answered_only_if_a_scope_is_set() {
    let found = |arguments: &[&str], environment: &[(&str, &str)]| {
        let arguments = [&["--http-listen", "127.0.0.1:9090"], arguments].concat();
        let review = serve(&arguments, environment).unwrap().0.integrations.token_review?;
        Some((review.scope.as_str().to_owned(), review.audiences.join(" ")))
    };
    let audience = "https://kubernetes.default.svc.cluster.local".to_owned();
    assert_eq!(found(&[], &[]), None);
    assert_eq!(found(&["--token-review", "k8s:prod"], &[]), Some(("k8s:prod".to_owned(), audience)));
    let named = [("TOKEND_TOKEN_REVIEW", "k8s"), ("TOKEND_TOKEN_REVIEW_AUDIENCES", "a, https://b")];
    assert_eq!(found(&[], &named), Some(("k8s".to_owned(), "a https://b".to_owned())));

    for scope in ["", "K8s", "tokend:all"] {
        assert!(matches!(refusal(&["--token-review", scope], &[]), ConfigError::TokenReview(_)), "{scope}");
    }
    let unheard = refusal(&["--token-review", "k8s:prod"], &[]);
    assert!(matches!(unheard, ConfigError::TokenReviewWithoutListener));
}
