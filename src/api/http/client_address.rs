//! The address of a gateway's client. Taken only from trusted proxies, from the nearest outwards:
//! what a client wrote into the header comes before what proxies appended. If it is not certain, it
//! is unknown, and a token with allowed networks is refused.

use std::net::{IpAddr, SocketAddr};

use axum::http::HeaderMap;

use super::config::IntegrationsConfig;
use crate::domain::networks::parse_address;

/// The header in which proxies record the address of the previous hop.
pub(crate) const FORWARDED: &str = "x-forwarded-for";

/// Finds the client of a call by `gateway`, from its `X-Forwarded-For`.
pub(crate) fn forwarded(config: &IntegrationsConfig, gateway: IpAddr, headers: &HeaderMap) -> Option<IpAddr> {
    behind(config, gateway, None, headers)
}

/// Finds the client of a call by `gateway` that also names its own peer in `source`.
pub(crate) fn behind(
    config: &IntegrationsConfig,
    gateway: IpAddr,
    source: Option<&str>,
    headers: &HeaderMap,
) -> Option<IpAddr> {
    let lines = headers.get_all(FORWARDED).iter().map(|line| line.to_str());
    let lines = lines.collect::<Result<Vec<_>, _>>().ok()?;
    let hops: Vec<&str> = lines.iter().flat_map(|line| line.split(',')).collect();
    outermost(config, gateway, source.into_iter().chain(hops.into_iter().rev()))
}

/// Walks from the gateway outwards, past trusted proxies.
fn outermost<'a>(
    config: &IntegrationsConfig,
    gateway: IpAddr,
    hops: impl Iterator<Item = &'a str>,
) -> Option<IpAddr> {
    if !config.trusts(gateway) {
        return None;
    }
    let mut client = None;
    for hop in hops {
        let address = parse(hop.trim())?;
        client = Some(address);
        if !config.trusts(address) {
            break;
        }
    }
    client
}

/// Reads an address; some proxies append a port.
fn parse(text: &str) -> Option<IpAddr> {
    let with_port = || text.parse::<SocketAddr>().ok().filter(|_| !text.contains('%'));
    parse_address(text).ok().or_else(|| Some(with_port()?.ip().to_canonical()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Network, Networks};

    fn found(gateway: &str, lines: &[&str]) -> Option<String> {
        let trusted = ["127.0.0.0/8", "10.0.0.0/8"].map(|text| Network::parse(text).unwrap());
        let config = IntegrationsConfig {
            trusted_proxies: Networks::new(trusted.into()).unwrap(),
            ..IntegrationsConfig::default()
        };
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append("x-forwarded-for", line.parse().unwrap());
        }
        forwarded(&config, gateway.parse().unwrap(), &headers).map(|address| address.to_string())
    }

    #[test]
    fn a_trusted_proxy_names_the_client_and_a_client_cannot_forge_it() {
        for (lines, client) in [
            (&["192.0.2.7"][..], Some("192.0.2.7")),
            (&["10.9.9.9, 192.0.2.7"], Some("192.0.2.7")),
            (&["10.9.9.9", "192.0.2.7,10.0.0.2"], Some("192.0.2.7")),
            (&["192.0.2.7:4711"], Some("192.0.2.7")),
            (&["[2001:db8::1]:4711, 10.0.0.2"], Some("2001:db8::1")),
            (&["::ffff:192.0.2.7"], Some("192.0.2.7")),
            (&["10.1.1.1, 10.0.0.2"], Some("10.1.1.1")),
            (&["192.0.2.7, unknown"], None),
            (&["192.0.2.7,"], None),
            (&["010.0.0.7"], None),
            (&["[fe80::1%2]:80"], None),
            (&["192.0.2.7:"], None),
            (&[""], None),
            (&[], None),
        ] {
            assert_eq!(found("127.0.0.1", lines).as_deref(), client, "{lines:?}");
        }
    }

    #[test]
    fn the_source_that_a_gateway_names_is_the_last_hop() {
        let config = IntegrationsConfig {
            trusted_proxies: Networks::new(vec![Network::parse("10.0.0.0/8").unwrap()]).unwrap(),
            ..IntegrationsConfig::default()
        };
        let mut headers = HeaderMap::new();
        headers.append("x-forwarded-for", "198.51.100.1, 192.0.2.7".parse().unwrap());
        for (source, client) in
            [("203.0.113.9", Some("203.0.113.9")), ("10.0.0.2", Some("192.0.2.7")), ("/run/pipe", None)]
        {
            let found = behind(&config, "10.0.0.1".parse().unwrap(), Some(source), &headers);
            assert_eq!(found.map(|address| address.to_string()).as_deref(), client);
        }
    }

    #[test]
    fn an_untrusted_proxy_is_not_believed_about_the_client() {
        assert_eq!(found("192.0.2.1", &["10.0.0.5"]), None);
        assert_eq!(found("::ffff:10.0.0.1", &["192.0.2.7"]).as_deref(), Some("192.0.2.7"));
    }
}
