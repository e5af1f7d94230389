//! The head of a request while the rest of it is waited for: in one allocation, apart from the buffer that it was read into
//! and without the table of headers; both may be many times as long. Called by the reader of requests.

use axum::http::request::Parts;
use axum::http::{Extensions, HeaderName, HeaderValue, Method, Request, Uri, Version};

/// The headers whose table is not counted, and the bytes of each further one in it.
const UNCOUNTED_HEADERS: usize = 32;
const OF_TABLE: usize = 104;

/// The text of a request's head.
pub(crate) struct PackedHead {
    text: Box<[u8]>,
    headers: usize,
    version: Version,
    extensions: Extensions,
}

impl From<Parts> for PackedHead {
    fn from(parts: Parts) -> Self {
        let (headers, uri, method) = (parts.headers, parts.uri.to_string(), parts.method);
        let text: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
        let lengths = (2 * headers.len() + 2) * size_of::<u32>();
        let mut packed = Vec::with_capacity(method.as_str().len() + uri.len() + text + lengths);
        put(&mut packed, method.as_str().as_bytes());
        put(&mut packed, uri.as_bytes());
        for (name, value) in &headers {
            put(&mut packed, name.as_str().as_bytes());
            put(&mut packed, value.as_bytes());
        }
        Self {
            text: packed.into(),
            headers: headers.len(),
            version: parts.version,
            extensions: parts.extensions,
        }
    }
}

impl PackedHead {
    /// Returns how many bytes it takes; with those of a long table of headers, which it takes again once it is unpacked.
    pub(crate) fn size(&self) -> usize {
        let table = self.headers.saturating_sub(UNCOUNTED_HEADERS).saturating_mul(OF_TABLE);
        self.text.len().saturating_add(table)
    }

    /// Returns the head as it was.
    pub(crate) fn unpack(self) -> Box<Parts> {
        let (mut parts, ()) = Request::new(()).into_parts();
        let mut rest = &*self.text;
        parts.method = next(&mut rest).and_then(|text| Method::from_bytes(text).ok()).unwrap_or_default();
        parts.uri = next(&mut rest).and_then(|text| Uri::try_from(text).ok()).unwrap_or_default();
        while let (Some(name), Some(value)) = (next(&mut rest), next(&mut rest)) {
            if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value)) {
                parts.headers.append(name, value);
            }
        }
        (parts.version, parts.extensions) = (self.version, self.extensions);
        Box::new(parts)
    }
}

fn put(packed: &mut Vec<u8>, text: &[u8]) {
    packed.extend_from_slice(&u32::try_from(text.len()).unwrap_or(u32::MAX).to_be_bytes());
    packed.extend_from_slice(text);
}

fn next<'p>(packed: &mut &'p [u8]) -> Option<&'p [u8]> {
    let (length, rest) = packed.split_first_chunk()?;
    let (text, rest) = rest.split_at_checked(usize::try_from(u32::from_be_bytes(*length)).ok()?)?;
    *packed = rest;
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_unpacked_as_it_was_packed() {
        let request = axum::http::Request::post("http://a.example/b?c=d")
            .header("authorization", "Bearer x")
            .header("x-two", "1")
            .header("x-other", "")
            .header("x-two", HeaderValue::from_bytes(b"\xff").unwrap());
        let (parts, ()) = request.version(Version::HTTP_2).body(()).unwrap().into_parts();
        let before = (Version::HTTP_2, Method::POST, parts.uri.clone(), parts.headers.clone());
        let after = PackedHead::from(parts).unpack();
        assert_eq!((after.version, after.method, after.uri, after.headers), before);
    }
}
