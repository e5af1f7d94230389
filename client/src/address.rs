//! The allowed form of a tokend's address. Anything else in a URL would be ignored or misread, as
//! an invalid port would be replaced by 80.

/// Checks that a text is `http://HOST:PORT` or `https://HOST:PORT`.
///
/// # Errors
/// What is wrong with it, without repeating it.
pub(crate) fn check(address: &str) -> Result<(), &'static str> {
    let rest = address.strip_prefix("http://").or_else(|| address.strip_prefix("https://"));
    let rest = rest.ok_or("it does not begin with http:// or https://")?;
    let (authority, tail) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    if rest.contains('@') {
        return Err("it holds a user or a password, which are never sent: pass the secret separately");
    }
    if !matches!(tail, "" | "/") {
        return Err("it has a path, a query or a fragment, which would be ignored");
    }
    let (host, port) = match authority.strip_prefix('[') {
        Some(bracketed) => bracketed.split_once(']').ok_or("its '[' is not closed")?,
        None => authority.split_at(authority.find(':').unwrap_or(authority.len())),
    };
    let port = match port.strip_prefix(':') {
        Some(port) if port.contains(':') => return Err("an IPv6 address must be in square brackets"),
        _ if host.is_empty() => return Err("it names no host"),
        Some(port) => port,
        None => return Err("it names no port, such as 50051"),
    };
    let digits = port.bytes().all(|byte| byte.is_ascii_digit());
    let number = port.parse::<u16>().ok().filter(|port| digits && *port > 0);
    number.map(|_| ()).ok_or("its port is not a number from 1 to 65535")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_scheme_a_host_and_a_port() {
        for good in ["http://127.0.0.1:1", "https://tokend.example.org:65535", "http://[::1]:50051/"] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        for (bad, expected) in [
            ("", "begin"),
            ("tokend:50051", "begin"),
            ("ftp://tokend:1", "begin"),
            ("HTTP://tokend:1", "begin"),
            ("http://", "no host"),
            ("http://:50051", "no host"),
            ("http://tokend", "no port"),
            ("http://tokend/", "no port"),
            ("http://[::1]", "no port"),
            ("http://tokend:", "from 1 to 65535"),
            ("http://tokend:0", "from 1 to 65535"),
            ("http://tokend:+1", "from 1 to 65535"),
            ("http://tokend:99999", "from 1 to 65535"),
            ("http://::1:50051", "square brackets"),
            ("http://[::1:50051", "not closed"),
            ("http://tokend:1/tokend", "a path"),
            ("http://tokend:1?x=y", "a path"),
            ("http://tokend:1/#x", "a path"),
            ("http://user:canary@tokend:1", "a user"),
            ("https://tokend:1/x@y", "a user"),
        ] {
            assert!(
                check(bad).is_err_and(|problem| problem.contains(expected) && !problem.contains("canary")),
                "{bad}"
            );
        }
    }
}
