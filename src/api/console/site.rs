//! Under which name browsers reach the console, and which requests come from its own pages. A name that is not
//! accepted is refused: one that somebody else's DNS leads to loopback could otherwise read pages. Called by the
//! guard for every request.

use axum::http::header::{COOKIE, HOST, ORIGIN};
use axum::http::{HeaderMap, HeaderValue, Uri};

use secrecy::{ExposeSecret as _, SecretString};

use crate::api::origin::Origin;
use crate::secret::SessionKey;

/// The names of loopback. Links use the first: cookies ignore ports, and no other service is called so.
const LOOPBACK: [&str; 4] = ["tokend.localhost", "localhost", "127.0.0.1", "[::1]"];

/// How the value of the cookie of a portal session begins. It decides only what is said when the session is over.
const PORTAL_PREFIX: &str = "p.";

/// The site that the console is.
#[derive(Debug, Clone)]
pub struct Site {
    scheme: &'static str,
    /// What a request's `Host` may be.
    authorities: Vec<String>,
    cookie: String,
    /// The cookie of portal sessions in frames.
    framed_cookie: String,
    loopback: bool,
    /// The origins whose pages may show a portal session in a frame.
    embedders: Vec<String>,
}

impl Site {
    /// Accepts this origin alone; without one, the names of loopback with the listener's port.
    #[must_use]
    pub fn new(origin: Option<&Origin>, encrypted: bool, port: u16) -> Self {
        let (scheme, authorities) = match origin {
            Some(origin) => (origin.scheme(), vec![origin.authority().to_owned()]),
            None => (
                if encrypted { "https" } else { "http" },
                LOOPBACK.iter().map(|name| format!("{name}:{port}")).collect(),
            ),
        };
        // Browsers accept this prefix only over TLS, for the whole host, and from the host itself.
        let (prefix, suffix) = if scheme == "https" {
            ("__Host-", String::new())
        } else {
            // Several consoles may stand on one host, and cookies ignore ports.
            let port = authorities.first().and_then(|authority| authority.rsplit_once(':'));
            ("", port.map_or_else(String::new, |(_, port)| format!("-{port}")))
        };
        let (cookie, framed_cookie) =
            (format!("{prefix}tokend-console{suffix}"), format!("{prefix}tokend-portal{suffix}"));
        let loopback = origin.is_none_or(Origin::is_loopback);
        Self { scheme, authorities, cookie, framed_cookie, loopback, embedders: Vec::new() }
    }

    /// Lets pages of these origins show portal sessions in frames.
    #[must_use]
    pub fn embedded_by(mut self, origins: &[Origin]) -> Self {
        self.embedders =
            origins.iter().map(|origin| format!("{}://{}", origin.scheme(), origin.authority())).collect();
        self
    }

    /// Returns the origins whose pages may show this request's page in a frame, as a Content-Security-Policy names
    /// them; `None`: the page is not shown in a frame, or nobody may do so.
    pub(super) fn framed_by(&self, headers: &HeaderMap) -> Option<String> {
        let framed = matches!(only(headers, "sec-fetch-dest"), (Some(b"iframe" | b"frame"), None));
        (framed && !self.embedders.is_empty()).then(|| self.embedders.join(" "))
    }

    /// Returns the address of the first page.
    #[must_use]
    pub fn link(&self) -> String {
        format!("{}://{}/", self.scheme, self.authorities.first().map_or("", String::as_str))
    }

