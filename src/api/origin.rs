//! The origins of pages that may call. Used by gRPC-Web, the HTTP integrations, the console and the configuration. Knows
//! no requests.

use axum::http::HeaderValue;

use crate::domain::FieldError;

/// The origin of a page as its browser sends it (RFC 6454): scheme, host, and port unless it is the
/// scheme's default.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin(pub(super) HeaderValue);

impl Origin {
    /// Parses an origin exactly as browsers send it.
    ///
    /// # Errors
    /// No browser sends this text, or only sandboxed pages and files do (`null`).
    pub fn parse(text: &str) -> Result<Self, FieldError> {
        const NONE: FieldError = FieldError::Rule(
            "must be https:// or http://, a host in lower case, and a port unless it is the scheme's \
             default; nothing after it, and no wildcard",
        );
        let (own_port, authority) = match text.split_once("://") {
            Some(("https", authority)) => ("443", authority),
            Some(("http", authority)) => ("80", authority),
            _ => return Err(NONE),
        };
        let (host, port) = match authority.rsplit_once(':') {
            // A colon within the brackets of an IPv6 address.
            Some((_, rest)) if rest.ends_with(']') => (authority, None),
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        };
        let named =
            |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-._[]:".contains(&byte);
        let bracketed = host.starts_with('[') && host.ends_with(']');
        let known =
            !host.is_empty() && host.bytes().all(named) && (bracketed || !host.contains([':', '[', ']']));
        let placed = port.is_none_or(|port| {
            port != own_port && port.parse::<u16>().is_ok_and(|number| number.to_string() == port)
        });
        if !known || !placed {
            return Err(NONE);
        }
        HeaderValue::from_str(text).map(Self).map_err(|_| NONE)
    }

    /// Returns `https` or `http`.
    #[must_use]
    pub fn scheme(&self) -> &'static str {
        if self.0.as_bytes().starts_with(b"https:") { "https" } else { "http" }
    }

    /// Returns whether the host is a name of loopback, or an address of it.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        let authority = self.authority();
        let host = authority.rsplit_once(':').filter(|(_, port)| !port.ends_with(']'));
        let host = host.map_or(authority, |(host, _)| host);
        let ip = host.trim_matches(['[', ']']).parse::<std::net::IpAddr>();
        host == "localhost" || host.ends_with(".localhost") || ip.is_ok_and(|ip| ip.is_loopback())
    }

    /// Returns the host, and the port if it is not the scheme's default.
    #[must_use]
    pub fn authority(&self) -> &str {
        self.0.to_str().ok().and_then(|text| text.split_once("://")).map_or("", |(_, authority)| authority)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_what_browsers_send() {
        for good in [
            "https://admin.example.org",
            "http://localhost:5173",
            "https://127.0.0.1:8443",
            "http://[::1]",
            "http://[2001:db8::1]:8080",
            "http://admin.example.org:443",
        ] {
            assert!(Origin::parse(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "*",
            "null",
            "admin.example.org",
            "file://",
            "https://",
            "https://*.example.org",
            "https://Admin.example.org",
            "https://admin.example.org/",
            "https://admin.example.org:443",
            "http://admin.example.org:80",
            "https://admin.example.org:08443",
            "https://admin.example.org:99999",
            "https://admin.example.org:",
            "https://ada@admin.example.org",
            "https://a:b:1",
            "https://bücher.example",
        ] {
            assert!(Origin::parse(bad).is_err(), "{bad}");
        }
    }
}
