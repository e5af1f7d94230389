//! What the commands print if they reach no tokend, or are refused: which setting is wrong, and
//! what to do.

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

use super::program::{Running, TestDir, eventually, run, text};
use super::rpc;

/// Lists tokens, which must fail, and returns the error message.
fn failure(variables: &[(&str, &str)]) -> String {
    let output = run(&["token", "list"], variables, "");
    let message = text(&output.stderr);
    assert_eq!((output.status.code(), &*output.stdout), (Some(1), &b""[..]), "{message}");
    message
}

/// Starts a server with TLS for `localhost`; returns it with its CA's file and another CA's.
fn with_tls(test_dir: &TestDir) -> (Running, String, [String; 2]) {
    let authority = || {
        let mut ca = CertificateParams::new(Vec::new()).unwrap();
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        CertifiedIssuer::self_signed(ca, KeyPair::generate().unwrap()).unwrap()
    };
    let (ca, other) = (authority(), authority());
    let key = KeyPair::generate().unwrap();
    let server = CertificateParams::new(vec!["localhost".to_owned()]).unwrap().signed_by(&key, &ca).unwrap();
    let certificate = test_dir.file("server.pem", &server.pem(), 0o644);
    let key = test_dir.file("server.key", &key.serialize_pem(), 0o600);
    let cas = [test_dir.file("ca.pem", &ca.pem(), 0o644), test_dir.file("other.pem", &other.pem(), 0o644)];
    let data = test_dir.data_dir();
    let mut server = test_dir.start(
        &[
            "serve",
            "--listen",
            "127.0.0.1:0",
            "--data-dir",
            data.to_str().unwrap(),
            "--tls-certificate",
            &certificate,
            "--tls-key",
            &key,
        ],
        &[],
    );
    let port = server.address().rsplit_once(':').unwrap().1.to_owned();
    let address = format!("https://localhost:{port}");
    let variables = [("TOKEND_ADDRESS", &*address), ("TOKEND_CA", &*cas[0])];
    assert!(eventually(|| run(&["healthcheck"], &variables, "").status.success()), "{}", server.stderr());
    (server, port, cas)
}

#[test]
fn missing_and_unexpected_tls_are_distinguished() {
    let test_dir = TestDir::new();
    let (_server, port, [ca, other]) = with_tls(&test_dir);
    let root = test_dir.root_secret();
    let error_for = |address: &str, ca: &str| {
        let address = address.replace("PORT", &port);
        failure(&[("TOKEND_ADDRESS", &address), ("TOKEND_CA", ca), ("TOKEND_SECRET", &root)])
    };
    for (address, ca, advice) in [
        ("http://localhost:PORT", "", "write https:// in the address"),
        ("https://localhost:PORT", "", "pass its CA with --ca or TOKEND_CA"),
        ("https://localhost:PORT", &other, "pass its CA with --ca or TOKEND_CA"),
        ("https://127.0.0.1:PORT", &ca, "its certificate is for another name"),
    ] {
        let message = error_for(address, ca);
        assert!(message.contains(advice) && message.contains("TOKEND_ADDRESS"), "{address}: {message}");
    }

    // A container has no CAs of its own: one that is given is enough.
    let address = format!("https://localhost:{port}");
    let bare = [("SSL_CERT_FILE", "/nowhere"), ("SSL_CERT_DIR", "/nowhere")];
    let given = [("TOKEND_ADDRESS", &*address), ("TOKEND_CA", &*ca), bare[0], bare[1]];
    let health = run(&["healthcheck"], &given, "");
    assert!(health.status.success(), "{}", text(&health.stderr));

    let plain = TestDir::new();
    let mut server = plain.serve();
    let address = server.ready();
    let encrypted = address.replace("http://", "https://");
    let message = failure(&[("TOKEND_ADDRESS", &encrypted), ("TOKEND_SECRET", &root)]);
    assert!(message.contains("write http:// in the address"), "{message}");
    server.stop();
    let message = failure(&[("TOKEND_ADDRESS", &address), ("TOKEND_SECRET", &root)]);
    assert!(message.contains("nothing listens there: start tokend"), "{message}");
    let health = run(&["healthcheck", "--address", &address], &[], "");
    assert!(text(&health.stderr).contains("(--address): nothing listens there"), "{}", text(&health.stderr));
}

#[test]
fn a_mistyped_or_invalid_secret_is_reported_with_its_setting() {
    let test_dir = TestDir::new();
    let mut server = test_dir.serve();
    let (address, root) = (server.ready(), test_dir.root_secret());
    let mistyped = format!("{}{}", &root[..76 - 1], if root.ends_with('0') { "1" } else { "0" });
    assert_eq!(mistyped.len(), root.len());
    let message = failure(&[("TOKEND_ADDRESS", &address), ("TOKEND_SECRET", &mistyped)]);
    assert!(message.contains("TOKEND_SECRET") && message.contains("checksum"), "{message}");

    let made = rpc::create(&address, &root, "ada").unwrap();
    let id = made.token.unwrap().id;
    let as_root = [("TOKEND_ADDRESS", &*address), ("TOKEND_SECRET", &*root)];
    assert!(run(&["token", "revoke", &id], &as_root, "").status.success());
    let file = test_dir.file("secret", &made.secret, 0o600);
    for (setting, value) in [("TOKEND_SECRET", &made.secret), ("TOKEND_SECRET_FILE", &file)] {
        let message = failure(&[("TOKEND_ADDRESS", &address), (setting, value)]);
        assert!(message.contains(setting) && message.contains("CREDENTIAL_REVOKED"), "{message}");
    }
    let exposed = test_dir.file("exposed", &root, 0o644);
    let message = failure(&[("TOKEND_ADDRESS", &address), ("TOKEND_SECRET_FILE", &exposed)]);
    assert!(message.contains("others can read the file that TOKEND_SECRET_FILE names"), "{message}");
}