    /// Returns the accepted name by which a request asks for the console; `None` if it is another, or several.
    pub(super) fn named<'a>(&'a self, headers: &HeaderMap, uri: &Uri) -> Option<&'a str> {
        let mut hosts = headers.get_all(HOST).iter();
        let (Some(host), None) = (hosts.next(), hosts.next()) else { return None };
        let host = host.to_str().ok()?;
        if uri.authority().is_some_and(|authority| authority.as_str() != host) {
            return None;
        }
        self.authorities.iter().find(|known| known.eq_ignore_ascii_case(host)).map(String::as_str)
    }

    /// Returns whether a request that changes something comes from a page of this site: browsers say so in
    /// `Sec-Fetch-Site`, and those that do not, or not to this scheme, name the page's origin.
    pub(super) fn is_own(&self, headers: &HeaderMap, authority: &str) -> bool {
        let origin = format!("{}://{authority}", self.scheme);
        match (only(headers, "sec-fetch-site"), only(headers, ORIGIN.as_str())) {
            // Without a referrer browsers send the origin "null".
            ((Some(b"same-origin"), None), (None | Some(b"null"), None)) => true,
            ((Some(b"same-origin") | None, None), (Some(named), None)) => named == origin.as_bytes(),
            _ => false,
        }
    }

    /// Returns the key of the session in the request's cookie; `None` if there is none, or more than one. A page in a frame
    /// has a session of its own, whose cookie counts nowhere else.
    pub(super) fn key(&self, headers: &HeaderMap) -> Option<SessionKey> {
        let value = self.value(headers)?;
        SessionKey::parse(value.strip_prefix(PORTAL_PREFIX).unwrap_or(value))
    }

    /// Returns whether the request has the cookie of a portal session, over or not.
    pub(super) fn has_portal(&self, headers: &HeaderMap) -> bool {
        self.value(headers).is_some_and(|value| value.starts_with(PORTAL_PREFIX))
    }

    fn value<'a>(&self, headers: &'a HeaderMap) -> Option<&'a str> {
        if self.framed_by(headers).is_some() {
            return found(headers, &self.framed_cookie);
        }
        // What the script of a page loads does not say whether the page is in a frame. Of two sessions, the one of the
        // frame can do less.
        let loaded = matches!(only(headers, "sec-fetch-dest"), (Some(b"empty"), None));
        let own = matches!(only(headers, "sec-fetch-site"), (Some(b"same-origin"), None));
        let framed =
            (loaded && own && !self.embedders.is_empty()).then(|| found(headers, &self.framed_cookie));
        framed.flatten().or_else(|| found(headers, &self.cookie))
    }
}

/// Returns the first two values of a header.
fn only<'a>(headers: &'a HeaderMap, name: &str) -> (Option<&'a [u8]>, Option<&'a [u8]>) {
    let mut values = headers.get_all(name).iter().map(HeaderValue::as_bytes);
    (values.next(), values.next())
}

/// Returns the value of the cookie of this name, if there is exactly one.
fn found<'a>(headers: &'a HeaderMap, cookie: &str) -> Option<&'a str> {
    let lines = headers.get_all(COOKIE).iter().filter_map(|line| line.to_str().ok());
    let pairs = lines.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
    let mut found = pairs.filter(|(name, _)| *name == cookie).map(|(_, value)| value);
    match (found.next(), found.next()) {
        (Some(value), None) => Some(value),
        _ => None,
    }
}

/// Returns what the cookie of a portal session has: the key, marked so that a person whose session is gone is not asked
/// for a secret.
pub(super) fn portal_value(key: &SessionKey) -> SecretString {
    format!("{PORTAL_PREFIX}{}", key.render().expose_secret()).into()
}

impl Site {
    /// Returns the value of `Set-Cookie` for a session's cookie, or for its end, in the response to a request. In a frame
    /// of another site browsers send no other cookie, and this one only below the site that shows the frame.
    pub(super) fn set_cookie(&self, headers: &HeaderMap, value: Option<&str>) -> String {
        let secure = if self.scheme == "https" { "; Secure" } else { "" };
        let (value, age) = value.map_or(("", "; Max-Age=0"), |value| (value, ""));
        if self.framed_by(headers).is_some() {
            let name = &self.framed_cookie;
            return format!("{name}={value}; Path=/; HttpOnly; SameSite=None; Secure; Partitioned{age}");
        }
        format!("{}={value}; Path=/; HttpOnly; SameSite=Strict{secure}{age}", self.cookie)
    }

