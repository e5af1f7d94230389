//! Which hosts are this machine itself. Connections to any other need TLS with a verified certificate,
//! unless the operator allows otherwise. Called by the server's configuration, the operator's commands and
//! the client. Uses no socket: a name is never resolved, since its DNS answer decides where it leads.

use std::net::IpAddr;

/// Returns whether a host, as written in a URL, is this machine: a loopback address (RFC 6890, also as
/// `::ffff:127.0.0.1`), `localhost` (RFC 6761), or the path of a Unix socket.
#[must_use]
pub fn is_this_machine(host: &str) -> bool {
    let bare = host.strip_prefix('[').and_then(|inner| inner.strip_suffix(']')).unwrap_or(host);
    host.starts_with('/')
        || host.eq_ignore_ascii_case("localhost")
        || bare.parse::<IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_localhost_and_sockets_are_this_machine() {
        for host in [
            "127.0.0.1",
            "127.255.0.9",
            "::1",
            "[::1]",
            "0:0:0:0:0:0:0:1",
            "::ffff:127.0.0.1",
            "[::ffff:7f00:1]",
            "localhost",
            "LocalHost",
            "/run/postgresql",
        ] {
            assert!(is_this_machine(host), "{host}");
        }
    }

    #[test]
    fn any_other_host_name_is_another_machine() {
        for host in [
            "",
            "db.example",
            "192.0.2.1",
            "10.0.0.1",
            "0.0.0.0",
            "::",
            "::2",
            "::127.0.0.1",
            "::ffff:192.0.2.1",
            "fe80::1%lo",
            // Read by some resolvers as 127.0.0.1.
            "127.1",
            "2130706433",
            "0x7f.0.0.1",
            "0177.0.0.1",
            // Names that can resolve to any address.
            "localhost.example",
            "127.0.0.1.example",
            "db.localhost",
            "localhost.",
            "localhost,db.example",
            "127.0.0.1,192.0.2.1",
            "[::1",
            "::1]",
            " localhost",
            "@/run/postgresql",
        ] {
            assert!(!is_this_machine(host), "{host}");
        }
    }
}