    /// Returns whether browsers tell this site where requests come from (`Sec-Fetch-Site`): over TLS, and on
    /// loopback.
    pub(super) fn is_trustworthy(&self) -> bool {
        self.loopback || self.scheme == "https"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    fn local() -> Site {
        Site::new(None, false, 50080)
    }

    fn public() -> Site {
        Site::new(Some(&Origin::parse("https://tokens.example.org").unwrap()), false, 50080)
    }

    #[test]
    fn only_its_own_names_reach_the_console() {
        let named = |site: &Site, pairs: &[_]| site.named(&headers(pairs), &Uri::from_static("/")).is_some();
        for good in ["localhost:50080", "TOKEND.localhost:50080", "127.0.0.1:50080", "[::1]:50080"] {
            assert!(named(&local(), &[("host", good)]), "{good}");
        }
        for bad in ["", "localhost", "evil.example:50080", "127.0.0.1:50081", "localhost.:50080"] {
            assert!(!named(&local(), &[("host", bad)]), "{bad}");
        }
        assert!(!named(&local(), &[]));
        assert!(!named(&local(), &[("host", "localhost:50080"), ("host", "localhost:50080")]));
        assert!(named(&public(), &[("host", "tokens.example.org")]));
        assert!(!named(&public(), &[("host", "127.0.0.1:50080")]));
        let absolute = Uri::from_static("http://evil.example/");
        assert!(local().named(&headers(&[("host", "localhost:50080")]), &absolute).is_none());
    }

    #[test]
    fn what_changes_something_has_to_come_from_its_own_pages() {
        let (site, authority) = (local(), "localhost:50080");
        let own = "http://localhost:50080";
        for (pairs, is_own) in [
            (&[("sec-fetch-site", "same-origin"), ("origin", "null")][..], true),
            (&[("sec-fetch-site", "same-origin"), ("origin", own)], true),
            (&[("sec-fetch-site", "same-origin")], true),
            (&[("origin", own)], true),
            (&[], false),
            (&[("origin", "null")], false),
            (&[("origin", "http://localhost:50081")], false),
            (&[("origin", "https://localhost:50080")], false),
            (&[("origin", "http://127.0.0.1:50080")], false),
            (&[("sec-fetch-site", "same-origin"), ("origin", "http://evil.example")], false),
            (&[("sec-fetch-site", "same-site"), ("origin", own)], false),
            (&[("sec-fetch-site", "cross-site"), ("origin", own)], false),
            (&[("sec-fetch-site", "none"), ("origin", own)], false),
            (&[("sec-fetch-site", "same-origin"), ("sec-fetch-site", "same-origin")], false),
            (&[("origin", own), ("origin", own)], false),
        ] {
            assert_eq!(site.is_own(&headers(pairs), authority), is_own, "{pairs:?}");
        }
    }

    #[test]
    fn the_cookie_follows_the_scheme_and_a_second_one_counts_for_nothing() {
        let key = SessionKey::parse(&"A".repeat(43)).unwrap();
        let text = key.render();
        let text = text.expose_secret();
        assert_eq!(
            public().set_cookie(&HeaderMap::new(), Some(text)),
            format!("__Host-tokend-console={text}; Path=/; HttpOnly; SameSite=Strict; Secure")
        );
        assert!(
            local()
                .set_cookie(&HeaderMap::new(), None)
                .starts_with("tokend-console-50080=; Path=/; HttpOnly")
        );
        let (plain, strict) =
            (format!("tokend-console-50080={text}"), format!("__Host-tokend-console={text}"));
        let has = |site: &Site, lines: &[&str]| {
            let pairs: Vec<_> = lines.iter().map(|line| ("cookie", *line)).collect();
            site.key(&headers(&pairs)).is_some()
        };
        assert!(has(&local(), &[&plain]) && has(&public(), &[&format!("other=1; {strict}")]));
        // A cookie that was set without TLS opens nothing where there is TLS.
        assert!(!has(&public(), &[&plain]) && !has(&local(), &[&strict]));
        assert!(!has(&local(), &[&plain, &plain]) && !has(&local(), &[&format!("{plain}; {plain}")]));
    }

    #[test]
    fn a_frame_has_a_cookie_of_its_own_and_only_where_embedding_is_allowed() {
        let origins = [Origin::parse("https://app.example.com").unwrap()];
        let (embedded, key) = (public().embedded_by(&origins), "A".repeat(43));
        let (strict, framed) =
            (format!("__Host-tokend-console={key}"), format!("__Host-tokend-portal={key}"));
        let frame = [("sec-fetch-dest", "iframe"), ("sec-fetch-site", "cross-site")];
        let loaded = [("sec-fetch-dest", "empty"), ("sec-fetch-site", "same-origin")];
        let elsewhere = [("sec-fetch-dest", "empty"), ("sec-fetch-site", "cross-site")];
        let has = |site: &Site, pairs: &[(&'static str, &str)], cookie: &str| {
            site.key(&headers(&[pairs, &[("cookie", cookie)]].concat())).is_some()
        };
        assert!(has(&embedded, &frame, &framed) && has(&embedded, &loaded, &framed));
        assert!(!has(&embedded, &frame, &strict) && has(&embedded, &loaded, &strict));
        assert!(
            !has(&embedded, &elsewhere, &framed)
                && !has(&embedded, &[("sec-fetch-dest", "document")], &framed)
        );
        assert!(!has(&public(), &frame, &framed) && !has(&public(), &loaded, &framed));
        assert_eq!(embedded.framed_by(&headers(&frame)).as_deref(), Some("https://app.example.com"));
        assert_eq!(embedded.framed_by(&headers(&loaded)), None);
        assert_eq!(public().framed_by(&headers(&frame)), None);
        assert_eq!(
            embedded.set_cookie(&headers(&frame), Some(&key)),
            format!("{framed}; Path=/; HttpOnly; SameSite=None; Secure; Partitioned")
        );
        assert!(embedded.set_cookie(&headers(&loaded), Some(&key)).contains("SameSite=Strict"));
    }
}
